"""A real Prometheus with the incident in it, for the tests that ask it what the panels ask."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stack.past import PastPrometheus
from tests.stack.ports import free_ports
from tools import history


@dataclass(frozen=True, slots=True)
class Incident:
    """Four hours of the demo's agents; in the last 45 minutes support-agent runs away. Times are epoch seconds."""

    prometheus: PastPrometheus
    start: float
    end: float


@pytest.fixture(scope="session")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    directory: Path = tmp_path_factory.mktemp("history") / "incident"
    (port,) = free_ports(1)
    history.make(directory, port, days=4 / 24, end=1_795_540_000)
    history.evaluate_anew(directory, port)
    start, end = history.span(directory)
    prometheus = PastPrometheus(directory / "evaluated", port)
    yield Incident(prometheus, start, end)
    prometheus.close()
