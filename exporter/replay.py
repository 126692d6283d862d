"""Recorded spans through the exporter's own path, on the times they arrived at, and then past every time-out.

Reads two kinds of file: recordings of export requests (repeated: 8 bytes arrival time in unix nanoseconds, 4 bytes
length, both big-endian, then the request in protobuf), and OTLP/JSON, one request a line, as the Collector's file
exporter writes it; there each request arrives when the last of its spans ended.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from exporter.config import Settings
from exporter.events import Event
from exporter.pipeline import Malformed, Pipeline
from exporter.pricing import Pricing

_FRAME = struct.Struct(">QI")
# A recording's first arrival is this century's: how the two kinds of file are told apart.
_EARLIEST_NS, _LATEST_NS = 946_684_800 * 10**9, 4_102_444_800 * 10**9


class ReplayError(Exception):
    """A file that cannot be replayed; the text names it and says what is wrong."""


@dataclass(frozen=True, slots=True)
class Request:
    """One recorded export request. `arrival` is unix seconds."""

    arrival: float
    body: bytes
    json: bool
    logs: bool


def read(path: Path) -> Iterator[Request]:
    """The requests of a file, in order. Raises ReplayError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}") from None
    if len(data) >= _FRAME.size and _EARLIEST_NS <= _FRAME.unpack_from(data)[0] <= _LATEST_NS:
        yield from _frames(path, data)
    else:
        yield from _lines(path, data)


def _frames(path: Path, data: bytes) -> Iterator[Request]:
    at = 0
    logs = path.name.startswith("logs")
    while at < len(data):
        if len(data) - at < _FRAME.size:
            raise ReplayError(f"{path}: ends in the middle of a frame at byte {at}; was it copied whole?")
        arrival_ns, length = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        if len(data) - at < length:
            raise ReplayError(f"{path}: ends in the middle of a request at byte {at}; was it copied whole?")
        yield Request(arrival_ns / 1e9, data[at : at + length], False, logs)
        at += length


def _lines(path: Path, data: bytes) -> Iterator[Request]:
    arrival = 0.0
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            raise ReplayError(
                f"{path}, line {number}: neither a recording nor OTLP/JSON, one request a line, as the "
                "Collector's file exporter writes it"
            ) from None
        if not isinstance(request, dict) or not ({"resourceSpans", "resourceLogs"} & request.keys()):
            raise ReplayError(f"{path}, line {number}: no OTLP request: it has neither resourceSpans nor resourceLogs")
        arrival = max(arrival, _last_end(request))
        yield Request(arrival, line, True, "resourceLogs" in request)


def _last_end(request: dict[str, object]) -> float:
    ends = [0]
    stack: list[object] = [request]
    while stack:
        found = stack.pop()
        if isinstance(found, list):
            stack += found
        elif isinstance(found, dict):
            for key, value in found.items():
                if key in ("endTimeUnixNano", "observedTimeUnixNano", "timeUnixNano"):
                    digits = str(value)
                    if digits.isdecimal() and len(digits) < 20:
                        ends.append(int(digits))
                elif isinstance(value, (list, dict)) and key != "attributes":
                    stack.append(value)
    return max(ends) / 1e9


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def replay(
    paths: Iterable[Path],
    settings: Settings,
    pricing: Pricing,
    *,
    explain: Callable[[Event, str], None] | None = None,
) -> Pipeline:
    """Send the files' requests, by their arrival, through one fresh pipeline and wind its clock past every time-out."""
    clock = _Clock()
    requests = sorted((r for path in paths for r in read(path)), key=lambda request: request.arrival)
    if requests:
        clock.now = requests[0].arrival
    pipeline = Pipeline(settings, clock=clock, pricing=pricing, explain=explain)
    for request in requests:
        clock.now = max(clock.now, request.arrival)
        try:
            if request.logs:
                pipeline.take_logs(request.body, json=request.json)
            else:
                pipeline.take_traces(request.body, json=request.json)
        except Malformed as error:
            raise ReplayError(f"a request that arrived at {request.arrival:.3f}: {error}") from None
    pipeline.advance()
    clock.now = pipeline.end_of_time()
    pipeline.advance()
    return pipeline
