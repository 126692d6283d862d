"""This exporter beside the Collector's spanmetrics connector, on the same bytes: `python -m benchmarks.collector`.

Both take the same OTLP/gRPC requests, first a warm-up, and are asked for their /metrics at the end. The connector
counts spans and their durations by name and by attributes: which task a span belongs to, what it cost, whether it loops
is nothing it knows. Its turns and the exporter's alternate, since other work on the machine slows both.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import grpc
import yaml

from benchmarks import report, workload
from benchmarks.serving import EXPORT_TRACES, Serving, cpu_seconds, resident_bytes
from stack.ports import LOOPBACK, free_port
from stack.servers import COLLECTOR, MissingServer, get

_SENDERS = 4

_DIMENSIONS = {
    "base schema": ("task.type", "task.status", "iteration.model", "iteration.stop_reason", "tool.name", "tool.result"),
    "GenAI, 4 KB": ("gen_ai.agent.name", "gen_ai.request.model", "gen_ai.tool.name", "error.type"),
}


def config(grpc_port: int, metrics_port: int, dimensions: tuple[str, ...]) -> str:
    """A Collector that does no more than count: the connector with histograms and exemplars, and a /metrics page."""
    return yaml.safe_dump(
        {
            "receivers": {
                "otlp": {
                    "protocols": {"grpc": {"endpoint": f"{LOOPBACK}:{grpc_port}", "max_recv_msg_size_mib": 64}},
                }
            },
            "connectors": {
                "spanmetrics": {
                    "dimensions": [{"name": name} for name in dimensions],
                    "histogram": {"explicit": {"buckets": ["1s", "5s", "10s", "15s", "30s", "60s", "120s", "300s"]}},
                    "exemplars": {"enabled": True},
                    "metrics_flush_interval": "5s",
                }
            },
            "exporters": {"prometheus": {"endpoint": f"{LOOPBACK}:{metrics_port}", "enable_open_metrics": True}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "error"}},
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["spanmetrics"]},
                    "metrics": {"receivers": ["spanmetrics"], "exporters": ["prometheus"]},
                },
            },
        }
    )


class Subject:
    """A process that is measured: where it takes OTLP/gRPC, where it serves /metrics, its process id."""

    def __init__(self, target: str, metrics: str, pid: int) -> None:
        self.target, self.metrics, self.pid = target, metrics, pid


@contextlib.contextmanager
def collector(binary: Path, dimensions: tuple[str, ...]) -> Iterator[Subject]:
    grpc_port, metrics_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "collector.yml"
        file.write_text(config(grpc_port, metrics_port, dimensions), encoding="utf-8")
        process = subprocess.Popen([binary, "--config", file], stdout=subprocess.DEVNULL)
        try:
            yield Subject(f"{LOOPBACK}:{grpc_port}", f"http://{LOOPBACK}:{metrics_port}/metrics", process.pid)
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def exporter(*, journal: bool) -> Iterator[Subject]:
    with tempfile.TemporaryDirectory() as folder, Serving(journal=Path(folder) if journal else None) as serving:
        yield Subject(serving.addresses["OTLP/gRPC"], f"http://{serving.addresses['/metrics']}/metrics", serving.pid)


def send(target: str, bodies: list[bytes]) -> None:
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options=options) as channel:
        export = channel.unary_unary(EXPORT_TRACES)
        for body in bodies:
            export(body, timeout=60, wait_for_ready=True)


def turn(subject: Subject, warm: list[bytes], by_sender: list[list[bytes]]) -> tuple[float, int]:
    """(CPU seconds, resident bytes at the end) to take the bodies of all senders and be scraped once."""
    send(subject.target, warm)
    before = cpu_seconds(subject.pid)
    with ThreadPoolExecutor(len(by_sender)) as pool:
        list(pool.map(lambda bodies: send(subject.target, bodies), by_sender))
    with urllib.request.urlopen(subject.metrics, timeout=60) as answer:
        answer.read()
    return cpu_seconds(subject.pid) - before, resident_bytes(subject.pid)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collector", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spans", type=int, default=100_000, help="spans of each kind, 100000 unless given")
    parser.add_argument(
        "--rounds", type=int, default=3, help="turns of each, of which the median counts; 3 unless given"
    )
    options = parser.parse_args()
    try:
        binary = get([COLLECTOR])[COLLECTOR]
    except MissingServer as error:
        sys.exit(f"benchmarks.collector: {error}")
    table = report.Table(["spans", "by", "µs CPU a span", "ratio to spanmetrics", "MiB at the end"], "<<>>>")
    for kind, task in (("base schema", workload.base_task), ("GenAI, 4 KB", workload.genai_task)):
        report.progress(f"making {options.spans} spans: {kind}")
        warm, *by_sender = (
            workload.requests(task, size, seed=seed, start=time.time() - 300)
            for seed, size in enumerate([5000, *[options.spans // _SENDERS] * _SENDERS])
        )
        measured: dict[str, list[tuple[float, int]]] = {}
        for number in range(options.rounds):
            report.progress(f"{kind}: round {number + 1} of {options.rounds}")
            for name, started in (
                ("spanmetrics connector", collector(binary, _DIMENSIONS[kind])),
                ("exporter", exporter(journal=False)),
                ("exporter with journal", exporter(journal=True)),
            ):
                with started as subject:
                    measured.setdefault(name, []).append(turn(subject, warm, by_sender))
        cpu = {name: median(seconds for seconds, _ in turns) for name, turns in measured.items()}
        for name, turns in measured.items():
            table.add(
                kind,
                name,
                f"{cpu[name] / options.spans * 1e6:.1f}",
                f"{cpu[name] / cpu['spanmetrics connector']:.1f}",
                f"{median(size for _, size in turns) / 2**20:.0f}",
            )
    table.show()


if __name__ == "__main__":
    main()
