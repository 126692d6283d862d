"""The incident of SPEC section 0 in agents that have the runtime: what it costs until they are cut.

Three agents, a fake model, the real exporter, Prometheus, Alertmanager and controller, the shipped rules and settings
but for the breaker's `act`; a week of history of 1 USD a minute. In one the breakers inside its processes act as well,
in one only that of the fleet, the third has ten times its traffic. Whoever is cut comes back and asks again.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from agent_oncall import Config, Cut, Runtime
from controller import actions
from controller.store import Store
from demo.scenarios import SUPPORT
from stack.pager import Pager
from stack.ports import LOOPBACK, Ports
from stack.processes import Processes, Program
from tests.controller.states import BUNDLE
from tests.e2e import history, servers
from tests.stack.ports import free_ports

PROCESSES = 20
STUCK = 200
LEAD_IN = 90.0
"""Seconds of ordinary traffic before the tool breaks."""
WATCHED = 150.0
"""Seconds from then on."""
SPREAD_SECONDS = 30.0
"""Within which the requests meet the broken tool, one after the other."""
COMES_BACK = 10.0
"""Seconds until somebody whose request was cut asks again."""

# A loop of the incident: 8,000 tokens, 340 of them in 45 minutes, at gpt-4o's price 2.06 cents.
MODEL = "gpt-4o-2024-08-06"
TOKENS = (7922, 78)
LOOP_SECONDS = 45 * 60 / 340
LOOP_USD = (TOKENS[0] * 2.5 + TOKENS[1] * 10) / 1e6
# An ordinary task: two calls of 10,000 tokens, 5 cents; twenty a minute are the baseline of 1 USD.
ORDINARY = (9950, 50)
ORDINARY_USD = (ORDINARY[0] * 2.5 + ORDINARY[1] * 10) / 1e6
PER_MINUTE = 1 / (2 * ORDINARY_USD)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Agent:
    """One agent's processes, and what happened to its requests."""

    name: str
    runtimes: list[Runtime]
    provider: TracerProvider
    spent: float = 0.0
    """USD of the requests that met the broken tool, those that came back included."""
    cuts: list[tuple[float, str]] = field(default_factory=list)
    ordinary_cuts: list[tuple[float, str]] = field(default_factory=list)
    _users: Iterator[int] = field(default_factory=itertools.count)

    def runtime(self, number: int) -> Runtime:
        return self.runtimes[number % PROCESSES]

    async def ordinary(self) -> None:
        """A request as there are many: two calls of the model, a tool that works."""
        user = next(self._users)
        try:
            async with self.runtime(user).task(f"user-{user}", task_type="order") as task:
                for number in range(2):
                    async with task.iteration() as turn:
                        await asyncio.sleep(1)
                        usd, final = ORDINARY_USD, number == 1
                        turn.answered(input_tokens=ORDINARY[0], output_tokens=ORDINARY[1], cost_usd=usd, final=final)
                    if number == 0:
                        async with task.tool("lookup_order", {"order": user}):
                            pass
                task.finish(success=True)
        except Cut as cut:
            self.ordinary_cuts.append((time.time(), cut.why))

    async def stuck(self, number: int) -> None:
        """A request whose tool answers malformed JSON each time; sent again whenever it is cut."""
        await asyncio.sleep(number * SPREAD_SECONDS / STUCK)
        while True:
            try:
                async with self.runtime(number).task(f"stuck-{number}", task_type="order") as task:
                    while True:
                        async with task.iteration() as turn:
                            await asyncio.sleep(LOOP_SECONDS)
                            turn.answered(input_tokens=TOKENS[0], output_tokens=TOKENS[1], cost_usd=LOOP_USD)
                            self.spent += LOOP_USD
                        async with task.tool("lookup_order", {"order": number}) as call:
                            call.failed("malformed JSON at line 1")
            except Cut as cut:
                self.cuts.append((time.time(), cut.why))
            await asyncio.sleep(COMES_BACK)

    async def traffic(self, factor: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self.ordinary())
                await asyncio.sleep(60 / PER_MINUTE / factor)


def agent(name: str, target: str, state: Path, *, act: bool) -> Agent:
    provider = TracerProvider(resource=Resource({"service.name": name}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"http://{target}", insecure=True), schedule_delay_millis=1000)
    )
    defaults = Config(
        model=MODEL,
        provider=BUNDLE.provider,
        prompt=BUNDLE.prompt,
        prompt_version=BUNDLE.prompt_version,
        prompt_text="Help with orders.",
        max_iter=1000,
    )
    last_good = state.with_name(f"{name}.last.json")
    runtimes = [
        Runtime(agent=name, defaults=defaults, state=state, act=act, tracer_provider=provider, last_good=last_good)
        for _ in range(PROCESSES)
    ]
    return Agent(name, runtimes, provider)


@dataclass
class Incident:
    """What was seen by the end, in epoch seconds and USD."""

    onset: float
    local: Agent
    fleet: Agent
    launch: Agent
    visible: float | None
    """When the exporter first served ten looping tasks of the agent that only the fleet's breaker protects."""
    breakers: Mapping[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def incident(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Incident]:
    data = tmp_path_factory.mktemp("breaker")
    grpc, http, metrics, prometheus, alertmanager, controller = free_ports(6)
    async with AsyncExitStack() as stack:
        serving = await Pager().serve(0)
        stack.push_async_callback(serving.close)
        ports = Ports(grpc, http, metrics, prometheus, alertmanager, serving.port, controller)
        store = Store(data / "state" / "flags.json")
        names = ("local", "fleet", "launch")
        servers.configure(data, ports, controller=True)
        controlling = control(data, ports, store, names)
        per_minute = SUPPORT.tasks_per_minute / 60 / history.Life(SUPPORT).usd_per_second()
        ordinary = [replace(SUPPORT, name=name, tasks_per_minute=per_minute) for name in names]
        await asyncio.to_thread(
            history.write, servers.tsdb(data), ordinary, end=time.time(), instance=f"{LOOPBACK}:{metrics}"
        )
        processes = Processes(data / "logs")
        stack.push_async_callback(processes.close)
        for program in (servers.exporter, servers.alertmanager, servers.prometheus):
            await processes.start(program(data, ports))
        await processes.start(controlling)

        target = f"{LOOPBACK}:{grpc}"
        local, fleet, launch = (agent(name, target, store.path, act=name != "fleet") for name in names)
        watching = asyncio.create_task(first_loops(ports, "fleet"))
        playing = [asyncio.create_task(one.traffic(1)) for one in (local, fleet, launch)]
        await asyncio.sleep(LEAD_IN)
        onset = time.time()
        playing += [asyncio.create_task(one.stuck(number)) for one in (local, fleet) for number in range(STUCK)]
        playing.append(asyncio.create_task(launch.traffic(9)))
        await asyncio.sleep(WATCHED)
        for task in (*playing, watching):
            task.cancel()
        with contextlib.suppress(BaseExceptionGroup):
            await asyncio.gather(*playing, return_exceptions=True)
        for one in (local, fleet, launch):
            await asyncio.to_thread(one.provider.shutdown)
        visible = watching.result() if watching.done() and not watching.cancelled() else None
        state = store.read()
        breakers = {name: found.state if (found := state.agents[name].breaker) else "closed" for name in names}
        yield Incident(onset, local, fleet, launch, visible, breakers)


def control(data: Path, ports: Ports, store: Store, names: tuple[str, ...]) -> Program:
    """The controller with its shipped settings but for `act`, and the state of these agents in its store."""
    store.create(who="test", why="made")
    for name in names:
        version = partial(actions.add_agent, name=name, bundle=replace(BUNDLE, model=MODEL, max_iter=1000))
        store.change(version, action="state init", agent=name, who="test", why="first version")
    settings = {
        "listen": {"address": f"{LOOPBACK}:{ports.controller}"},
        "state": str(store.path),
        "token_file": str(servers.token_file(data)),
        "actions": {"breaker": "act"},
        "prometheus": {"url": f"http://{LOOPBACK}:{ports.prometheus}"},
    }
    (data / "controller.yml").write_text(json.dumps(settings), encoding="utf-8")
    health = f"http://{LOOPBACK}:{ports.controller}/healthz"
    command = [sys.executable, "-m", "cli.main", "controller", "--config", str(data / "controller.yml")]
    return Program("controller", command, ready=health, url=health)


async def first_loops(ports: Ports, agent: str) -> float:
    """The moment at which the exporter first serves ten looping tasks of the agent."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://{LOOPBACK}:{ports.metrics}/metrics") as answer:
                lines = [
                    line
                    for line in (await answer.text()).splitlines()
                    if line.startswith("agent_tasks_looping{") and f'agent="{agent}"' in line
                ]
            if sum(float(line.rpartition(" ")[2]) for line in lines) >= 10:
                return time.time()
            await asyncio.sleep(0.2)


async def test_the_breakers_in_the_processes_keep_the_incident_under_20_usd(incident: Incident) -> None:
    print(f"local breakers: {incident.local.spent:.2f} USD, first cut after {first(incident.local, incident):.0f} s")

    assert 0 < incident.local.spent < 20


async def test_the_breaker_of_the_fleet_alone_keeps_it_under_62_usd(incident: Incident) -> None:
    print(f"the fleet's alone: {incident.fleet.spent:.2f} USD, first cut after {first(incident.fleet, incident):.0f} s")

    assert incident.breakers["fleet"] == "open"
    assert {why for _, why in incident.fleet.cuts} == {"fleet"}
    assert 0 < incident.fleet.spent < 62


async def test_agents_are_cut_within_20_seconds_of_the_loops_being_served(incident: Incident) -> None:
    assert incident.visible is not None
    # Whoever asks first is the first to be refused: a loop is cut when it begins its next turn.
    cut = min(incident.fleet.cuts[0][0], incident.fleet.ordinary_cuts[0][0]) - incident.visible
    print(f"from ten looping tasks on /metrics to the first cut: {cut:.1f} s")

    assert cut <= 20


async def test_a_tenfold_launch_trips_nothing(incident: Incident) -> None:
    assert incident.launch.ordinary_cuts == []
    assert incident.breakers["launch"] == "closed"


def first(agent: Agent, incident: Incident) -> float:
    return agent.cuts[0][0] - incident.onset
