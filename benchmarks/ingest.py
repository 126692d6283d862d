"""CPU time of the exporter's process per span, as a ratio to decoding alone: `python -m benchmarks.ingest`.

Decoding alone is what any receiver in Python has to do: `FromString` on the same bytes, and each span's attributes into
a dict, in a process of its own, in the same run. It is measured before and after each of the exporter's turns and the
mean is taken, since other work on the machine slows both.
"""

import argparse
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import report, workload
from benchmarks.serving import EXPORT_TRACES, Serving

_SENDERS = 4
_BARS = {False: 2.5, True: 3.5}

Send = Callable[[Serving, list[bytes]], None]

_DECODING = """
import struct, sys, time
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

content = open(sys.argv[1], "rb").read()
bodies, at = [], 0
while at < len(content):
    (size,) = struct.unpack_from("<I", content, at)
    bodies.append(content[at + 4 : at + 4 + size])
    at += 4 + size
spans = 0
began = time.process_time()
for body in bodies:
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                attributes = {}
                for pair in span.attributes:
                    value = pair.value
                    attributes[pair.key] = getattr(value, value.WhichOneof("value"))
                spans += 1
print((time.process_time() - began) / spans)
"""


def decoding_seconds(file: Path) -> float:
    """CPU time per span of decoding the bodies in `file`, each with its length before it as four bytes."""
    done = subprocess.run([sys.executable, "-c", _DECODING, str(file)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def send_by_grpc(serving: Serving, bodies: list[bytes]) -> None:
    with serving.channel() as channel:
        export = channel.unary_unary(EXPORT_TRACES)
        for body in bodies:
            export(body, timeout=60)


def send_by_http(serving: Serving, bodies: list[bytes]) -> None:
    connection = http.client.HTTPConnection(serving.addresses["OTLP/HTTP"], timeout=60)
    for body in bodies:
        connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the exporter answered {answer.status}")
    connection.close()


def turn(send: Send, warm: list[bytes], by_sender: list[list[bytes]], *, journal: bool) -> tuple[float, float]:
    """(CPU seconds of the exporter's process, seconds) to take the bodies of all senders, each on a connection."""
    with tempfile.TemporaryDirectory() as directory, Serving(journal=Path(directory) if journal else None) as serving:
        send(serving, warm)
        before, began = serving.cpu_seconds(), time.monotonic()
        with ThreadPoolExecutor(len(by_sender)) as pool:
            list(pool.map(lambda bodies: send(serving, bodies), by_sender))
        return serving.cpu_seconds() - before, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spans", type=int, default=100_000, help="spans of each kind, 100000 unless given")
    spans = parser.parse_args().spans
    table = report.Table(
        ["spans", "by", "journal", "µs a span", "decoding alone", "ratio", "at most", "spans/s"], "<<<>>>>>"
    )
    for kind, task, count in (
        ("base schema", workload.base_task, spans),
        ("GenAI, 4 KB", workload.genai_task, spans // 2),
    ):
        report.progress(f"making {count} spans: {kind}")
        warm, *by_sender = (
            workload.requests(task, size, seed=seed, start=time.time() - 300)
            for seed, size in enumerate([5000, *[count // _SENDERS] * _SENDERS])
        )
        with tempfile.NamedTemporaryFile() as file:
            for bodies in by_sender:
                for body in bodies:
                    file.write(len(body).to_bytes(4, "little") + body)
            file.flush()
            decoding = decoding_seconds(Path(file.name))
            for by, send in (("gRPC", send_by_grpc), ("HTTP", send_by_http)):
                for journal in (False, True):
                    report.progress(f"{kind} by {by}, {'with' if journal else 'without'} journal")
                    cpu, seconds = turn(send, warm, by_sender, journal=journal)
                    before, decoding = decoding, decoding_seconds(Path(file.name))
                    alone = (before + decoding) / 2
                    table.add(
                        kind, by, "yes" if journal else "no", f"{cpu / count * 1e6:.1f}", f"{alone * 1e6:.1f}",
                        f"{cpu / count / alone:.2f}", str(_BARS[journal]), f"{count / seconds:,.0f}",
                    )  # fmt: skip
    table.show()


if __name__ == "__main__":
    main()
