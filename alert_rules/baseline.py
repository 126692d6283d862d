"""What is normal for an agent: hourly figures, recorded every quarter of an hour, and what seven days of them say."""

from alert_rules.promql import BOUND, EVALUATIONS_PER_HOUR, SLOW, hours, limit, limit_by_task_type
from alert_rules.rules import Group, Recording

# Added to an agent's own errors and tasks of a week, so that the few tasks of a quiet or new agent do not pass for
# knowledge: until there is some, one in ten is taken to fail.
PRIOR_ERRORS, PRIOR_TASKS = 5, 50

ENDED = "agent_task_type_variant_outcome:tasks_ended:increase1h"
OUTCOMES = "agent_outcome:tasks_ended:increase1h"

# The limits that are a bucket's bound.
BOUNDS = ("latency_p99_seconds", "latency_p50_seconds", "slo_latency_seconds", "slo_cost_usd")

_TASKS_OF_7_DAYS = "agent_outcome:tasks_ended:sum7d"


GROUP = Group(
    "agent-baseline",
    (
        Recording("agent_task_type:seen", "group by (agent, task_type) (agent_task_cost_usd_count)"),
        Recording(ENDED, "sum by (agent, task_type, variant, outcome) (increase(agent_tasks_total[1h]))"),
        Recording(OUTCOMES, f"sum by (agent, outcome) ({ENDED})"),
        Recording("agent:spend_usd:increase1h", "sum by (agent) (increase(agent_spend_usd_total[1h]))"),
        Recording("agent:tasks_started:increase1h", "sum by (agent) (increase(agent_tasks_started_total[1h]))"),
        Recording("agent:iterations:increase1h", "sum by (agent) (increase(agent_iterations_total[1h]))"),
        Recording(
            "agent:usd_per_started_task:ratio1h",
            "agent:spend_usd:increase1h / (agent:tasks_started:increase1h >= 1)",
        ),
        Recording(
            "agent:iterations_per_started_task:ratio1h",
            "agent:iterations:increase1h / (agent:tasks_started:increase1h >= 1)",
        ),
        # Hours that the agent has been watched for.
        Recording(
            "agent:watched:hours7d",
            f"count_over_time(agent:tasks_started:increase1h[7d] offset 1h) / {EVALUATIONS_PER_HOUR}",
        ),
        # Tasks a second. The mean of what there is: rate(x[7d]) over three hours of data would divide by seven days.
        Recording(
            "agent:tasks_started:mean7d",
            "avg_over_time(agent:tasks_started:increase1h[7d] offset 1h) / 3600",
        ),
        # The median hour, not the mean: one runaway night must not make the next one look normal.
        Recording(
            "agent:usd_per_started_task:median7d",
            "quantile_over_time(0.5, agent:usd_per_started_task:ratio1h[7d] offset 1h)",
        ),
        Recording(
            "agent:iterations_per_started_task:median7d",
            "quantile_over_time(0.5, agent:iterations_per_started_task:ratio1h[7d] offset 1h)",
        ),
        # Hours with tasks in them that the medians stand on.
        Recording(
            "agent:usd_per_started_task:hours7d",
            f"count_over_time(agent:usd_per_started_task:ratio1h[7d] offset 1h) / {EVALUATIONS_PER_HOUR}",
        ),
        # The dearest hour of the week: what a budget for an hour is measured by.
        Recording("agent:spend_usd:max7d", "max_over_time(agent:spend_usd:increase1h[7d] offset 1h)"),
        Recording(
            "agent:spend_usd:hour_budget",
            f"""
            # USD an hour: the agent's own budget, or a multiple of the dearest hour of its week
            min by (agent) (
                label_replace({limit("hour_budget_usd")}, "bound", "budget", "", "")
              or
                label_replace(
                    max by (agent) (
                        label_replace(
                          {limit("hour_budget_factor")} * on (agent) agent:spend_usd:max7d, "of", "week", "", ""
                        )
                      or
                        # where the week holds small change only
                        label_replace(12 * {limit("cost_unknown_floor_usd")}, "of", "floor", "", "")
                    )
                    and on (agent)
                      agent:usd_per_started_task:hours7d >= 24,
                  "bound", "week", "", ""
                )
            )
            """,
        ),
        # How many of its tasks loop on an ordinary day: a flaky tool is no incident at an agent that lives with it.
        Recording(
            "agent:tasks_looping:mean7d", "avg_over_time(sum by (agent) (agent_tasks_looping)[7d:15m] offset 1h)"
        ),
        # The buckets that are somebody's limit, as a label `le`: 1 for each agent and task type.
        # (One rule for all of them: Mimir takes no more than twenty in a group unless told otherwise.)
        Recording(
            BOUND,
            "\nor\n".join(
                f'label_replace(count_values by (agent, task_type) ("le", {limit_by_task_type(name)}),'
                f' "limit", "{name}", "", "")'
                for name in BOUNDS
            ),
        ),
        Recording(_TASKS_OF_7_DAYS, hours(OUTCOMES, "7d", "1h")),
        Recording(
            "agent:error_ratio:mean7d",
            f"""
              (
                  (
                      sum by (agent) ({_TASKS_OF_7_DAYS}{{outcome="error"}})
                    or
                      # an agent that never failed has no series for it
                      sum by (agent) ({_TASKS_OF_7_DAYS}) * 0
                  )
                + {PRIOR_ERRORS}
              )
            /
              (sum by (agent) ({_TASKS_OF_7_DAYS}) + {PRIOR_TASKS})
            """,
        ),
    ),
    SLOW,
)
