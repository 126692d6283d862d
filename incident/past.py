"""What Prometheus holds of an agent in a window."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from check.server import Server
from controller.prom import increase
from incident.window import Window

_COUNTER_POINTS, _COUNTER_STEP = 1000, 15.0
_STATE_POINTS, _STATE_STEP = 10_000, 1.0
"""Prometheus answers up to 11,000 points."""

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """A series' labels, and its points of (epoch seconds, value)."""

    labels: dict[str, str]
    points: Points


class Past:
    """Asks the Prometheus `server`. Every method raises NoAnswer where it does not answer."""

    def __init__(self, server: Server, agent: str, window: Window) -> None:
        self._server = server
        self._agent = agent
        self._window = window
        self._counters: dict[str, list[Series]] = {}

    def agents(self) -> list[str]:
        """The agents that started tasks, or had one running, in the window."""
        query = [("match[]", "agent_tasks_started_total"), *self._between().items()]
        return sorted(self._server.data("/api/v1/label/agent/values", query))

    def increases(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        """How much a counter grew in the window, by these labels."""
        return self._grown(self.counter(name), by)

    def increases_of_all(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        """The same of a counter that does not tell agents apart."""
        return self._grown(self._range(name, _COUNTER_POINTS, _COUNTER_STEP), by)

    def grown_since(self, name: str, since: float) -> float:
        """How much a counter grew from `since`, a moment of the window, to its end."""
        return sum(
            increase((point for point in series.points if point[0] >= since), since) for series in self.counter(name)
        )

    def counter(self, name: str) -> list[Series]:
        """A counter's series over the window."""
        if name not in self._counters:
            self._counters[name] = self._range(f"{name}{self._of()}", _COUNTER_POINTS, _COUNTER_STEP)
        return self._counters[name]

    def gauge(self, expr: str) -> Points:
        """The only series of an expression over the window, in which $of stands for the agent's matcher."""
        found = self._range(expr.replace("$of", self._of()), _COUNTER_POINTS, _COUNTER_STEP)
        return found[0].points if found else []

    def last(self, expr: str) -> float | None:
        """The value of the only series of an expression at the window's end; None if there is none."""
        query = {"query": expr.replace("$of", self._of()), "time": f"{self._window.until:.3f}"}
        result = self._server.data("/api/v1/query", query)["result"]
        return float(result[0]["value"][1]) if result else None

    def states(self, name: str) -> list[Series]:
        """The series of a state, seen every `state_step` seconds. Those of no agent at all are among them.

        It is looked at just before the next step, so that what begins in a second is seen in that second.
        """
        expr = f"{name}{{agent=~{or_none(self._agent)}}}"
        return self._range(expr, _STATE_POINTS, _STATE_STEP, self.state_step - 0.001)

    def exemplars(self, *names: str) -> list[dict[str, Any]]:
        """The exemplars of these series, as Prometheus' API tells them."""
        query = " or ".join(f"{name}{self._of()}" for name in names)
        found: list[dict[str, Any]] = self._server.data("/api/v1/query_exemplars", {"query": query, **self._between()})
        return found

    @property
    def state_step(self) -> float:
        """Seconds between two looks at a state."""
        return self._window.step(_STATE_POINTS, _STATE_STEP)

    @property
    def counter_step(self) -> float:
        """Seconds between two looks at a counter or a gauge."""
        return self._window.step(_COUNTER_POINTS, _COUNTER_STEP)

    def _grown(self, counters: list[Series], by: tuple[str, ...]) -> dict[tuple[str, ...], float]:
        found: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for series in counters:
            key = tuple(series.labels.get(label, "") for label in by)
            found[key] += increase(series.points, self._window.since)
        return {key: grown for key, grown in sorted(found.items()) if grown > 0}

    def _of(self) -> str:
        return f"{{agent={json.dumps(self._agent, ensure_ascii=False)}}}"

    def _between(self) -> dict[str, str]:
        return {"start": f"{self._window.since:.3f}", "end": f"{self._window.until:.3f}"}

    def _range(self, expr: str, points: int, least: float, after: float = 0.0) -> list[Series]:
        query = {
            "query": expr,
            "start": f"{self._window.since + after:.3f}",
            "end": f"{self._window.until + 0.001:.3f}",  # the last point must not be lost to rounding
            "step": f"{self._window.step(points, least):.6f}",
        }
        result = self._server.data("/api/v1/query_range", query)["result"]
        found = [Series(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in result]
        return sorted(found, key=lambda series: sorted(series.labels.items()))


def or_none(agent: str) -> str:
    """A quoted regular expression, for a matcher, of this agent and of none."""
    return json.dumps(f"{re.escape(agent)}|", ensure_ascii=False)
