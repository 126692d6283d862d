"""Every query reads only what exists: the contract's series and the recorded ones, with the labels they have."""

import re

import promql_parser
import pytest

from alert_rules.generate import groups
from alert_rules.promql import duration_seconds
from tests.dashboards.boards import BOARDS, THRESHOLDS, panels, queries
from tests.promql import known_series, result_labels

KNOWN = known_series(groups(THRESHOLDS))
_FILLED_IN = {"__rate_interval": "1m", "__range": "6h", "__interval": "15s"}


def filled_in(expr: str) -> str:
    return re.sub(r"\$([a-z_]\w*)", lambda match: _FILLED_IN.get(match[1], ".+"), expr)


@pytest.mark.parametrize("expr", queries())
def test_a_query_reads_only_series_and_labels_that_exist(expr: str) -> None:
    result_labels(promql_parser.parse(filled_in(expr)), KNOWN)


def test_exemplars_are_asked_of_raw_buckets_which_alone_have_them() -> None:
    asked = [
        target["expr"]
        for board in BOARDS.values()
        for panel in panels(board)
        for target in panel.get("targets", ())
        if target.get("exemplar")
    ]

    assert asked
    assert [expr for expr in asked if not re.search(r"\bagent_\w+_bucket\{", expr)] == []


def test_a_panel_of_five_minute_figures_has_one_in_each_point() -> None:
    """`$__rate_interval` is four times the least step at least."""
    short = [
        (panel["title"], target.get("interval", ""))
        for board in BOARDS.values()
        for panel in panels(board)
        for target in panel.get("targets", ())
        if ":rate5m" in target.get("expr", "") and "$__rate_interval" in target["expr"]
        if 4 * duration_seconds(target.get("interval", "")) <= 300
    ]

    assert short == []
