"""A week of an agent's ordinary life, as Prometheus would hold it: three simulated hours, over and over.

Raw counters and the baselines that the rules record from them, written by `promtool tsdb create-blocks-from`. The live
servers take up where it ends.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from demo.fleet import Fleet
from demo.scenarios import Agent, normal

DAYS = 8
_WEEK = 7 * 86400
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

    def per_second(self) -> tuple[float, float, float]:
        started, ended, usd = self._counted[-1]
        return started / _CYCLE, ended / _CYCLE, usd / _CYCLE


def write(tsdb: Path, agents: list[Agent], *, end: float, instance: str, promtool: Path) -> None:
    """Fills the empty data directory with DAYS days of these agents up to the epoch second `end`."""
    text = tsdb.parent / "history.txt"
    with text.open("w", encoding="utf-8") as file:
        for agent in agents:
            file.writelines(_samples(Life(agent), end, f'job="agent-exporter",instance="{instance}"'))
        file.write("# EOF\n")
    command: list[str | Path] = [promtool, "tsdb", "create-blocks-from", "openmetrics", text, tsdb]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _samples(life: Life, end: float, target: str) -> Iterator[str]:
    begin = end - DAYS * 86400
    of = f'agent="{life.agent}"'
    # Seldom scraped, but for the last hour, whose rates the rules look at.
    moments = [begin + i * 300 for i in range(int((end - 3600 - begin) // 300))]
    moments += [end - 3600 + i * _STEP for i in range(3600 // _STEP)]
    for moment in moments:
        started, ended, usd = life.at(moment - begin)
        spend = f'{{{of},model="history",variant="stable",purpose="progress",{target}}}'
        yield f"agent_spend_usd_total{spend} {usd} {moment:.3f}\n"
        yield f'agent_tasks_started_total{{{of},variant="stable",{target}}} {started} {moment:.3f}\n'
        for outcome, share, reason in (("success", 0.98, ""), ("error", 0.02, "other")):
            labels = f'{of},task_type="history",variant="stable",outcome="{outcome}",reason="{reason}",{target}'
            yield f"agent_tasks_total{{{labels}}} {ended * share} {moment:.3f}\n"
    rate_started, _, rate_usd = life.per_second()
    for i in reversed(range(1, DAYS * 96)):
        moment = end - i * 900
        hours = min(moment - begin, _WEEK) / 3600
        if hours < 1:
            continue
        (started, ended, usd), (started0, ended0, usd0) = life.at(moment - begin), life.at(moment - begin - 3600)
        recorded = {
            "agent:spend_usd:increase1h": usd - usd0,
            "agent:tasks_started:increase1h": started - started0,
            "agent:usd_per_started_task:ratio1h": (usd - usd0) / max(started - started0, 1),
            "agent:usd_per_started_task:median7d": rate_usd / rate_started,
            "agent:usd_per_started_task:hours7d": hours,
            "agent:tasks_started:mean7d": rate_started,
            "agent:error_ratio:mean7d": 0.02,
        }
        for name, value in recorded.items():
            yield f"{name}{{{of}}} {value} {moment:.3f}\n"
        for outcome, share in (("success", 0.98), ("error", 0.02)):
            labels = f'{of},outcome="{outcome}"'
            yield f"agent_outcome:tasks_ended:increase1h{{{labels}}} {(ended - ended0) * share} {moment:.3f}\n"
