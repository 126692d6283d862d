"""The library's series, as a real Prometheus exporter of the SDK serves them."""

import re

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest

from agent_oncall import BreakerOpen, Cut
from agent_oncall.schema import Breaker
from tests.agent_oncall import states
from tests.agent_oncall.conftest import World


class Served:
    """`/metrics` of a process whose runtimes measure with `meters`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        reader = PrometheusMetricReader(registry=self.registry, scope_info_enabled=False)
        self.meters = MeterProvider([reader], shutdown_on_exit=False)

    def series(self) -> dict[str, float]:
        lines = generate_latest(self.registry).decode().splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
            if name.startswith("agent_")
        }


def test_the_names_are_the_contracts(world: World) -> None:
    served = Served()
    world.say(states.state(7, breaker=Breaker("half_open")))
    runtime = world.runtime(act=True, meter_provider=served.meters)
    with pytest.raises(BreakerOpen), runtime.task(None):
        pass

    series = served.series()

    assert series['agent_breaker_state{agent="support"}'] == 1
    assert series['agent_state_generation{agent="support"}'] == 7
    assert series['agent_state_read_ok{agent="support"}'] == 1
    assert series['agent_breaker_trips_total{agent="support",why="repeat"}'] == 0
    assert series['agent_tasks_refused_total{agent="support",why="fleet"}'] == 1
    assert all(re.fullmatch(r'\w+\{agent="support"(,why="\w+")?\}', name) for name in series)


def test_trips_are_counted_by_their_why(world: World) -> None:
    served = Served()
    runtime = world.runtime(act=True, meter_provider=served.meters)
    with pytest.raises(Cut), runtime.task("u1") as task:  # noqa: PT012
        while True:
            with task.iteration(), task.tool("lookup", "a"):
                pass

    assert served.series()['agent_breaker_trips_total{agent="support",why="repeat"}'] == 1


def test_a_state_file_that_breaks_is_seen_without_a_task(world: World) -> None:
    served = Served()
    world.say(states.state(7, breaker=Breaker("open")))
    runtime = world.runtime(meter_provider=served.meters)
    assert served.series()['agent_state_read_ok{agent="support"}'] == 1

    world.state_file.unlink()
    world.wait()

    series = served.series()
    assert series['agent_state_read_ok{agent="support"}'] == 0
    assert series['agent_state_generation{agent="support"}'] == 7
    assert series['agent_breaker_state{agent="support"}'] == 2
    assert runtime.generation == 7


def test_without_a_state_file_to_read_none_is_bad(world: World) -> None:
    served = Served()
    runtime = world.runtime(state=None, meter_provider=served.meters)

    assert 'agent_state_read_ok{agent="support"}' not in served.series()
    assert runtime.state_ok is None


def test_without_a_state_file_to_read_there_is_no_generation(world: World) -> None:
    served = Served()
    runtime = world.runtime(state=None, meter_provider=served.meters)

    assert 'agent_state_generation{agent="support"}' not in served.series()
    assert runtime.generation is None


def test_several_agents_of_a_process_are_told_apart_and_the_gone_are_gone(world: World) -> None:
    served = Served()
    one = world.runtime(agent="one", meter_provider=served.meters)
    two = world.runtime(agent="two", meter_provider=served.meters)

    assert {'agent_breaker_state{agent="one"}', 'agent_breaker_state{agent="two"}'} <= set(served.series())
    del two
    assert 'agent_breaker_state{agent="two"}' not in served.series()
    assert one.breaker_value == 0
