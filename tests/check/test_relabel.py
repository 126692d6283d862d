"""Relabelling is followed as Prometheus does it."""

from typing import Any

import pytest

from alert_rules.generate import alerts
from check.relabel import check, relabel

P1 = {"alertname": "AgentRunawayLoop", "severity": "P1", "agent": "a"}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"action": "drop", "source_labels": ["severity"], "regex": "P1|P2"}, None),
        ({"action": "drop", "source_labels": ["severity"], "regex": "P"}, P1),
        ({"action": "keep", "source_labels": ["severity", "agent"], "regex": "P1;a"}, P1),
        ({"action": "keep", "source_labels": ["team"], "regex": ".+"}, None),
        ({"action": "dropequal", "source_labels": ["agent"], "target_label": "agent"}, None),
        ({"action": "keepequal", "source_labels": ["agent"], "target_label": "severity"}, None),
        ({"target_label": "severity", "replacement": "critical"}, {**P1, "severity": "critical"}),
        (
            {"source_labels": ["severity"], "regex": "P(.)", "target_label": "p", "replacement": "${1}x"},
            {**P1, "p": "1x"},
        ),
        ({"source_labels": ["severity"], "regex": "Q", "target_label": "severity", "replacement": "x"}, P1),
        ({"source_labels": ["team"], "target_label": "agent"}, {k: v for k, v in P1.items() if k != "agent"}),
        ({"action": "lowercase", "source_labels": ["severity"], "target_label": "severity"}, {**P1, "severity": "p1"}),
        ({"action": "uppercase", "source_labels": ["agent"], "target_label": "agent"}, {**P1, "agent": "A"}),
        ({"action": "labelmap", "regex": "a(.*)t", "replacement": "b$1"}, {**P1, "bgen": "a"}),
        ({"action": "labeldrop", "regex": "agent|severity"}, {"alertname": "AgentRunawayLoop"}),
        ({"action": "labelkeep", "regex": "agent"}, {"agent": "a"}),
    ],
)
def test_a_step_does_what_prometheus_documents(step: dict[str, Any], expected: dict[str, str] | None) -> None:
    assert relabel(step, P1) == expected


def found(config: dict[str, Any], *agents: str) -> list[str]:
    return [finding.what for finding in check(config, alerts(), agents) if finding.is_problem]


@pytest.mark.parametrize(
    ("alerting", "told"),
    [
        (
            {
                "alert_relabel_configs": [
                    {"target_label": "dc", "replacement": "x"},
                    {"action": "labeldrop", "regex": "cause"},
                ]
            },
            "alerting.alert_relabel_configs[1] takes cause away",
        ),
        (
            {"alertmanagers": [{}, {"alert_relabel_configs": [{"target_label": "severity", "replacement": "info"}]}]},
            "alerting.alertmanagers[1].alert_relabel_configs[0] makes severity 'info', where it is 'P1'",
        ),
    ],
)
def test_what_takes_a_label_from_the_routes_is_told_with_its_place(alerting: dict[str, Any], told: str) -> None:
    assert any(told in what for what in found({"alerting": alerting}))


def test_a_drop_of_one_agent_that_is_seen_is_told_with_its_name() -> None:
    drop = {"action": "drop", "source_labels": ["agent", "severity"], "regex": "summarizer;P1"}

    [what] = found({"alerting": {"alert_relabel_configs": [drop]}}, "support-agent", "summarizer")

    assert what.endswith(" of summarizer: alerting.alert_relabel_configs[0] drops it")


def test_an_external_label_that_routes_read_is_told() -> None:
    [what] = found({"global": {"external_labels": {"action": "off", "severity": "info"}}})

    assert "global.external_labels.action makes action 'off', where it is ''" in what


def test_what_changes_other_labels_is_no_problem() -> None:
    replica = {"action": "labeldrop", "regex": "replica"}
    others = {"action": "drop", "source_labels": ["severity"], "regex": "info"}

    assert (
        found({"global": {"external_labels": {"dc": "$x"}}, "alerting": {"alert_relabel_configs": [replica, others]}})
        == []
    )
