"""Every expression of the rules and the dashboards reads only what exists."""

from typing import Any

import promql_parser
import pytest

from alert_rules.generate import groups
from alert_rules.thresholds import load
from dashboards.overview import overview
from dashboards.schema import modern
from tests.alert_rules.routes import WITHOUT_AGENT
from tests.promql import Unknown, known_series, result_labels

THRESHOLDS = load()
GROUPS = groups(THRESHOLDS)
KNOWN = known_series(GROUPS)
RULES = [rule for group in GROUPS for rule in group.rules]


def dashboard_queries() -> list[Any]:
    return [
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in modern(overview(THRESHOLDS))["panels"]
        for target in panel.get("targets", ())
        if "expr" in target
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: getattr(rule, "name", None) or rule.record)
def test_a_rule_reads_only_series_and_labels_of_the_contract_or_recorded_ones(rule: Any) -> None:
    result_labels(promql_parser.parse(rule.expr), KNOWN)


@pytest.mark.parametrize("expr", dashboard_queries())
def test_a_panel_reads_only_series_and_labels_of_the_contract_or_recorded_ones(expr: str) -> None:
    for variable, value in (("$__rate_interval", "1m"), ("$__range", "6h"), ("$agent", ".+")):
        expr = expr.replace(variable, value)
    result_labels(promql_parser.parse(expr), KNOWN)


@pytest.mark.parametrize(
    "expr",
    [
        "rate(agent_spend_total[5m])",
        'agent_spend_usd_total{task_type="a"}',
        "sum by (task_type) (rate(agent_spend_usd_total[5m]))",
        "sum by (agent) (agent_spend_usd_total) / on (tool) agent_tasks_in_flight",
        "agent_tasks_in_flight * on (agent) group_left (tool) agent_spend_usd_total",
    ],
)
def test_an_expression_with_an_unknown_name_or_label_is_refused(expr: str) -> None:
    with pytest.raises(Unknown):
        result_labels(promql_parser.parse(expr), KNOWN)


def test_every_alert_on_an_agent_keeps_the_label_agent() -> None:
    alerts = [rule for rule in RULES if hasattr(rule, "name")]
    without = {alert.name for alert in alerts if "agent" not in result_labels(promql_parser.parse(alert.expr), KNOWN)}

    assert without == WITHOUT_AGENT
