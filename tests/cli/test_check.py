"""`agent-oncall check` against real servers: a healthy installation, and one where things are wrong."""

import asyncio
import contextlib
import http.server
import io
import json
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from alert_rules.generate import alerts, groups, prometheus_config, rule_files
from alert_rules.routing import Receivers, alertmanager_config
from alert_rules.rules import Site
from alert_rules.thresholds import load
from cli.main import main
from dashboards.generate import dashboard_files
from stack import programs
from stack.ports import LOOPBACK, Ports
from stack.processes import Processes, Program
from stack.servers import ALERTMANAGER, PROMETHEUS, cache_folder, get
from tests.stack.ports import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Nobody's address: nothing is sent to the outside.
NOWHERE = Receivers(
    pagerduty_url="http://127.0.0.1:9/v2/enqueue", secrets_dir="/nowhere", controller_url="http://127.0.0.1:9/alerts"
)
UNUSED = ("--without", "library", "--without", "controller")


@dataclass(frozen=True)
class Installation:
    """Addresses of servers that are as they should be, and of a second Prometheus and Alertmanager that are not."""

    exporter: str
    prometheus: str
    alertmanager: str
    wrong_prometheus: str
    wrong_alertmanager: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    data = tmp_path_factory.mktemp("check")
    right, wrong = data / "right", data / "wrong"
    grpc, http, metrics, *ports = free_ports(7)
    right_ports = Ports(grpc, http, metrics, prometheus=ports[0], alertmanager=ports[1])
    wrong_ports = Ports(grpc, http, metrics, prometheus=ports[2], alertmanager=ports[3])
    misconfigure(wrong, wrong_ports)
    found = get([PROMETHEUS, ALERTMANAGER])
    async with AsyncExitStack() as stack:
        processes, others = Processes(data / "logs"), Processes(data / "wrong-logs")
        stack.push_async_callback(processes.close)
        stack.push_async_callback(others.close)
        switch = stack.enter_context(answering({"/beat": ""}))
        configure(right, right_ports, replace(NOWHERE, watchdog_url=f"{switch}/beat"))
        await processes.start(programs.exporter(right, right_ports, None))
        await processes.start(demo(f"{LOOPBACK}:{grpc}"))
        await others.start(programs.alertmanager(found[ALERTMANAGER], wrong, wrong_ports))
        await others.start(without_features(programs.prometheus(found[PROMETHEUS], wrong, wrong_ports)))
        await processes.start(programs.alertmanager(found[ALERTMANAGER], right, right_ports))
        await processes.start(impatient(programs.prometheus(found[PROMETHEUS], right, right_ports)))
        installation = Installation(*(f"http://{LOOPBACK}:{port}" for port in (metrics, *ports)))
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(settled, installation):
                await asyncio.sleep(0.2)
        yield installation


def configure(data: Path, ports: Ports, receivers: Receivers) -> None:
    """As `agent-oncall generate` does, with intervals that one need not wait for."""
    rules = data / "prometheus" / "rules"
    rules.mkdir(parents=True)
    for name, text in rule_files(load(), Site()).items():
        (rules / name).write_text(text, encoding="utf-8")
    config = prometheus_config(
        exporters=[f"{LOOPBACK}:{ports.metrics}"],
        alertmanagers=[f"{LOOPBACK}:{ports.alertmanager}"],
        scrape_interval="1s",
        evaluation_interval="1s",
    )
    (data / "prometheus" / "prometheus.yml").write_text(config, encoding="utf-8")
    (data / "alertmanager").mkdir()
    (data / "alertmanager" / "alertmanager.yml").write_text(alertmanager_config(receivers), encoding="utf-8")


def misconfigure(data: Path, ports: Ports) -> None:
    """Another job's name, labels that are lost, one group changed and one broken; all alerts go to one mailbox."""
    rules = data / "prometheus" / "rules"
    rules.mkdir(parents=True)
    health = rule_files(load(), Site())["agent-health.yml"].replace("for: 3m", "for: 30m")
    (rules / "agent-health.yml").write_text(health, encoding="utf-8")
    # Two series where the label agent is gone: no expression that joins them can be evaluated.
    broken = "groups: [{name: agent-cost, rules: [{record: 'agent:seen', expr: 'up * on () group_right () up'}]}]"
    (rules / "agent-cost.yml").write_text(broken, encoding="utf-8")
    # As if left from a version that had it in this group; and a heartbeat of somebody else.
    old = "groups: [{name: agent-old, rules: [{alert: AgentToolValidityLow, expr: vector(0) > 1}]}]"
    (rules / "agent-old.yml").write_text(old, encoding="utf-8")
    general = "groups: [{name: general, rules: [{alert: Watchdog, expr: vector(1), labels: {severity: none}}]}]"
    (rules / "general.yml").write_text(general, encoding="utf-8")
    (data / "prometheus" / "prometheus.yml").write_text(
        f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules/*.yml]
alerting:
  alert_relabel_configs: [{{action: drop, source_labels: [severity], regex: P1}}]
scrape_configs:
  - job_name: llm
    static_configs: [{{targets: ["{LOOPBACK}:{ports.metrics}"], labels: {{agent: ours}}}}]
  - job_name: dead
    static_configs: [{{targets: ["{LOOPBACK}:9"]}}]
""",
        encoding="utf-8",
    )
    (data / "alertmanager").mkdir()
    (data / "alertmanager" / "alertmanager.yml").write_text(
        """
route:
  receiver: mailbox
  group_by: [alertname]
  routes: [{receiver: pagerduty, matchers: [severity="P1"]}]
receivers:
  - name: mailbox
    webhook_configs: [{url: "http://127.0.0.1:9/"}]
  - name: pagerduty
inhibit_rules:
  - {source_matchers: [severity="P1"], target_matchers: [severity="P2"], equal: [agent]}
""",
        encoding="utf-8",
    )


def demo(target: str) -> Program:
    command = [sys.executable, "-m", "cli.main", "demo", "normal", "--otlp", target, "--speed", "20"]
    return Program("demo", command)


def impatient(program: Program) -> Program:
    """What is sent before Alertmanager is known is lost, and comes again after a minute if not told otherwise."""
    return replace(program, command=[*program.command, "--rules.alert.resend-delay=1s"])


def without_features(program: Program) -> Program:
    dropped = ("--enable-feature=exemplar-storage", "--storage.tsdb.retention.time=35d")
    return replace(program, command=[word for word in program.command if word not in dropped])


def settled(installation: Installation) -> bool:
    """Whether agents are seen, the quick groups are evaluated, and the heartbeat has arrived."""
    found = ask(f"{installation.prometheus}/api/v1/query?query=agent:seen")["data"]["result"]
    broken = ask(f"{installation.wrong_prometheus}/api/v1/rules")["data"]["groups"]
    beats = ask(f"{installation.alertmanager}/api/v2/alerts?filter=alertname%3DWatchdog")
    evaluated = all(rule["health"] != "unknown" for group in broken for rule in group["rules"])
    return bool(found and beats and evaluated)


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


async def check(*arguments: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = await asyncio.to_thread(main, ["check", *arguments])
    return code, printed.getvalue()


def problems(text: str) -> list[str]:
    """Each problem with what to do, as one line."""
    return [line for line in text.replace("\n         → ", " → ").splitlines() if line.startswith("problem")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wrong_prometheus(servers: Installation) -> list[str]:
    """The problems of the Prometheus that is not as it should be."""
    code, text = await check("--prometheus", servers.wrong_prometheus, "--alertmanager", "", *UNUSED)
    assert code == 1
    return problems(text)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wrong_alertmanager(servers: Installation) -> list[str]:
    """The problems of the Alertmanager that is not as it should be."""
    code, text = await check("--prometheus", "", "--alertmanager", servers.wrong_alertmanager)
    assert code == 1
    return problems(text)


async def test_a_complete_installation_is_well(servers: Installation) -> None:
    code, text = await check(
        *("--prometheus", servers.prometheus, "--alertmanager", servers.alertmanager, "--exporter", servers.exporter),
        *UNUSED,
    )

    assert problems(text) == []
    assert code == 0
    assert f"{len(groups(load()))} groups" in text
    assert "scrapes: job agent-exporter, 1 of 1 exporters up" in text
    assert "agents: 3 seen" in text
    assert f"routes: all {len(alerts())} alerts lead where the table says, of 3 agents seen as of any other" in text
    assert "heartbeat: Watchdog arrives, and goes to watchdog" in text
    assert "notifications: " in text
    assert "none has been sent yet by pagerduty (receiver pagerduty)" in text
    assert "relabelling: alerts are sent with the labels that routes read" in text
    assert "exemplars: stored" in text
    assert text.endswith("all is well\n")


async def test_series_without_a_sample_are_explained(servers: Installation) -> None:
    _, text = await check("--prometheus", servers.prometheus, "--alertmanager", "", *UNUSED)

    assert "no rollout runs" in text or "no library is in use, as you said" in text


async def test_an_alert_whose_series_nobody_serves_can_never_fire(servers: Installation) -> None:
    code, text = await check("--prometheus", servers.prometheus, "--alertmanager", "")

    found = [line for line in problems(text) if "can never fire" in line]
    assert code == 1
    assert any("AgentStateUnreadable" in line and "--without library" in line for line in found)


async def test_other_thresholds_than_those_loaded_are_told(servers: Installation, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yml"
    mine.write_text("support-agent: {error_rate: 0.4}", encoding="utf-8")

    code, text = await check(
        "--prometheus", servers.prometheus, "--alertmanager", "", *UNUSED, "--thresholds", str(mine)
    )

    assert code == 1
    assert any("group agent-limits: 1 rules are not loaded: agent:limit" in line for line in problems(text))


async def test_links_to_another_place_than_those_loaded_are_told(servers: Installation) -> None:
    _, text = await check(
        "--prometheus",
        servers.prometheus,
        "--alertmanager",
        "",
        *UNUSED,
        "--runbook-url",
        "https://wiki.example",
    )

    assert any("AgentCostAnomaly (runbook_url)" in line for line in problems(text))


@pytest.mark.parametrize(
    "told",
    [
        "groups of rules are not loaded",
        "AgentExporterDown (for)",
        "rule agent:seen cannot be evaluated",
        "group agent-cost:",
        "the exporter is scraped under the job llm, where rules look for agent-exporter",
        "agent_tasks_started_total has exported_agent: the scrape puts a label of its own over agent",
        "exemplars are not stored",
        "data is kept for 15d, and rules look back",
        "Prometheus sends alerts to nobody",
        "alerting.alert_relabel_configs[0] drops it",
    ],
)
async def test_what_is_wrong_with_a_prometheus_is_told_with_what_to_do(wrong_prometheus: list[str], told: str) -> None:
    [problem, *_] = [line for line in wrong_prometheus if told in line]
    assert " → " in problem


@pytest.mark.parametrize(
    "told",
    [
        "the receiver pagerduty tells nobody",
        "pages are grouped by alertname: not one incident per agent and cause",
        "P2 goes to mailbox, not to slack",
        "P3 goes to mailbox, where it is for the dashboard alone",
        "and to no controller: nothing acts by itself",
        "can be inhibited while AgentCostAnomaly",
        "inhibit rules are missing",
        "no Watchdog: nothing arrives from Prometheus",
    ],
)
async def test_what_is_wrong_with_an_alertmanager_is_told_with_what_to_do(
    wrong_alertmanager: list[str], told: str
) -> None:
    [problem, *_] = [line for line in wrong_alertmanager if told in line]
    assert " → " in problem


@asynccontextmanager
async def an_alertmanager(data: Path, config: str, *options: str, binary: Path | None = None) -> AsyncIterator[str]:
    """One of its own with this configuration; its address."""
    (data / "alertmanager").mkdir()
    (data / "alertmanager" / "alertmanager.yml").write_text(config, encoding="utf-8")
    program = programs.alertmanager(
        binary or get([ALERTMANAGER])[ALERTMANAGER], data, Ports(alertmanager=free_ports(1)[0])
    )
    processes = Processes(data / "logs")
    try:
        await processes.start(replace(program, command=[*program.command, *options]))
        yield program.url
    finally:
        await processes.close()


def post(alertmanager: str, *alerts: dict[str, str]) -> None:
    """The alerts, by their labels."""
    body = json.dumps([{"labels": labels} for labels in alerts]).encode()
    request = urllib.request.Request(f"{alertmanager}/api/v2/alerts", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=5).close()


def changed(change: Callable[[dict[str, Any]], None]) -> str:
    """The generated configuration with this change."""
    config = yaml.safe_load(alertmanager_config(NOWHERE))
    change(config)
    return yaml.safe_dump(config)


async def test_a_route_that_takes_one_agents_pages_is_told(servers: Installation, tmp_path: Path) -> None:
    taken = {"receiver": "dashboard", "matchers": ['agent="support-agent"']}
    config = changed(lambda config: config["route"]["routes"].insert(1, taken))
    async with an_alertmanager(tmp_path, config) as url:
        _, text = await check("--prometheus", servers.prometheus, "--alertmanager", url, *UNUSED)

    [page] = [line for line in problems(text) if "P1 goes to dashboard, not to pagerduty" in line]
    assert "of support-agent: " in page


@pytest.mark.parametrize(
    ("receiver", "set_on_route", "told"),
    [
        ("pagerduty", {"mute_time_intervals": ["night"]}, "pages are silent at some times of the day"),
        ("pagerduty", {"group_wait": "30m"}, "a page waits 30m for others"),
        ("controller", {"mute_time_intervals": ["night"]}, "nothing acts at some times of the day"),
        ("controller", {"group_wait": "10s"}, "the controller is not told at once"),
    ],
)
async def test_what_holds_back_pages_or_actions_is_told(
    receiver: str, set_on_route: dict[str, Any], told: str, tmp_path: Path
) -> None:
    def change(config: dict[str, Any]) -> None:
        [route] = [route for route in config["route"]["routes"] if route["receiver"] == receiver]
        route.update(set_on_route)
        night = {"times": [{"start_time": "22:00", "end_time": "24:00"}]}
        config["time_intervals"] = [{"name": "night", "time_intervals": [night]}]

    async with an_alertmanager(tmp_path, changed(change)) as url:
        _, text = await check("--prometheus", "", "--alertmanager", url)

    [problem, *_] = [line for line in problems(text) if told in line]
    assert " → " in problem


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ('alertname="Watchdog"', ['severity="P1"', 'action=""'], "for ever, since Watchdog always fires"),
        ('team="network"', ['severity=~"P.+"', 'action=""'], 'while an alert fires with team="network"'),
    ],
)
async def test_an_inhibition_that_hides_pages_is_told(
    source: str, target: list[str], told: str, tmp_path: Path
) -> None:
    inhibition = {"source_matchers": [source], "target_matchers": target}
    config = changed(lambda config: config["inhibit_rules"].append(inhibition))
    async with an_alertmanager(tmp_path, config) as url:
        _, text = await check("--prometheus", "", "--alertmanager", url)

    [problem] = [line for line in problems(text) if "can be inhibited" in line]
    assert told in problem


async def test_an_inhibition_that_hides_no_page_is_no_problem(tmp_path: Path) -> None:
    usual = {"source_matchers": ['severity="critical"'], "target_matchers": ['severity=~"warning|info"']}
    config = changed(lambda config: config["inhibit_rules"].append({**usual, "equal": ["namespace"]}))
    async with an_alertmanager(tmp_path, config) as url:
        _, text = await check("--prometheus", "", "--alertmanager", url)

    assert "can be inhibited" not in text


P1 = {"alertname": "AgentRunawayLoop", "severity": "P1", "cause": "loop", "agent": "a", "action": "breaker"}
WATCHDOG = {"alertname": "Watchdog", "severity": "none", "cause": "watchdog"}


async def failing(alertmanager: str, *wanted: str) -> list[str]:
    """The problems with notifications, once those that are wanted are among them."""
    async with asyncio.timeout(60):
        while True:
            _, text = await check("--prometheus", "", "--alertmanager", alertmanager)
            found = problems(text)
            if all(any(text in line for line in found) for text in wanted):
                return [line for line in found if "notification" in line]
            await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("newest", "options"), [(False, ()), (True, ()), (True, ("--enable-feature=receiver-name-in-metrics",))]
)
async def test_notifications_that_cannot_leave_are_told_with_their_receiver(
    newest: bool, options: tuple[str, ...], tmp_path: Path
) -> None:
    binary = cache_folder().with_name("servers-new") / "bin" / "alertmanager"
    if newest and not binary.exists():
        pytest.skip("tools/servers builds the newest Alertmanager")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    config = alertmanager_config(replace(NOWHERE, secrets_dir=str(secrets)))
    async with an_alertmanager(tmp_path, config, *options, binary=binary if newest else None) as url:
        await asyncio.to_thread(post, url, P1)

        found = await failing(url, "by pagerduty (receiver pagerduty)", "by webhook (receiver controller)")

    assert all(" → " in line for line in found)


async def test_a_receiver_that_fails_beside_one_that_does_not_is_told(tmp_path: Path) -> None:
    with answering({"/beat": ""}) as switch:
        config = alertmanager_config(replace(NOWHERE, watchdog_url=f"{switch}/beat"))
        async with an_alertmanager(tmp_path, config) as url:
            await asyncio.to_thread(post, url, P1, WATCHDOG)

            await failing(url, "notifications by webhook (receivers controller, watchdog) have failed")


async def test_a_group_that_repeats_generated_rules_is_named_with_its_file(wrong_prometheus: list[str]) -> None:
    [problem] = [line for line in wrong_prometheus if "is not generated, and holds" in line]

    assert "group agent-old (" in problem
    assert "agent-old.yml)" in problem
    assert "AgentToolValidityLow" in problem


async def test_servers_that_do_not_answer_are_named() -> None:
    nobody = f"http://{LOOPBACK}:{free_ports(1)[0]}"
    servers = ("--prometheus", "--alertmanager", "--grafana", "--exporter", "--controller")

    code, text = await check(*(word for server in servers for word in (server, nobody)))

    assert code == 1
    assert len(problems(text)) == len(servers)
    assert text.endswith("5 problems\n")


async def test_a_server_that_has_only_rules_is_asked_for_the_rest_in_vain() -> None:
    pages = {"/api/v1/rules": '{"data": {"groups": []}}', "/api/v1/labels": "{}"}
    with answering(pages) as ruler:
        code, text = await check("--prometheus", ruler, "--alertmanager", "")

    assert code == 1
    assert any("/api/v1/query answers 404" in line.replace(":", "") for line in problems(text))
    assert "does not tell whether it stores them" in text


async def test_a_prometheus_without_an_exporter_is_told_so_once_for_all_series() -> None:
    pages = {
        "/api/v1/rules": '{"data": {"groups": []}}',
        "/api/v1/query": '{"data": {"result": []}}',
        "/api/v1/label/__name__/values": '{"data": []}',
        "/api/v1/metadata": '{"data": {}}',
    }
    with answering(pages) as empty:
        _, text = await check("--prometheus", empty, "--alertmanager", "", *UNUSED)

    assert any("there is no job agent-exporter" in line for line in problems(text))
    assert sum("can never fire" in line for line in problems(text)) == 1


async def test_something_else_than_a_prometheus_is_told_from_one() -> None:
    with answering({"/api/v1/rules": "[]"}) as other:
        code, text = await check("--prometheus", other, "--alertmanager", "")

    assert code == 1
    assert "answers something that is not of Prometheus' API" in text


@contextmanager
def answering(pages: dict[str, str], token: str = "") -> Iterator[str]:
    """A server that has these pages, for whoever knows the token; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = not token or self.headers.get("Authorization") == f"Bearer {token}"
            page = pages.get(self.path.partition("?")[0])
            self.send_response(401 if not allowed else 404 if page is None else 200)
            self.end_headers()
            self.wfile.write((page or "").encode() if allowed else b"")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{server.server_port}"
        server.shutdown()


async def test_dashboards_are_looked_for_in_grafana_by_uid(tmp_path: Path) -> None:
    uids = [json.loads(text)["uid"] for text in dashboard_files(load()).values()]
    (tmp_path / "token").write_text("secret\n", encoding="utf-8")
    with answering({f"/api/dashboards/uid/{uid}": "{}" for uid in uids}, token="secret") as grafana:
        only = ("--prometheus", "", "--alertmanager", "", "--grafana", grafana)
        code, text = await check(*only, "--grafana-token-file", str(tmp_path / "token"))
        refused, refusal = await check(*only)

    assert (code, problems(text)) == (0, [])
    assert all(f"dashboard {uid} is in Grafana" in text for uid in uids)
    assert refused == 1
    assert "--grafana-token-file" in refusal
    assert "secret" not in text + refusal


async def test_a_dashboard_that_grafana_lacks_is_named_with_its_file() -> None:
    with answering({}) as grafana:
        code, text = await check("--prometheus", "", "--alertmanager", "", "--grafana", grafana)

    assert code == 1
    assert any("has no dashboard agent-oncall-overview → import overview.json" in line for line in problems(text))


async def test_an_exporter_of_another_version_lacks_series() -> None:
    with answering({"/readyz": "", "/metrics": "# TYPE agent_spend_usd counter\n"}) as exporter:
        code, text = await check("--prometheus", "", "--alertmanager", "", "--exporter", exporter)

    assert code == 1
    assert any("does not serve agent_tasks_started_total" in line for line in problems(text))
    assert any("has counted no span yet" in line for line in problems(text))


async def test_a_controller_that_answers_is_well() -> None:
    with answering({"/healthz": "ok"}) as controller:
        code, text = await check("--prometheus", "", "--alertmanager", "", "--controller", controller)

    assert (code, problems(text)) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--thresholds", "/no/such/file.yml"), "/no/such/file.yml"),
        (("--grafana-token-file", "/no/such/token"), "/no/such/token"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_named(
    arguments: tuple[str, str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    assert named in capsys.readouterr().err
