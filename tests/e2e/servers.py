"""The servers that every end-to-end test runs, configured as `agent-oncall generate` does, on free ports."""

from collections.abc import Sequence
from pathlib import Path

from alert_rules.generate import prometheus_config
from alert_rules.routing import Receivers, alertmanager_config
from stack import programs
from stack.pager import ROUTING_KEY
from stack.ports import LOOPBACK, Ports
from stack.processes import Program
from stack.servers import ALERTMANAGER, PROMETHEUS, get

RULES = Path(__file__).parents[2] / "provisioning" / "prometheus" / "rules"
"""The shipped ones."""

TOKEN = "a-token-of-the-test"
"""The controller's."""


def tsdb(data: Path) -> Path:
    """Prometheus' data directory, for a past that it is to begin with."""
    return data / "prometheus" / "tsdb"


def token_file(data: Path) -> Path:
    return data / "secrets" / "controller_token"


def configure(
    data: Path, ports: Ports, *, rules: Path = RULES, dead: Sequence[int] = (), controller: bool = False
) -> None:
    """Prometheus' and Alertmanager's settings and secrets in `data`.

    On the ports `dead` an exporter is known and does not answer; alerts go to the controller only with `controller`.
    """
    for folder in (tsdb(data), data / "alertmanager", data / "secrets"):
        folder.mkdir(parents=True)
    prometheus = prometheus_config(
        exporters=[f"{LOOPBACK}:{port}" for port in (ports.metrics, *dead)],
        alertmanagers=[f"{LOOPBACK}:{ports.alertmanager}"],
        rule_files=[f"{rules}/*.yml"],
    )
    (data / "prometheus" / "prometheus.yml").write_text(prometheus, encoding="utf-8")
    pager = f"http://{LOOPBACK}:{ports.pager}"
    for name, text in (
        ("pagerduty_routing_key", ROUTING_KEY),
        ("slack_api_url", f"{pager}/services/local"),
        (token_file(data).name, TOKEN),
    ):
        secret = data / "secrets" / name
        secret.write_text(text, encoding="utf-8")
        secret.chmod(0o600)
    receivers = Receivers(
        pagerduty_url=f"{pager}/v2/enqueue",
        secrets_dir=str(data / "secrets"),
        controller_url=f"http://{LOOPBACK}:{ports.controller}/alerts" if controller else None,
    )
    (data / "alertmanager" / "alertmanager.yml").write_text(alertmanager_config(receivers), encoding="utf-8")


def exporter(data: Path, ports: Ports) -> Program:
    return programs.exporter(data, ports, None)


def alertmanager(data: Path, ports: Ports) -> Program:
    return programs.alertmanager(get([ALERTMANAGER])[ALERTMANAGER], data, ports)


def prometheus(data: Path, ports: Ports) -> Program:
    return programs.prometheus(get([PROMETHEUS])[PROMETHEUS], data, ports)
