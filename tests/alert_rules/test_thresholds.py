"""The numbers of the alerts: what a user may change, and what nobody can mean."""

from pathlib import Path

import pytest

from alert_rules.generate import rule_files
from alert_rules.rules import Site
from alert_rules.thresholds import BadThreshold, load
from tests.alert_rules.unit_tests import problems_of


def overrides(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.yml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_default_holds_for_every_agent() -> None:
    assert load().value("error_rate", "support-bot") == 0.2


def test_an_override_holds_for_its_agent_alone(tmp_path: Path) -> None:
    thresholds = load(overrides(tmp_path, "support-bot: {error_rate: 0.4}"))

    assert thresholds.value("error_rate", "support-bot") == 0.4
    assert thresholds.value("error_rate", "other") == 0.2


def test_an_override_for_every_agent_changes_the_default(tmp_path: Path) -> None:
    thresholds = load(overrides(tmp_path, '"*": {error_rate: 0.4}\nother: {error_rate: 0.1}'))

    assert thresholds.value("error_rate", "support-bot") == 0.4
    assert thresholds.value("error_rate", "other") == 0.1


def test_an_override_becomes_a_recorded_series_of_its_own(tmp_path: Path) -> None:
    thresholds = load(overrides(tmp_path, "support-bot: {error_rate: 0.4}"))

    _, default, own = (rule.document(Site()) for rule in thresholds.group().rules)

    assert default["labels"] == {"agent": "*"}
    named = 'label_replace(vector(0.4), "name", "error_rate", "", "")'
    assert own == {"record": "agent:limit", "expr": f'label_replace({named}, "agent", "support-bot", "", "")'}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "null", "{}"])
def test_a_file_that_says_nothing_changes_nothing(tmp_path: Path, text: str) -> None:
    assert load(overrides(tmp_path, text)) == load()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("a: {slo_success: 0.9999999}", "0.9999999"),
        ("a: {hour_budget_usd: 234567.5}", "234567.5"),
        ("a: {hour_budget_usd: 234567}", "234567"),
        ("a: {iterations_factor: 2.0}", "2"),
        ("a: {hour_budget_usd: 1000000}", "1e+06"),
        ("a: {error_rate: 1.0e-7}", "1e-07"),
    ],
)
def test_a_number_is_recorded_as_it_was_written(tmp_path: Path, text: str, number: str) -> None:
    *_, own = load(overrides(tmp_path, text)).group().rules

    assert f"vector({number})," in own.expr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {error_rate: 1.2}", "mine.yml.a.error_rate: 1.2 is not a ratio between 0 and 1 (0.2 is 20 %)"),
        ("a: {error_rate: -0.1}", "mine.yml.a.error_rate: -0.1 is not a ratio"),
        ("a: {error_rate: 20%}", "mine.yml.a.error_rate: '20%' is not a ratio"),
        ("a: {error_rate: .nan}", "mine.yml.a.error_rate: nan is not a ratio"),
        ("a: {error_rate: true}", "mine.yml.a.error_rate: True is not a ratio"),
        ("a: {cost_anomaly_factor: 0.5}", "mine.yml.a.cost_anomaly_factor: 0.5 is not a factor above 1"),
        ("a: {cost_anomaly_floor_usd: .inf}", "mine.yml.a.cost_anomaly_floor_usd: inf is not an amount in USD"),
        ("a: {eror_rate: 0.3}", "mine.yml.a.eror_rate: no such limit; did you mean error_rate?"),
        ("a b: {error_rate: 0.3}", "mine.yml.a b: no agent can have this name"),
        ("a: {latency_p99_seconds: 200}", "mine.yml.a.latency_p99_seconds: 200 is not a bucket's bound: 1, 2.5,"),
        ("a: {error_sigmas_own: 50}", "mine.yml.a.error_sigmas_own: 50 is not a number of standard deviations"),
        ("a: {task_types: {b: {error_rate: 0.3}}}", "mine.yml.a.task_types.b.error_rate: no such limit; there are"),
        ("a: {task_types: {b: {slo_cost_usd: 2}}}", "mine.yml.a.task_types.b.slo_cost_usd: 2 is not a bucket's bound"),
        ("a: {task_types: {b c: {slo_cost_usd: 1}}}", "mine.yml.a.task_types.b c: no task type can have this name"),
        ("a: {task_types: 3}", "mine.yml.a.task_types: must map task types to limits, not 3"),
        ('"*": {task_types: {b: {slo_cost_usd: 1}}}', "mine.yml.*.task_types: a task type's limit stands under"),
        ("a: 0.3", "mine.yml.a: must map names of limits to numbers, not 0.3"),
        ("[a, b]", "mine.yml: must map agents to limits"),
        ("a: {error_rate: 0.3", "cannot be read as YAML"),
        ("a: {error_rate: 0.3, error_rate: 0.4}", "error_rate is there twice"),
        ("? [a, b]\n: {error_rate: 0.3}", "a list or mapping as a key"),
        ("a: {? {b: c} : 0.3}", "a list or mapping as a key"),
        ("a: {error_rate: 1" + 400 * "0" + "}", "mine.yml.a.error_rate: 1000000"),
        ("a: {error_rate: 1" + 5000 * "0" + "}", "cannot be read as YAML"),
        (
            "a: {error_rate: 0x" + 5000 * "f" + "}",
            "mine.yml.a.error_rate: a number of thousands of digits is not a ratio",
        ),
        ("a: {error_rate: 2026-99-99}", "cannot be read as YAML"),
        ("a: {error_rate: !!bool x}", "cannot be read as YAML"),
        ("a: " + 5000 * "[", "cannot be read as YAML"),
        ("a: {error_rate: [" + 500 * "1, " + "]}", "... (1500 characters) is not a ratio"),
        ("false", "mine.yml: must map agents to limits"),
        ("[]", "mine.yml: must map agents to limits"),
        ("0", "mine.yml: must map agents to limits"),
        ('""', "mine.yml: must map agents to limits"),
    ],
    ids=lambda text: text[:60],
)
def test_what_nobody_can_mean_is_refused_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadThreshold) as refused:
        load(overrides(tmp_path, text))

    assert message in str(refused.value)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.yml"
    file.write_bytes("a: {error_rate: 0.3}  # für später".encode("latin-1"))

    with pytest.raises(BadThreshold, match=r"latin\.yml: cannot be read as YAML: 'utf-8' codec"):
        load(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadThreshold, match=r"nowhere\.yml"):
        load(tmp_path / "nowhere.yml")


def firing(promtool: Path, folder: Path, text: str, groups: list[str], case: str, alert: str, agent: str) -> str:
    """Problems if, by these overrides, the alert fires for another than this agent alone after an hour of the case.

    The case is a series a line: its name, and its values minute by minute.
    """
    for name, rules in rule_files(load(overrides(folder, text)), Site()).items():
        (folder / name).write_text(rules, encoding="utf-8")
    lines = [line.strip().split(" ", 1) for line in case.strip().splitlines()]
    check = {
        "expr": f'group by (agent) (ALERTS{{alertname="{alert}"}})',
        "eval_time": "1h",
        "exp_samples": [{"labels": f'{{agent="{agent}"}}', "value": 1}],
    }
    document = {
        "rule_files": [f"{group}.yml" for group in groups],
        "group_eval_order": groups,
        "evaluation_interval": "5m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in lines],
                "promql_expr_test": [check],
            }
        ],
    }
    return problems_of(promtool, document, folder)


ERRORS_OF_HALF = """
    agent_tasks_started_total{agent="tolerant",variant="stable"} 0+10x60
    agent_tasks_started_total{agent="usual",variant="stable"} 0+10x60
    agent_tasks_total{agent="tolerant",task_type="a",variant="stable",outcome="success",reason=""} 0+10x40 405+5x20
    agent_tasks_total{agent="tolerant",task_type="a",variant="stable",outcome="error",reason="tool"} 0x40 5+5x20
    agent_task_iterations_count{agent="tolerant",task_type="a",variant="stable"} 0+10x60
    agent_task_iterations_count{agent="usual",task_type="a",variant="stable"} 0+10x60
    agent_tasks_total{agent="usual",task_type="a",variant="stable",outcome="success",reason=""} 0+10x40 405+5x20
    agent_tasks_total{agent="usual",task_type="a",variant="stable",outcome="error",reason="tool"} 0x40 5+5x20
"""


def test_an_agents_own_limit_holds_in_the_generated_rules_and_for_no_other(promtool: Path, tmp_path: Path) -> None:
    text = "tolerant: {error_rate: 0.7}"

    groups = ["agent-limits", "agent-errors"]
    problems = firing(promtool, tmp_path, text, groups, ERRORS_OF_HALF, "AgentErrorRateHigh", "usual")
    assert problems == ""


def test_a_limit_for_every_agent_yields_to_an_agents_own(promtool: Path, tmp_path: Path) -> None:
    text = '"*": {error_rate: 0.7}\ntolerant: {error_rate: 0.2}'

    groups = ["agent-limits", "agent-errors"]
    problems = firing(promtool, tmp_path, text, groups, ERRORS_OF_HALF, "AgentErrorRateHigh", "tolerant")
    assert problems == ""


def slow_tasks(agent: str, task_type: str, within: dict[str, int]) -> str:
    """Ten tasks a minute of a type, so many of them within each bound, and none slow for the first half hour."""
    labels = f'agent="{agent}",task_type="{task_type}",variant="stable"'
    buckets = "\n".join(
        f'agent_task_duration_seconds_bucket{{{labels},le="{bound}"}} 0+10x30 {300 + tasks}+{tasks}x30'
        for bound, tasks in within.items()
    )
    return f"""
        agent_task_duration_seconds_count{{{labels}}} 0+10x60
        agent_task_cost_usd_count{{{labels}}} 0+10x60
        {buckets}
    """


def test_a_task_types_own_limit_holds_for_its_tasks_alone(promtool: Path, tmp_path: Path) -> None:
    """An agent's deep research may take half an hour, its chat five minutes as everybody's."""
    text = "patient: {task_types: {deep-research: {latency_p99_seconds: 1800}}}"
    quarter_of_an_hour = {"30": 10, "300": 5, "1800": 10}
    case = "\n".join(
        line
        for line in (
            'agent_tasks_started_total{agent="patient",variant="stable"} 0+20x60\n'
            'agent_tasks_started_total{agent="usual",variant="stable"} 0+10x60\n'
            + slow_tasks("patient", "deep-research", quarter_of_an_hour)
            + slow_tasks("patient", "chat", {"30": 10, "300": 10, "1800": 10})
            + slow_tasks("usual", "deep-research", quarter_of_an_hour)
        ).splitlines()
        if line.strip()
    )

    groups = ["agent-limits", "agent-baseline", "agent-latency"]
    problems = firing(promtool, tmp_path, text, groups, case, "AgentLatencyP99High", "usual")
    assert problems == ""
