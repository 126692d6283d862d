"""The troubles that no scored benchmark has data for, each beside its look-alike, through the real servers.

Loops, a provider's outage, unknown cost, tasks that are cut and sent again, a backlog that is drained, an exporter that
nobody sends to. The shipped rules, but for the slow groups, which are evaluated as often as the others.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from alert_rules.generate import rule_files
from alert_rules.rules import Site
from alert_rules.thresholds import load
from demo.otlp import RawSender
from demo.spans import Span, Value
from exporter.contract import SCRAPE_JOB
from stack.pager import Message, Pager
from stack.past import labels_of
from stack.ports import LOOPBACK, Ports
from stack.processes import Processes
from tests.e2e import history, servers
from tests.stack.ports import free_ports

BAR = 480.0
"""Seconds within which every message must have come: the silent exporter's alert has a `for` of five minutes."""

STEP = 5.0

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

_ids = itertools.count(1)


def _span(agent: str, name: str, task: int, parent: int, now: float, error: str = "", **attributes: Value) -> Span:
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    return Span(agent, name, task, next(_ids), parent, now - 1, now, named, error)


def _call(agent: str, task: int, now: float, error: str = "", model: str = "gpt-4o", tokens: int = 100) -> Span:
    """An LLM call of a task that runs on: its task span is never sent."""
    told: dict[str, Value] = {} if error else {"iteration__input_tokens": tokens, "iteration__output_tokens": 1}
    return _span(agent, "agent.iteration", task, task, now, error, iteration__model=model, **told)


def _loop(agent: str, task: int, now: float) -> Iterator[Span]:
    """A turn that asks the same tool for the same thing as the last one."""
    call = _call(agent, task, now)
    yield call
    yield _span(
        agent, "tool.execute", task, call.span_id, now, tool__name="lookup", tool__args_hash="same", tool__result="ok"
    )


def _task(agent: str, now: float, usd: float) -> Iterator[Span]:
    """A task of one call that costs about this much (gpt-4o: 2.50 USD a million input tokens)."""
    task = next(_ids) + (1 << 64)
    yield _span(
        agent,
        "agent.iteration",
        task,
        1,
        now,
        iteration__model="gpt-4o",
        iteration__input_tokens=int(usd / 2.5e-6),
        iteration__output_tokens=1,
    )
    yield Span(agent, "agent.task", task, 1, 0, now - 2, now, {"task.type": "order", "task.status": "completed"})


def troubles(step: int, now: float) -> Iterator[Span]:
    """What all agents send in this step of STEP seconds."""
    for agent, tasks in (("looping", 12), ("two-that-loop", 2)):
        for number in range(tasks):
            yield from _loop(agent, (len(agent) << 32) + number + 1, now)
    for number in range(4):
        # each of a task of its own: one that goes on and on would be a loop
        yield _call("outage", next(_ids) << 40, now, error="503")
        yield _call("wobbly", next(_ids) << 40, now, error="503" if number == 0 else "")
    yield _call("unpriced", next(_ids) << 40, now, model="homegrown-9000", tokens=5_000)
    yield _call("priced", next(_ids) << 40, now, tokens=5_000)
    for agent in ("storm", "storm-in-budget"):
        for _ in range(10):
            yield from _task(agent, now, 0.05)
    for agent in ("burst", "backlog"):
        # known before: the first scrape of an agent shows no increase
        yield from _task(agent, now, 0.01)
    if step == 12:
        for number in range(20):
            yield from _task("burst", now, 15)
            yield from _task("backlog", now - 3600 + 120 * number, 15)


@dataclass
class Watch:
    """What the pager was told since `start` (epoch seconds)."""

    start: float
    pager: Pager
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def messages(self, agent: str, alert: str) -> list[Message]:
        """What was told about this alert of the agent ("No" for the alert that begins so and is about none)."""
        of_agent = (m for m in self.pager.messages if m.summary.startswith((f"{agent}:", f"{agent} ")))
        return [m for m in of_agent if any(link.endswith(f"/{alert}.md") for link in m.links)]

    async def told(self, agent: str, alert: str) -> Message:
        """The first message about this alert of the agent. Fails when there is none within BAR seconds."""
        while not (found := self.messages(agent, alert)):
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), max(self.start + BAR - time.time(), 0))
            except TimeoutError:
                pytest.fail(f"no {alert} for {agent} in {BAR:.0f} s: {[m.summary for m in self.pager.messages]}")
        print(f"{alert} {agent}: {found[0].received - self.start:.0f} s: {found[0].summary}")
        return found[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watch(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watch]:
    data = tmp_path_factory.mktemp("troubles")
    grpc, http, metrics, prometheus, alertmanager = free_ports(5)
    grpc2, http2, metrics2, prometheus2 = free_ports(4)
    async with AsyncExitStack() as stack:
        news = asyncio.Event()
        pager = Pager(on_message=lambda _: news.set())
        serving = await pager.serve(0)
        stack.push_async_callback(serving.close)
        ports = Ports(grpc, http, metrics, prometheus, alertmanager, serving.port)
        silent = Ports(grpc2, http2, metrics2, prometheus2, alertmanager, serving.port)
        rules = write_rules(data)
        for place, its in (("busy", ports), ("silent", silent)):
            servers.configure(data / place, its, rules=rules)
        await asyncio.to_thread(write_yesterday, servers.tsdb(data / "silent"), metrics2)
        processes = Processes(data / "logs")
        stack.push_async_callback(processes.close)
        await processes.start(servers.alertmanager(data / "busy", ports))
        for place, its in (("busy", ports), ("silent", silent)):
            for program in (servers.exporter(data / place, its), servers.prometheus(data / place, its)):
                await processes.start(replace(program, name=f"{place}-{program.name}"))
        stop = threading.Event()
        sending = asyncio.create_task(asyncio.to_thread(send, f"{LOOPBACK}:{grpc}", stop))
        try:
            yield Watch(time.time(), pager, news)
        finally:
            stop.set()
            await sending


def write_rules(data: Path) -> Path:
    """The shipped rules with an hour's budget for one agent, the slow groups as fast as the rest."""
    overrides = data / "thresholds.yml"
    overrides.write_text("storm: {hour_budget_usd: 100}\n", encoding="utf-8")
    folder = data / "rules"
    folder.mkdir()
    for name, text in rule_files(load(overrides), Site()).items():
        document = yaml.safe_load(text)
        for group in document["groups"]:
            group.pop("interval", None)
        (folder / name).write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder


def write_yesterday(tsdb: Path, port: int) -> None:
    """A day of spans that ended 20 minutes ago, for the exporter that nobody sends to any more."""
    now = time.time()
    target = {"job": SCRAPE_JOB, "instance": f"{LOOPBACK}:{port}"}
    times = [now - 26 * 3600 + 60 * i for i in range(26 * 60 - 20)]
    spans = labels_of("agent_exporter_spans_total", {"result": "counted", **target})
    started = labels_of("agent_tasks_started_total", {"agent": "gone", "variant": "stable", **target})
    with history.past(tsdb) as prometheus:
        prometheus.write(
            (labels, (times, [a_minute * i for i in range(len(times))]))
            for labels, a_minute in ((spans, 100), (started, 5))
        )


def send(target: str, stop: threading.Event) -> None:
    sender = RawSender(target)
    try:
        for step in itertools.count():
            sender.send(list(troubles(step, time.time())))
            if stop.wait(STEP):
                return
    finally:
        sender.close()


async def test_tasks_that_repeat_one_call_page_and_two_of_them_do_not(watch: Watch) -> None:
    page = await watch.told("looping", "AgentRunawayLoop")

    assert page.service == "pagerduty"
    assert watch.messages("two-that-loop", "AgentRunawayLoop") == []


async def test_a_model_whose_calls_all_fail_pages_and_one_that_fails_now_and_then_does_not(watch: Watch) -> None:
    page = await watch.told("outage", "AgentProviderOutage")

    assert page.service == "pagerduty"
    assert watch.messages("wobbly", "AgentProviderOutage") == []


async def test_an_agent_nothing_of_which_has_a_price_is_told_to_the_team(watch: Watch) -> None:
    message = await watch.told("unpriced", "AgentCostUnknown")

    assert message.service == "slack"
    assert watch.messages("priced", "AgentCostUnknown") == []


async def test_tasks_sent_again_and_again_page_where_the_hour_has_a_budget(watch: Watch) -> None:
    page = await watch.told("storm", "AgentCostAnomaly")

    assert page.service == "pagerduty"
    assert watch.messages("storm-in-budget", "AgentCostAnomaly") == []


async def test_a_burst_of_spend_pages_and_an_hours_backlog_that_arrives_at_once_does_not(watch: Watch) -> None:
    await watch.told("burst", "AgentCostAnomaly")

    assert watch.messages("backlog", "AgentCostAnomaly") == []


async def test_an_exporter_that_hears_nothing_is_told_to_the_team(watch: Watch) -> None:
    message = await watch.told("No", "AgentExporterSilent")

    assert message.service == "slack"


LOOK_ALIKES = {
    "two-that-loop": "AgentRunawayLoop",
    "wobbly": "AgentProviderOutage",
    "priced": "AgentCostUnknown",
    "storm-in-budget": "AgentCostAnomaly",
    "backlog": "AgentCostAnomaly",
}


async def test_none_of_the_look_alikes_was_told_to_anyone_by_the_end(watch: Watch) -> None:
    told = {agent: watch.messages(agent, alert) for agent, alert in LOOK_ALIKES.items()}

    assert told == {agent: [] for agent in LOOK_ALIKES}
