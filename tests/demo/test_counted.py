"""What the simulator says it sent is what the exporter counts."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo.fleet import Fleet
from demo.otlp import requests
from demo.scenarios import AGENTS, Runaway, incident
from exporter.config import Settings
from exporter.pipeline import Pipeline

START = 1_700_000_000.0
MINUTES = 15


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


def counted(bare: bool) -> tuple[Fleet, dict[tuple[str, str], float]]:
    """The incident sent every ten seconds, and the exporter's counters, summed by name and agent."""
    clock = Clock()
    counting = Pipeline(Settings(), clock=clock)
    fleet = Fleet(incident(after=300, runaway=Runaway(tasks=20)), seed=2, start=START, bare=bare)
    for _ in range(MINUTES * 6):
        clock.now += 10
        for body in requests(fleet.spans(clock.now)):
            counting.take_traces(body)
        counting.advance()
    # What waits to be sure of its parent is counted a while later.
    clock.now += 60
    counting.advance()
    sums: dict[tuple[str, str], float] = {}
    page = counting.measures.exposition(openmetrics=False).decode()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = sample.name, sample.labels.get("agent", "")
            sums[key] = sums.get(key, 0) + sample.value
    return fleet, sums


@pytest.mark.parametrize("bare", [False, True])
def test_every_task_iteration_and_token_that_was_sent_is_counted_once(bare: bool) -> None:
    fleet, sums = counted(bare)
    for agent in AGENTS:
        sent = fleet.totals[agent.name]
        assert sums["agent_tasks_started_total", agent.name] == sent.started
        assert sums["agent_tasks_total", agent.name] == sent.ended
        assert sums["agent_iterations_total", agent.name] == sent.iterations
        assert sums["agent_tool_calls_total", agent.name] == sent.tool_calls
        assert sums["agent_tokens_total", agent.name] == sent.input_tokens + sent.output_tokens


def test_with_a_model_the_spend_is_the_simulators() -> None:
    fleet, sums = counted(bare=False)
    for agent in AGENTS:
        assert sums["agent_spend_usd_total", agent.name] == pytest.approx(fleet.totals[agent.name].cost_usd)


def test_without_a_model_a_runaway_is_priced_by_what_ended_tasks_cost() -> None:
    fleet, sums = counted(bare=True)
    spent = sums["agent_spend_usd_total", "support-agent"]
    assert spent == pytest.approx(fleet.totals["support-agent"].cost_usd, rel=0.15)


def test_the_runaway_is_seen_looping() -> None:
    _, sums = counted(bare=False)
    assert sums["agent_tasks_looping", "support-agent"] >= 20
