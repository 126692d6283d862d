"""A real `agent-oncall serve` on free ports, for benchmarks and for tests of the process as a whole."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import grpc
from prometheus_client.parser import text_string_to_metric_families

EXPORT_TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LISTENS = re.compile(r"INFO (\S+) listens on (\S+)$")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


class NotServing(Exception):
    """The exporter ended, or was not ready in time; the text is what it wrote."""


class Serving:
    """A process of the exporter: started by the constructor, ready after `wait`, ended by `stop`, `kill` or `with`."""

    def __init__(
        self,
        *,
        journal: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        ports: Sequence[int] = (0, 0, 0),
    ) -> None:
        """`ports` are those of OTLP/gRPC, OTLP/HTTP and /metrics; 0 is any free one."""
        command = [str(Path(sys.executable).with_name("agent-oncall")), "serve"]
        for listener, port in zip(("otlp-grpc", "otlp-http", "metrics"), ports, strict=True):
            command.append(f"--{listener}=127.0.0.1:{port}")
        if journal is not None:
            command.append(f"--journal={journal}")
        environment = {f"AGENT_ONCALL_{key.upper()}": json.dumps(value) for key, value in (settings or {}).items()}
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, errors="backslashreplace", env={**os.environ, **environment}
        )
        self.log: list[str] = []
        """What it wrote to its standard error, by line."""
        self.addresses: dict[str, str] = {}
        """HOST:PORT by the names of its log: OTLP/gRPC, OTLP/HTTP, /metrics."""
        self._ready = False
        self._told = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line.rstrip("\n"))
            if found := _LISTENS.search(self.log[-1]):
                self.addresses[found[1]] = found[2]
            if self.log[-1].endswith(" INFO ready"):
                self._ready = True
                self._told.set()
        self._told.set()

    def wait(self, seconds: float = 60) -> Self:
        """Until it takes spans. NotServing if it ends before."""
        self._told.wait(seconds)
        if not self._ready:
            self.kill()
            raise NotServing("\n".join(self.log[-20:]))
        return self

    def __enter__(self) -> Self:
        return self.wait()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self, seconds: float = 60) -> int:
        """As an operator would, by SIGTERM; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join()
        return self._process.returncode

    def kill(self) -> None:
        """By SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    # -- what it costs -------------------------------------------------------------------------------------------------

    def cpu_seconds(self) -> float:
        """User and system time of all its threads since its start."""
        return cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        return resident_bytes(self.pid)

    # -- what it says --------------------------------------------------------------------------------------------------

    def page(self, *, openmetrics: bool = False, seconds: float = 60) -> str:
        """`/metrics`."""
        request = urllib.request.Request(f"http://{self.addresses['/metrics']}/metrics")
        if openmetrics:
            request.add_header("Accept", "application/openmetrics-text;version=1.0.0")
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return str(answer.read().decode())

    def channel(self, *options: tuple[str, Any]) -> grpc.Channel:
        """To OTLP/gRPC, with a connection of its own."""
        return grpc.insecure_channel(
            self.addresses["OTLP/gRPC"],
            options=[("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1), *options],
        )


Labels = frozenset[tuple[str, str]]


def samples(page: str) -> dict[tuple[str, Labels], float]:
    """The samples of a page in the plain text format, by name and labels. ValueError if it is not in that format."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
