"""Several exporters behind a real Collector that spreads traces by their ids, as the Compose profile `scale` does."""

import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo.fleet import Fleet
from demo.otlp import RawSender, requests
from demo.scenarios import normal
from demo.spans import Span
from exporter.config import Settings
from exporter.pipeline import Pipeline
from stack.collector import collector_config
from stack.servers import COLLECTOR, find
from tests.stack.ports import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

COUNTERS = (
    "agent_tasks_started_total",
    "agent_tasks_total",
    "agent_iterations_total",
    "agent_tool_calls_total",
    "agent_tokens_total",
    "agent_spend_usd_total",
    "agent_task_duration_seconds_bucket",
    "agent_task_cost_usd_sum",
)
Sums = dict[tuple[str, frozenset[tuple[str, str]]], float]


def sums(page: str) -> Sums:
    """The counters of a /metrics page that are to be the same, by name and labels."""
    found: defaultdict[tuple[str, frozenset[tuple[str, str]]], float] = defaultdict(float)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in COUNTERS:
                found[sample.name, frozenset(sample.labels.items())] += sample.value
    return found


class Exporter:
    """One `agent-oncall serve` with a journal, which may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.otlp, self._http, self._metrics = free_ports(3)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        addresses = {"--otlp-grpc": self.otlp, "--otlp-http": self._http, "--metrics": self._metrics}
        options = [f"{option}=127.0.0.1:{port}" for option, port in addresses.items()]
        command = [sys.executable, "-m", "cli.main", "serve", *options, "--journal", str(self._folder)]
        with self._folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def page(self) -> str:
        """/metrics, or nothing while it does not answer."""
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=5) as answer,
        ):
            return str(answer.read().decode())
        return ""

    def spans(self) -> float:
        """How many spans it has counted."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
            if sample.name == "agent_exporter_spans_total" and sample.labels["result"] == "counted"
        )


class Gateway:
    """Three exporters and the Collector before them."""

    def __init__(self, collector: Path, folder: Path) -> None:
        self.exporters = [Exporter(folder / f"journal-{i}") for i in range(3)]
        grpc, http, health = free_ports(3)
        self.target = f"127.0.0.1:{grpc}"
        self._config = folder / "collector.yml"
        self._config.write_text(
            collector_config(
                exporters=[f"127.0.0.1:{exporter.otlp}" for exporter in self.exporters],
                trace_stores={},
                grpc=self.target,
                http=f"127.0.0.1:{http}",
                health=f"127.0.0.1:{health}",
                queues=str(folder / "queues"),
            )
        )
        for exporter in self.exporters:
            exporter.start()
        with (folder / "collector.log").open("wb") as log:
            self._process = subprocess.Popen([collector, "--config", self._config], stdout=log, stderr=log)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for exporter in self.exporters:
            exporter.kill()

    def until_counted(self, spans: int) -> None:
        """Waits until all exporters together have counted so many."""
        while (counted := sum(exporter.spans() for exporter in self.exporters)) < spans:
            time.sleep(0.2)
        assert counted == spans

    def sums(self) -> Sums:
        pages = [sums(exporter.page()) for exporter in self.exporters]
        return {key: sum(page.get(key, 0.0) for page in pages) for page in pages for key in page}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    collector = find(COLLECTOR)
    if collector is None:
        pytest.skip("no Collector here: tools/servers otelcol builds one")
    gateway = Gateway(collector, tmp_path)
    yield gateway
    gateway.close()


def an_hour() -> list[Span]:
    """Whole tasks: what begins in the last minutes is left to end."""
    now = time.time()
    spans = Fleet(normal(), seed=11, start=now - 3600).spans(now)
    ended = {span.trace_id for span in spans if span.name == "agent.task"}
    return [span for span in spans if span.trace_id in ended]


def by_one_exporter(spans: list[Span]) -> Sums:
    pipeline = Pipeline(Settings())
    for body in requests(spans):
        pipeline.take_traces(body)
    return sums(pipeline.measures.exposition(openmetrics=False).decode())


def equal(some: Sums, others: Sums) -> None:
    pairs = {key: (some.get(key, 0.0), others.get(key, 0.0)) for key in some.keys() | others.keys()}
    assert {key: (one, other) for key, (one, other) in pairs.items() if one != pytest.approx(other, abs=1e-9)} == {}


def test_a_tasks_spans_stay_together_so_that_the_sums_are_one_exporters(gateway: Gateway) -> None:
    spans = an_hour()
    sender = RawSender(gateway.target)
    sender.send(spans)
    sender.close()
    gateway.until_counted(len(spans))

    shares = [exporter.spans() / len(spans) for exporter in gateway.exporters]
    assert all(0.2 < share < 0.5 for share in shares), shares
    equal(gateway.sums(), by_one_exporter(spans))


def test_an_exporter_that_is_killed_and_comes_back_loses_nothing_and_counts_nothing_twice(gateway: Gateway) -> None:
    spans = an_hour()
    thirds = [spans[: len(spans) // 3], spans[len(spans) // 3 : 2 * len(spans) // 3], spans[2 * len(spans) // 3 :]]
    victim = gateway.exporters[1]
    sender = RawSender(gateway.target)
    sender.send(thirds[0])
    while not victim.spans():
        time.sleep(0.05)
    victim.kill()
    sender.send(thirds[1])
    victim.start()
    sender.send(thirds[2])
    sender.close()
    gateway.until_counted(len(spans))

    equal(gateway.sums(), by_one_exporter(spans))
