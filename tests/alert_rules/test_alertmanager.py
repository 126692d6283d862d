"""What the real Alertmanager does with the generated configuration: who is told what, and what is kept from whom."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from alert_rules.generate import alerts
from alert_rules.routing import Receivers, alertmanager_config
from stack import programs
from stack.pager import ROUTING_KEY, Message, Pager
from stack.ports import LOOPBACK, Ports
from stack.processes import Processes
from stack.servers import ALERTMANAGER, get
from tests.alert_rules.routes import expected_receivers, labels
from tests.stack.ports import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 20.0
TOKEN = "a token of the controller's"


@dataclass
class Oncall:
    """A running Alertmanager, and all who are told by it: PagerDuty and Slack (the pager), the controller."""

    url: str
    pager: Pager
    http: aiohttp.ClientSession
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def fire(self, *found: dict[str, str], resolved: bool = False) -> None:
        """Tells Alertmanager, as Prometheus does."""
        now = datetime.now(UTC)
        ends = now - timedelta(seconds=1) if resolved else now + timedelta(hours=1)
        body = [
            {
                "labels": one,
                "annotations": annotations(one),
                "startsAt": (now - timedelta(minutes=1)).isoformat(),
                "endsAt": ends.isoformat(),
            }
            for one in found
        ]
        async with self.http.post(f"{self.url}/api/v2/alerts", json=body) as answer:
            assert answer.ok, await answer.text()

    async def known(self, agent: str) -> list[dict[str, Any]]:
        """The alerts on the agent as Alertmanager shows them, with their receivers and their state."""
        async with self.http.get(f"{self.url}/api/v2/alerts", params={"filter": f'agent="{agent}"'}) as answer:
            found: list[dict[str, Any]] = await answer.json()
            return found

    async def states(self, agent: str, *, once: str) -> dict[str, str]:
        """Alert → active or suppressed, as soon as the alert `once` is suppressed."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = {alert["labels"]["alertname"]: alert["status"]["state"] for alert in await self.known(agent)}
            if found.get(once) == "suppressed":
                return found
            await asyncio.sleep(0.05)
        pytest.fail(f"{once} was not suppressed: {found}")

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Waits until the condition holds of what was told; its value."""
        async with self.news, asyncio.timeout(PATIENCE):
            await self.news.wait_for(condition)
        return condition()

    def told(self, service: str, text: str) -> list[Message]:
        return [m for m in self.pager.messages if m.service == service and text in f"{m.summary}\n{m.text}"]

    def orders(self, agent: str) -> list[dict[str, Any]]:
        """What the controller was told about the agent."""
        return [call for call in self.webhooks if call["groupLabels"] == {"agent": agent}]


def annotations(found: dict[str, str]) -> dict[str, str]:
    about = f"{found['alertname']} {found.get('agent', '')}"
    return {
        "summary": f"{about} summary",
        "description": f"{about} description",
        "runbook_url": f"http://runbooks/{found['alertname']}.md",
        "dashboard_url": "http://grafana/d/agent-oncall-overview",
        "traces_url": f"http://traces/{found['agent']}" if "agent" in found else "",
    }


def alert(name: str, agent: str, severity: str = "P1", cause: str = "errors", **more: str) -> dict[str, str]:
    return {"alertname": name, "agent": agent, "severity": severity, "cause": cause, **more}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def oncall(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Oncall]:
    data = tmp_path_factory.mktemp("alertmanager")
    [port] = free_ports(1)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        told = asyncio.get_running_loop()

        async def announce() -> None:
            async with found.news:
                found.news.notify_all()

        pager = Pager(on_message=lambda _: announcements.append(told.create_task(announce())))
        announcements: list[asyncio.Task[None]] = []
        found = Oncall(f"http://{LOOPBACK}:{port}", pager, http)

        async def webhook(request: web.Request) -> web.Response:
            found.webhooks.append(await request.json())
            found.authorizations.add(request.headers.get("Authorization", ""))
            await announce()
            return web.Response()

        controller = web.AppRunner(web.Application())
        controller.app.router.add_post("/alerts", webhook)
        await controller.setup()
        stack.push_async_callback(controller.cleanup)
        await web.TCPSite(controller, LOOPBACK, 0).start()
        serving = await pager.serve(0)
        stack.push_async_callback(serving.close)
        configure(data, serving.port, controller.addresses[0][1])

        processes = Processes(data / "logs")
        stack.push_async_callback(processes.close)
        binary = get([ALERTMANAGER])[ALERTMANAGER]
        await processes.start(programs.alertmanager(binary, data, Ports(alertmanager=port)))
        yield found


def configure(data: Path, pager: int, controller: int) -> None:
    secrets = data / "secrets"
    secrets.mkdir()
    (data / "alertmanager").mkdir()
    (secrets / "pagerduty_routing_key").write_text(ROUTING_KEY, encoding="utf-8")
    (secrets / "slack_api_url").write_text(f"http://{LOOPBACK}:{pager}/services/local", encoding="utf-8")
    (secrets / "controller_token").write_text(TOKEN, encoding="utf-8")
    config = alertmanager_config(
        Receivers(
            pagerduty_url=f"http://{LOOPBACK}:{pager}/v2/enqueue",
            secrets_dir=str(secrets),
            controller_url=f"http://{LOOPBACK}:{controller}/alerts",
        )
    )
    # Nobody needs to wait half a minute for what is sent in any case.
    for waiting in ("group_wait: 30s", "group_interval: 1m", "group_interval: 5m"):
        config = config.replace(waiting, f"{waiting.partition(':')[0]}: 1s")
    (data / "alertmanager" / "alertmanager.yml").write_text(config, encoding="utf-8")


async def test_every_alert_goes_where_the_table_says(oncall: Oncall) -> None:
    known = {f"{one.name}-{one.severity}": one for one in alerts()}
    # With an instance, or "no exporter is left" would silence what the other tests say.
    found = {name: {**labels(one), "agent": f"table-{name}", "instance": "one"} for name, one in known.items()}
    await oncall.fire(*found.values())

    for name, one in known.items():
        [shown] = await oncall.known(f"table-{name}")
        assert sorted(receiver["name"] for receiver in shown["receivers"]) == sorted(expected_receivers(one)), name


async def test_the_controller_is_told_of_an_action_with_its_token(oncall: Oncall) -> None:
    await oncall.fire(alert("AgentCostPerTaskHigh", "acts", "P2", "cost-per-task", action="model"))

    [order] = await oncall.until(lambda: oncall.orders("acts"))
    assert [one["labels"]["action"] for one in order["alerts"]] == ["model"]
    assert oncall.authorizations == {f"Bearer {TOKEN}"}


async def test_a_second_action_for_the_same_agent_reaches_the_controller_as_well(oncall: Oncall) -> None:
    first = alert("AgentRunawayLoop", "twice", cause="cost", action="breaker")
    second = alert("AgentErrorRateCritical", "twice", cause="errors", action="off")
    await oncall.fire(first)
    await oncall.until(lambda: oncall.orders("twice"))
    await oncall.fire(second)

    await oncall.until(
        lambda: any(one["labels"]["action"] == "off" for order in oncall.orders("twice") for one in order["alerts"])
    )


async def test_two_alerts_of_one_cause_are_one_incident_and_both_reach_the_controller(oncall: Oncall) -> None:
    await oncall.fire(alert("AgentCostAnomaly", "one", cause="cost", action="breaker"))
    [page] = await oncall.until(lambda: oncall.told("pagerduty", "agent: one\n"))
    await oncall.fire(alert("AgentRunawayLoop", "one", cause="cost", action="breaker"))

    pages = await oncall.until(lambda: oncall.told("pagerduty", "AgentRunawayLoop one description"))
    assert {one.key for one in pages} == {page.key}
    await oncall.until(lambda: {"AgentCostAnomaly", "AgentRunawayLoop"} <= ordered(oncall.orders("one")))


def ordered(orders: Iterable[dict[str, Any]]) -> set[str]:
    return {one["labels"]["alertname"] for order in orders for one in order["alerts"]}


async def test_another_agent_and_another_cause_are_incidents_of_their_own(oncall: Oncall) -> None:
    incidents = [alert("AgentCostAnomaly", "x", cause="cost"), alert("AgentCostAnomaly", "y", cause="cost")]
    await oncall.fire(*incidents, alert("AgentLatencyP99High", "x", cause="latency"))

    summaries = ("AgentCostAnomaly x summary", "AgentCostAnomaly y summary", "AgentLatencyP99High x summary")
    await oncall.until(lambda: all(oncall.told("pagerduty", summary) for summary in summaries))
    keys = [{page.key for page in oncall.told("pagerduty", summary)} for summary in summaries]
    assert len(set.union(*keys)) == 3


async def test_an_incident_ends_under_the_key_it_began_with(oncall: Oncall) -> None:
    await oncall.fire(alert("AgentCostAnomaly", "ends", cause="cost"))
    [page] = await oncall.until(lambda: oncall.told("pagerduty", "agent: ends\n"))
    await oncall.fire(alert("AgentCostAnomaly", "ends", cause="cost"), resolved=True)

    await oncall.until(lambda: any(m.action == "resolve" and m.key == page.key for m in oncall.pager.messages))


async def test_a_page_links_to_runbook_dashboard_and_traces(oncall: Oncall) -> None:
    await oncall.fire(alert("AgentCostAnomaly", "linked", cause="cost"))

    [page, *_] = await oncall.until(lambda: oncall.told("pagerduty", "agent: linked\n"))
    assert page.severity == "critical"
    assert page.links == (
        "http://runbooks/AgentCostAnomaly.md",
        "http://grafana/d/agent-oncall-overview",
        "http://traces/linked",
    )


async def test_a_page_on_no_agent_has_no_empty_link_to_traces(oncall: Oncall) -> None:
    await oncall.fire({"alertname": "AgentExporterDown", "severity": "P1", "cause": "exporter", "instance": "e1"})

    [page, *_] = await oncall.until(lambda: oncall.told("pagerduty", "AgentExporterDown  summary"))
    assert page.links == ("http://runbooks/AgentExporterDown.md", "http://grafana/d/agent-oncall-overview")


async def test_what_a_page_tells_stays_text_that_no_alertmanager_reads_as_anything_else(oncall: Oncall) -> None:
    await oncall.fire(alert("AgentErrorRateCritical", "told", action="off"))

    [page, *_] = await oncall.until(lambda: oncall.told("pagerduty", "agent: told\n"))
    assert "what: \t- " in page.text
    assert "do: \toff\n" in page.text


async def test_slack_is_told_with_links(oncall: Oncall) -> None:
    await oncall.fire(alert("AgentToolValidityLow", "chat", "P2", "tools"))

    [message] = await oncall.until(lambda: oncall.told("slack", "AgentToolValidityLow chat summary"))
    assert "AgentToolValidityLow chat description" in message.text
    assert "<http://traces/chat|Traces>" in message.text
    assert "http://runbooks/AgentToolValidityLow.md" in message.links


async def test_a_critical_error_rate_silences_the_plain_one_of_its_agent_alone(oncall: Oncall) -> None:
    await oncall.fire(
        alert("AgentErrorRateCritical", "critical", action="off"),
        alert("AgentErrorRateHigh", "critical"),
        alert("AgentErrorRateHigh", "plain"),
    )

    await oncall.states("critical", once="AgentErrorRateHigh")
    assert [one["status"]["state"] for one in await oncall.known("plain")] == ["active"]


async def test_an_outage_silences_the_error_rate_but_not_its_action(oncall: Oncall) -> None:
    await oncall.fire(
        alert("AgentProviderOutage", "outage", action="provider"),
        alert("AgentErrorRateHigh", "outage"),
        alert("AgentErrorRateCritical", "outage", action="off"),
        alert("AgentErrorBudgetBurn", "outage", "P2", "budget"),
    )

    states = await oncall.states("outage", once="AgentErrorRateHigh")
    assert states == {
        "AgentProviderOutage": "active",
        "AgentErrorRateHigh": "suppressed",
        "AgentErrorRateCritical": "active",
        "AgentErrorBudgetBurn": "suppressed",
    }


async def test_a_loop_and_its_cost_hide_the_iterations_and_not_each_other(oncall: Oncall) -> None:
    await oncall.fire(
        alert("AgentCostAnomaly", "loop", cause="cost", action="breaker"),
        alert("AgentRunawayLoop", "loop", cause="cost", action="breaker"),
        alert("AgentIterationsSpike", "loop", "P2", "iterations"),
    )

    states = await oncall.states("loop", once="AgentIterationsSpike")
    assert (states["AgentCostAnomaly"], states["AgentRunawayLoop"]) == ("active", "active")


async def test_a_canary_that_fails_hides_nothing_of_the_stable_variant(oncall: Oncall) -> None:
    await oncall.fire(
        alert("AgentSuccessRateCritical", "canary", "P2", "success", action="prompt", variant="canary"),
        alert("AgentSuccessRateDrop", "canary", "P2", "success", variant="canary"),
    )
    await oncall.states("canary", once="AgentSuccessRateDrop")

    await oncall.fire(alert("AgentSuccessRateDrop", "canary", "P2", "success", variant="stable"))
    shown = {
        one["labels"].get("variant"): one["status"]["state"]
        for one in await oncall.known("canary")
        if one["labels"]["alertname"] == "AgentSuccessRateDrop"
    }
    assert shown == {"canary": "suppressed", "stable": "active"}


async def test_one_dead_exporter_of_several_silences_nobody_and_none_left_silences_what_is_no_page(
    oncall: Oncall,
) -> None:
    down = {"alertname": "AgentExporterDown", "severity": "P1", "cause": "exporter"}
    await oncall.fire(
        {**down, "instance": "exporter-1:9464", "job": "agent-exporter"},
        alert("AgentSuccessRateDrop", "served", "P2", "success"),
        # Something that is suppressed, so that one knows when Alertmanager has seen all.
        alert("AgentErrorRateCritical", "served"),
        alert("AgentErrorBudgetBurn", "served", "P2", "budget"),
        alert("AgentIterationsSpike", "served", "P2", "iterations"),
    )
    states = await oncall.states("served", once="AgentErrorBudgetBurn")
    assert states["AgentIterationsSpike"] == "active"

    await oncall.fire(
        down,
        alert("AgentIterationsSpike", "blind", "P2", "iterations"),
        alert("AgentSuccessRateCritical", "blind", "P2", "success", action="prompt"),
        alert("AgentLatencyP99High", "blind", cause="latency"),
    )
    states = await oncall.states("blind", once="AgentIterationsSpike")
    assert states == {
        "AgentIterationsSpike": "suppressed",
        "AgentSuccessRateCritical": "active",
        "AgentLatencyP99High": "active",
    }


async def test_nobody_refused_what_they_were_told(oncall: Oncall) -> None:
    async with oncall.http.get(f"{oncall.url}/metrics") as answer:
        failed = [
            line
            for line in (await answer.text()).splitlines()
            if line.startswith("alertmanager_notification_requests_failed_total{") and not line.endswith(" 0")
        ]

    assert failed == []
