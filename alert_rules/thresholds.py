"""The numbers of the alerts: thresholds.yml read, checked, and turned into the recorded series `agent:limit`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from alert_rules.rules import Group, Recording

EVERY_AGENT = "*"
_AGENT_NAME = re.compile(r"[A-Za-z0-9_.:/@-]{1,100}")


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number of this unit can mean: strictly above `low`, and at most `high` (or below it if `open_end`)."""

    low: float
    high: float
    says: str
    open_end: bool = False

    def allows(self, value: float) -> bool:
        return self.low < value < self.high if self.open_end else self.low < value <= self.high


UNITS = {
    "ratio": Unit(0, 1, "a ratio between 0 and 1 (0.2 is 20 %)", open_end=True),
    "factor": Unit(1, 1000, "a factor above 1 and at most 1000"),
    "usd": Unit(0, 1_000_000, "an amount in USD above 0 and at most 1000000"),
    "seconds": Unit(0, 86_400, "a time in seconds above 0 and at most 86400 (a day)"),
    "count": Unit(0, 1_000_000, "a count above 0 and at most 1000000"),
    "sigmas": Unit(0, 20, "a number of standard deviations above 0 and at most 20"),
}


class BadThreshold(ValueError):
    """A threshold that nobody can mean; the text names its key, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One number: its default for every agent, its unit, and the requirement it comes from."""

    name: str
    value: float
    unit: str
    requirement: str
    means: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """All limits, and what differs by agent: agent → limit's name → value."""

    limits: Mapping[str, Limit]
    agents: Mapping[str, Mapping[str, float]]

    def value(self, name: str, agent: str = EVERY_AGENT) -> float:
        """The number that holds for this agent. Raises KeyError for an unknown name."""
        default = self.agents.get(EVERY_AGENT, {}).get(name, self.limits[name].value)
        return self.agents.get(agent, {}).get(name, default)

    def group(self) -> Group:
        """The recorded series: every limit under `agent="*"`, and each agent's own."""
        own = [_record(agent, values, {}) for agent, values in sorted(self.agents.items()) if agent != EVERY_AGENT]
        defaults = {name: self.value(name) for name in self.limits}
        return Group("agent-limits", (_record(EVERY_AGENT, defaults, self.limits), *own))


def _record(agent: str, values: Mapping[str, float], explained: Mapping[str, Limit]) -> Recording:
    terms = []
    for name, value in values.items():
        limit = explained.get(name)
        comment = f"# {limit.requirement}: {limit.means}\n" if limit else ""
        terms.append(f'{comment}label_replace(vector({value:g}), "name", "{name}", "", "")')
    return Recording("agent:limit", "\nor\n".join(terms), {"agent": agent})


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would let the last one win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(overrides: Path | None = None) -> Thresholds:
    """The thresholds of this package, with a user's file of overrides (agent → name → number) over them.

    Raises BadThreshold for an unknown name, a number outside its unit or a file that is no such mapping.
    """
    own = yaml.safe_load(files("alert_rules").joinpath("thresholds.yml").read_text(encoding="utf-8"))
    limits = {name: _limit(name, fields) for name, fields in own["limits"].items()}
    agents = _agents(own["agents"], limits, "thresholds.yml: agents")
    if overrides is not None:
        try:
            theirs = yaml.load(overrides.read_text(encoding="utf-8"), _Loader)
        except (OSError, yaml.YAMLError) as error:
            raise BadThreshold(f"{overrides}: cannot be read as YAML: {error}") from error
        for agent, values in _agents(theirs or {}, limits, overrides.name).items():
            agents[agent] = {**agents.get(agent, {}), **values}
    return Thresholds(limits, agents)


def _limit(name: str, fields: dict[str, Any]) -> Limit:
    limit = Limit(name, fields["value"], fields["unit"], fields["requirement"], fields["means"])
    _check(f"thresholds.yml: limits.{name}.value", limit.value, limit.unit)
    return limit


def _agents(document: Any, limits: Mapping[str, Limit], where: str) -> dict[str, dict[str, float]]:
    if not isinstance(document, dict):
        raise BadThreshold(f"{where}: must map agents to limits, such as `support-bot: {{error_rate: 0.25}}`")
    found: dict[str, dict[str, float]] = {}
    for agent, values in document.items():
        key = f"{where}.{agent}"
        if agent != EVERY_AGENT and not (isinstance(agent, str) and _AGENT_NAME.fullmatch(agent)):
            raise BadThreshold(f'{key}: no agent can have this name; use its label `agent`, or "*" for all')
        if not isinstance(values, dict):
            raise BadThreshold(f"{key}: must map names of limits to numbers, not {values!r}")
        for name, value in values.items():
            if name not in limits:
                raise BadThreshold(f"{key}.{name}: no such limit; there are {', '.join(sorted(limits))}")
            _check(f"{key}.{name}", value, limits[name].unit)
        found[agent] = dict(values)
    return found


def _check(key: str, value: Any, unit: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not UNITS[unit].allows(value):
        raise BadThreshold(f"{key}: {value!r} is not {UNITS[unit].says}")
