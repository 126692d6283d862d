"""The panels' queries, answered by a real Prometheus over the incident."""

import json
import re
import urllib.parse
import urllib.request
from typing import Any

import pytest

from tests.dashboards.boards import BOARDS, panels, titled
from tests.dashboards.conftest import Incident

pytestmark = pytest.mark.e2e

_FILLED_IN = {"__rate_interval": "4m", "__range": "4h", "agent": "support-agent", "rollout": "support-agent-7"}


def answer(incident: Incident, target: dict[str, Any], **chosen: str) -> list[dict[str, Any]]:
    """What Grafana would get for a panel's query, at the end of the incident."""
    values = _FILLED_IN | chosen
    expr = re.sub(r"\$([a-z_]\w*)", lambda match: values.get(match[1], ".+"), target["expr"])
    parameters = {"query": expr, "time": str(incident.end)}
    path = "query"
    if not target["instant"]:
        path = "query_range"
        parameters = {"query": expr, "start": str(incident.end - 3600), "end": str(incident.end), "step": "60"}
    url = f"{incident.prometheus.url}/api/v1/{path}"
    with urllib.request.urlopen(url, urllib.parse.urlencode(parameters).encode()) as response:
        result: list[dict[str, Any]] = json.loads(response.read())["data"]["result"]
    return result


def column(panel: dict[str, Any], name: str) -> dict[str, Any]:
    """The query behind a column of a table."""
    (organize,) = [step["options"] for step in panel["transformations"] if step["id"] == "organize"]
    (field,) = [field for field, head in organize["renameByName"].items() if head == name]
    ref = field.removeprefix("Value #") if "#" in field else "A"
    return next(target for target in panel["targets"] if target["refId"] == ref)


def highest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return max(rows, key=lambda row: float(row["value"][1]))


def test_every_query_is_answered(incident: Incident) -> None:
    for board in BOARDS.values():
        for panel in panels(board):
            for target in panel.get("targets", ()):
                if "expr" in target:
                    answer(incident, target)


def test_the_first_screen_says_that_money_burns_and_since_when(incident: Incident) -> None:
    agents = titled("overview", "Agents, the one that burns first")
    burning = highest(answer(incident, column(agents, "× limit"), agent=".+"))
    since = highest(answer(incident, column(agents, "Over it for"), agent=".+"))

    assert float(burning["value"][1]) > 5
    assert since["metric"]["agent"] == burning["metric"]["agent"]
    assert 40 * 60 <= float(since["value"][1]) <= 45 * 60


def test_the_first_screen_says_which_agent(incident: Incident) -> None:
    agents = titled("overview", "Agents, the one that burns first")

    assert highest(answer(incident, column(agents, "× limit"), agent=".+"))["metric"]["agent"] == "support-agent"


def test_the_first_screen_says_which_tool_though_none_of_its_calls_failed(incident: Incident) -> None:
    tools = titled("overview", "Tools, the one called unusually often first")

    loudest = highest(answer(incident, column(tools, "× usual"), agent=".+"))["metric"]
    assert (loudest["agent"], loudest["tool"]) == ("support-agent", "lookup_order")


def test_the_first_screen_lists_the_page(incident: Incident) -> None:
    firing = titled("overview", "Firing alerts")

    rows = answer(incident, column(firing, "For"), agent=".+")
    assert "AgentCostAnomaly" in {row["metric"]["alertname"] for row in rows if row["metric"]["severity"] == "P1"}


def test_the_alerts_are_marked_in_the_graphs_since_the_incident_began(incident: Incident) -> None:
    (marks,) = [mark for mark in BOARDS["overview"]["annotations"]["list"] if mark["name"] == "Alerts"]

    rows = answer(incident, {"expr": marks["expr"], "instant": False}, agent=".+")
    begun = min(float(row["values"][0][0]) for row in rows if row["metric"]["alertname"] == "AgentCostAnomaly")
    assert 0 < begun - (incident.end - 45 * 60) < 10 * 60
