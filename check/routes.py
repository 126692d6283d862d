"""Alertmanager's routes and inhibitions, evaluated as Alertmanager does."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
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
    if not all(matcher.matches(labels) for matcher in matchers(route)):
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


def inhibiting(
    inhibitions: Iterable[Mapping[str, Any]], target: Labels, sources: Sequence[Labels]
) -> list[tuple[Labels, Mapping[str, Any]]]:
    """The sources that would silence the target, each with the inhibition that says so."""
    found = []
    for inhibition in inhibitions:
        if all(matcher.matches(target) for matcher in matchers(inhibition, "target_")):
            wanted = matchers(inhibition, "source_")
            equal = inhibition.get("equal") or ()
            found += [
                (source, inhibition)
                for source in sources
                if all(matcher.matches(source) for matcher in wanted)
                and all(source.get(label, "") == target.get(label, "") for label in equal)
                # An alert that is source and target at once does not silence itself.
                and source != target
            ]
    return found
