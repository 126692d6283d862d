"""Days of made-up history in a real Prometheus: the contract's series, what the rules record of them, and ALERTS.

    python -m tools.history DIR [--days 8]     makes it, in some minutes
    python -m tools.history DIR --rules        evaluates the rules anew, on the same history
    python -m tools.history DIR --serve        serves it at 127.0.0.1:9099

The demo's agents work by day and less by night, and their spans go through the exporter itself, its clock wound on;
what they do not do (a canary, scores of a judge) is added. The last 45 minutes are the incident's: an hour before the
end is an ordinary day. Then each rule is evaluated over the whole time and written back, as a server that was there
would have done.
"""

import argparse
import contextlib
import dataclasses
import math
import random
import shutil
import signal
import sys
import time
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

from alert_rules.generate import groups
from alert_rules.thresholds import load
from demo.fleet import Fleet
from demo.otlp import requests
from demo.scenarios import AGENTS, Scenario
from demo.spans import Span
from exporter import contract
from exporter.config import Settings
from exporter.measures import Measures
from exporter.pipeline import Pipeline
from stack.evaluate import evaluate
from stack.history import rows, series_of
from stack.past import STEP, Labels, PastPrometheus, Samples, labels_of

DAY = 86_400
INCIDENT_SECONDS = 45 * 60
_BATCHES = 6  # of spans, in a minute
_TARGET = {"job": "agent-exporter", "instance": "exporter:9464"}
_CANARY_DAYS = 2
_CANARY = {"agent": "support-agent", "rollout": "support-agent-7"}


# -- what happened -----------------------------------------------------------------------------------------------------


def _traffic(start: float) -> Scenario:
    """The demo's agents at a quarter of their traffic, with days, nights and weekends."""
    agents = tuple(dataclasses.replace(agent, tasks_per_minute=agent.tasks_per_minute / 4) for agent in AGENTS)

    def factor(seconds: float) -> float:
        at = start + seconds
        light = max(0.0, math.sin(math.pi * (at % DAY / DAY - 0.25) / 0.62))
        return (0.25 + 0.75 * light) * (0.5 if time.gmtime(at).tm_wday >= 5 else 1.0)

    return Scenario("history", agents, traffic=factor)


class _Canary:
    """Makes every tenth task of one agent the canary's, in the last days, as the library would mark it."""

    def __init__(self, since: float) -> None:
        self._since = since

    def stage(self, at: float) -> str:
        return "5" if at < self._since + DAY else "10"

    def mark(self, span: Span) -> Span:
        if span.agent != _CANARY["agent"] or span.start < self._since:
            return span
        # the low bit of an id is always set
        variant = "canary" if (span.trace_id >> 8) % 20 < (1 if self.stage(span.start) == "5" else 2) else "stable"
        marks = {
            "oncall.variant": variant,
            "oncall.rollout": _CANARY["rollout"],
            "oncall.stage": self.stage(span.start),
            "oncall.shard": str((span.trace_id >> 40) % 16),
        }
        return dataclasses.replace(span, attributes={**span.attributes, **marks})


class _Extras:
    """What the demo's agents do not do, and the exporter would count: a judge's scores, refusals, requests."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._rng = random.Random(7)
        self._seen: dict[tuple[str, ...], float] = {}

    def add(self) -> None:
        rng, measures = self._rng, self._measures
        for agent in AGENTS:
            for variant in contract.VARIANTS:
                for kind in agent.types:
                    ended = measures.value("agent_task_iterations", agent.name, kind.name, variant)
                    for _ in range(self._new((agent.name, kind.name, variant), ended)):
                        score = rng.betavariate(9, 2) if rng.random() < 0.85 else rng.betavariate(3, 4)
                        measures.histogram("agent_task_goal_alignment", agent.name, kind.name, variant).observe(score)
                called = measures.value("agent_iteration_duration_seconds", agent.name, agent.model, variant)
                for _ in range(self._new((agent.name, variant), called)):
                    if rng.random() < 0.002:
                        measures.counter("agent_refusals_total", agent.name, agent.model, variant).inc()
        measures.gauge("agent_exporter_build_info", "0.1.0").set(1)
        measures.counter("agent_exporter_requests_total", "traces", "grpc", "0").inc(rng.randint(6, 14))
        measures.gauge("agent_exporter_journal_bytes").set(2e6 + 1e6 * rng.random())

    def _new(self, key: tuple[str, ...], count: float) -> int:
        before, self._seen[key] = self._seen.get(key, 0.0), count
        return int(count - before)


def _controllers(start: float, end: float, canary_since: float) -> Iterator[tuple[Labels, Samples]]:
    """What the library and the controller would serve."""
    times = [start + i * STEP for i in range(int((end - start) / STEP) + 1)]

    def series(name: str, value: Mapping[float, float] | float, **labels: str) -> tuple[Labels, Samples]:
        values = [value] * len(times) if isinstance(value, float | int) else [value[t] for t in times if t in value]
        at = times if isinstance(value, float | int) else [t for t in times if t in value]
        return labels_of(name, labels), (at, [float(v) for v in values])

    up = dict.fromkeys(times, 1.0)
    yield series("up", up, **_TARGET)
    yield series("agent_state_generation", 41.0)
    yield series("agent_state_read_ok", 1.0)
    for agent in AGENTS:
        broken = agent.name == _CANARY["agent"]
        opened = end - INCIDENT_SECONDS / 3
        yield series("agent_breaker_state", {t: 2.0 * (broken and t >= opened) for t in times}, agent=agent.name)
        trips = {t: 1.0 * (broken and t >= opened) for t in times}
        yield series("agent_breaker_trips_total", trips, agent=agent.name, why="budget")
    stage = {t: 5.0 if t < canary_since + DAY else 10.0 for t in times if t >= canary_since}
    yield series("agent_rollout_stage_percent", stage, **_CANARY)
    for name, since, until in (("5", 0.0, DAY), ("10", DAY, math.inf)):
        ready = since + 0.9 * DAY if name == "5" else math.inf  # the second stage still holds
        held = {t: float(t - canary_since > ready) for t in stage if since <= t - canary_since < until}
        yield series("agent_rollout_verdict", held, **_CANARY, stage=name)
    acted = {t: float(t >= start + 3.4 * DAY) for t in times}
    yield series(
        "agent_controller_actions_total",
        acted,
        agent="research-agent",
        action="prompt",
        trigger="AgentSuccessRateCritical",
    )


def simulate(start: float, end: float) -> Iterator[tuple[Labels, Samples]]:
    """Every series that was scraped from `start` to `end` (epoch seconds), once a minute."""
    clock = start
    pipeline = Pipeline(Settings(), clock=lambda: clock)
    fleet = Fleet(_traffic(start), seed=1, start=start)
    canary, extras = _Canary(end - _CANARY_DAYS * DAY), _Extras(pipeline.measures)
    found: dict[str, tuple[array[float], array[float]]] = {}
    breaks = end - INCIDENT_SECONDS
    while clock < end:
        if clock <= breaks < clock + STEP:
            fleet.break_tool(breaks)
        for _ in range(_BATCHES):
            clock += STEP / _BATCHES
            for body in requests([canary.mark(span) for span in fleet.spans(clock)]):
                pipeline.take_traces(body)
        pipeline.advance()
        extras.add()
        for key, value, _ in rows(pipeline.measures):
            times, values = found.setdefault(key, (array("d"), array("d")))
            times.append(clock)
            values.append(value)
        if (clock - start) % DAY < STEP:
            print(f"  day {(clock - start) / DAY:.0f} of {(end - start) / DAY:.0f}", file=sys.stderr)
    for key, (times, values) in found.items():
        yield series_of(key, _TARGET), (list(times), list(values))
    yield from _controllers(start, end, end - _CANARY_DAYS * DAY)


# -- the command -------------------------------------------------------------------------------------------------------


def make(directory: Path, port: int, *, days: float, end: float) -> None:
    """Replaces what is in `directory` by `days` days of samples up to `end`, without what the rules record."""
    shutil.rmtree(directory, ignore_errors=True)
    scraped = directory / "scraped"
    scraped.mkdir(parents=True)
    end = end // STEP * STEP
    prometheus = PastPrometheus(scraped, port)
    try:
        prometheus.write(simulate(end - days * DAY, end))
    finally:
        prometheus.close()
    (directory / "span").write_text(f"{end - days * DAY:.0f} {end:.0f}\n", encoding="utf-8")


def evaluate_anew(directory: Path, port: int) -> None:
    """Replaces what the rules recorded in `directory` by what they record now."""
    start, end = span(directory)
    shutil.rmtree(directory / "evaluated", ignore_errors=True)
    shutil.copytree(directory / "scraped", directory / "evaluated")
    prometheus = PastPrometheus(directory / "evaluated", port)
    try:
        evaluate(prometheus, groups(load()), start, end)
    finally:
        prometheus.close()


def span(directory: Path) -> tuple[float, float]:
    """When the history in `directory` begins and ends, in epoch seconds."""
    start, end = (directory / "span").read_text(encoding="utf-8").split()
    return float(start), float(end)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--days", type=float, default=8)
    parser.add_argument("--end", type=float, default=time.time(), metavar="SECONDS", help="epoch seconds; default: now")
    parser.add_argument("--port", type=int, default=9099)
    parser.add_argument("--rules", action="store_true", help="only evaluate the rules anew")
    parser.add_argument("--serve", action="store_true", help="only serve what is there, until Ctrl-C")
    options = parser.parse_args()
    if options.serve:
        prometheus = PastPrometheus(options.directory / "evaluated", options.port)
        print(f"{prometheus.url}, from and to {span(options.directory)}", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        prometheus.close()
        return 0
    if not options.rules:
        make(options.directory, options.port, days=options.days, end=options.end)
    evaluate_anew(options.directory, options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
