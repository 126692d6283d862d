"""The traces behind the figures: exemplars, the ones most worth a click first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from incident.markdown import code, usd
from incident.window import lasted

SERIES = (
    "agent_tasks_looped_total",
    "agent_tasks_total",
    "agent_task_cost_usd_bucket",
    "agent_task_duration_seconds_bucket",
    "agent_tool_calls_total",
    "agent_iterations_total",
    "agent_refusals_total",
)
"""In the order of what is worth a click."""

_MOST_OF_A_KIND = 4


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace by its id (hex), when its exemplar was made (epoch seconds), and what is seen in it (Markdown)."""

    id: str
    at: float
    why: str


def pick(found: Iterable[Mapping[str, Any]]) -> list[Trace]:
    """A few traces of each kind, each once. `found` is what Prometheus' query_exemplars answers."""
    kinds: dict[str, list[tuple[float, float, str, str]]] = {name: [] for name in SERIES}
    for series in found:
        labels = series["seriesLabels"]
        name = labels.get("__name__", "")
        for exemplar in series["exemplars"]:
            if name not in kinds or not (trace := exemplar["labels"].get("trace_id")):
                continue
            value, at = float(exemplar["value"]), float(exemplar["timestamp"])
            # the costliest and the slowest first; of what is counted, the latest
            rank = -value if name.endswith("_bucket") else -at
            kinds[name].append((rank, at, trace, _why(name, labels, value)))
    picked: dict[str, Trace] = {}
    for some in kinds.values():
        taken = 0
        for _, at, trace, why in sorted(some):
            if trace not in picked and taken < _MOST_OF_A_KIND:
                picked[trace] = Trace(trace, at, why)
                taken += 1
    return list(picked.values())


def _why(name: str, labels: Mapping[str, str], value: float) -> str:
    match name:
        case "agent_tasks_looped_total":
            return f"looped: {code(labels.get('why', ''))}"
        case "agent_tasks_total":
            reason = f", {code(labels['reason'])}" if labels.get("reason") else ""
            return f"task ended in {code(labels.get('outcome', ''))}{reason}"
        case "agent_task_cost_usd_bucket":
            return f"task of {usd(value)}"
        case "agent_task_duration_seconds_bucket":
            return f"task of {lasted(value)}"
        case "agent_tool_calls_total":
            return f"call of {code(labels.get('tool', ''))}: {code(labels.get('result', ''))}"
        case "agent_iterations_total":
            return f"call of {code(labels.get('model', ''))} failed"
    return f"{code(labels.get('model', ''))} refused"
