"""Every query reads only what exists: the contract's series and the recorded ones, with the labels they have."""

import re

import promql_parser
import pytest

from alert_rules.generate import groups
from tests.dashboards.boards import THRESHOLDS, queries
from tests.promql import known_series, result_labels

KNOWN = known_series(groups(THRESHOLDS))
_FILLED_IN = {"__rate_interval": "1m", "__range": "6h", "__interval": "15s"}


def filled_in(expr: str) -> str:
    return re.sub(r"\$([a-z_]\w*)", lambda match: _FILLED_IN.get(match[1], ".+"), expr)


@pytest.mark.parametrize("expr", queries())
def test_a_query_reads_only_series_and_labels_that_exist(expr: str) -> None:
    result_labels(promql_parser.parse(filled_in(expr)), KNOWN)
