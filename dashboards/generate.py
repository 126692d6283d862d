"""Everything that is generated for Grafana, as text by file name."""

import json
from typing import Any

from grafanalib import core as gl

from alert_rules.rules import Site
from alert_rules.text import dump
from alert_rules.thresholds import Thresholds
from dashboards.agent import agent
from dashboards.board import HERE
from dashboards.exporter import exporter
from dashboards.overview import overview
from dashboards.rollout import rollout
from dashboards.schema import modern

# The services' names in Compose.
PROMETHEUS_URL = "http://prometheus:9090"
TEMPO_URL = "http://tempo:3200"


def render(dashboard: gl.Dashboard) -> str:
    """The dashboard as JSON that Grafana 13 imports."""
    return json.dumps(modern(dashboard), indent=2, ensure_ascii=False) + "\n"


def dashboard_files(thresholds: Thresholds, site: Site = HERE) -> dict[str, str]:
    """The dashboards: file name → JSON."""
    boards = {"overview": overview, "agent": agent, "rollout": rollout, "exporter": exporter}
    return {f"{name}.json": render(board(thresholds, site)) for name, board in boards.items()}


def grafana_files(
    *,
    prometheus_url: str = PROMETHEUS_URL,
    tempo_url: str = TEMPO_URL,
    dashboards_dir: str = "/etc/grafana/provisioning/dashboards",
) -> dict[str, str]:
    """Grafana's own provisioning: its data sources, and the folder that it reads dashboards from."""
    prometheus: dict[str, Any] = {
        "name": "Prometheus",
        "uid": "prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus_url,
        "isDefault": True,
        "jsonData": {"exemplarTraceIdDestinations": [{"name": "trace_id", "datasourceUid": "tempo"}]},
    }
    tempo = {"name": "Tempo", "uid": "tempo", "type": "tempo", "access": "proxy", "url": tempo_url}
    provider = {"name": "agent-oncall", "folder": "agent-oncall", "type": "file", "options": {"path": dashboards_dir}}
    return {
        "datasources/agent-oncall.yml": dump({"apiVersion": 1, "datasources": [prometheus, tempo]}),
        "dashboards/agent-oncall.yml": dump({"apiVersion": 1, "providers": [provider]}),
    }
