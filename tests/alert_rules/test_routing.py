"""Alertmanager's configuration: who is told of which alert, as amtool reads it (the server: test_alertmanager.py)."""

import re
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from alert_rules.generate import alerts
from alert_rules.routing import INHIBIT_RULES, Receivers, alertmanager_config, alertmanager_fragment
from alert_rules.rules import Alert
from tests.alert_rules.routes import ACTIONS, SEVERITIES, expected_receivers, labels

EXISTING = """
route:
  receiver: everyone
  routes:
    - matchers: [team = "db"]
      receiver: dba
receivers:
  - name: everyone
  - name: dba
"""
"""An Alertmanager's configuration as a user has it."""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "alertmanager.yml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path, alertmanager_config(Receivers()))


def merged(existing: str, fragment: str) -> str:
    """Both as docs/existing-alertmanager.md says to merge them."""
    config, ours = yaml.safe_load(existing), yaml.safe_load(fragment)
    config["route"]["routes"] = ours["route"]["routes"] + config["route"].get("routes", [])
    config["receivers"] += ours["receivers"]
    config["inhibit_rules"] = config.get("inhibit_rules", []) + ours["inhibit_rules"]
    return yaml.safe_dump(config)


def receivers(amtool: Path, config: Path, **labels: str) -> str:
    matchers = [f"{name}={value}" for name, value in labels.items()]
    done = subprocess.run(
        [amtool, "config", "routes", "test", f"--config.file={config}", *matchers],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def problems(amtool: Path, config: Path) -> str:
    done = subprocess.run([amtool, "check-config", config], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_alertmanager_takes_the_configuration(amtool: Path, config: Path) -> None:
    assert problems(amtool, config) == ""


def test_alertmanager_takes_it_with_every_option_set(amtool: Path, tmp_path: Path) -> None:
    receivers = Receivers(
        pagerduty_url="http://127.0.0.1:9999/v2/enqueue",
        secrets_dir=str(tmp_path),
        slack_api_url_file=str(tmp_path / "slack"),
        controller_url="http://127.0.0.1:9465/alerts",
        controller_token_file=str(tmp_path / "token"),
        watchdog_url="http://127.0.0.1:9998/heartbeat",
    )

    assert problems(amtool, write(tmp_path, alertmanager_config(receivers))) == ""


def test_an_existing_configuration_takes_the_fragment(amtool: Path, tmp_path: Path) -> None:
    file = write(tmp_path, merged(EXISTING, alertmanager_fragment(Receivers(watchdog_url="http://switch/beat"))))

    assert problems(amtool, file) == ""


def test_there_is_an_alert_for_every_line_of_the_table() -> None:
    found: dict[str, set[str]] = {}
    for alert in alerts():
        found.setdefault(alert.name, set()).add(str(alert.severity))

    assert found == SEVERITIES


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name} {alert.severity}")
def test_the_table_names_every_alert_with_its_severity_and_action(alert: Alert) -> None:
    assert alert.severity in SEVERITIES[alert.name]
    assert str(alert.action or "") == ACTIONS.get(alert.name, "")


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name} {alert.severity}")
def test_an_alert_goes_where_the_table_says(amtool: Path, config: Path, alert: Alert) -> None:
    assert receivers(amtool, config, **labels(alert)).split(",") == expected_receivers(alert)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name} {alert.severity}")
def test_in_an_existing_configuration_it_goes_to_the_same_under_other_names(
    amtool: Path, tmp_path: Path, alert: Alert
) -> None:
    file = write(tmp_path, merged(EXISTING, alertmanager_fragment(Receivers())))

    ours = [f"agent-oncall-{name}" for name in expected_receivers(alert)]
    assert receivers(amtool, file, **labels(alert)).split(",") == ours


@pytest.mark.parametrize(
    ("theirs", "receiver"),
    [
        ({"alertname": "DiskFull", "severity": "P1", "team": "db"}, "dba"),
        ({"alertname": "Watchdog", "severity": "none"}, "everyone"),
        ({"alertname": "AgentDown", "severity": "critical", "action": "reboot"}, "everyone"),
    ],
)
def test_in_an_existing_configuration_the_alerts_of_others_go_where_they_went(
    amtool: Path, tmp_path: Path, theirs: dict[str, str], receiver: str
) -> None:
    file = write(tmp_path, merged(EXISTING, alertmanager_fragment(Receivers())))

    assert receivers(amtool, file, **theirs) == receiver


@pytest.mark.parametrize(("severity", "receiver"), [("P1", "pagerduty"), ("P2", "slack"), ("P3", "dashboard")])
def test_a_severity_has_its_receiver(amtool: Path, config: Path, severity: str, receiver: str) -> None:
    assert receivers(amtool, config, alertname="AgentAny", severity=severity) == receiver


@pytest.mark.parametrize(("severity", "receiver"), [("P1", "pagerduty"), ("P2", "slack"), ("P3", "dashboard")])
def test_an_action_reaches_the_controller_whatever_the_severity(
    amtool: Path, config: Path, severity: str, receiver: str
) -> None:
    reached = receivers(amtool, config, alertname="AgentAny", severity=severity, action="model")

    assert reached == f"controller,{receiver}"


def test_an_alert_that_no_route_names_is_still_seen(amtool: Path, config: Path) -> None:
    assert receivers(amtool, config, alertname="Stranger") == "slack"


def test_without_a_controller_nothing_acts(amtool: Path, tmp_path: Path) -> None:
    file = write(tmp_path, alertmanager_config(Receivers(controller_url=None)))

    assert receivers(amtool, file, alertname="AgentCostAnomaly", severity="P1", action="breaker") == "pagerduty"


@pytest.mark.parametrize("switch", [{"watchdog_url": "http://switch/"}, {"watchdog_url_file": "/secrets/switch"}])
def test_the_heartbeat_goes_to_a_dead_mans_switch_where_there_is_one(switch: dict[str, str]) -> None:
    config = yaml.safe_load(alertmanager_config(Receivers(**switch)))

    [heartbeat] = [route for route in config["route"]["routes"] if route["matchers"] == ['alertname = "Watchdog"']]
    assert heartbeat["receiver"] == "watchdog"
    [receiver] = [receiver for receiver in config["receivers"] if receiver["name"] == "watchdog"]
    assert set(switch.values()) <= set(receiver["webhook_configs"][0].values())


def test_the_controller_is_told_at_once_by_agent() -> None:
    first = yaml.safe_load(alertmanager_config(Receivers()))["route"]["routes"][0]

    assert first["receiver"] == "controller"
    assert (first["group_wait"], first["group_by"], first["continue"]) == ("0s", ["agent"], True)


def test_one_incident_is_one_page_by_agent_and_cause() -> None:
    routes = yaml.safe_load(alertmanager_config(Receivers()))["route"]["routes"]
    pager = next(route for route in routes if route["receiver"] == "pagerduty")

    assert pager["group_by"] == ["agent", "cause"]


@pytest.mark.parametrize("generated", [alertmanager_config, alertmanager_fragment])
def test_secrets_are_named_by_file_only(generated: Any) -> None:
    text = generated(Receivers(secrets_dir="/secrets"))

    assert "routing_key_file: /secrets/pagerduty_routing_key" in text
    assert "api_url_file: /secrets/slack_api_url" in text
    assert "credentials_file: /secrets/controller_token" in text
    assert not re.search(r"\b(routing_key|service_key|api_url|credentials|password|bearer_token):", text)


def inhibits(source: Alert, target: Alert) -> bool:
    """Whether a rule has one silence the other, were both about the same agent."""
    return any(
        matched(rule["source_matchers"], source) and matched(rule["target_matchers"], target) for rule in INHIBIT_RULES
    )


def matched(matchers: list[str], alert: Alert) -> bool:
    found = labels(alert)
    for matcher in matchers:
        parts = re.fullmatch(r'(\w+) (=~|!=|=) "(.*)"', matcher)
        assert parts, matcher
        name, operator, value = parts.groups()
        holds = bool(re.fullmatch(value, found.get(name, ""))) if operator == "=~" else found.get(name, "") == value
        if holds == (operator == "!="):
            return False
    return True


PAIRS = [(source, target) for source, target in product(alerts(), alerts()) if inhibits(source, target)]


def test_nothing_with_an_action_is_inhibited_since_the_controller_would_not_hear_of_it() -> None:
    assert [(source.name, target.name) for source, target in PAIRS if target.action] == []


def test_an_alert_is_inhibited_by_none_of_less_weight() -> None:
    assert [(s.name, t.name) for s, t in PAIRS if s.severity > t.severity] == []


def test_a_page_is_inhibited_only_by_one_of_its_own_incident_which_ends_both() -> None:
    pages = [(s, t) for s, t in PAIRS if t.severity == "P1"]

    assert [(s.name, s.cause, t.name, t.cause) for s, t in pages if s.cause != t.cause] == []


def test_no_alert_inhibits_itself() -> None:
    assert [source.name for source, target in PAIRS if source.name == target.name] == []
