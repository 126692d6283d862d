"""`/metrics` at 100,000 series, and what a scrape does to who sends meanwhile: `python -m benchmarks.exposition`."""

import argparse
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from benchmarks import report, workload
from benchmarks.ingest import send_by_grpc
from benchmarks.serving import EXPORT_TRACES, Serving

_TOOLS_AN_AGENT = 50
_SERIES_A_TOOL = 18  # 3 results; a histogram of 12 buckets, +Inf, sum and count
_SPANS_A_REQUEST = 100
_REQUESTS_A_SECOND = 50
_MOST_AT_ONCE = 64
_AGAIN_SECONDS = 0.01


def tools(agents: int) -> Iterator[bytes]:
    """A call of each tool of each agent: each is a series of its own."""
    chance = random.Random(0)
    now = time.time_ns()
    for agent in range(agents):
        spans = [
            workload.made(
                chance.randbytes(16),
                chance.randbytes(8),
                chance.randbytes(8),
                "tool.execute",
                now - 10**9,
                now,
                {"tool.name": f"tool-{tool}", "tool.result": "ok"},
            )
            for tool in range(_TOOLS_AN_AGENT)
        ]
        yield workload.encoded({f"agent-{agent}": spans})


def latencies(serving: Serving, bodies: list[bytes]) -> list[float]:
    """Seconds from sending to the answer, at a steady rate whatever the answers take; sorted. What the exporter has no
    room for at the moment is sent again, as OTLP asks, and its wait counts."""
    with serving.channel() as channel, ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
        export = channel.unary_unary(EXPORT_TRACES)

        def send(body: bytes) -> float:
            sent = time.monotonic()
            while True:
                try:
                    export(body, timeout=60)
                except grpc.RpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                        raise
                    time.sleep(_AGAIN_SECONDS)
                else:
                    return time.monotonic() - sent

        began = time.monotonic()
        pending = []
        for number, body in enumerate(bodies):
            time.sleep(max(0.0, began + number / _REQUESTS_A_SECOND - time.monotonic()))
            pending.append(pool.submit(send, body))
        return sorted(call.result() for call in pending)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exposition", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--series", type=int, default=100_000, help="series on the page, 100000 unless given")
    parser.add_argument("--seconds", type=int, default=20, help="of sending, with and without scrapes; 20 unless given")
    options = parser.parse_args()
    bodies = workload.requests(
        workload.base_task,
        2 * options.seconds * _REQUESTS_A_SECOND * _SPANS_A_REQUEST,
        seed=1,
        start=time.time() - 60,
        spans_a_request=_SPANS_A_REQUEST,
    )
    first, second = bodies[: len(bodies) // 2], bodies[len(bodies) // 2 :]
    pages = report.Table(["page", "lines", "MB", "seconds", "CPU seconds"], "<>>>>")
    answers = report.Table(["answers, ms", "p50", "p99", "longest"], "<>>>")
    with Serving() as serving:
        report.progress(f"making {options.series} series")
        send_by_grpc(serving, list(tools(round(options.series / _TOOLS_AN_AGENT / _SERIES_A_TOOL))))
        for name, openmetrics in (("plain text", False), ("OpenMetrics", True)):
            serving.page(openmetrics=openmetrics)
            before, began = serving.cpu_seconds(), time.monotonic()
            page = serving.page(openmetrics=openmetrics)
            took, cpu = time.monotonic() - began, serving.cpu_seconds() - before
            lines = sum(not line.startswith("#") for line in page.splitlines())
            pages.add(name, f"{lines:,}", f"{len(page) / 1e6:.1f}", f"{took:.2f}", f"{cpu:.2f}")
        scraping = threading.Event()
        for name, sent in (("nobody scrapes", first), ("one scrape after the other", second)):
            report.progress(f"sending {_REQUESTS_A_SECOND} requests a second while {name}")
            over = threading.Event()

            def scrape(over: threading.Event = over) -> None:
                while scraping.is_set() and not over.is_set():
                    serving.page(openmetrics=True)

            scraper = threading.Thread(target=scrape)
            scraper.start()
            took_all = latencies(serving, sent)
            over.set()
            scraper.join()
            scraping.set()
            p50, p99, longest = (took_all[int(len(took_all) * share) - 1] * 1e3 for share in (0.5, 0.99, 1))
            answers.add(name, f"{p50:.1f}", f"{p99:.1f}", f"{longest:.1f}")
    pages.show()
    print()
    answers.show()


if __name__ == "__main__":
    main()
