"""An alert on its way through the real Alertmanager and `agent-oncall controller` to an agent's copy of the state."""

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_oncall.schema import State, StateError, loads
from alert_rules.routing import Receivers, alertmanager_config
from stack import programs
from stack.pager import ROUTING_KEY
from stack.ports import LOOPBACK, Ports
from stack.processes import Processes, Program
from stack.servers import ALERTMANAGER, get
from tests.controller.states import new_store
from tests.stack.ports import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CONTROLLER = (sys.executable, "-m", "cli.main", "controller")


async def until(path: Path, condition: Callable[[State], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                if condition(loads(path.read_bytes())):
                    return
            except (OSError, StateError):
                pass
            await asyncio.sleep(0.02)


def breaker(state: State) -> str:
    found = state.agents["support"].breaker
    return found.state if found else ""


async def test_a_page_opens_the_breaker_on_another_host_and_its_end_closes_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path / "state")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, text in (
        ("controller_token", "a-token"),
        ("state_token", "another"),
        ("pagerduty_routing_key", ROUTING_KEY),
        ("slack_api_url", "http://127.0.0.1:9/slack"),
    ):
        (secrets / name).write_text(text)
    own, *rest = free_ports(9)
    ports = Ports(*rest[: len(Ports.__dataclass_fields__)])
    receivers = Receivers(
        pagerduty_url="http://127.0.0.1:9/v2/enqueue",
        secrets_dir=str(secrets),
        controller_url=f"http://{LOOPBACK}:{own}/alerts",
    )
    (tmp_path / "alertmanager").mkdir()
    (tmp_path / "alertmanager" / "alertmanager.yml").write_text(alertmanager_config(receivers))
    settings = tmp_path / "controller.yml"
    settings.write_text(
        json.dumps(
            {
                "listen": {"address": f"{LOOPBACK}:{own}"},
                "state": str(store.path),
                "token_file": str(secrets / "controller_token"),
                "state_token_file": str(secrets / "state_token"),
                "actions": {"breaker": "act"},
                "prometheus": {"url": None},
            }
        )
    )
    copy = tmp_path / "agent" / "flags.json"
    follow = (
        *(sys.executable, "-m", "cli.main", "state", "follow", "--url", f"http://{LOOPBACK}:{own}"),
        *("--token-file", str(secrets / "state_token"), "--state", str(copy)),
    )
    processes = Processes(tmp_path / "logs")
    try:
        ready = f"http://{LOOPBACK}:{own}/healthz"
        await processes.start(Program("controller", [*CONTROLLER, "--config", str(settings)], ready=ready, url=ready))
        await processes.start(Program("follow", list(follow), ready="", url=""))
        await processes.start(programs.alertmanager(get([ALERTMANAGER])[ALERTMANAGER], tmp_path, ports))
        await until(copy, lambda state: breaker(state) == "closed")

        began = time.monotonic()
        await asyncio.to_thread(tell, ports, ends=timedelta(hours=1))
        await until(copy, lambda state: breaker(state) == "open")
        print(f"{time.monotonic() - began:.1f} s from Alertmanager to another host")
        assert store.entries()[-1].why == "AgentRunawayLoop: tasks loop"

        await asyncio.to_thread(tell, ports, ends=timedelta(seconds=-1))
        log = tmp_path / "logs" / "controller.log"
        async with asyncio.timeout(60):
            while "resolved" not in log.read_text():
                await asyncio.sleep(0.1)
        assert breaker(store.read()) == "open"

        changes = len(store.entries())
        await processes.close()
        assert breaker(loads(copy.read_bytes())) == "open"
        assert len(store.entries()) == changes
    finally:
        await processes.close()


def tell(ports: Ports, *, ends: timedelta) -> None:
    """Tells Alertmanager of a runaway loop, as Prometheus does."""
    now = datetime.now(UTC)
    alert = {
        "labels": {
            "alertname": "AgentRunawayLoop",
            "agent": "support",
            "action": "breaker",
            "severity": "P1",
            "cause": "cost",
        },
        "annotations": {"summary": "tasks loop", "description": "x"},
        "startsAt": (now - timedelta(minutes=1)).isoformat(),
        "endsAt": (now + ends).isoformat(),
    }
    request = urllib.request.Request(
        f"http://{LOOPBACK}:{ports.alertmanager}/api/v2/alerts",
        json.dumps([alert]).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()
