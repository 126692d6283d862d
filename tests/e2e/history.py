"""A week of an agent's ordinary life, as Prometheus would hold it: three simulated hours, over and over.

Raw counters at a steady pace, and what the rules say is normal by them. The live servers take up where it ends.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from alert_rules import baseline
from alert_rules.thresholds import load
from demo.fleet import Fleet
from demo.scenarios import Agent, normal
from exporter.contract import SCRAPE_JOB
from stack.evaluate import evaluate
from stack.past import Labels, PastPrometheus, Samples, labels_of
from stack.ports import free_port

DAYS = 8
_CYCLE = 3 * 3600
_STEP = 15


class Life:
    """What an agent's counters say at any moment of its ordinary life: tasks started, tasks ended, USD spent."""

    def __init__(self, agent: Agent) -> None:
        fleet = Fleet(normal((agent,)))
        self.agent = agent.name
        self._counted = [(0.0, 0.0, 0.0)]
        for moment in range(_STEP, _CYCLE + 1, _STEP):
            for _ in fleet.spans(moment):
                pass
            have = fleet.totals[agent.name]
            self._counted.append((have.started, have.ended, have.cost_usd))

    def at(self, moment: float) -> tuple[float, float, float]:
        """The counters `moment` seconds after the beginning."""
        cycles, rest = divmod(moment, _CYCLE)
        started, ended, usd = self._counted[int(rest // _STEP)]
        a, b, c = self._counted[-1]
        return started + cycles * a, ended + cycles * b, usd + cycles * c

    def usd_per_second(self) -> float:
        return self._counted[-1][2] / _CYCLE


@contextmanager
def past(tsdb: Path) -> Iterator[PastPrometheus]:
    """A Prometheus to write the past into; in the end its samples are in the data directory `tsdb`."""
    with (
        tempfile.TemporaryDirectory(dir=tsdb.parent) as folder,
        closing(PastPrometheus(Path(folder), free_port())) as prometheus,
    ):
        yield prometheus
        prometheus.blocks(tsdb)


def write(tsdb: Path, agents: Sequence[Agent], *, end: float, instance: str) -> None:
    """Fills the empty data directory with DAYS days of these agents up to the epoch second `end`."""
    start = end - DAYS * 86400
    # Seldom scraped, but for the last hour, whose rates the rules look at.
    times = [start + i * 300 for i in range(int((end - 3600 - start) // 300))]
    times += [end - 3600 + i * _STEP for i in range(3600 // _STEP)]
    with past(tsdb) as prometheus:
        for agent in agents:
            prometheus.write(_series(Life(agent), times, {"job": SCRAPE_JOB, "instance": instance}))
        evaluate(prometheus, (load().group(), baseline.GROUP), start, end)


def _series(life: Life, times: Sequence[float], target: dict[str, str]) -> Iterator[tuple[Labels, Samples]]:
    of = {"agent": life.agent, "variant": "stable", **target}
    counted = [life.at(moment - times[0]) for moment in times]
    yield labels_of("agent_tasks_started_total", of), (times, [started for started, _, _ in counted])
    for outcome, share, reason in (("success", 0.98, ""), ("error", 0.02, "other")):
        labels = {**of, "task_type": "history", "outcome": outcome, "reason": reason}
        yield labels_of("agent_tasks_total", labels), (times, [ended * share for _, ended, _ in counted])
    spend = {**of, "model": "history", "purpose": "progress"}
    yield labels_of("agent_spend_usd_total", spend), (times, [usd for _, _, usd in counted])
