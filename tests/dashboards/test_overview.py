"""What is the overview's own."""

import pytest

from dashboards.overview import UID
from tests.dashboards.boards import BOARDS, THRESHOLDS, titled

OVERVIEW = BOARDS["overview"]
# The first screen of 1600 x 900: 38 px a unit of the grid, less Grafana's own bars.
FIRST_SCREEN = 20


def test_the_uid_is_stable() -> None:
    assert OVERVIEW["uid"] == UID == "agent-oncall-overview"


def test_the_four_rows_stand_in_the_order_of_the_requirements() -> None:
    assert [panel["title"] for panel in OVERVIEW["panels"] if panel["type"] == "row"] == [
        "Health at a glance",
        "Agent behaviour",
        "Cost breakdown",
        "Trace explorer",
    ]


@pytest.mark.parametrize(
    "title",
    [
        "Spend now",
        "Spend against its limit",
        "Agents, the one that burns first",
        "Firing alerts",
        "Tools, the one called unusually often first",
        "Open the traces",
    ],
)
def test_what_a_runaway_shows_is_on_the_first_screen(title: str) -> None:
    at = titled("overview", title)["gridPos"]

    assert at["y"] + at["h"] <= FIRST_SCREEN


def test_the_error_rates_threshold_is_the_alerts_own() -> None:
    steps = titled("overview", "Error rate")["fieldConfig"]["defaults"]["thresholds"]["steps"]

    assert steps[-1]["value"] == THRESHOLDS.value("error_rate")
