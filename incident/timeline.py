"""When what happened: alerts, cuts of the breaker, changes of the state."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from controller.prom import FLEET
from controller.store import Entry
from incident.markdown import code, count, plain
from incident.past import Series
from incident.window import Window, lasted

_OF_EVERY_ALERT = {"__name__", "alertname", "alertstate", "agent", "severity", "cause", "action"}
_PAUSE_SECONDS = 300
"""Cuts that are closer to each other are told as one."""


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """What happened at the epoch second `at`, in Markdown. Within a second an alert comes before what it leads to."""

    at: int
    rank: int
    what: str


_ALERT, _CHANGE, _TRIP = range(3)


@dataclass(frozen=True, slots=True)
class Episode:
    """A time in which an alert was active: epoch seconds. `fired` is None where it never got beyond pending, `ended`
    where it lasted to the window's end. `known` says whether it began within the window."""

    alert: str
    of: str
    began: float
    known: bool
    fired: float | None
    ended: float | None

    def events(self) -> Iterator[Event]:
        name = code(self.alert) + (f" ({self.of})" if self.of else "")
        if not self.known:
            yield Event(
                int(self.began), _ALERT, f"{name} {'fires' if self.fired == self.began else 'is pending'} already"
            )
        elif self.fired != self.began:
            yield Event(int(self.began), _ALERT, f"{name} is pending")
        if self.fired is not None and (self.known or self.fired != self.began):
            yield Event(int(self.fired), _ALERT, f"**{name} fires**")
        if self.ended is not None:
            if self.fired is None:
                yield Event(int(self.ended), _ALERT, f"{name} is over before it fired")
            else:
                yield Event(int(self.ended), _ALERT, f"{name} is over, after {lasted(self.ended - self.fired)}")


def episodes(alerts: Iterable[Series], window: Window, step: float, known: Collection[str]) -> list[Episode]:
    """When alerts were active, from the series ALERTS seen every `step` seconds. Of those without an agent, `known`."""
    states: defaultdict[tuple[str, str], dict[float, str]] = defaultdict(dict)
    for series in alerts:
        labels = series.labels
        name = labels.get("alertname", "")
        if "agent" not in labels and name not in known:
            continue
        of = ", ".join(f"{k} {plain(v)}" for k, v in sorted(labels.items()) if k not in _OF_EVERY_ALERT)
        at_moment = states[name, of]
        for at, _ in series.points:
            if at_moment.get(at) != "firing":
                at_moment[at] = labels.get("alertstate", "")
    found: list[Episode] = []
    for (name, of), by_moment in states.items():
        moments = sorted(by_moment)
        begin = 0
        for i, at in enumerate(moments):
            last = i == len(moments) - 1
            if not last and moments[i + 1] - at < 1.5 * step:
                continue
            part = moments[begin : i + 1]
            fired = next((moment for moment in part if by_moment[moment] == "firing"), None)
            lasts = at > window.until - step
            found.append(Episode(name, of, part[0], part[0] > window.since + step, fired, None if lasts else at + step))
            begin = i + 1
    return sorted(found, key=lambda episode: (episode.began, episode.alert, episode.of))


def trips(series: Sequence[Series], since: float) -> Iterator[Event]:
    """The growth of agent_breaker_trips_total: each time with how often it came until there was a pause."""
    grown: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in series:
        before: float | None = None
        for at, value in one.points:
            # A series that appears later began at 0, and so did one that falls.
            known = value if before is None and at <= since else before or 0.0
            more = value - known if value >= known else value
            before = value
            if more > 0:
                grown[one.labels.get("why", "")].append((at, more))
    for why, points in sorted(grown.items()):
        points.sort()
        begin = 0
        for i, (at, _) in enumerate(points):
            if i + 1 < len(points) and points[i + 1][0] - at < _PAUSE_SECONDS:
                continue
            part = points[begin : i + 1]
            begin = i + 1
            times = sum(more for _, more in part)
            if why == FLEET:
                yield Event(int(part[0][0]), _TRIP, "the breaker of all of the agent's processes opened")
            else:
                span = at - part[0][0]
                during = f" within {lasted(span)}" if span else ""
                yield Event(int(part[0][0]), _TRIP, f"the breaker trips ({code(why)}), {count(times)} times{during}")


def stages(series: Iterable[Series], window: Window) -> Iterator[Event]:
    """The changes of agent_rollout_stage_percent."""
    for one in series:
        rollout = code(one.labels.get("rollout", ""))
        before: float | None = None
        for at, value in one.points:
            if value != before and not (before is None and at <= window.since):
                yield Event(int(at), _CHANGE, f"rollout {rollout}: {value:g} % of users on the canary")
            before = value


def changes(entries: Iterable[tuple[float, Entry]]) -> Iterator[Event]:
    """The audit log's lines, with their times."""
    for at, entry in entries:
        yield Event(int(at), _CHANGE, f"{code(entry.action)} by {plain(entry.who)}: {plain(entry.why)}")
