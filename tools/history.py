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
import http.client
import json
import math
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import urllib.parse
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import promql_parser

from alert_rules.generate import groups
from alert_rules.rules import Alert, Recording, Site
from alert_rules.thresholds import load
from demo.fleet import Fleet
from demo.otlp import requests
from demo.scenarios import AGENTS, Scenario
from demo.spans import Span
from exporter import contract
from exporter.config import Settings
from exporter.exposition import CounterRows, GaugeRows
from exporter.measures import Measures
from exporter.pipeline import Pipeline
from stack import servers
from stack.ports import LOOPBACK

DAY = 86_400
INCIDENT_SECONDS = 45 * 60
STEP = 60
_TARGET = {"job": "agent-exporter", "instance": "exporter:9464"}
_STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
_CANARY_DAYS = 2
_CANARY = {"agent": "support-agent", "rollout": "support-agent-7"}

Labels = tuple[tuple[str, str], ...]
Samples = tuple[list[float], list[float]]
"""Seconds since the epoch, and values."""


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
        variant = "canary" if span.trace_id % 20 < (1 if self.stage(span.start) == "5" else 2) else "stable"
        marks = {
            "oncall.variant": variant,
            "oncall.rollout": _CANARY["rollout"],
            "oncall.stage": self.stage(span.start),
            "oncall.shard": str(span.trace_id // 20 % 16),
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
        return _labels(name, labels), (at, [float(v) for v in values])

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
    for name, since, until in (("5", 0, DAY), ("10", DAY, math.inf)):
        held = {
            t: 1.0 if t - canary_since - since > DAY * 0.9 else 0.0 for t in stage if since <= t - canary_since < until
        }
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
        clock += STEP
        for body in requests([canary.mark(span) for span in fleet.spans(clock)]):
            pipeline.take_traces(body)
        pipeline.advance()
        extras.add()
        for key, value in _scrape(pipeline.measures):
            times, values = found.setdefault(key, (array("d"), array("d")))
            times.append(clock)
            values.append(value)
        if (clock - start) % DAY < STEP:
            print(f"  day {(clock - start) / DAY:.0f} of {(end - start) / DAY:.0f}", file=sys.stderr)
    for key, (times, values) in found.items():
        yield _parse(key), (list(times), list(values))
    yield from _controllers(start, end, end - _CANARY_DAYS * DAY)


def _scrape(measures: Measures) -> Iterator[tuple[str, float]]:
    for rows in measures.freeze():
        name = rows.family.name
        if isinstance(rows, CounterRows | GaugeRows):
            yield from ((name + labels, value) for labels, value in zip(rows.labels, rows.values, strict=True))
            continue
        bounds = [*(f"{float(bound)}" for bound in rows.family.buckets), "+Inf"]
        for labels, (before, after), counts, total in zip(
            rows.labels, rows.around_le, rows.counts, rows.sums, strict=True
        ):
            cumulative = 0
            for bound, count in zip(bounds, counts, strict=True):
                cumulative += count
                yield f"{name}_bucket{before}{bound}{after.rstrip()}", cumulative
            yield f"{name}_sum{labels}", total
            yield f"{name}_count{labels}", cumulative


def _parse(key: str) -> Labels:
    """`name{a="b"}` as labels: the contract's values hold nothing that is escaped."""
    name, _, rest = key.partition("{")
    pairs = (pair.split("=", 1) for pair in rest.rstrip("}").split(",") if pair)
    return _labels(name, {**_TARGET, **{label: value.strip('"') for label, value in pairs}})


def _labels(name: str, labels: Mapping[str, str]) -> Labels:
    return tuple(sorted({"__name__": name, **{k: v for k, v in labels.items() if v}}.items()))


# -- a Prometheus that takes the past ----------------------------------------------------------------------------------


class Prometheus:
    """One whose head holds three months, so that samples of any age are taken by remote write."""

    def __init__(self, directory: Path, port: int) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self._port = port
        config = directory / "prometheus.yml"
        config.write_text(f"global: {{scrape_interval: {STEP}s, evaluation_interval: {STEP}s}}\n", encoding="utf-8")
        command = [
            str(servers.find(servers.PROMETHEUS)),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory}/tsdb",
            "--storage.tsdb.min-block-duration=90d",
            "--storage.tsdb.max-block-duration=90d",
            "--storage.tsdb.retention.time=10y",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--web.enable-remote-write-receiver",
            "--query.max-samples=500000000",
        ]
        with (directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        while not self._ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"Prometheus ended: see {directory}/prometheus.log")
            time.sleep(0.1)
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=600)

    def _ready(self) -> bool:
        with contextlib.closing(http.client.HTTPConnection(LOOPBACK, self._port, timeout=5)) as connection:
            try:
                connection.request("GET", "/-/ready")
                return connection.getresponse().status == 200
            except OSError:
                return False

    def write(self, series: Iterable[tuple[Labels, Samples]]) -> None:
        batch, size = [], 0
        for labels, (times, values) in series:
            batch.append(_encode(labels, times, values))
            size += len(batch[-1])
            if size > 4_000_000:
                self._push(b"".join(batch))
                batch, size = [], 0
        if batch:
            self._push(b"".join(batch))

    def _push(self, raw: bytes) -> None:
        # A block of snappy may be one literal: its length, a tag, the bytes.
        body = _varint(len(raw)) + bytes([63 << 2]) + (len(raw) - 1).to_bytes(4, "little") + raw
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
        self._connection.request("POST", "/api/v1/write", body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status // 100 != 2:
            raise RuntimeError(f"remote write: {answer.status} {text[:300]!r}")

    def range(self, expr: str, start: float, end: float, step: float) -> dict[Labels, Samples]:
        found: dict[Labels, Samples] = {}
        while start <= end:
            until = min(end, start + 2000 * step)
            for series in self._query(expr, start, until, step):
                times, values = found.setdefault(tuple(sorted(series["metric"].items())), ([], []))
                times += [float(sample[0]) for sample in series["values"]]
                values += [float(sample[1]) for sample in series["values"]]
            start = until + step
        return found

    def _query(self, expr: str, start: float, end: float, step: float) -> Sequence[Mapping[str, Any]]:
        parameters = urllib.parse.urlencode({"query": expr, "start": start, "end": end, "step": step})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request("POST", "/api/v1/query_range", parameters, headers)
        answer = json.loads(self._connection.getresponse().read())
        if answer["status"] != "success":
            raise RuntimeError(f"{answer['error']} in {expr}")
        result: Sequence[Mapping[str, Any]] = answer["data"]["result"]
        return result

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _encode(labels: Labels, times: Sequence[float], values: Sequence[float]) -> bytes:
    """One TimeSeries of Prometheus' remote write protocol."""
    named = b"".join(_field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in labels)
    samples = [
        b"\x12" + bytes([9 + 1 + len(at)]) + b"\x09" + struct.pack("<d", value) + b"\x10" + at
        for at, value in zip((_varint(int(t * 1000)) for t in times), values, strict=True)
    ]
    return _field(1, named + b"".join(samples))


# -- what the rules made of it -----------------------------------------------------------------------------------------


def evaluate(prometheus: Prometheus, start: float, end: float) -> None:
    """Every rule, each after those whose records it reads, at its group's interval (a minute at least)."""
    waiting = [
        (rule, max(STEP, _seconds(group.interval) if group.interval else STEP))
        for group in groups(load())
        for rule in group.rules
    ]
    while waiting:
        to_come = {rule.record for rule, _ in waiting if isinstance(rule, Recording)}
        ready = next(
            i for i, (rule, _) in enumerate(waiting) if not _reads(rule) & to_come - {getattr(rule, "record", "")}
        )
        rule, step = waiting.pop(ready)
        first = math.ceil(start / step) * step
        found = prometheus.range(rule.expr, first, end, step)
        if isinstance(rule, Recording):
            prometheus.write(_recorded(rule, found, step, end))
        else:
            prometheus.write(_alerts(rule, found, step, end))


def _reads(rule: Recording | Alert) -> set[str]:
    found = set()
    stack = [promql_parser.parse(rule.expr)]
    while stack:
        node = stack.pop()
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name or "")
        for name in ("expr", "lhs", "rhs", "vector_selector"):
            child = getattr(node, name, None)
            if child is not None:
                stack.append(child)
        stack += getattr(node, "args", None) or []
    return found


def _recorded(
    rule: Recording, found: Mapping[Labels, Samples], step: float, end: float
) -> Iterator[tuple[Labels, Samples]]:
    for labels, samples in found.items():
        yield _labels(rule.record, {**dict(labels), "__name__": rule.record, **rule.labels}), _ended(samples, step, end)


def _alerts(rule: Alert, found: Mapping[Labels, Samples], step: float, end: float) -> Iterator[tuple[Labels, Samples]]:
    """ALERTS and ALERTS_FOR_STATE, by the alert's `for` and `keep_firing_for`."""
    own = rule.document(Site())["labels"]
    wait, keep = _seconds(rule.wait), _seconds(rule.keep_firing_for)
    for labels, (times, _) in found.items():
        named = {**dict(labels), **own, "alertname": rule.name}
        named.pop("__name__", None)
        true, at = set(times), times[0]
        active: float | None = None
        last = -math.inf
        firing, pending, since = Samples_(), Samples_(), Samples_()
        while at <= end:
            if at in true:
                last = at
                active = at if active is None else active
            fires = active is not None and last - active >= wait
            if active is not None and last < at and not (fires and at - last <= keep):
                active = None
            if active is not None:
                (firing if fires else pending).add(at, 1.0)
                since.add(at, active)
            at += step
        for name, state, samples in (
            ("ALERTS", "firing", firing),
            ("ALERTS", "pending", pending),
            ("ALERTS_FOR_STATE", "", since),
        ):
            if samples.times:
                yield _labels(name, {**named, "alertstate": state}), _ended((samples.times, samples.values), step, end)


class Samples_:  # noqa: N801
    def __init__(self) -> None:
        self.times: list[float] = []
        self.values: list[float] = []

    def add(self, at: float, value: float) -> None:
        self.times.append(at)
        self.values.append(value)


def _ended(samples: Samples, step: float, end: float) -> Samples:
    """With a stale marker wherever the series stops, as a server writes it."""
    times: list[float] = []
    values: list[float] = []
    for at, value in zip(*samples, strict=True):
        if times and at - times[-1] > step * 1.5:
            times.append(times[-1] + step)
            values.append(_STALE)
        times.append(at)
        values.append(value)
    if times and times[-1] + step <= end:
        times.append(times[-1] + step)
        values.append(_STALE)
    return times, values


def _seconds(duration: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": DAY}
    return float(duration[:-1]) * units[duration[-1]]


# -- the command -------------------------------------------------------------------------------------------------------


def make(directory: Path, port: int, *, days: float, end: float) -> None:
    """Replaces what is in `directory` by `days` days of samples up to `end`, without what the rules record."""
    shutil.rmtree(directory, ignore_errors=True)
    scraped = directory / "scraped"
    scraped.mkdir(parents=True)
    end = end // STEP * STEP
    prometheus = Prometheus(scraped, port)
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
    prometheus = Prometheus(directory / "evaluated", port)
    try:
        evaluate(prometheus, start, end)
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
        prometheus = Prometheus(options.directory / "evaluated", options.port)
        print(f"{prometheus.url}, from and to {span(options.directory)}", flush=True)
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
