"""The numbers of the alerts: thresholds.yml read, checked, and turned into the recorded series `agent:limit`."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from alert_rules.rules import Group, Recording
from exporter.contract import COST_BUCKETS, DURATION_BUCKETS

EVERY_AGENT = "*"
_TASK_TYPES = "task_types"
# What a label value may be.
_LABEL = re.compile(r"[A-Za-z0-9_.:/@-]{1,100}")


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number of this unit can mean: strictly above `low`, and at most `high` (or below it if `open_end`).

    With `one_of`, only these numbers: what a histogram counts exactly are its buckets' bounds.
    """

    low: float
    high: float
    says: str
    open_end: bool = False
    one_of: tuple[float, ...] = ()

    def allows(self, value: float) -> bool:
        if self.one_of:
            return value in self.one_of
        return self.low < value < self.high if self.open_end else self.low < value <= self.high


def _bounds(bounds: tuple[float, ...], unit: str) -> Unit:
    return Unit(
        0, max(bounds), f"a bucket's bound: {', '.join(f'{bound:g}' for bound in bounds)} {unit}", one_of=bounds
    )


UNITS = {
    "ratio": Unit(0, 1, "a ratio between 0 and 1 (0.2 is 20 %)", open_end=True),
    "factor": Unit(1, 1000, "a factor above 1 and at most 1000"),
    "usd": Unit(0, 1_000_000, "an amount in USD above 0 and at most 1000000"),
    "seconds": Unit(0, 86_400, "a time in seconds above 0 and at most 86400 (a day)"),
    "count": Unit(0, 1_000_000, "a count above 0 and at most 1000000"),
    "seconds bound": _bounds(DURATION_BUCKETS, "seconds"),
    "usd bound": _bounds(COST_BUCKETS, "USD"),
    "sigmas": Unit(0, 20, "a number of standard deviations above 0 and at most 20"),
}


class BadThreshold(ValueError):
    """A threshold that nobody can mean; the text names its key, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One number: its default for every agent, its unit, and the requirement it comes from.

    `by_task_type`: an agent's task types may have their own.
    """

    name: str
    value: float
    unit: str
    requirement: str
    means: str
    by_task_type: bool = False


@dataclass(frozen=True, slots=True)
class Thresholds:
    """All limits, and what differs: by agent (→ name → value), and by its task types (agent → type → name → value)."""

    limits: Mapping[str, Limit]
    agents: Mapping[str, Mapping[str, float]]
    task_types: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    def value(self, name: str, agent: str = EVERY_AGENT) -> float:
        """The number that holds for this agent. Raises KeyError for an unknown name."""
        default = self.agents.get(EVERY_AGENT, {}).get(name, self.limits[name].value)
        return self.agents.get(agent, {}).get(name, default)

    def values(self, name: str) -> set[float]:
        """Every number that is in force under this name for some agent or task type."""
        own = {self.value(name, agent) for agent in (EVERY_AGENT, *self.agents)}
        typed = (values for types in self.task_types.values() for values in types.values())
        return own | {values[name] for values in typed if name in values}

    def group(self) -> Group:
        """The recorded series: every limit under `agent="*"`, and each agent's and task type's own."""
        defaults = {name: self.value(name) for name in self.limits}
        # The agents that a limit of every agent is for.
        seen = Recording("agent:seen", "group by (agent) (agent_tasks_started_total)")
        rules = [seen, Recording("agent:limit", _any_of(_terms(defaults, {}, self.limits)), {"agent": EVERY_AGENT})]
        own: list[str] = []
        for agent in sorted({*self.agents, *self.task_types} - {EVERY_AGENT}):
            own += _terms(self.agents.get(agent, {}), {"agent": agent})
            for task_type, values in sorted(self.task_types.get(agent, {}).items()):
                own += _terms(values, {"agent": agent, "task_type": task_type})
        if own:
            rules.append(Recording("agent:limit", _any_of(own)))
        return Group("agent-limits", tuple(rules))


def _terms(
    values: Mapping[str, float], labels: Mapping[str, str], explained: Mapping[str, Limit] | None = None
) -> list[str]:
    """A number each, as a vector of one series."""
    terms = []
    for name, value in values.items():
        limit = explained.get(name) if explained else None
        comment = f"# {limit.requirement}: {limit.means}\n" if limit else ""
        term = f"vector({_exact(value)})"
        for label, text in {"name": name, **labels}.items():
            term = f'label_replace({term}, "{label}", "{text}", "", "")'
        terms.append(comment + term)
    return terms


def _exact(value: float) -> str:
    """All digits of it, as PromQL reads them: rounded, 0.9999999 would be an objective that leaves no budget."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def _any_of(terms: list[str], at_once: int = 8) -> str:
    """All of them, in brackets of eight: each `or` looks at all series to its left again."""
    if len(terms) <= at_once:
        return "\nor\n".join(terms)
    parts = ["\nor\n".join(terms[i : i + at_once]) for i in range(0, len(terms), at_once)]
    return "\nor\n".join("(\n" + indent(part, "  ") + "\n)" for part in parts)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is no name, and one that is there twice: YAML would let the last one win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a list or mapping as a key", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(overrides: Path | None = None) -> Thresholds:
    """The thresholds of this package, with a user's file of overrides (agent → name → number) over them.

    Under an agent's key `task_types` a number may differ for one of its task types (type → name → number), where the
    limit has `by_task_type`. Raises BadThreshold for an unknown name, a number outside its unit or a file that is no
    such mapping.
    """
    own = yaml.safe_load(files("alert_rules").joinpath("thresholds.yml").read_text(encoding="utf-8"))
    limits = {name: _limit(name, fields) for name, fields in own["limits"].items()}
    agents, types = _agents(own["agents"], limits, "thresholds.yml: agents")
    if overrides is not None:
        try:
            theirs = yaml.load(overrides.read_text(encoding="utf-8"), _Loader)
        except Exception as error:  # such as KeyError for `!!bool x`: what a tag cannot hold, PyYAML stumbles over
            raise BadThreshold(f"{overrides}: cannot be read as YAML: {error}") from error
        their_agents, their_types = _agents({} if theirs is None else theirs, limits, overrides.name)
        for agent, values in their_agents.items():
            agents[agent] = {**agents.get(agent, {}), **values}
        for agent, by_type in their_types.items():
            types[agent] = {**types.get(agent, {}), **by_type}
    return Thresholds(limits, agents, types)


def _limit(name: str, fields: dict[str, Any]) -> Limit:
    limit = Limit(name, **fields)
    _check(f"thresholds.yml: limits.{name}.value", limit.value, limit.unit)
    return limit


def _agents(
    document: Any, limits: Mapping[str, Limit], where: str
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, dict[str, float]]]]:
    if not isinstance(document, dict):
        raise BadThreshold(f"{where}: must map agents to limits, such as `support-bot: {{error_rate: 0.25}}`")
    found: dict[str, dict[str, float]] = {}
    typed: dict[str, dict[str, dict[str, float]]] = {}
    for agent, values in document.items():
        key = f"{where}.{agent}"
        if agent != EVERY_AGENT and not (isinstance(agent, str) and _LABEL.fullmatch(agent)):
            raise BadThreshold(f'{key}: no agent can have this name; use its label `agent`, or "*" for all')
        if not isinstance(values, dict):
            raise BadThreshold(f"{key}: must map names of limits to numbers, not {_shown(values)}")
        types = values.get(_TASK_TYPES, {})
        if types and agent == EVERY_AGENT:
            raise BadThreshold(
                f"{key}.{_TASK_TYPES}: a task type's limit stands under its agent, not under all of them"
            )
        if not isinstance(types, dict):
            raise BadThreshold(f"{key}.{_TASK_TYPES}: must map task types to limits, not {_shown(types)}")
        found[agent] = _numbers({name: v for name, v in values.items() if name != _TASK_TYPES}, limits, key)
        for task_type, numbers in types.items():
            inner = f"{key}.{_TASK_TYPES}.{task_type}"
            if not (isinstance(task_type, str) and _LABEL.fullmatch(task_type)):
                raise BadThreshold(f"{inner}: no task type can have this name; use its label `task_type`")
            if not isinstance(numbers, dict):
                raise BadThreshold(f"{inner}: must map names of limits to numbers, not {_shown(numbers)}")
            allowed = {name: limit for name, limit in limits.items() if limit.by_task_type}
            typed.setdefault(agent, {})[task_type] = _numbers(numbers, allowed, inner)
    return found, typed


def _numbers(values: dict[Any, Any], limits: Mapping[str, Limit], where: str) -> dict[str, float]:
    for name, value in values.items():
        if name not in limits:
            near = difflib.get_close_matches(str(name), limits, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(limits))}"
            raise BadThreshold(f"{where}.{name}: no such limit; {hint}")
        _check(f"{where}.{name}", value, limits[name].unit)
    return dict(values)


def _check(key: str, value: Any, unit: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not UNITS[unit].allows(value):
        raise BadThreshold(f"{key}: {_shown(value)} is not {UNITS[unit].says}")


def _shown(value: object) -> str:
    """The value as it was written, as far as it fits a line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"
