"""The incident of SPEC section 0 in agents that have the runtime: what it costs until they are cut.

Three agents, a fake model, the real exporter, Prometheus, Alertmanager and controller, the shipped rules and settings
but for the breaker's `act`; a week of history of 1 USD a minute. In one the breakers inside its processes act as well,
in one only that of the fleet, the third has ten times its traffic. Whoever is cut comes back and asks again.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Mapping
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

from agent_oncall import Config, Runtime
from controller import actions
from controller.store import Store
from demo.agent import Shop, SupportAgent, ordinary, storm
from demo.scenarios import SUPPORT
from stack.pager import Pager
from stack.ports import LOOPBACK, Ports
from stack.processes import Processes, Program
from tests.controller.states import BUNDLE
from tests.e2e import history, servers
from tests.stack.ports import free_ports

PROCESSES = 20
LEAD_IN = 90.0
"""Seconds of ordinary traffic before the tool breaks."""
WATCHED = 150.0
"""Seconds from then on."""
PER_MINUTE = 40.0
"""Ordinary requests: the baseline of 1 USD a minute."""
MODEL = SUPPORT.model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Timed(SupportAgent):
    """It keeps when its requests were cut (epoch seconds)."""

    cut_at: list[float] = field(default_factory=list)

    async def handle(self, user_id: str) -> bool:
        served = await super().handle(user_id)
        if not served:
            self.cut_at.append(time.time())
        return served


@dataclass
class Agent:
    """One agent's processes. Each serves ordinary requests and those that meet the broken tool, on one runtime."""

    provider: TracerProvider
    ordinary: list[Timed]
    stuck: list[Timed]

    @property
    def spent(self) -> float:
        """USD of the requests that met the broken tool, those that came back included."""
        return sum(process.spent_usd for process in self.stuck)

    @property
    def first_cut(self) -> float:
        """When the first of those requests was cut."""
        return min(at for process in self.stuck for at in process.cut_at)


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
    ordinary, stuck = (
        [Timed(runtime, shop, random.Random(f"{name} {i}")) for i, runtime in enumerate(runtimes)]
        for shop in (Shop(), Shop(broken=True))
    )
    return Agent(provider, ordinary, stuck)


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
        usual = [replace(SUPPORT, name=name, tasks_per_minute=per_minute) for name in names]
        await asyncio.to_thread(
            history.write, servers.tsdb(data), usual, end=time.time(), instance=f"{LOOPBACK}:{metrics}"
        )
        processes = Processes(data / "logs")
        stack.push_async_callback(processes.close)
        for program in (servers.exporter, servers.alertmanager, servers.prometheus):
            await processes.start(program(data, ports))
        await processes.start(controlling)

        target = f"{LOOPBACK}:{grpc}"
        local, fleet, launch = (agent(name, target, store.path, act=name != "fleet") for name in names)
        watching = asyncio.create_task(first_loops(ports, "fleet"))
        seconds = LEAD_IN + WATCHED
        playing = [asyncio.create_task(ordinary(one.ordinary, PER_MINUTE, seconds)) for one in (local, fleet, launch)]
        await asyncio.sleep(LEAD_IN)
        onset = time.time()
        playing += [asyncio.create_task(storm(one.stuck, WATCHED)) for one in (local, fleet)]
        playing.append(asyncio.create_task(ordinary(launch.ordinary, 9 * PER_MINUTE, WATCHED)))
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
    local = incident.local
    print(f"local breakers: {local.spent:.2f} USD, first cut after {local.first_cut - incident.onset:.0f} s")

    assert 0 < local.spent < 20


async def test_the_breaker_of_the_fleet_alone_keeps_it_under_62_usd(incident: Incident) -> None:
    fleet = incident.fleet
    print(f"the fleet's alone: {fleet.spent:.2f} USD, first cut after {fleet.first_cut - incident.onset:.0f} s")

    assert incident.breakers["fleet"] == "open"
    assert {why for process in fleet.stuck for why in process.cuts} == {"fleet"}
    assert 0 < fleet.spent < 62


async def test_agents_are_cut_within_20_seconds_of_the_loops_being_served(incident: Incident) -> None:
    assert incident.visible is not None
    # Whoever asks first is the first to be refused: a loop is cut when it begins its next turn.
    first = min(at for process in incident.fleet.ordinary + incident.fleet.stuck for at in process.cut_at)
    print(f"from ten looping tasks on /metrics to the first cut: {first - incident.visible:.1f} s")

    assert first - incident.visible <= 20


async def test_a_tenfold_launch_trips_nothing(incident: Incident) -> None:
    assert [process.cut_at for process in incident.launch.ordinary if process.cut_at] == []
    assert sum(process.answered for process in incident.launch.ordinary) > 0
    assert incident.breakers["launch"] == "closed"
