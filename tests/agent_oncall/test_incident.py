"""The incident of SPEC section 0, by an agent that runs, in time that takes none: what each breaker leaves of it.

200 requests loop at 31 USD a minute, over 20 processes or in one; users who get no answer come back after half a
minute. Before it, half an hour of ordinary tasks at about 1 USD a minute.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from opentelemetry.trace import NoOpTracerProvider

from agent_oncall import Config
from agent_oncall.schema import Agent, Breaker, State
from demo.agent import INCIDENT, Shop, SupportAgent, ordinary, storm
from demo.scenarios import Runaway
from tests.agent_oncall import states
from tests.agent_oncall.conftest import World
from tests.agent_oncall.virtual import VirtualLoop, run

LEAD_IN = 30 * 60.0
DEFAULTS = Config(model="gpt-4o-2024-08-06", provider="openai", prompt_text="You help.", max_iter=1000)


class Night:
    """So many processes of one agent, their shop, and the time they live in."""

    def __init__(
        self, world: World, *, processes: int, act: bool, tells: bool = True, runaway: Runaway = INCIDENT
    ) -> None:
        self.world = world
        self.loop = VirtualLoop()
        self.shop = Shop()
        self.agents = [
            SupportAgent(
                world.runtime(
                    act=act,
                    defaults=DEFAULTS,
                    clock=self.loop.time,
                    tracer_provider=NoOpTracerProvider(),
                    state=world.folder / "night.json",
                ),
                self.shop,
                random.Random(i),
                runaway=runaway,
                tells=tells,
            )
            for i in range(processes)
        ]

    def say(self, breaker: Breaker) -> None:
        generation = (self.agents[0].runtime.generation or 0) + 1
        states.write(self.world.folder / "night.json", State(generation, {"support": Agent(breaker=breaker)}))

    def pass_by(self, *then: Callable[[], Awaitable[None]], a_minute: float = 40.0, seconds: float = LEAD_IN) -> None:
        async def night() -> None:
            await ordinary(self.agents, a_minute, seconds)
            for act in then:
                await act()

        run(self.loop, night())

    async def break_shop(self, seconds: float = 45 * 60.0) -> None:
        self.shop.broken = True
        before = self.spent
        await storm(self.agents, seconds)
        self.storm_usd = self.spent - before

    @property
    def spent(self) -> float:
        return sum(agent.spent_usd for agent in self.agents)

    @property
    def cuts(self) -> Counter[str]:
        return sum((agent.cuts for agent in self.agents), Counter[str]())


def test_with_nothing_to_cut_it_costs_what_it_did(world: World) -> None:
    night = Night(world, processes=2, act=False, runaway=Runaway(tasks=10))

    night.pass_by(night.break_shop, seconds=60)

    assert night.storm_usd == pytest.approx(1400 / 20, rel=0.1)


@pytest.mark.parametrize("processes", [1, 4, 20])
def test_the_local_breakers_leave_less_than_20_usd_of_it_though_users_come_back(world: World, processes: int) -> None:
    night = Night(world, processes=processes, act=True)

    night.pass_by(night.break_shop)

    print(f"{processes} processes: {night.storm_usd:.2f} USD, {dict(night.cuts)}")
    assert night.storm_usd < 20
    assert set(night.cuts) == {"failing_tool", "process_spend"}


def test_an_agent_that_tells_of_neither_arguments_nor_failures_is_stopped_by_what_it_spends(world: World) -> None:
    night = Night(world, processes=20, act=True, tells=False)

    night.pass_by(night.break_shop)

    print(f"bare: {night.storm_usd:.2f} USD, {dict(night.cuts)}")
    assert night.storm_usd < 60


@pytest.mark.parametrize(("opens_after", "most_usd"), [(60, 40), (110, 62)])
def test_the_breaker_of_the_fleet_alone_ends_it_for_good(world: World, opens_after: float, most_usd: float) -> None:
    night = Night(world, processes=20, act=False)

    async def watched() -> None:
        async def operator() -> None:
            await asyncio.sleep(opens_after)
            night.say(Breaker("open", {"why": "spend"}))

        await asyncio.gather(night.break_shop(), operator())

    night.pass_by(watched, seconds=120)

    print(f"fleet breaker after {opens_after} s: {night.storm_usd:.2f} USD, {dict(night.cuts)}")
    assert night.storm_usd < most_usd
    assert set(night.cuts) == {"fleet"}


@pytest.mark.parametrize("processes", [1, 20])
def test_a_tenfold_launch_trips_nothing(world: World, processes: int) -> None:
    night = Night(world, processes=processes, act=True)

    night.pass_by(lambda: ordinary(night.agents, 400, 5 * 60.0))

    assert night.cuts == Counter()
    assert sum(agent.answered for agent in night.agents) > 2500


def test_once_the_tool_works_again_so_do_the_agents(world: World) -> None:
    night = Night(world, processes=4, act=True)

    async def repaired() -> None:
        night.shop.broken = False
        await ordinary(night.agents, 40, 1800)
        before = night.cuts.copy()
        await ordinary(night.agents, 40, 300)
        assert night.cuts == before

    night.pass_by(lambda: night.break_shop(5 * 60.0), repaired)

    assert {agent.runtime.breaker_value for agent in night.agents} == {0}
