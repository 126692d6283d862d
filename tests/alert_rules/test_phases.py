"""No rule reads at an instant what another group records too seldom for it.

Every group is evaluated at a phase of its own within its interval, and an instant query looks back five minutes: a
figure that another group records every quarter of an hour is not there for two thirds of the time. Neither promtool nor
a backfill shows that: they evaluate all groups at the same moments.
"""

from collections.abc import Iterator

import promql_parser as ast
import pytest

from alert_rules.generate import groups
from alert_rules.rules import Group, Recording
from alert_rules.thresholds import load

GROUPS = groups(load())
# Those of five minutes count: what is just as old as that is no longer seen by Prometheus 3.
SELDOM = {group.name for group in GROUPS if group.interval in ("5m", "15m")}
RECORDED_SELDOM = {
    rule.record for group in GROUPS if group.name in SELDOM for rule in group.rules if isinstance(rule, Recording)
}


def instant_selectors(expr: ast.Expr) -> Iterator[str]:
    """Names of the series that are read at the moment of evaluation, not over a range."""
    match expr:
        case ast.VectorSelector():
            yield expr.name or ""
        case ast.ParenExpr() | ast.UnaryExpr() | ast.AggregateExpr():
            yield from instant_selectors(expr.expr)
        case ast.BinaryExpr():
            yield from instant_selectors(expr.lhs)
            yield from instant_selectors(expr.rhs)
        case ast.Call():
            for argument in expr.args:
                yield from instant_selectors(argument)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_group_reads_over_a_range_what_another_records_seldom(group: Group) -> None:
    own = {rule.record for rule in group.rules if isinstance(rule, Recording)}

    read = {name for rule in group.rules for name in instant_selectors(ast.parse(rule.expr))}
    assert read & RECORDED_SELDOM - own == set()
