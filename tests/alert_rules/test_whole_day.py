"""All rules at once, over 26 hours of agents with everything that Prometheus could fail to match.

Two exporters, two variants, two types of tasks, two models, a restart, an agent that appears in the middle, and limits
of an agent's own and of its task types. promtool fails if any rule ever could not be evaluated ("found duplicate series
for the match group", "many-to-many matching not allowed").
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from alert_rules.generate import rule_files
from alert_rules.rules import Site
from alert_rules.thresholds import load
from tests.alert_rules.unit_tests import problems_of

OVERRIDES = """
calm:
  error_rate: 0.3
  slo_success: 0.7
  slo_latency_seconds: 600
  latency_p50_seconds: 60
  hour_budget_usd: 5000
  task_types:
    b: {latency_p99_seconds: 1800, slo_cost_usd: 5, cost_per_task_factor: 6, iterations_factor: 3}
troubled:
  success_rate: 0.5
  task_types:
    a: {slo_latency_seconds: 600, iterations_p99_factor: 3}
"""
DAY = 24 * 60
TROUBLE = 2 * 60
TROUBLES = (
    "AgentConfidenceShift",
    "AgentCostAnomaly",
    "AgentCostPerTaskHigh",
    "AgentCostUnknown",
    "AgentErrorBudgetBurn",
    "AgentErrorRateCritical",
    "AgentErrorRateHigh",
    "AgentGoalAlignmentShift",
    "AgentIterationsP99High",
    "AgentIterationsSpike",
    "AgentLatencyP50High",
    "AgentLatencyP99High",
    "AgentProviderOutage",
    "AgentRolloutRollback",
    "AgentRunawayLoop",
    "AgentSuccessRateCritical",
    "AgentSuccessRateDrop",
    "AgentTokenWasteHigh",
    "AgentToolValidityLow",
)


def counter(agent: str, instance: str, usual: float, troubled: float) -> str:
    """A counter minute by minute: its rate on an ordinary day, and in the two hours of trouble after it."""
    if agent == "new":
        return f"_x{DAY // 2 - 1} 0+{usual}x{DAY // 2 + TROUBLE}"
    if agent == "troubled":
        return f"0+{usual}x{DAY} {usual * DAY + troubled:g}+{troubled}x{TROUBLE}"
    if instance == "b":
        # a restart
        return f"{usual * 5000:g}+{usual}x600 stale _x2 {usual}+{usual}x{DAY - 600 + TROUBLE}"
    return f"0+{usual}x{DAY + TROUBLE}"


def gauge(agent: str, usual: float, troubled: float) -> str:
    return f"{usual}x{DAY} {troubled if agent == 'troubled' else usual}x{TROUBLE}"


def histogram(metric: str, labels: str, bounds: dict[str, tuple[float, float]]) -> Iterator[tuple[str, float, float]]:
    """Of a task a minute: up to each bound so many, usually and in trouble."""
    for bound, (usual, troubled) in {**bounds, "+Inf": (1, 1)}.items():
        yield f'{metric}_bucket{{{labels},le="{bound}"}}', usual, troubled
    yield f"{metric}_count{{{labels}}}", 1, 1


def counters(agent: str, target: str) -> Iterator[tuple[str, float, float]]:
    """Series of one exporter: rates a minute, on an ordinary day and in trouble."""
    of = f'agent="{agent}",{target}'
    for variant in ("stable", "canary"):
        v = f'{of},variant="{variant}"'
        yield f"agent_tasks_started_total{{{v}}}", 2, 2
        for model, purpose in product(("large", "small"), ("progress", "retry")):
            share = 0.9 if purpose == "progress" else 0.1
            m = f'{v},model="{model}"'
            yield f'agent_spend_usd_total{{{m},purpose="{purpose}"}}', 0.1 * share, 4 * (1 - share)
            yield (
                f'agent_tokens_total{{{m},direction="input",purpose="{purpose}"}}',
                1000 * share,
                9000 * (1 - share),
            )
            yield f'agent_iterations_total{{{m},stop_reason="{purpose}"}}', 4 * share, 4 * share
        yield f'agent_iterations_total{{{v},model="large",stop_reason="error"}}', 0, 40
        for tool, result in product(("search", "mail"), ("ok", "error", "invalid")):
            usual = {"ok": 3, "error": 0.1, "invalid": 0.01}[result]
            yield f'agent_tool_calls_total{{{v},tool="{tool}",result="{result}"}}', usual, 1
        for task_type in ("a", "b"):
            t = f'{v},task_type="{task_type}"'
            for outcome, reason, usually, troubled in (
                ("success", "", 0.9, 0.2),
                ("failure", "", 0.06, 0.1),
                ("error", "provider", 0.01, 0.4),
                ("error", "tool", 0.01, 0.2),
                ("abandoned", "user_cancel", 0.02, 0.1),
            ):
                yield f'agent_tasks_total{{{t},outcome="{outcome}",reason="{reason}"}}', usually, troubled
            slow = {"30": (0.8, 0.2), "60": (0.9, 0.3), "300": (1, 0.6), "600": (1, 0.6), "1800": (1, 1)}
            yield from histogram("agent_task_duration_seconds", t, slow)
            yield from histogram("agent_task_cost_usd", t, {"0.1": (0.9, 0), "1": (1, 0.1), "5": (1, 0.9)})
            yield f"agent_task_cost_usd_sum{{{t}}}", 0.1, 2
            yield from histogram("agent_task_iterations", t, {"3": (0.5, 0), "8": (1, 0.2), "50": (1, 0.9)})
            yield f"agent_task_iterations_sum{{{t}}}", 4, 20
            for score in ("confidence", "goal_alignment"):
                yield from histogram(f"agent_task_{score}", t, {"0.5": (0.1, 0.9), "0.9": (0.6, 1), "1": (1, 1)})
    yield f'agent_unpriced_tokens_total{{{of},model="large"}}', 0, 900
    yield f'agent_unmetered_calls_total{{{of},model="large"}}', 0, 4


def gauges(agent: str, target: str) -> Iterator[tuple[str, float, float]]:
    of = f'agent="{agent}",{target}'
    yield f'agent_tasks_looping{{{of},why="repeat"}}', 0, 4
    yield f'agent_tasks_looping{{{of},why="failing_tool"}}', 0, 8
    yield f"agent_task_in_flight_spend_usd_max{{{of}}}", 0.1, 3
    yield f"agent_exporter_lag_seconds{{{of}}}", 0.4, 0.4


def series() -> list[dict[str, str]]:
    found = {}
    for instance in ("a", "b"):
        target = f'job="agent-exporter",instance="{instance}"'
        found[f"up{{{target}}}"] = f"1x{DAY + TROUBLE}"
        found[f'agent_exporter_spans_total{{{target},result="counted"}}'] = f"0+100x{DAY + TROUBLE}"
        found[f"agent_state_read_ok{{{target}}}"] = f"1x{DAY + TROUBLE}"
        found[f"agent_state_generation{{{target}}}"] = f"7x{DAY + TROUBLE}"
        for agent in ("calm", "troubled", "new"):
            for name, usual, troubled in counters(agent, target):
                found[name] = counter(agent, instance, usual, troubled)
            for name, usual, troubled in gauges(agent, target):
                found[name] = gauge(agent, usual, troubled)
    for agent, stage in product(("calm", "troubled"), ("5", "10")):
        name = f'agent_rollout_verdict{{agent="{agent}",rollout="r",stage="{stage}",job="controller",instance="c"}}'
        found[name] = gauge(agent, 0, -1)
    return [{"series": name, "values": values} for name, values in found.items()]


@pytest.mark.timeout(600)
def test_no_rule_ever_fails_and_only_the_agent_in_trouble_is_told_of(promtool: Path, tmp_path: Path) -> None:
    overrides = tmp_path / "mine.yml"
    overrides.write_text(OVERRIDES, encoding="utf-8")
    files = rule_files(load(overrides), Site())
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    case: dict[str, Any] = {
        "rule_files": list(files),
        "group_eval_order": [name.removesuffix(".yml") for name in files],
        "evaluation_interval": "15m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series(),
                "promql_expr_test": [
                    {
                        "expr": 'group by (agent, alertname) (ALERTS{alertname!="Watchdog"})',
                        "eval_time": "24h",
                        "exp_samples": [],
                    },
                    {
                        "expr": 'group by (agent, alertname) (ALERTS{alertname!="Watchdog"})',
                        "eval_time": "26h",
                        "exp_samples": [
                            {"labels": f'{{agent="troubled",alertname="{name}"}}', "value": 1} for name in TROUBLES
                        ],
                    },
                ],
            }
        ],
    }

    assert problems_of(promtool, case, tmp_path) == ""
