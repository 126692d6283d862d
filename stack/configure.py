"""The configuration of the local stack's servers: the same generators as everywhere, with this machine's addresses."""

from pathlib import Path

from alert_rules.generate import prometheus_config, rule_files
from alert_rules.routing import Receivers, alertmanager_config
from alert_rules.rules import Site
from alert_rules.thresholds import Thresholds
from stack.collector import collector_config
from stack.credentials import random_token
from stack.pager import ROUTING_KEY
from stack.ports import LOOPBACK, Ports

SCRAPE_INTERVAL = "5s"
"""Shorter than in production (15s), so that one sees at once what happens."""


def jaeger_search(ports: Ports) -> str:
    """The search of an agent's traces in Jaeger."""
    return f"http://{LOOPBACK}:{ports.jaeger}/search?service={{agent}}"


def write(data: Path, ports: Ports, thresholds: Thresholds, *, jaeger: bool = False) -> None:
    """Writes what Prometheus, Alertmanager, the Collector and the controller read into the folder `data`.

    With `jaeger`, the Collector sends the traces there as well, and the alerts link to them there.
    """
    rules = data / "prometheus" / "rules"
    rules.mkdir(parents=True, exist_ok=True)
    for old in rules.glob("*.yml"):
        old.unlink()
    site = Site(traces=jaeger_search(ports)) if jaeger else Site()
    for name, text in rule_files(thresholds, site).items():
        (rules / name).write_text(text, encoding="utf-8")
    prometheus = prometheus_config(
        exporters=[f"{LOOPBACK}:{ports.metrics}"],
        others={"agent-controller": [f"{LOOPBACK}:{ports.controller}"]},
        alertmanagers=[f"{LOOPBACK}:{ports.alertmanager}"],
        scrape_interval=SCRAPE_INTERVAL,
        evaluation_interval=SCRAPE_INTERVAL,
    )
    (data / "prometheus" / "prometheus.yml").write_text(prometheus, encoding="utf-8")

    # The pager checks the form of the key and of the address, not whose they are: nothing secret is in these files.
    secrets = data / "alertmanager" / "secrets"
    secrets.mkdir(parents=True, exist_ok=True)
    pager = f"http://{LOOPBACK}:{ports.pager}"
    (secrets / "pagerduty_routing_key").write_text(ROUTING_KEY, encoding="utf-8")
    (secrets / "slack_api_url").write_text(f"{pager}/services/T00000000/B00000000/local", encoding="utf-8")
    token = secrets / "controller_token"
    if not token.exists():
        token.touch(mode=0o600)
        token.write_text(random_token(), encoding="utf-8")
    receivers = Receivers(
        pagerduty_url=f"{pager}/v2/enqueue",
        secrets_dir=str(secrets),
        controller_url=f"http://{LOOPBACK}:{ports.controller}/alerts",
    )
    alertmanager = alertmanager_config(receivers)
    (data / "alertmanager" / "alertmanager.yml").write_text(alertmanager, encoding="utf-8")

    collector = data / "otel-collector"
    collector.mkdir(parents=True, exist_ok=True)
    config = collector_config(
        exporters=[f"{LOOPBACK}:{ports.exporter_grpc}"],
        trace_stores={"jaeger": f"{LOOPBACK}:{ports.jaeger_otlp}"} if jaeger else {},
        trace_store="jaeger" if jaeger else "",
        grpc=f"{LOOPBACK}:{ports.otlp_grpc}",
        http=f"{LOOPBACK}:{ports.otlp_http}",
        health=f"{LOOPBACK}:{ports.collector_health}",
        queues=str(collector / "queues"),
    )
    (collector / "config.yml").write_text(config, encoding="utf-8")
