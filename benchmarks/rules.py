"""What the rules cost a Prometheus: evaluation time of all of them a minute, for a growing number of agents.

    python -m benchmarks.rules --agents 1 100 1000

Each agent has the series of two task types, two models and three tools, scraped every 15 s for two hours, and a week of
what the rules record. Every rule is asked as an instant query, as a live server asks it, and weighed by how often its
group is evaluated. The measure beside it is a dashboard's worth of queries in the same run: the rate of each counter of
the contract and the 99th percentile of each histogram, by agent, once.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from alert_rules.generate import groups
from alert_rules.rules import Alert, Recording
from alert_rules.thresholds import load
from benchmarks.report import Table, progress
from exporter.contract import FAMILIES, LOOP_REASONS, OUTCOME_REASONS, PURPOSES, SCRAPE_JOB, TOOL_RESULTS, Kind
from stack.ports import LOOPBACK
from stack.servers import PROMETHEUS, get
from tests.stack.ports import free_ports

SCRAPE = EVALUATION = 15
"""Seconds: the generated configuration's."""

RAW_SECONDS, WEEK_SECONDS, RECENT_SECONDS = 2 * 3600, 7 * 86400, 900
_UNITS = {"s": 1, "m": 60, "h": 3600}

Labels = dict[str, str]

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


def series_of(agent: str) -> Iterator[tuple[Labels, float]]:
    """Every series that the exporter serves for this agent, with what it grows by in a second (0 for a gauge)."""
    for family in FAMILIES:
        if "agent" not in family.labels or family.served_by != "exporter" or "rollout" in family.labels:
            continue
        free = [label for label in family.labels if label not in ("agent", "outcome", "reason")]
        for values in product(*(VALUES[label] for label in free)):
            labels = {"agent": agent, **dict(zip(free, values, strict=True))}
            if "outcome" in family.labels:
                for outcome, reason in OUTCOME_REASONS:
                    yield {"__name__": family.name, **labels, "outcome": outcome, "reason": reason}, 0.02
            elif family.kind is Kind.HISTOGRAM:
                bounds = [f"{bound:g}" for bound in family.buckets] + ["+Inf"]
                for number, bound in enumerate(bounds, 1):
                    yield {"__name__": f"{family.name}_bucket", **labels, "le": bound}, 0.1 * number / len(bounds)
                yield {"__name__": f"{family.name}_sum", **labels}, 0.3
                yield {"__name__": f"{family.name}_count", **labels}, 0.1
            else:
                yield {"__name__": family.name, **labels}, 0.0 if family.kind is Kind.GAUGE else 0.1


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


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def remote_write_series(labels: Labels, seconds: np.ndarray, values: np.ndarray) -> bytes:
    """One TimeSeries of Prometheus' remote write protocol 1.0; a sample is 18 bytes, laid out by numpy all at once."""
    head = b"".join(_field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in sorted(labels.items()) if v)
    count = len(seconds)
    out = np.empty((count, 18), np.uint8)
    out[:, 0], out[:, 1], out[:, 2], out[:, 11] = 0x12, 16, 0x09, 0x10
    out[:, 3:11] = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(count, 8)
    milliseconds = (seconds * 1000).astype(np.int64)
    for i in range(6):  # 2^35 <= ms < 2^42: always six bytes
        out[:, 12 + i] = (milliseconds >> (7 * i) & 127) | (128 if i < 5 else 0)
    return _field(1, head + out.tobytes())


@dataclass
class Server:
    """A Prometheus whose head block holds a week, written by remote write."""

    url: str

    def write(self, series: Iterable[bytes]) -> None:
        held: list[bytes] = []
        size = 0
        for one in series:
            held.append(one)
            size += len(one)
            if size > 4_000_000:
                self._push(b"".join(held))
                held, size = [], 0
        if held:
            self._push(b"".join(held))

    def _push(self, raw: bytes) -> None:
        # snappy: the length, then one literal of all bytes
        body = _varint(len(raw)) + bytes([63 << 2]) + (len(raw) - 1).to_bytes(4, "little") + raw
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/v1/write", body, headers), timeout=60).read()

    def query(self, promql: str, at: float) -> list[tuple[Labels, float]]:
        data = urllib.parse.urlencode({"query": promql, "time": at}).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/query", data, timeout=600) as answer:
            result = json.load(answer)["data"]["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def seconds(self, promql: str, at: float) -> float:
        """How long it takes: the better of two."""
        taken = []
        for _ in range(2):
            begin = time.perf_counter()
            self.query(promql, at)
            taken.append(time.perf_counter() - begin)
        return min(taken)


def interval_of(text: str) -> int:
    found = re.fullmatch(r"(\d+)([smh])", text)
    return int(found[1]) * _UNITS[found[2]] if found else EVALUATION


def fill(server: Server, agents: int, now: float) -> None:
    """The series of all agents, then what the rules record of them: each rule's present result, held for a week."""
    raw = now - np.arange(RAW_SECONDS, -1, -SCRAPE, dtype=float)
    target = {"job": SCRAPE_JOB, "instance": "exporter:9464"}

    def scraped() -> Iterator[bytes]:
        yield remote_write_series({"__name__": "up", **target}, raw, np.ones_like(raw))
        for number in range(agents):
            for labels, growth in series_of(f"agent-{number}"):
                yield remote_write_series(labels | target, raw, (raw - raw[0]) * growth + 1)
            if number % 100 == 99:
                progress(f"{number + 1} agents")

    server.write(scraped())
    for group in groups(load()):
        interval = interval_of(group.interval)
        span = WEEK_SECONDS if interval > 60 else RECENT_SECONDS
        times = now - np.arange(span, -1, -interval, dtype=float)
        for rule in group.rules:
            if isinstance(rule, Recording):
                result = server.query(rule.expr, now)
                server.write(
                    remote_write_series(
                        {**labels, **rule.labels, "__name__": rule.record}, times, np.full_like(times, value)
                    )
                    for labels, value in result
                    if np.isfinite(value)
                )
        progress(f"a week of {group.name}")


def measure(binary: Path, agents: int) -> tuple[int, float, float]:
    """Series of the agents, seconds that all rules take a minute, seconds that the dashboard's queries take once."""
    with tempfile.TemporaryDirectory() as folder:
        (port,) = free_ports(1)
        config = Path(folder) / "prometheus.yml"
        config.write_text("{}", encoding="utf-8")
        command = [
            str(binary),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--web.enable-remote-write-receiver",
            # so that a week fits into the head block
            "--storage.tsdb.min-block-duration=90d",
            "--storage.tsdb.max-block-duration=90d",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            server = Server(f"http://{LOOPBACK}:{port}")
            _wait(f"{server.url}/-/ready")
            now = time.time()
            fill(server, agents, now)
            rules = 0.0
            for group in groups(load()):
                for rule in group.rules:
                    if isinstance(rule, Recording | Alert):
                        rules += server.seconds(rule.expr, now) * 60 / interval_of(group.interval)
            queries = sum(server.seconds(query, now) for query in dashboard())
            return sum(1 for _ in series_of("agent")) * agents, rules, queries
        finally:
            process.terminate()
            process.wait(60)


def _wait(url: str) -> None:
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).read()
            return
        except OSError:
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 100, 1000])
    wanted = parser.parse_args()
    binary = get([PROMETHEUS])[PROMETHEUS]
    head = ["agents", "series", "rules, ms a minute", "per agent", "of a core", "times the dashboard"]
    table = Table(head, ">>>>>>")
    for agents in wanted.agents:
        series, rules, queries = measure(binary, agents)
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
