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

_FILLED_IN = {"__rate_interval": "8m", "__range": "4h", "agent": "support-agent", "rollout": "support-agent-7"}


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


@pytest.mark.parametrize(
    ("title", "raw"),
    [
        ("Latency over time", "agent_task_duration_seconds_bucket"),
        ("Cost of an ended task", "agent_task_cost_usd_bucket"),
        ("Latency per LLM call", "agent_iteration_duration_seconds_bucket"),
    ],
)
def test_a_median_of_the_recorded_buckets_is_that_of_the_raw_ones(incident: Incident, title: str, raw: str) -> None:
    shown = next(target for target in titled("overview", title)["targets"] if "0.5" in target["expr"])
    expr = f'histogram_quantile(0.5, sum by (le) (rate({raw}{{agent="support-agent"}}[1h])))'

    (drawn,), (asked,) = answer(incident, shown), answer(incident, {"expr": expr, "instant": True})
    points = [float(value) for _, value in drawn["values"]]
    assert float(asked["value"][1]) == pytest.approx(sum(points) / len(points), rel=0.1)


def test_what_is_recorded_of_the_last_minutes_is_drawn(incident: Incident) -> None:
    (drawn,) = answer(incident, titled("overview", "Latency over time")["targets"][0])

    assert drawn["values"][-1][0] == incident.end


def test_the_tasks_counted_in_the_range_are_those_that_ended_in_it(incident: Incident) -> None:
    shown = titled("overview", "Iterations per task")["targets"][0]
    expr = 'sum(increase(agent_task_iterations_count{agent="support-agent"}[4h]))'

    every = max(float(row["value"][1]) for row in answer(incident, shown))
    (asked,) = answer(incident, {"expr": expr, "instant": True})
    assert every == pytest.approx(float(asked["value"][1]), rel=0.05)


def test_the_cost_of_a_day_is_what_was_spent_up_to_now(incident: Incident) -> None:
    shown = titled("overview", "Cost of a day")["targets"][0]
    expr = 'sum(increase(agent_spend_usd_total{agent="support-agent"}[4h]))'

    (drawn,) = answer(incident, shown)
    (asked,) = answer(incident, {"expr": expr, "instant": True})
    assert float(drawn["values"][-1][1]) == pytest.approx(float(asked["value"][1]), rel=0.12)


def test_the_alerts_are_marked_in_the_graphs_since_the_incident_began(incident: Incident) -> None:
    (marks,) = [mark for mark in BOARDS["overview"]["annotations"]["list"] if mark["name"] == "Alerts"]

    rows = answer(incident, {"expr": marks["expr"], "instant": False}, agent=".+")
    begun = min(float(row["values"][0][0]) for row in rows if row["metric"]["alertname"] == "AgentCostAnomaly")
    assert 0 < begun - (incident.end - 45 * 60) < 10 * 60
