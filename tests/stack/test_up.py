"""`agent-oncall up` as a person has it: the command, its output, the servers behind it, and nothing left after it."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from stack import servers
from tests.stack.up import Up, get

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
def up(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Up]:
    running = Up(tmp_path, *getattr(request, "param", ()))
    yield running
    running.process.kill()
    running.process.wait()


@pytest.mark.parametrize("up", [("--break-after", "5")], indirect=True)
def test_a_newcomer_sees_traffic_a_runaway_and_its_page_and_ctrl_c_leaves_nothing(
    up: Up, capsys: pytest.CaptureFixture[str]
) -> None:
    up.until("PagerDuty pages")
    said = up.said()
    assert said.index("start to work") < said.index("tool lookup_order breaks") < said.index("PagerDuty pages")
    pages = get(f"http://127.0.0.1:{up.ports.pager}/api/pages")
    assert [page["service"] for page in pages["open"]] == ["pagerduty"]
    assert "support-agent" in pages["open"][0]["summary"]

    assert "no Grafana runs here" in said
    up.until("a report: ")
    (command,) = re.findall("a report: agent-oncall (.*)", up.said())
    report = ""
    # (the page is there in the second in which the alert is: Prometheus may tell of it in the next)
    while "`AgentRunawayLoop` fired at" not in report:
        assert main(shlex.split(command)) == 0
        report = capsys.readouterr().out
    assert "127.0.0.1:3000" not in report

    up.process.send_signal(signal.SIGINT)
    assert up.ended() == 0, up.said()
    assert up.children() == []
    assert list(up.temporary.iterdir()) == []


@pytest.mark.parametrize("up", [("--break-after", "5")], indirect=True)
def test_the_controller_runs_dry_and_has_not_failed(up: Up) -> None:
    up.until("AgentRunawayLoop fires")
    address = f"http://127.0.0.1:{up.ports.controller}/metrics"
    held = 'agent_controller_held_back_total{action="breaker",agent="support-agent",why="dry_run"} '
    told = ""
    while held not in told:
        assert up.process.poll() is None, up.said()
        told = urllib.request.urlopen(address, timeout=5).read().decode()
        time.sleep(0.2)
    failures = [line for line in told.splitlines() if line.startswith("agent_controller_failures_total{")]
    assert failures
    assert [line for line in failures if not line.endswith(" 0.0")] == []


@pytest.mark.skipif(
    not (servers.find(servers.COLLECTOR) and servers.find(servers.JAEGER)),
    reason="no Collector or no Jaeger here: tools/servers otelcol jaeger builds them",
)
@pytest.mark.parametrize("up", [("--break-after", "never")], indirect=True)
def test_with_a_collector_and_jaeger_a_metrics_exemplar_leads_to_its_trace(up: Up) -> None:
    up.until("three demo agents start")
    asked = f"http://127.0.0.1:{up.ports.prometheus}/api/v1/query_exemplars?query=agent_task_cost_usd_bucket"
    found: list[Any] = []
    while not found:
        assert up.process.poll() is None, up.said()
        found = get(f"{asked}&start={time.time() - 600}&end={time.time()}")["data"]
        time.sleep(0.5)
    trace = found[0]["exemplars"][0]["labels"]["trace_id"]
    (told,) = get(f"http://127.0.0.1:{up.ports.jaeger}/api/traces/{trace}")["data"]
    assert "agent.task" in {span["operationName"] for span in told["spans"]}


@pytest.mark.parametrize("up", [("--break-after", "never")], indirect=True)
def test_a_server_that_dies_ends_the_stack_and_says_why(up: Up) -> None:
    up.until("three demo agents start")
    prometheus = next(pid for pid in up.children() if b"prometheus.yml" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(prometheus, signal.SIGKILL)
    assert up.ended() == 1
    assert "agent-oncall up: prometheus was ended by SIGKILL" in up.said()
    assert "The last lines of its log" in up.said()
    assert up.children() == []


@pytest.mark.parametrize("up", [("--break-after", "never")], indirect=True)
def test_killed_it_takes_its_servers_with_it(up: Up) -> None:
    up.until("three demo agents start")
    assert len(up.children()) >= 4
    up.process.kill()
    while up.children():
        time.sleep(0.1)


def test_data_in_a_named_folder_stays(tmp_path: Path) -> None:
    data = tmp_path / "kept"
    up = Up(tmp_path, "--no-demo", "--data", str(data))
    up.until("ready: agents send OTLP")
    up.process.terminate()
    assert up.ended() == 0, up.said()
    assert (data / "prometheus" / "tsdb").is_dir()
    assert (data / "journal").is_dir()


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    first = Up(tmp_path, "--break-after", "never")
    first.until("ready: agents send OTLP")
    try:
        second = subprocess.run(
            [sys.executable, "-m", "cli.main", "up", f"--port-offset={first.offset}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        first.process.terminate()
        first.ended()
    assert second.returncode == 2
    assert f"port {first.ports.otlp_grpc} (otlp grpc)" in second.stderr
    assert "--port-offset" in second.stderr
