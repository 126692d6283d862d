"""How long the panels take on 8 days of 50 agents: `python -m benchmarks.dashboards DIR`.

Every series of the contract and of the rules is written into a real Prometheus' data folder by promtool, at made-up
values: what a query costs depends on how many samples it reads, not on what they say. The last 12 hours are as dense as
`--scrape` says, what is older has a sample in two minutes. Prometheus merges the blocks, as it does while it runs. Then
each panel's queries are sent as Grafana sends them (their step, their variables), one after the other, and a panel's
time is the sum. The processor's time says what an idle machine would take.

The folder is some gigabytes; what is there already is measured again without being written anew.
"""

import argparse
import contextlib
import http.client
import json
import math
import os
import random
import re
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, TextIO

from alert_rules.generate import groups
from alert_rules.promql import duration_seconds
from alert_rules.rules import Recording
from alert_rules.thresholds import load
from benchmarks import report
from dashboards.generate import dashboard_files
from exporter import contract
from exporter.contract import SCRAPE_JOB, Family, Kind
from stack import servers
from stack.ports import LOOPBACK
from tests.promql import known_series

_HOUR = 3600
_DENSE = 12 * _HOUR
_SPARSE_SECONDS = 120
_BLOCK = 2 * _HOUR
_POINTS = 800
"""Points a panel asks for: half a screen of 1600 pixels."""

_VALUES: dict[str, Sequence[str]] = {
    "task_type": ("question", "report", "refund"),
    "variant": ("stable",),
    "model": ("gpt-4o-2024-08-06", "claude-sonnet-4-5-20250929"),
    "tool": tuple(f"tool_{i}" for i in range(5)),
    "stop_reason": ("end_turn", "tool_use", "max_tokens", "refusal", "error"),
    "direction": contract.DIRECTIONS,
    "purpose": contract.PURPOSES,
    "outcome": contract.OUTCOMES,
    "result": contract.TOOL_RESULTS,
    "why": contract.LOOP_REASONS,
    "slo": ("success", "latency", "cost"),
    "le": ("1.0", "5.0", "10.0", "30.0", "60.0", "+Inf"),
    "label": ("agent", "tool"),
    "scope": ("unknown-lib",),
    "signal": ("traces",),
    "transport": ("grpc",),
    "code": ("0",),
    "version": ("0.1.0",),
    "rollout": ("r1",),
    "stage": ("5",),
    "shard": tuple(str(i) for i in range(16)),
    "action": ("prompt",),
    "trigger": ("AgentSuccessRateCritical",),
    "against": ("limit", "own"),
    "over": ("p99", "p50"),
    "name": tuple(load().limits),
}
_ONE_AGENT = ("agent_rollout_", "agent_controller_")


class _Writer:
    """Two hours of series as OpenMetrics text."""

    def __init__(self, start: float, steps: Mapping[float, Sequence[float]]) -> None:
        self._rng = random.Random(int(start))
        self._start = start
        self._times = {step: [f"{at:.0f}" for at in times] for step, times in steps.items()}
        # A few shapes of growth, that the series share: what matters is how many samples there are.
        self._shapes: dict[float, list[list[int]]] = {}
        for step, times in self._times.items():
            self._shapes[step] = []
            for _ in range(8):
                total, shape = 0, []
                for _ in times:
                    total += self._rng.randrange(6)
                    shape.append(total)
                self._shapes[step].append(shape)

    def family(self, out: TextIO, family: Family, series: Sequence[str], step: float) -> None:
        name = family.name.removesuffix("_total")
        out.write(f"# TYPE {name} {family.kind}\n")
        grown = int(self._start) // 4  # so that a block begins above where the one before ended
        times = self._times[step]
        for labels in series:
            shape = self._rng.choice(self._shapes[step])
            if family.kind is Kind.HISTOGRAM:
                bounds = [*(f"{float(bound)}" for bound in family.buckets), "+Inf"]
                for rank, bound in enumerate(bounds, 1):
                    share = rank / len(bounds)
                    values = [int((grown + value) * share) for value in shape]
                    self._lines(out, f'{name}_bucket{{{labels},le="{bound}"}}', values, times)
                values = [grown + value for value in shape]
                self._lines(out, f"{name}_count{{{labels}}}", values, times)
                self._lines(out, f"{name}_sum{{{labels}}}", [value * 3 for value in values], times)
            elif family.kind is Kind.COUNTER:
                self._lines(out, f"{name}_total{{{labels}}}", [grown + value for value in shape], times)
            else:
                self._lines(out, f"{name}{{{labels}}}", [value % 7 for value in shape], times)

    def gauges(self, out: TextIO, name: str, series: Sequence[str], step: float) -> None:
        """Series that a rule recorded."""
        out.write(f"# TYPE {name} gauge\n")
        for labels in series:
            shape = self._rng.choice(self._shapes[step])
            self._lines(out, f"{name}{{{labels}}}", [value % 97 / 97 for value in shape], self._times[step])

    @staticmethod
    def _lines(out: TextIO, key: str, values: Sequence[float], times: Sequence[str]) -> None:
        out.write("".join([f"{key} {value} {at}\n" for value, at in zip(values, times, strict=True)]))


def _labels(names: Sequence[str], agents: Sequence[str], fixed: Mapping[str, Sequence[str]]) -> list[str]:
    """Every combination of the labels' values, as text."""
    domains = [fixed.get(name) or (agents if name == "agent" else _VALUES.get(name, ("x",))) for name in names]
    return [
        ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True)) for values in product(*domains)
    ]


def write(directory: Path, agents: int, days: float, scrape: float) -> None:
    """Fills `directory` with blocks up to now; `scrape` is the seconds between two scrapes."""
    names = [f"agent-{i:02}" for i in range(agents)]
    thresholds = load()
    every = groups(thresholds)
    known = known_series(every)
    scraped = [
        (family, [f"{labels},{_TARGET}" if labels else _TARGET for labels in _of_family(family, names)])
        for family in contract.FAMILIES
    ]
    recorded: dict[str, tuple[float | None, list[str]]] = {}
    for group in every:
        for rule in group.rules:
            if isinstance(rule, Recording):
                interval = duration_seconds(group.interval) if group.interval else None
                # `le` of a quantile and the like is no label that results have; agent:limit is for all agents.
                labels = sorted(known[rule.record] - ({"name"} if rule.record != "agent:limit" else {"task_type"}))
                fixed: dict[str, Sequence[str]] = {key: (value,) for key, value in rule.labels.items()}
                if bounds := _bounds(rule.expr):
                    fixed["le"] = bounds
                if "window" in labels and "window" not in fixed:
                    fixed["window"] = ("5m", "10m", "1h", "6h", "1d")
                keys = recorded.setdefault(rule.record, (interval, []))[1]
                keys += [key for key in _labels(labels, names, fixed) if key not in set(keys)]
    end = time.time()
    blocks = math.ceil(days * 24 * _HOUR / _BLOCK)
    for index in range(blocks):
        start = (end // _BLOCK - index) * _BLOCK
        step = scrape if start >= end - _DENSE else _SPARSE_SECONDS
        times = {
            seconds: [start + i * seconds for i in range(int(_BLOCK / seconds)) if start + i * seconds <= end]
            for seconds in {step, *(interval or step for interval, _ in recorded.values())}
        }
        writer = _Writer(start, times)
        text = directory / "block.om"
        with text.open("w", encoding="utf-8") as out:
            for family, series in scraped:
                writer.family(out, family, series, step)
            out.write("# TYPE up gauge\n")
            writer._lines(out, f"up{{{_TARGET}}}", [1] * len(times[step]), [f"{at:.0f}" for at in times[step]])
            for name, (interval, series) in recorded.items():
                writer.gauges(out, name, series, interval or step)
            out.write("# EOF\n")
        promtool = str(servers.find(servers.PROMTOOL))
        subprocess.run(
            [promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(text), str(directory / "tsdb")],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        text.unlink()
        if index % 6 == 0:
            report.progress(f"{index} of {blocks} blocks of two hours")
    (directory / "end").write_text(f"{end:.0f}\n", encoding="utf-8")


def _bounds(expr: str) -> list[str]:
    """The values of `le` of the histogram whose buckets the expression reads."""
    read = [family for family in contract.FAMILIES if f"{family.name}_bucket[" in expr]
    return [*(f"{float(bound)}" for bound in read[0].buckets), "+Inf"] if read else []


_TARGET = f'job="{SCRAPE_JOB}",instance="exporter:9464"'


def _of_family(family: Family, agents: Sequence[str]) -> list[str]:
    if family.name.startswith(_ONE_AGENT):
        agents = agents[:1]
    if family.name == "agent_tasks_total":
        pairs = [f'outcome="{outcome}",reason="{reason}"' for outcome, reason in contract.OUTCOME_REASONS]
        rest = [name for name in family.labels if name not in ("outcome", "reason")]
        return [f"{labels},{pair}" for labels in _labels(rest, agents, {}) for pair in pairs]
    fixed = {"result": contract.SPAN_RESULTS} if family.name == "agent_exporter_spans_total" else {}
    return _labels(family.labels, agents, fixed)


# -- what Grafana would ask --------------------------------------------------------------------------------------------


def measure(server: int, url: str, end: float, hours: float, scrape: float) -> list[tuple[float, float, str, str]]:
    """(seconds, the server's processor seconds, dashboard, panel) of every panel over the `hours` up to `end`, slowest
    first; `server` is the process id."""
    found = []
    for name, text in dashboard_files(load()).items():
        board = json.loads(text)
        for panel in board["panels"]:
            before = _processor_seconds(server)
            seconds = sum(
                _ask(url, target, panel, end, hours * _HOUR, scrape)
                for target in panel.get("targets", ())
                if "expr" in target
            )
            if seconds:
                used = _processor_seconds(server) - before
                found.append((seconds, used, name.removesuffix(".json"), panel["title"]))
    return sorted(found, reverse=True)


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ask(
    url: str, target: Mapping[str, Any], panel: Mapping[str, Any], end: float, span: float, scrape: float
) -> float:
    if "timeFrom" in panel:
        span = float(panel["timeFrom"].removesuffix("d")) * 24 * _HOUR
    least = duration_seconds(target.get("interval", "")) or scrape
    step = max(least, math.ceil(span / panel.get("maxDataPoints", _POINTS) / scrape) * scrape)
    filled = {
        "__rate_interval": f"{max(4 * least, step + least):g}s",
        "__interval": f"{step:g}s",
        "__range": f"{span:g}s",
        "agent": "agent-00" if 'agent="$agent"' in target["expr"] else ".+",
        "rollout": "r1",
    }
    expr = re.sub(r"\$([a-z_]\w*)", lambda match: filled.get(match[1], ".+"), target["expr"])
    if target["instant"]:
        path, parameters = "query", {"query": expr, "time": end}
    else:
        path, parameters = "query_range", {"query": expr, "start": end - span, "end": end, "step": step}
    began = time.monotonic()
    parts = urllib.parse.urlsplit(url)
    with closing(http.client.HTTPConnection(parts.hostname or LOOPBACK, parts.port, timeout=300)) as connection:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", f"/api/v1/{path}", urllib.parse.urlencode(parameters), headers)
        answer = json.loads(connection.getresponse().read())
    if answer["status"] != "success":
        raise SystemExit(f"{panel['title']}: {answer['error']}\n{expr}")
    return time.monotonic() - began


def _started(directory: Path, port: int) -> subprocess.Popen[bytes]:
    config = directory / "prometheus.yml"
    config.write_text("global: {scrape_interval: 15s}\n", encoding="utf-8")
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(servers.find(servers.PROMETHEUS)),
                f"--config.file={config}",
                f"--storage.tsdb.path={directory}/tsdb",
                "--storage.tsdb.retention.time=10y",
                f"--web.listen-address={LOOPBACK}:{port}",
                "--query.max-samples=500000000",
            ],
            stdout=log,
            stderr=log,
        )
    for _ in _waiting():
        if process.poll() is not None:
            raise SystemExit(f"Prometheus ended: see {directory}/prometheus.log")
        with contextlib.suppress(OSError):
            if _get(port, "/-/ready"):
                return process
    raise AssertionError("waits for ever")


def _merged(port: int) -> None:
    """Waits until Prometheus has begun to look for blocks to merge a second time: it is done with the first."""
    for _ in _waiting():
        found = re.search(r"^prometheus_tsdb_compactions_triggered_total (\d+)", _get(port, "/metrics"), re.MULTILINE)
        if found and int(found[1]) > 1:
            return


def _get(port: int, path: str) -> str:
    """The answer; "" where it is another than 200."""
    with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        return text if answer.status == 200 else ""


def _waiting() -> Iterator[None]:
    while True:
        time.sleep(0.2)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dashboards", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("directory", type=Path, help="where the data are, or go")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--days", type=float, default=8)
    parser.add_argument("--scrape", type=float, default=15, metavar="SECONDS", help="between two scrapes; default: 15")
    parser.add_argument("--port", type=int, default=9098)
    parser.add_argument("--shown", type=int, default=15, help="how many of the slowest panels are shown")
    options = parser.parse_args()
    new = not (options.directory / "end").exists()
    if new:
        options.directory.mkdir(parents=True, exist_ok=True)
        write(options.directory, options.agents, options.days, options.scrape)
    end = float((options.directory / "end").read_text(encoding="utf-8"))
    prometheus = _started(options.directory, options.port)
    try:
        if new:
            report.progress("Prometheus merges the blocks: some minutes")
            _merged(options.port)
        table = report.Table(["range", "seconds", "of the processor", "dashboard", "panel"], "<>><<")
        for hours in (6, 24 * 8):
            url = f"http://{LOOPBACK}:{options.port}"
            measure(prometheus.pid, url, end, hours, options.scrape)  # the page cache is warm when somebody looks
            slowest = measure(prometheus.pid, url, end, hours, options.scrape)
            report.progress(f"{hours} h: {len(slowest)} panels, {sum(s for s, *_ in slowest):.1f} s together")
            for seconds, used, board, panel in slowest[: options.shown]:
                table.add(f"{hours} h", f"{seconds:.2f}", f"{used:.2f}", board, panel)
        table.show()
    finally:
        prometheus.terminate()
        prometheus.wait(60)


if __name__ == "__main__":
    main()
