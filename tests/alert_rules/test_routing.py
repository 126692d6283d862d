"""Alertmanager's configuration: who is told of which alert, as Alertmanager itself sees it."""

import subprocess
from pathlib import Path

import pytest
import yaml

from alert_rules.generate import alerts
from alert_rules.routing import alertmanager_config
from alert_rules.rules import Alert

ROUTED = {
    "AgentCostAnomaly": "controller,pagerduty",
    "AgentErrorRateHigh": "pagerduty",
    "AgentErrorRateCritical": "controller,pagerduty",
    "AgentExporterDown": "pagerduty",
    "Watchdog": "dashboard",
}
"""The table of routes: alert → receivers."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "alertmanager.yml"
    file.write_text(alertmanager_config(), encoding="utf-8")
    return file


def receivers(amtool: Path, config: Path, **labels: str) -> str:
    matchers = [f"{name}={value}" for name, value in labels.items()]
    done = subprocess.run(
        [amtool, "config", "routes", "test", f"--config.file={config}", *matchers],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_alertmanager_takes_the_configuration(amtool: Path, config: Path) -> None:
    done = subprocess.run([amtool, "check-config", config], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_takes_it_with_every_option_set(amtool: Path, tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    text = alertmanager_config(
        pagerduty_url="http://127.0.0.1:9999/v2/enqueue",
        secrets_dir=str(tmp_path),
        slack_api_url_file=str(tmp_path / "slack"),
        controller_url="http://127.0.0.1:9465/alerts",
        controller_token_file=str(tmp_path / "token"),
        watchdog_url="http://127.0.0.1:9998/heartbeat",
    )
    file.write_text(text, encoding="utf-8")

    done = subprocess.run([amtool, "check-config", file], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_of_routes_names_every_alert() -> None:
    assert set(ROUTED) == {alert.name for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_goes_where_the_table_says(amtool: Path, config: Path, alert: Alert) -> None:
    labels = {"alertname": alert.name, "severity": str(alert.severity), "cause": alert.cause}
    if alert.action:
        labels["action"] = alert.action

    assert receivers(amtool, config, agent="a", **labels) == ROUTED[alert.name]


@pytest.mark.parametrize(("severity", "receiver"), [("P1", "pagerduty"), ("P2", "slack"), ("P3", "dashboard")])
def test_a_severity_has_its_receiver(amtool: Path, config: Path, severity: str, receiver: str) -> None:
    assert receivers(amtool, config, alertname="AgentAny", severity=severity) == receiver


def test_an_action_reaches_the_controller_whatever_the_severity(amtool: Path, config: Path) -> None:
    assert receivers(amtool, config, alertname="AgentAny", severity="P2", action="model") == "controller,slack"


def test_an_alert_that_no_route_names_is_still_seen(amtool: Path, config: Path) -> None:
    assert receivers(amtool, config, alertname="Stranger") == "slack"


def test_without_a_controller_nothing_acts(amtool: Path, tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(alertmanager_config(controller_url=None), encoding="utf-8")

    assert receivers(amtool, file, alertname="AgentCostAnomaly", severity="P1", action="breaker") == "pagerduty"


def test_the_controller_is_told_at_once_by_agent() -> None:
    first = yaml.safe_load(alertmanager_config())["route"]["routes"][0]

    assert first["receiver"] == "controller"
    assert (first["group_wait"], first["group_by"], first["continue"]) == ("0s", ["agent"], True)


def test_one_incident_is_one_page_by_agent_and_cause() -> None:
    routes = yaml.safe_load(alertmanager_config())["route"]["routes"]
    pager = next(route for route in routes if route["receiver"] == "pagerduty")

    assert pager["group_by"] == ["agent", "cause"]


def test_secrets_are_named_by_file_only() -> None:
    text = alertmanager_config(secrets_dir="/secrets")

    assert "routing_key_file: /secrets/pagerduty_routing_key" in text
    assert "api_url_file: /secrets/slack_api_url" in text
    assert "routing_key:" not in text
    assert "api_url:" not in text
