"""Alertmanager's routes and inhibitions, evaluated as Alertmanager does."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

Labels = Mapping[str, str]

_MATCHER = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"=!~{},]+))\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|[^",{}]*)\s*')


@dataclass(frozen=True, slots=True)
class Matcher:
    """What a label must be: `=`, `!=`, or by a regular expression `=~`, `!~`. A label that is not there is empty."""

    name: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{json.dumps(self.value)}"

    def matches(self, labels: Labels) -> bool:
        found = labels.get(self.name, "")
        holds = (
            found == self.value if self.operator in ("=", "!=") else bool(re.fullmatch(self.value, found, re.DOTALL))
        )
        return holds != self.operator.startswith("!")


@dataclass(frozen=True, slots=True)
class Branch:
    """A route that an alert ends in, with what it inherits."""

    receiver: str
    group_by: tuple[str, ...]
    group_wait: str
    muted: bool
    """Whether it is silent at some times of the day."""


def matchers(config: Mapping[str, Any], prefix: str = "") -> list[Matcher]:
    """The matchers of a route, or with prefix `source_` or `target_` of an inhibition. Raises ValueError."""
    # `match` and `match_re` are older ways to say it, which Alertmanager still takes.
    found = [Matcher(name, "=", str(value)) for name, value in (config.get(f"{prefix}match") or {}).items()]
    found += [Matcher(name, "=~", str(value)) for name, value in (config.get(f"{prefix}match_re") or {}).items()]
    for text in config.get(f"{prefix}matchers") or ():
        found += _parse(text)
    return found


@cache
def _parse(text: str) -> tuple[Matcher, ...]:
    found = []
    rest = text.strip().removeprefix("{").removesuffix("}").strip()
    while rest:
        parts = _MATCHER.match(rest)
        if not parts or (parts.end() < len(rest) and rest[parts.end()] != ","):
            raise ValueError(f"cannot read the matcher {text!r}")
        quoted, plain, operator, value = parts.groups()
        name = json.loads(f'"{quoted}"') if quoted is not None else plain
        found.append(Matcher(name, operator, json.loads(value) if value.startswith('"') else value.strip()))
        rest = rest[parts.end() + 1 :].strip()
    return tuple(found)


def branches(route: Mapping[str, Any], labels: Labels) -> list[Branch]:
    """The routes that an alert with these labels ends in, in their order, from the root `route` of a configuration."""
    root = Branch("", (), "30s", False)
    return _branches(route, labels, root) or []


def _branches(route: Mapping[str, Any], labels: Labels, above: Branch) -> list[Branch] | None:
    if not _match(matchers(route), labels):
        return None
    here = Branch(
        receiver=route.get("receiver") or above.receiver,
        group_by=tuple(route["group_by"]) if route.get("group_by") else above.group_by,
        group_wait=route.get("group_wait") or above.group_wait,
        muted=bool(route.get("mute_time_intervals") or route.get("active_time_intervals")),
    )
    found: list[Branch] = []
    for child in route.get("routes") or ():
        below = _branches(child, labels, here)
        found += below or []
        if below and not child.get("continue"):
            break
    return found or [here]


def inhibits(inhibition: Mapping[str, Any], source: Labels, target: Labels) -> bool:
    """Whether the source, while it fires, silences the target."""
    of_source, of_target = matchers(inhibition, "source_"), matchers(inhibition, "target_")
    return (
        _match(of_source, source)
        and _match(of_target, target)
        and all(source.get(label, "") == target.get(label, "") for label in inhibition.get("equal") or ())
        # What is source and target at once is not silenced by another such.
        and not (_match(of_source, target) and _match(of_target, source))
    )


def may_inhibit(inhibition: Mapping[str, Any], target: Labels) -> bool:
    """Whether there could be a source, with whatever labels, that silences the target."""
    of_source, of_target = matchers(inhibition, "source_"), matchers(inhibition, "target_")
    equal = set(inhibition.get("equal") or ())
    if not _match(of_target, target) or not _match((one for one in of_source if one.name in equal), target):
        return False
    # Where the target is a source as well, its source is no target, and so differs from it in a label that it may.
    return not _match(of_source, target) or any(one.name not in equal and one not in of_source for one in of_target)


def _match(wanted: Iterable[Matcher], labels: Labels) -> bool:
    return all(matcher.matches(labels) for matcher in wanted)
