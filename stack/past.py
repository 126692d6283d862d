"""A Prometheus whose head holds three months, so that it takes samples of any age by remote write.

What it has taken can be queried at once, and given to another Prometheus as a block.
"""

import contextlib
import functools
import http.client
import json
import shutil
import signal
import struct
import subprocess
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stack import servers
from stack.ports import LOOPBACK

STEP = 60
"""Seconds between two evaluations of a rule, at least."""

Labels = tuple[tuple[str, str], ...]
Samples = tuple[Sequence[float], Sequence[float]]
"""Seconds since the epoch, and values."""


def labels_of(name: str, labels: Mapping[str, str]) -> Labels:
    return tuple(sorted({"__name__": name, **{k: v for k, v in labels.items() if v}}.items()))


class PastPrometheus:
    """Listens on the loopback interface, keeps its data in `directory`/tsdb. Close ends it."""

    def __init__(self, directory: Path, port: int) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self._port = port
        self._tsdb = directory / "tsdb"
        config = directory / "prometheus.yml"
        config.write_text(f"global: {{scrape_interval: {STEP}s, evaluation_interval: {STEP}s}}\n", encoding="utf-8")
        command = [
            str(servers.get([servers.PROMETHEUS])[servers.PROMETHEUS]),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory}/tsdb",
            "--storage.tsdb.min-block-duration=90d",
            "--storage.tsdb.max-block-duration=90d",
            "--storage.tsdb.retention.time=10y",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--web.enable-remote-write-receiver",
            "--web.enable-admin-api",
            "--query.max-samples=500000000",
        ]
        with (directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        while True:
            time.sleep(0.1)
            # asked first: another server may answer at this port
            if self._process.poll() is not None:
                raise RuntimeError(f"Prometheus ended: see {directory}/prometheus.log")
            if self._ready():
                break
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
        found: dict[Labels, tuple[list[float], list[float]]] = {}
        while start <= end:
            until = min(end, start + 2000 * step)
            for series in self._query("query_range", {"query": expr, "start": start, "end": until, "step": step}):
                times, values = found.setdefault(tuple(sorted(series["metric"].items())), ([], []))
                times += [float(sample[0]) for sample in series["values"]]
                values += [float(sample[1]) for sample in series["values"]]
            start = until + step
        return dict(found)

    def instant(self, expr: str, at: float) -> dict[Labels, float]:
        """The value of each series at the epoch second `at`."""
        result = self._query("query", {"query": expr, "time": at})
        return {tuple(sorted(series["metric"].items())): float(series["value"][1]) for series in result}

    def _query(self, path: str, parameters: Mapping[str, str | float]) -> Sequence[Mapping[str, Any]]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request("POST", f"/api/v1/{path}", urllib.parse.urlencode(parameters), headers)
        answer = json.loads(self._connection.getresponse().read())
        if answer["status"] != "success":
            raise RuntimeError(f"{answer['error']} in {parameters['query']}")
        result: Sequence[Mapping[str, Any]] = answer["data"]["result"]
        return result

    def blocks(self, into: Path) -> None:
        """Moves a copy of all samples, as blocks, into another Prometheus' data directory."""
        self._connection.request("POST", "/api/v1/admin/tsdb/snapshot")
        answer = json.loads(self._connection.getresponse().read())
        if answer["status"] != "success":
            raise RuntimeError(f"snapshot: {answer['error']}")
        into.mkdir(parents=True, exist_ok=True)
        for block in (self._tsdb / "snapshots" / answer["data"]["name"]).iterdir():
            if (block / "meta.json").exists():
                shutil.move(block, into / block.name)

    def close(self) -> None:
        self._connection.close()
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
    pack = struct.Struct("<d").pack
    samples = [
        before + pack(value) + after for (before, after), value in zip(_moments(tuple(times)), values, strict=True)
    ]
    return _field(1, named + b"".join(samples))


@functools.lru_cache(maxsize=8)  # most series have the times of the one before
def _moments(times: tuple[float, ...]) -> list[tuple[bytes, bytes]]:
    """What stands before and after each value in a Sample."""
    encoded = [_varint(int(t * 1000)) for t in times]
    return [(b"\x12" + bytes([9 + 1 + len(at)]) + b"\x09", b"\x10" + at) for at in encoded]
