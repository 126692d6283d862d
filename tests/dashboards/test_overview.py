"""The overview as it is generated: what it shows, and what Grafana 13 needs of its JSON."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from alert_rules.thresholds import load
from dashboards.generate import dashboard_files
from dashboards.overview import UID

BOARD = json.loads(dashboard_files(load())["overview.json"])
PANELS = BOARD["panels"]
WITH_DATA = [panel for panel in PANELS if panel["type"] not in ("row", "text")]


def values(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from values(value, f"{path}.{key}")
    elif isinstance(node, list):
        for item in node:
            yield from values(item, path)
    else:
        yield path, node


def test_generation_is_deterministic() -> None:
    assert dashboard_files(load()) == dashboard_files(load())


def test_the_uid_is_stable() -> None:
    assert BOARD["uid"] == UID == "agent-oncall-overview"


def test_the_four_rows_stand_in_the_order_of_the_requirements() -> None:
    assert [panel["title"] for panel in PANELS if panel["type"] == "row"] == [
        "Health at a glance",
        "Agent behaviour",
        "Cost breakdown",
        "Trace explorer",
    ]


@pytest.mark.parametrize("panel", WITH_DATA, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_counts_and_has_a_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize("panel", WITH_DATA, ids=lambda panel: panel["title"])
def test_every_query_is_about_the_chosen_agents_and_data_source(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert 'agent=~"$agent"' in target["expr"]
        assert target["datasource"]["uid"] == "${prometheus_datasource}"


def test_no_panel_hides_the_current_hour_behind_a_long_step() -> None:
    steps = [target["interval"] for panel in WITH_DATA for target in panel["targets"] if "interval" in target]

    assert steps == []


def test_panels_do_not_overlap_and_stay_within_24_columns() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_have_numbers_of_their_own() -> None:
    numbers = [panel["id"] for panel in PANELS]

    assert len(set(numbers)) == len(numbers)


def test_nothing_is_null_but_the_id_and_where_thresholds_begin() -> None:
    nulls = {path for path, value in values(BOARD) if value is None}

    assert nulls == {".id", ".panels.fieldConfig.defaults.thresholds.steps.value"}


def test_the_error_rates_threshold_is_the_alerts_own() -> None:
    panel = next(panel for panel in PANELS if panel["title"] == "Error rate")

    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] == load().value("error_rate")


def test_links_to_traces_open_a_search_in_tempo() -> None:
    text = next(panel for panel in PANELS if panel["type"] == "text")
    links = re.findall(r"\[([^]]+)\]\(([^)]+)\)", text["options"]["content"])

    assert [title for title, _ in links] == ["Failed tasks", "Slow tasks", "Costly tasks", "Looping tasks"]
    for _, url in links:
        parts = parse_qs(urlsplit(url).query)
        (pane,) = json.loads(parts["panes"][0]).values()
        assert parts["schemaVersion"] == ["1"]
        assert pane["datasource"] == "${tempo_datasource}"
        assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
        assert pane["queries"][0]["queryType"] == "traceql"
        assert "${agent:regex}" in pane["queries"][0]["query"]
