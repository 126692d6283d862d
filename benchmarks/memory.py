"""What the process grows by for a task in flight, and for a span that is over: `python -m benchmarks.memory`."""

import argparse
import time

from benchmarks import report, workload
from benchmarks.ingest import send_by_grpc
from benchmarks.serving import Serving

_SPANS_A_TASK = 10


def growth(bodies: list[bytes]) -> int:
    """Bytes of resident memory that the process has more after these requests."""
    with Serving() as serving:
        send_by_grpc(serving, workload.requests(workload.base_task, 20_000, seed=0, start=time.time() - 300))
        before = serving.resident_bytes()
        send_by_grpc(serving, bodies)
        serving.page()  # timers have run
        return serving.resident_bytes() - before


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks in flight, 20000 unless given")
    tasks = parser.parse_args().tasks
    table = report.Table(["what", "count", "MiB", "bytes each"], "<>>>")
    report.progress(f"{tasks} tasks in flight of {_SPANS_A_TASK} spans each")
    grown = growth(workload.open_tasks(tasks, _SPANS_A_TASK, seed=1, start=time.time() - 60))
    table.add(f"task in flight, {_SPANS_A_TASK} spans", f"{tasks:,}", f"{grown / 2**20:.0f}", f"{grown / tasks:,.0f}")
    spans = tasks * _SPANS_A_TASK
    report.progress(f"{spans} spans of tasks that end")
    grown = growth(workload.requests(workload.base_task, spans, seed=1, start=time.time() - 60))
    table.add("span of a task that ended", f"{spans:,}", f"{grown / 2**20:.0f}", f"{grown / spans:,.0f}")
    table.show()


if __name__ == "__main__":
    main()
