"""How long the exporter takes to be ready after a day's journal of a million spans: `python -m benchmarks.startup`.

The day is made by the pipeline itself on a clock that runs ahead. What a kill leaves to go through again is at most
`checkpoint_bytes`, or what came in `checkpoint_seconds`: here it is as much as the former lets be.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks import report, workload
from benchmarks.serving import Serving
from exporter.config import load
from exporter.journal import Journal
from exporter.pipeline import Pipeline

_DAY = 86_400


class Counting(Journal):
    """A journal that knows how much was appended."""

    appended = 0

    def append(self, blob: bytes) -> None:
        super().append(blob)
        self.appended += len(blob)


class Day:
    """A pipeline with a journal, whose clock is set by hand."""

    def __init__(self, directory: Path, began: float) -> None:
        self.now = began
        self.journal = Counting.open(directory)
        self.pipeline = Pipeline(load(), clock=lambda: self.now, journal=self.journal)
        self.longest_checkpoint = 0.0

    def take(self, bodies: list[bytes], seconds: float) -> None:
        """Requests evenly over so many seconds, and a look at the timers after each."""
        for body in bodies:
            self.now += seconds / len(bodies)
            self.pipeline.take_traces(body)
            before = time.monotonic()
            self.pipeline.advance()
            self.longest_checkpoint = max(self.longest_checkpoint, time.monotonic() - before)


def ready(journal: Path | None) -> tuple[float, float]:
    """(seconds until ready, MiB of resident memory then)."""
    began = time.monotonic()
    with Serving(journal=journal) as serving:
        return time.monotonic() - began, serving.resident_bytes() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spans", type=int, default=1_000_000, help="spans of the day, 1000000 unless given")
    spans = parser.parse_args().spans
    table = report.Table(["journal", "MB on disk", "ready after, s", "MiB resident"], "<>>>")
    table.add("none", "", *(f"{value:.1f}" for value in ready(None)))
    with tempfile.TemporaryDirectory() as directory:
        stopped, killed = Path(directory, "stopped"), Path(directory, "killed")
        began = time.time() - _DAY
        day = Day(stopped, began)
        parts = 20
        for part in range(parts):
            report.progress(f"spans so far: {part * spans // parts:,}")
            at = began + part * _DAY / parts
            bodies = workload.requests(workload.base_task, spans // parts, seed=part, start=at, side_by_side=20)
            day.take(bodies, _DAY / parts)
        day.pipeline.checkpoint()
        day.journal.close()
        shutil.copytree(stopped, killed)
        after = Day(killed, day.now)
        report.progress("and as much after the last checkpoint as there can be")
        last = 0
        while after.journal.appended < load().checkpoint_bytes:
            for body in workload.requests(workload.base_task, 50_000, seed=100 + last, start=day.now - 60):
                after.pipeline.take_traces(body)
            last += 50_000
        after.journal.close()
        for name, journal in (
            (f"{spans:,} spans of a day, stopped", stopped),
            (f"the same and {last:,} spans since the last checkpoint, killed", killed),
        ):
            report.progress(f"starting on {name}")
            size = sum(file.stat().st_size for file in journal.iterdir()) / 1e6
            table.add(name, f"{size:.0f}", *(f"{value:.1f}" for value in ready(journal)))
    table.show()
    print(f"\nThe longest checkpoint of the day took {day.longest_checkpoint * 1e3:.0f} ms.")


if __name__ == "__main__":
    main()
