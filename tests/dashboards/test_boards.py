"""What holds for every dashboard: what a panel says, and what Grafana 13 needs of the JSON."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from alert_rules.promql import duration_seconds
from dashboards.generate import dashboard_files
from tests.dashboards.boards import BOARDS, THRESHOLDS, panels, with_data

EACH_BOARD = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
EACH_PANEL = pytest.mark.parametrize("panel", with_data())


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
    assert dashboard_files(THRESHOLDS) == dashboard_files(THRESHOLDS)


def test_a_limit_is_drawn_with_all_its_digits() -> None:
    precise = replace(THRESHOLDS, agents={"*": {"cost_per_task_factor": 2.12345678}})

    assert "2.12345678 * max by (task_type)" in dashboard_files(precise)["agent.json"]


@EACH_BOARD
def test_titles_are_unique_so_that_a_runbook_can_name_a_panel(board: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels(board)]

    assert sorted(set(titles)) == sorted(titles)


@EACH_PANEL
def test_a_panel_says_what_it_counts_and_what_is_normal(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert "ormal" in panel["description"]


@EACH_PANEL
def test_a_panel_has_a_unit(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]

    assert (
        defaults.get("unit")
        or panel.get("options", {}).get("yAxis", {}).get("unit")
        or panel["type"] == "state-timeline"
    )


@EACH_PANEL
def test_a_panel_without_data_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["noValue"]


@EACH_PANEL
def test_queries_go_to_the_chosen_data_source(panel: dict[str, Any]) -> None:
    sources = {target["datasource"]["uid"] for target in panel["targets"]}

    assert sources <= {"${prometheus_datasource}", "${tempo_datasource}"}


@EACH_PANEL
def test_no_panel_hides_the_current_hour_behind_a_long_step(panel: dict[str, Any]) -> None:
    assert all(duration_seconds(target.get("interval", "")) <= 120 for target in panel["targets"])
    assert "interval" not in panel


@EACH_BOARD
def test_panels_do_not_overlap_and_stay_within_24_columns(board: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@EACH_BOARD
def test_panels_have_numbers_of_their_own(board: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in panels(board)]

    assert len(set(numbers)) == len(numbers)


@EACH_BOARD
def test_nothing_is_null_but_the_id_and_where_thresholds_begin(board: dict[str, Any]) -> None:
    nulls = {path for path, value in values(board) if value is None}

    assert {path for path in nulls if not path.endswith(".steps.value")} - {
        ".panels.fieldConfig.overrides.properties.value.steps.value"
    } == {".id"}


@EACH_BOARD
def test_alerts_stages_and_rollbacks_are_marked_in_every_graph(board: dict[str, Any]) -> None:
    assert [annotation["name"] for annotation in board["annotations"]["list"]] == [
        "Annotations & Alerts",
        "Alerts",
        "Rollout stages",
        "Actions and rollbacks",
    ]
