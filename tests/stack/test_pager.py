import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from alert_rules.thresholds import load
from stack import configure, programs, servers
from stack.pager import LOOPBACK, ROUTING_KEY, Message, Pager
from stack.ports import Ports
from stack.processes import Processes
from tests.stack.ports import free_ports


@pytest.fixture
async def pager() -> AsyncIterator[tuple[Pager, str]]:
    pager = Pager(clock=lambda: 1000.0, most=5)
    serving = await pager.serve(0)
    yield pager, f"http://{LOOPBACK}:{serving.port}"
    await serving.close()


def event(**changes: Any) -> dict[str, Any]:
    payload = {"summary": "spends too much", "source": "prometheus", "severity": "critical"}
    return {
        "routing_key": ROUTING_KEY,
        "event_action": "trigger",
        "dedup_key": "a",
        "payload": payload,
        "links": [{"href": "https://runbooks.example/a", "text": "Runbook"}],
        **changes,
    }


async def post(url: str, body: Any) -> tuple[int, str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.ClientSession() as http, http.post(url, data=data) as answer:
        return answer.status, await answer.text()


async def test_a_pagerduty_event_is_answered_as_pagerduty_does(pager: tuple[Pager, str]) -> None:
    status, text = await post(f"{pager[1]}/v2/enqueue", event())
    assert status == 202
    assert json.loads(text) == {"status": "success", "message": "Event processed", "dedup_key": "a"}
    assert pager[0].messages[0].links == ("https://runbooks.example/a",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"routing_key": "short"}, "routing_key"),
        ({"event_action": "shout"}, "event_action"),
        ({"dedup_key": "k" * 256}, "dedup_key"),
        ({"payload": None}, "payload"),
        ({"payload": {"summary": "", "source": "s", "severity": "critical"}}, "payload.summary"),
        ({"payload": {"summary": "s", "source": "s", "severity": "P1"}}, "payload.severity"),
        ({"links": [{"href": "", "text": "Runbook"}]}, "href"),
        ({"event_action": "resolve", "dedup_key": ""}, "dedup_key"),
    ],
)
async def test_what_pagerduty_refuses_is_refused_with_the_reason(
    pager: tuple[Pager, str], changes: dict[str, Any], reason: str
) -> None:
    status, text = await post(f"{pager[1]}/v2/enqueue", event(**changes))
    assert status == 400
    assert reason in json.loads(text)["errors"][0]
    assert not pager[0].messages


async def test_an_incident_is_open_until_it_is_resolved(pager: tuple[Pager, str]) -> None:
    for body in (event(), event(), event(dedup_key="b"), event(event_action="resolve")):
        await post(f"{pager[1]}/v2/enqueue", body)
    assert [incident.key for incident in pager[0].open_incidents()] == ["b"]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"text": "hello"}, (200, "ok")),
        ({"attachments": [{"title": "a", "text": "b"}]}, (200, "ok")),
        ({}, (400, "no_text")),
        ({"attachments": "no list"}, (400, "invalid_attachments")),
        ([], (400, "invalid_payload")),
    ],
)
async def test_a_slack_message_is_answered_as_slack_does(
    pager: tuple[Pager, str], body: Any, answer: tuple[int, str]
) -> None:
    assert await post(f"{pager[1]}/services/T0/B0/x", body) == answer


async def test_what_is_no_json_is_refused(pager: tuple[Pager, str]) -> None:
    assert (await post(f"{pager[1]}/v2/enqueue", b"{"))[0] == 400
    assert (await post(f"{pager[1]}/services/T0/B0/x", b"{"))[0] == 400


async def test_only_the_newest_messages_are_kept(pager: tuple[Pager, str]) -> None:
    for number in range(7):
        await post(f"{pager[1]}/v2/enqueue", event(dedup_key=str(number)))
    async with aiohttp.ClientSession() as http, http.get(f"{pager[1]}/api/pages") as answer:
        pages = await answer.json()
    assert [message["key"] for message in pages["messages"]] == ["6", "5", "4", "3", "2"]


async def test_details_that_a_newer_alertmanager_read_as_yaml_are_shown_as_the_lines_they_were(
    pager: tuple[Pager, str],
) -> None:
    payload = {"summary": "s", "source": "p", "severity": "critical"}
    details = {"agent": None, "what": ["spends too much", {"support-agent": "40 tasks loop"}]}
    await post(f"{pager[1]}/v2/enqueue", event(payload={**payload, "custom_details": details}))
    assert pager[0].messages[0].text == "agent: \nwhat: - spends too much\n- support-agent: 40 tasks loop"


async def test_the_page_shows_messages_as_text(pager: tuple[Pager, str]) -> None:
    payload = {"summary": "<script>alert(1)</script>", "source": "s", "severity": "critical"}
    await post(f"{pager[1]}/v2/enqueue", event(payload=payload))
    async with aiohttp.ClientSession() as http, http.get(pager[1]) as answer:
        page = await answer.text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>" not in page


async def test_a_real_alertmanager_pages_and_chats(tmp_path: Path) -> None:
    binary = servers.get([servers.ALERTMANAGER])[servers.ALERTMANAGER]
    came: asyncio.Queue[Message] = asyncio.Queue()
    pager = Pager(on_message=came.put_nowait)
    serving = await pager.serve(0)
    ports = Ports(alertmanager=free_ports(1)[0], pager=serving.port)
    configure.write(tmp_path, ports, load(None))
    # Chat waits half a minute for more of the same, which this test need not.
    config = tmp_path / "alertmanager" / "alertmanager.yml"
    config.write_text(config.read_text().replace("group_wait: 30s", "group_wait: 0s"))
    processes = Processes(tmp_path / "logs")
    try:
        program = programs.alertmanager(binary, tmp_path, ports)
        await processes.start(program)
        alert = {
            "labels": {"alertname": "AgentCostAnomaly", "agent": "bot", "severity": "P1", "cause": "cost"},
            "annotations": {
                "summary": "bot spends 217 USD an hour",
                "description": "look for a loop",
                "runbook_url": "https://runbooks.example/AgentCostAnomaly",
                "dashboard_url": "http://127.0.0.1:3000/d/x",
            },
        }
        await post_alert(program.url, alert)
        page = await came.get()
        assert (page.service, page.action, page.severity) == ("pagerduty", "trigger", "critical")
        assert page.summary == "bot spends 217 USD an hour"
        assert "https://runbooks.example/AgentCostAnomaly" in page.links

        chat = {**alert, "labels": {"alertname": "Other", "agent": "bot", "severity": "P2", "cause": "other"}}
        await post_alert(program.url, chat)
        message = await came.get()
        assert (message.service, message.key) == ("slack", "#agent-oncall")
        assert message.summary == "bot spends 217 USD an hour"
    finally:
        await processes.close()
        await serving.close()


async def post_alert(url: str, alert: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/api/v2/alerts", json=[alert]) as answer:
        assert answer.status == 200, await answer.text()
