"""The incident of SPEC section 0 at its own pace, from the agents' spans to the page, through the real servers.

One exporter, Prometheus and Alertmanager watch several agents at once, each with a scenario of its own and a week of
history: the incident, the same on the bare base schema, a launch, an ordinary day, a provider's outage.
"""

import asyncio
import json
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from demo.fleet import Fleet
from demo.otlp import RawSender
from demo.play import play
from demo.scenarios import SUPPORT, Agent, Runaway, Scenario, incident, launch, normal
from stack.pager import Message, Pager
from stack.ports import LOOPBACK, Ports
from stack.processes import Processes
from tests.e2e import history, servers
from tests.stack.ports import free_ports

LEAD_IN = 150.0
"""Seconds of ordinary traffic before the episodes: the bare schema's price is learnt from tasks that ended."""

BAR = 240.0
"""Seconds from onset within which the page must have come."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]


def named(name: str) -> Agent:
    return replace(SUPPORT, name=name)


INCIDENT, BARE, LAUNCH, ORDINARY = (named(name) for name in ("incident", "bare", "launch", "ordinary"))
OUTAGE = replace(named("outage"), tasks_per_minute=60, error=0.97, failure=0.0, abandoned=0.0)


@dataclass
class Night:
    """The running servers and what the pager was told, with the moment the episodes began (epoch seconds)."""

    onset: float
    pager: Pager
    ports: Ports
    news: asyncio.Event
    """Set by each message to the pager."""

    async def page(self, agent: str, alert: str) -> Message:
        """The first page about this alert of the agent. Fails when there is none within BAR seconds of onset."""
        while not (pages := [page for page in self.pages(agent) if alert in page.text]):
            if not await self.message():
                pytest.fail(f"no {alert} for {agent} within {BAR:.0f} s of onset: {self.state(agent)}")
        print(f"{alert} {agent}: {pages[0].received - self.onset:.0f} s from onset to page: {pages[0].summary}")
        return pages[0]

    async def message(self) -> bool:
        """Waits for the next message to the pager; False when BAR seconds from onset are over."""
        self.news.clear()
        try:
            await asyncio.wait_for(self.news.wait(), max(self.onset + BAR - time.time(), 0))
        except TimeoutError:
            return False
        return True

    def pages(self, agent: str) -> list[Message]:
        """What the pager was told about the agent; "none" for what is about none."""
        return [m for m in self.pager.messages if m.action == "trigger" and f"agent: {agent}\n" in f"{m.text}\n"]

    def state(self, agent: str) -> dict[str, str]:
        """What the rules see of the agent now, for whoever reads a failure."""
        return self.query(f'{{__name__=~"agent:(spend_usd|error_ratio):.+",agent="{agent}"}}')

    def query(self, promql: str) -> dict[str, str]:
        url = f"http://{LOOPBACK}:{self.ports.prometheus}/api/v1/query"
        data = urllib.parse.urlencode({"query": promql}).encode()
        with urllib.request.urlopen(url, data, timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return {str(sample["metric"]): sample["value"][1] for sample in result}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def night(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Night]:
    data = tmp_path_factory.mktemp("night")
    grpc, http, metrics, prometheus, alertmanager, dead = free_ports(6)
    async with AsyncExitStack() as stack:
        news = asyncio.Event()
        pager = Pager(on_message=lambda _: news.set())
        serving = await pager.serve(0)
        stack.push_async_callback(serving.close)
        ports = Ports(grpc, http, metrics, prometheus, alertmanager, serving.port)
        # A second exporter is known, and dead.
        servers.configure(data, ports, dead=[dead])
        ordinary = [replace(OUTAGE, error=0.02), INCIDENT, BARE, LAUNCH, ORDINARY]
        await asyncio.to_thread(
            history.write, servers.tsdb(data), ordinary, end=time.time(), instance=f"{LOOPBACK}:{metrics}"
        )
        processes = Processes(data / "logs")
        stack.push_async_callback(processes.close)
        for program in (servers.exporter, servers.alertmanager, servers.prometheus):
            await processes.start(program(data, ports))

        start = time.time()
        stop = threading.Event()
        target = f"{LOOPBACK}:{grpc}"
        # Each with a seed of its own: the same seed gives runaways the same trace ids.
        fleets = [
            Fleet(incident(LEAD_IN, (INCIDENT,), Runaway(agent="incident")), seed=1, start=start),
            Fleet(incident(LEAD_IN, (BARE,), Runaway(agent="bare")), seed=2, start=start, bare=True),
            Fleet(launch(LEAD_IN, agents=(LAUNCH,)), seed=3, start=start),
            Fleet(normal((ORDINARY,)), seed=4, start=start),
            Fleet(Scenario("outage", (OUTAGE,)), seed=5, start=start + LEAD_IN),
        ]
        playing = [asyncio.create_task(asyncio.to_thread(send, fleet, start, target, stop)) for fleet in fleets]
        try:
            yield Night(start + LEAD_IN, pager, ports, news)
        finally:
            stop.set()
            await asyncio.gather(*playing)


def send(fleet: Fleet, start: float, target: str, stop: threading.Event) -> None:
    sender = RawSender(target)
    try:
        play(fleet, sender, start=start, stop=stop, step=0.5)
    finally:
        sender.close()


async def test_the_loop_pages_before_its_money_does(night: Night) -> None:
    page = await night.page("incident", "AgentRunawayLoop")

    assert page.received >= night.onset
    assert (page.service, page.severity) == ("pagerduty", "critical")
    assert "of its running tasks loop" in page.summary


async def test_the_incident_pages_for_its_spend_within_four_minutes(night: Night) -> None:
    page = await night.page("incident", "AgentCostAnomaly")

    assert page.received >= night.onset
    assert len({page.key for page in night.pages("incident")}) == 1


async def test_the_incident_on_the_bare_base_schema_pages_within_four_minutes(night: Night) -> None:
    page = await night.page("bare", "AgentCostAnomaly")

    assert page.received >= night.onset
    assert "beyond what its traffic explains" in page.summary
    assert any(link.endswith("/AgentCostAnomaly.md") for link in page.links)


async def test_an_outage_pages_once_for_its_errors(night: Night) -> None:
    await night.page("outage", "AgentErrorRate")

    assert len({page.key for page in night.pages("outage")}) == 1


async def test_an_exporter_that_does_not_answer_pages(night: Night) -> None:
    page = await night.page("none", "AgentExporterDown")

    assert "is not scraped" in page.summary


async def test_neither_a_tenfold_launch_nor_an_ordinary_day_pages_in_that_time(night: Night) -> None:
    while await night.message():
        pass

    assert night.pages("launch") == []
    assert night.pages("ordinary") == []


async def test_the_launch_was_there_to_be_seen(night: Night) -> None:
    started = night.query('sum(increase(agent_tasks_started_total{agent="launch"}[4m]))')
    ordinary = night.query('sum(increase(agent_tasks_started_total{agent="ordinary"}[4m]))')

    assert float(started["{}"]) > 5 * float(ordinary["{}"])
