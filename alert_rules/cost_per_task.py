"""M4, A7: a task costs more than tasks of its type did, at once or day by day."""

from alert_rules.promql import SLOW, hours, limit, limit_by_task_type, usual_mean
from alert_rules.rules import Action, Alert, Group, Recording, Severity

USD, TASKS = "agent_task_type:cost_usd:increase1h", "agent_task_type:tasks_costed:increase1h"
_MEAN = "agent_task_type:cost_usd:mean"
_COUNT = "agent_task_type:tasks_costed:increase"
_BASE = "agent_task_type:cost_usd:mean7d"


def _window(window: str) -> tuple[Recording, Recording]:
    """Tasks and what one of them cost, USD."""
    usd, tasks = (USD, TASKS) if window == "1h" else (hours(USD, window), hours(TASKS, window))
    return (
        Recording(_COUNT, f"{tasks} * 1" if window == "1h" else tasks, {"window": window}),
        Recording(_MEAN, f"({usd}) / ({tasks} > 0)", {"window": window}),
    )


def _day(name: str, offset: str) -> tuple[Recording, Recording]:
    return (
        Recording("agent_task_type:tasks_costed:sum1d", hours(TASKS, "1d", offset), {"day": name}),
        Recording(
            "agent_task_type:cost_usd:mean1d",
            f"""
              ({hours(USD, "1d", offset)})
            / on (agent, task_type)
              (agent_task_type:tasks_costed:sum1d{{day="{name}"}} > 0)
            """,
            {"day": name},
        ),
    )


def _rise(earlier: str, later: str) -> Recording:
    """Cost of the later day's tasks, in multiples of what they would have cost on the earlier day, type by type."""
    tasks = f'sum by (agent, task_type) (agent_task_type:tasks_costed:sum1d{{day="{later}"}})'
    now = f'sum by (agent, task_type) (agent_task_type:cost_usd:mean1d{{day="{later}"}})'
    then = f'sum by (agent, task_type) (agent_task_type:cost_usd:mean1d{{day="{earlier}"}})'
    return Recording(
        "agent:cost_usd_per_task:rise3d",
        f"""
          sum by (agent) ({tasks} * {now} and on (agent, task_type) {then})
        /
          (sum by (agent) ({tasks} * {then}) > 0)
        """,
        {"day": later},
    )


GROUP = Group(
    "agent-cost-per-task",
    (
        Recording(USD, "sum by (agent, task_type) (increase(agent_task_cost_usd_sum[1h]))"),
        Recording(TASKS, "sum by (agent, task_type) (increase(agent_task_cost_usd_count[1h]))"),
        *_window("1h"),
        *_window("6h"),
        *_window("1d"),
        Recording(
            "agent_task_type:cost_usd:median7d",
            f'quantile_over_time(0.5, {_MEAN}{{window="1h"}}[7d] offset 1h)',
        ),
        Recording(_BASE, usual_mean(USD, TASKS, "agent_task_type:cost_usd:median7d", 2)),
        *_day("today", ""),
        *_day("3 days ago", "3d"),
        *_day("6 days ago", "6d"),
        _rise("3 days ago", "today"),
        _rise("6 days ago", "3 days ago"),
        Alert(
            name="AgentCostPerTaskHigh",
            requirement="M4, SPEC 7",
            severity=Severity.CHAT,
            cause="cost",
            action=Action.MODEL,
            expr=f"""
            # USD a task
            max by (agent, task_type) (
                {_MEAN}
              and
                {_MEAN} / on (agent, task_type) group_left () {_BASE}
                  > on (agent, task_type) group_left () {limit_by_task_type("cost_per_task_factor")}
              and
                {_COUNT} >= on (agent) group_left () {limit("cost_per_task_min_count")}
              unless on (agent, task_type, window) (
                  # dear hours are past trouble, unless the last one is dear as well
                  {_MEAN}{{window=~"6h|1d"}}
                unless on (agent, task_type)
                  {_MEAN}{{window="1h"}} / on (agent, task_type) group_left () {_BASE}
                    > on (agent, task_type) group_left () {limit_by_task_type("cost_per_task_factor")}
              )
            )
            """,
            keep_firing_for="1h",
            summary='{{ $labels.agent }}: a task of {{ $labels.task_type }} costs {{ $value | printf "%.3f" }} USD',
            description="""
            Tasks of this type cost more than three times what they did in the last 7 days: over the last hour where
            they are many, over 6 hours or a day where they are few.
            """,
        ),
        Alert(
            name="AgentCostTrendUp",
            requirement="A7",
            severity=Severity.DASHBOARD,
            cause="cost",
            expr=f"""
            # rise of six days
              sum by (agent) (agent:cost_usd_per_task:rise3d{{day="today"}})
            * on (agent)
              sum by (agent) (agent:cost_usd_per_task:rise3d{{day="3 days ago"}})
            > on (agent) {limit("cost_trend_rise")}
            and on (agent)
              min by (agent) (agent:cost_usd_per_task:rise3d) > on (agent) {limit("cost_trend_step")}
            and on (agent)
              min by (agent) (sum by (agent, day) (agent_task_type:tasks_costed:sum1d))
                >= on (agent) {limit("trend_min_count")}
            and on (agent)
              count by (agent) (sum by (agent, day) (agent_task_type:tasks_costed:sum1d)) == 3
            """,
            keep_firing_for="6h",
            summary='{{ $labels.agent }}: a task costs {{ $value | printf "%.2f" }} times what it did six days ago',
            description="""
            Within task types, the last day's tasks cost more than those of 3 days ago, and those more than those of 6
            days ago, each step by more than 4 % and both by more than 12 %.
            """,
        ),
    ),
    SLOW,
)
