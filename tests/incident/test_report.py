"""`agent-oncall incident` on a real Prometheus that holds a night, and a real Alertmanager."""

import asyncio
import json
import re
import struct
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from agent_oncall.schema import Bundle
from cli.main import main
from controller import actions
from controller.store import Store
from stack import programs
from stack.past import Labels, PastPrometheus, Samples, labels_of
from stack.ports import LOOPBACK, Ports
from stack.processes import Processes
from stack.servers import ALERTMANAGER, get
from tests.stack.ports import free_ports

NIGHT = Path(__file__).parent / "night.md"
PAGE = Path(__file__).parents[2] / "docs" / "incident-report.md"

START = 1_700_431_200.0  # 2023-11-19 22:00 UTC
BROKEN, MENDED, END = START + 2400, START + 4200, START + 7200
STEP = 15
WINDOW = ("--since", "2023-11-19T22:00Z", "--until", "2023-11-20T00:00Z")
STALE: float = struct.unpack("<d", (0x7FF0000000000002).to_bytes(8, "little"))[0]
"""What Prometheus writes where a series ends."""

TIMES = [START - 600 + STEP * i for i in range(int(END - START + 600) // STEP + 1)]
SERVED = {"job": "agent-exporter", "instance": "127.0.0.1:9464"}


def series(name: str, value: Callable[[float], float], /, **labels: str) -> tuple[Labels, Samples]:
    return labels_of(name, {"agent": "support-agent", **SERVED, **labels}), (TIMES, [value(at) for at in TIMES])


def counter(name: str, usual: float, broken: float, /, **labels: str) -> tuple[Labels, Samples]:
    """A counter that grows by so much a minute, and by so much more while the tool is broken."""

    def value(at: float) -> float:
        return (usual * (at - TIMES[0]) + broken * (min(max(at, BROKEN), MENDED) - BROKEN)) / 60

    return series(name, value, **labels)


def active(alert: str, state: str, since: float, until: float, /, **labels: str) -> tuple[Labels, Samples]:
    """An alert's series while it is in this state, and the mark of its end."""
    times = [since + STEP * i for i in range(int(until - since) // STEP + 1)]
    values = [1.0] * (len(times) - 1) + [STALE]
    return labels_of("ALERTS", {"alertname": alert, "alertstate": state, "severity": "P1", **labels}), (times, values)


def night() -> Iterator[tuple[Labels, Samples]]:
    """Two hours of an agent whose tool is broken for half an hour: 20 USD a minute instead of 0.50."""
    stable = {"variant": "stable"}
    model = {"model": "gpt-4o-2024-08-06", **stable}
    yield counter("agent_spend_usd_total", 0.5, 0, purpose="progress", **model)
    yield counter("agent_spend_usd_total", 0, 19.5, purpose="recovery", **model)
    yield series("agent:spend_usd:expected", lambda _: 0.4 / 60, basis="week")
    yield series("agent:spend_usd:expected", lambda _: 0.5 / 60, basis="traffic")
    yield series("agent:spend_usd:rate", lambda at: (20 if BROKEN < at <= MENDED else 0.5) / 60, window="5m")
    yield series("agent:spend_usd:limit", lambda _: 4 / 60)
    yield counter("agent_tasks_started_total", 10, 0, **stable)
    yield counter("agent_tasks_started_total", 1, 0, variant="canary")
    types = {"task_type": "order"}
    yield counter("agent_tasks_total", 9, 0, outcome="success", **types, **stable)
    yield counter("agent_tasks_total", 1, 0, outcome="success", variant="canary", **types)
    yield counter("agent_tasks_total", 1, 0, outcome="error", reason="tool", **types, **stable)
    yield counter("agent_tasks_total", 0, 2, outcome="abandoned", reason="user_cancel", **types, **stable)
    yield counter("agent_tasks_looped_total", 0, 4, why="failing_tool")
    yield series("agent_tasks_looping", lambda at: 120.0 * (BROKEN < at <= MENDED), why="failing_tool")
    yield series("agent_tasks_in_flight", lambda at: 130.0 if BROKEN < at <= MENDED else 12.0)
    yield series("agent_task_in_flight_iterations_max", lambda at: 212.0 if BROKEN < at <= MENDED else 6.0)
    yield series("agent_task_in_flight_spend_usd_max", lambda at: 4.2 if BROKEN < at <= MENDED else 0.11)
    yield counter("agent_tool_calls_total", 12, 0, tool="lookup_order", result="ok", **stable)
    yield counter("agent_tool_calls_total", 0, 40, tool="lookup_order", result="error", **stable)
    yield counter("agent_tool_calls_total", 30, 0, tool="search_docs", result="ok", **stable)
    yield counter("agent_iterations_total", 0.2, 0, stop_reason="error", **model)
    yield counter("agent_iterations_total", 40, 0, stop_reason="tool_use", **model)
    yield counter("agent_breaker_trips_total", 0, 0.5, why="iterations")
    failures = labels_of("agent_controller_failures_total", {"job": "controller", "action": "breaker", "why": "state"})
    yield failures, (TIMES, [2.0 * (at > BROKEN + 60) for at in TIMES])
    yield active("AgentCostAnomaly", "pending", BROKEN + 60, BROKEN + 120, agent="support-agent", cause="cost")
    yield active("AgentCostAnomaly", "firing", BROKEN + 120, MENDED + 600, agent="support-agent", cause="cost")
    yield active("AgentRunawayLoop", "firing", BROKEN + 45, MENDED + 600, agent="support-agent", action="breaker")
    yield active("AgentSuccessRateLow", "pending", START - 300, START + 300, agent="support-agent")
    yield active("AgentExporterDown", "firing", START + 6000, START + 6300, instance="127.0.0.1:9464")
    yield active("NodeFilesystemFull", "firing", START + 6000, START + 6300, instance="db-1")
    yield active("AgentLatencyP99High", "firing", START + 600, END, agent="research-agent")
    others = {"agent": "research-agent", **stable}
    yield counter("agent_tasks_started_total", 2, 0, **others)
    yield counter("agent_spend_usd_total", 0.25, 0, purpose="progress", **{**model, **others})

    thrifty = {"agent": "thrifty-agent", **stable}
    yield counter("agent_tasks_started_total", 2, 0, **thrifty)
    yield counter("agent_spend_usd_total", 0.25, 0, purpose="progress", **{**model, **thrifty})
    yield series("agent:spend_usd:expected", lambda _: 0.5 / 60, basis="week", agent="thrifty-agent")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (port,) = free_ports(1)
    with closing(PastPrometheus(tmp_path_factory.mktemp("past"), port)) as past:
        past.write(night())
        yield past.url


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state that somebody changed in that night."""
    clock = [START - 86400.0]
    store = Store(tmp_path / "flags.json", clock=lambda: clock[0])
    bundle = Bundle("gpt-4o-2024-08-06", "openai", "support", "1.9.0", 0.0, 25, "")
    store.create(who="ada@host", why="made")
    add = partial(actions.add_agent, name="support-agent", bundle=bundle)
    store.change(add, action="state init", agent="support-agent", who="ada@host", why="first version")
    clock[0] = BROKEN + 600
    store.change(
        lambda now: actions.set_breaker(now, "support-agent", "open", since="2023-11-19T22:50:00Z", why="loops"),
        action="breaker open",
        agent="support-agent",
        who="ada@host",
        why="loops | see *the* trace",
    )
    return store.path


def written(capsys: pytest.CaptureFixture[str], prometheus: str, *options: str, alert: str = "AgentRunawayLoop") -> str:
    """What the command prints, with a Prometheus alone unless `options` name others."""
    command = ["incident", "--alert", alert, "--agent", "support-agent", *WINDOW, "--alertmanager", ""]
    assert main([*command, "--prometheus", prometheus, *options]) == 0
    return capsys.readouterr().out


def section(report: str, title: str) -> str:
    return report.partition(f"## {title}\n")[2].partition("\n## ")[0].strip()


def test_the_whole_report_is_as_the_one_that_is_kept(
    prometheus: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = written(capsys, prometheus, "--state", str(state))

    assert report == NIGHT.read_text(encoding="utf-8")


def test_the_page_shows_a_report_as_it_is_written() -> None:
    (example,) = re.findall(r"```markdown\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    parts = [part.strip("\n") for part in example.split("\n[...]\n")]

    assert [part for part in parts if part not in NIGHT.read_text(encoding="utf-8")] == []


def test_written_again_it_is_the_same(prometheus: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (written(capsys, prometheus, "--state", str(state)) for _ in range(2))

    assert one == other


def test_what_the_controller_could_not_do_is_told(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = written(capsys, prometheus)

    assert "- The controller failed 2 times, counted over all agents." in report
    assert "| could not | `breaker` | `state` | 2 |" in section(report, "Actions taken")


def test_where_it_did_not_fail_nothing_is_said_of_it(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = written(capsys, prometheus, "--until", "2023-11-19T22:30Z")

    assert "failed 2 times" not in report
    assert "of none that it held back, and of none that failed." in section(report, "Actions taken")


def test_it_goes_to_a_file_where_one_is_named(
    prometheus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "night.md"

    assert written(capsys, prometheus, "--output", str(file)) == ""
    assert file.read_text(encoding="utf-8").startswith("# AgentRunawayLoop: support-agent\n")


def test_a_duration_goes_back_from_the_end(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = written(capsys, prometheus, "--since", "1h30m")

    assert "2023-11-19 22:30:00 to 2023-11-20 00:00:00 UTC" in report


def test_an_alert_that_did_not_fire_is_said_so_and_what_did(
    prometheus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = written(capsys, prometheus, alert="AgentErrorRateHigh")

    assert (
        "`AgentErrorRateHigh` did not fire in this time; "
        "what fired: `AgentCostAnomaly`, `AgentExporterDown`, `AgentRunawayLoop`." in report
    )


def test_an_alert_that_fires_to_the_end_is_told_as_such(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = written(capsys, prometheus, "--until", "2023-11-19T23:00Z")

    assert "`AgentRunawayLoop` fired at 2023-11-19 22:40:45, for 19 min; it still did at the end." in report
    assert "`AgentRunawayLoop` is over" not in report


def test_where_expected_spend_is_not_recorded_no_difference_is_told(
    prometheus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = section(written(capsys, prometheus, "--agent", "research-agent"), "Cost")

    assert "| spent | 30.00 USD |" in cost
    assert "No expected spend is recorded of this time" in cost
    assert "above expected" not in cost


def test_an_agent_that_cost_less_than_expected_is_told_below(
    prometheus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = written(capsys, prometheus, "--agent", "thrifty-agent")

    assert "- It cost 30.00 USD below the 60.00 USD expected." in report
    assert "| **below expected** | **30.00 USD** |" in section(report, "Cost")


def test_without_a_prometheus_the_top_says_once_that_nothing_is_known(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = written(capsys, "", "--state", str(state))

    assert report.count("- No Prometheus was asked: neither what fired nor what it cost is known.") == 1
    assert "- The state was changed once" in report


def test_without_a_grafana_nothing_links_to_one(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = written(capsys, prometheus, "--grafana-url", "")

    assert re.findall(r"\]\(([^)]*)\)", report.partition("## Alertmanager")[0]) == [
        "https://github.com/agent-oncall/agent-oncall/blob/main/docs/runbooks/AgentRunawayLoop.md"
    ]
    assert "there are no links to them" in section(report, "Traces")


def test_without_a_grafana_traces_elsewhere_are_linked(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    jaeger = "http://127.0.0.1:16686/search?service={agent}"
    report = written(capsys, prometheus, "--grafana-url", "", "--traces-url", jaeger)

    assert "(http://127.0.0.1:16686/search?service=support-agent)" in section(report, "Traces")


def test_without_an_audit_log_it_is_said_that_actions_are_not_known(
    prometheus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = written(capsys, prometheus, "--state", str(tmp_path / "flags.json"))

    assert f"There is no audit log at `{tmp_path}/audit.jsonl`" in section(report, "Actions taken")


def test_servers_that_do_not_answer_are_told_in_each_section_and_nothing_is_made_up(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = f"http://{LOOPBACK}:{free_ports(1)[0]}"
    command = ["incident", "--alert", "AgentRunawayLoop", "--agent", "support-agent", *WINDOW]

    assert main([*command, "--prometheus", nobody, "--alertmanager", nobody, "--state", str(state)]) == 1

    printed = capsys.readouterr()
    for title in ("Timeline", "Cost", "Tasks", "Tools and errors", "Variants", "Traces"):
        assert "Prometheus could not be asked: of this nothing is known." in section(printed.out, title)
    assert "USD" not in printed.out
    assert "Alertmanager could not be asked" in section(printed.out, "Alertmanager, now")
    assert "`breaker open` by ada@host" in section(printed.out, "Actions taken")
    assert f"missing in the report: Prometheus: {nobody}" in printed.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--agent", "suport-agent"], "the agents there were: research-agent, support-agent, thrifty-agent"),
        (["--alert", "AgentRunaway"], "--alert AgentRunaway: there is no such alert; there are AgentAbandonRateHigh,"),
        (["--alert", "Watchdog"], "--alert Watchdog: it always fires, about no agent"),
        (["--since", "yesterday"], "--since yesterday: neither a duration such as 2h nor a time such as"),
        (["--since", "2023-11-20T01:00Z"], "begins at 2023-11-20 01:00:00, and the window ends at 2023-11-20 00:00:00"),
        (["--since", "36d"], "more than 35 days"),
        (["--until", "2999-01-01"], "--until 2999-01-01: is yet to come"),
    ],
)
def test_what_cannot_be_reported_on_is_refused_by_name(
    options: list[str], said: str, prometheus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["incident", "--alert", "AgentRunawayLoop", "--agent", "support-agent", *WINDOW]

    assert main([*command, "--alertmanager", "", "--prometheus", prometheus, *options]) == 2

    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


@pytest_asyncio.fixture
async def alertmanager(tmp_path: Path) -> AsyncIterator[str]:
    """One to which the alert is known, and whom somebody told to be silent about it."""
    ports = Ports(alertmanager=free_ports(1)[0])
    (tmp_path / "alertmanager").mkdir()
    config = "route: {receiver: pagerduty}\nreceivers: [{name: pagerduty}]\n"
    (tmp_path / "alertmanager" / "alertmanager.yml").write_text(config, encoding="utf-8")
    processes = Processes(tmp_path / "logs")
    program = programs.alertmanager(get([ALERTMANAGER])[ALERTMANAGER], tmp_path, ports)
    await processes.start(program)
    assert program.url is not None
    labels = {"alertname": "AgentRunawayLoop", "agent": "support-agent"}
    alert = {"labels": labels, "startsAt": "2023-11-19T22:40:45Z", "annotations": {"summary": "41 tasks loop"}}
    is_it = [{"name": name, "value": value, "isRegex": False} for name, value in labels.items()]
    silence = {"matchers": is_it, "createdBy": "ada", "comment": "known", "startsAt": "2023-11-19T22:00:00Z"}
    await asyncio.to_thread(post, f"{program.url}/api/v2/alerts", [alert])
    await asyncio.to_thread(post, f"{program.url}/api/v2/silences", {**silence, "endsAt": "2999-01-01T00:00:00Z"})
    yield program.url
    await processes.close()


def post(url: str, content: object) -> None:
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()


async def test_what_alertmanager_does_about_it_is_told_with_who_silenced_it(
    prometheus: str, alertmanager: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = await asyncio.to_thread(written, capsys, prometheus, "--alertmanager", alertmanager)

    assert section(report, "Alertmanager, now").splitlines() == [
        "- `suppressed` since 2023-11-19 22:40:45, for `pagerduty`: 41 tasks loop",
        "  - silenced by ada until 2999-01-01 00:00:00: known",
    ]
