"""What the rules cost a Prometheus: evaluation time of all of them a minute, for a growing number of agents.

    python -m benchmarks.rules --agents 1 100 1000

Each agent has the series of two task types, two models and three tools, scraped every 15 s for two hours, and a week of
what the rules record. Every rule is asked as an instant query, as a live server asks it, and weighed by how often its
group is evaluated. The measure beside it is a dashboard's worth of queries in the same run: the rate of each counter of
the contract and the 99th percentile of each histogram, by agent, once.
"""

import argparse
import contextlib
import math
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from alert_rules.generate import groups
from alert_rules.promql import duration_seconds
from alert_rules.rules import Alert, Group, Recording
from alert_rules.thresholds import load
from benchmarks.report import Table, progress
from exporter.contract import FAMILIES, LOOP_REASONS, OUTCOME_REASONS, PURPOSES, SCRAPE_JOB, TOOL_RESULTS, Kind
from stack.past import Labels, PastPrometheus, Samples, labels_of
from tests.stack.ports import free_ports

SCRAPE = EVALUATION = 15
"""Seconds: the generated configuration's."""

RAW_SECONDS, WEEK_SECONDS, RECENT_SECONDS = 2 * 3600, 7 * 86400, 900

VALUES: dict[str, tuple[str, ...]] = {
    "variant": ("stable",),
    "task_type": ("summary", "research"),
    "model": ("gpt-4o", "claude-sonnet-4"),
    "tool": ("search", "fetch", "write"),
    "why": LOOP_REASONS,
    "purpose": PURPOSES,
    "direction": ("input", "output"),
    "result": TOOL_RESULTS,
    "stop_reason": ("end_turn", "tool_use"),
}


def series_of(agent: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name and labels of every series that the exporter serves for this agent, with what it grows by in a second (0 for
    a gauge)."""
    for family in FAMILIES:
        if "agent" not in family.labels or family.served_by != "exporter" or "rollout" in family.labels:
            continue
        free = [label for label in family.labels if label not in ("agent", "outcome", "reason")]
        for values in product(*(VALUES[label] for label in free)):
            labels = {"agent": agent, **dict(zip(free, values, strict=True))}
            if "outcome" in family.labels:
                for outcome, reason in OUTCOME_REASONS:
                    yield family.name, {**labels, "outcome": outcome, "reason": reason}, 0.02
            elif family.kind is Kind.HISTOGRAM:
                bounds = [f"{bound:g}" for bound in family.buckets] + ["+Inf"]
                for number, bound in enumerate(bounds, 1):
                    yield f"{family.name}_bucket", {**labels, "le": bound}, 0.1 * number / len(bounds)
                yield f"{family.name}_sum", labels, 0.3
                yield f"{family.name}_count", labels, 0.1
            else:
                yield family.name, labels, 0.0 if family.kind is Kind.GAUGE else 0.1


def dashboard() -> list[str]:
    """The queries that the rules are measured beside."""
    queries = []
    for family in FAMILIES:
        if "agent" in family.labels and family.served_by == "exporter" and "rollout" not in family.labels:
            if family.kind is Kind.COUNTER:
                queries.append(f"sum by (agent) (rate({family.name}[5m]))")
            elif family.kind is Kind.HISTOGRAM:
                queries.append(f"histogram_quantile(0.99, sum by (agent, le) (rate({family.name}_bucket[5m])))")
    return queries


def _seconds(prometheus: PastPrometheus, promql: str, at: float) -> float:
    """How long a query takes: the better of two."""
    taken = []
    for _ in range(2):
        begin = time.perf_counter()
        prometheus.instant(promql, at)
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _every(group: Group) -> float:
    """Seconds from one evaluation of the group to the next."""
    return duration_seconds(group.interval) or EVALUATION


def _up_to(now: float, span: float, step: float) -> list[float]:
    return [now - span + i * step for i in range(int(span / step) + 1)]


def fill(prometheus: PastPrometheus, agents: int, now: float) -> None:
    """The series of all agents, then what the rules record of them: each rule's present result, held for a week."""
    raw = _up_to(now, RAW_SECONDS, SCRAPE)
    target = {"job": SCRAPE_JOB, "instance": "exporter:9464"}

    def scraped() -> Iterator[tuple[Labels, Samples]]:
        yield labels_of("up", target), (raw, [1.0] * len(raw))
        for number in range(agents):
            for name, labels, growth in series_of(f"agent-{number}"):
                yield labels_of(name, labels | target), (raw, [(at - raw[0]) * growth + 1 for at in raw])
            if number % 100 == 99:
                progress(f"{number + 1} agents")

    prometheus.write(scraped())
    for group in groups(load()):
        span = WEEK_SECONDS if _every(group) > 60 else RECENT_SECONDS
        times = _up_to(now, span, _every(group))
        for rule in group.rules:
            if isinstance(rule, Recording):
                prometheus.write(
                    (
                        labels_of(rule.record, {**dict(labels), **rule.labels, "__name__": rule.record}),
                        (times, [value] * len(times)),
                    )
                    for labels, value in prometheus.instant(rule.expr, now).items()
                    if math.isfinite(value)
                )
        progress(f"a week of {group.name}")


def measure(agents: int) -> tuple[int, float, float]:
    """Series of the agents, seconds that all rules take a minute, seconds that the dashboard's queries take once."""
    with tempfile.TemporaryDirectory() as folder:
        (port,) = free_ports(1)
        with contextlib.closing(PastPrometheus(Path(folder), port)) as prometheus:
            now = time.time()
            fill(prometheus, agents, now)
            rules = 0.0
            for group in groups(load()):
                for rule in group.rules:
                    if isinstance(rule, Recording | Alert):
                        rules += _seconds(prometheus, rule.expr, now) * 60 / _every(group)
            queries = sum(_seconds(prometheus, query, now) for query in dashboard())
            return sum(1 for _ in series_of("agent")) * agents, rules, queries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 100, 1000])
    wanted = parser.parse_args()
    head = ["agents", "series", "rules, ms a minute", "per agent", "of a core", "times the dashboard"]
    table = Table(head, ">>>>>>")
    for agents in wanted.agents:
        series, rules, queries = measure(agents)
        table.add(
            f"{agents:,}",
            f"{series:,}",
            f"{1000 * rules:,.0f}",
            f"{1000 * rules / agents:.2f}",
            f"{100 * rules / 60:.1f} %",
            f"{rules / queries:.1f}",
        )
    table.show()


if __name__ == "__main__":
    main()
