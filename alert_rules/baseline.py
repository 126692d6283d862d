"""What is normal for an agent: seven days of hourly figures, recorded every quarter of an hour."""

from alert_rules.rules import Group, Recording

INTERVAL = "15m"
EVALUATIONS_PER_HOUR = 4

# Added to an agent's own errors and tasks of a week, so that the few tasks of a quiet or new agent do not pass for
# knowledge: until there is some, one in ten is taken to fail.
PRIOR_ERRORS, PRIOR_TASKS = 5, 50


def held(series: str) -> str:
    """A baseline as the other groups read it: the last figure of the last hour.

    The group is evaluated more seldom than instant queries look back (5 minutes), and after a restart of Prometheus its
    first evaluation may be a whole interval away.
    """
    return f"last_over_time({series}[1h])"


def _tasks_of_7_days(selector: str = "") -> str:
    return f"sum_over_time(agent_outcome:tasks_ended:increase1h{selector}[7d] offset 1h) / {EVALUATIONS_PER_HOUR}"


GROUP = Group(
    "agent-baseline",
    (
        Recording("agent:spend_usd:increase1h", "sum by (agent) (increase(agent_spend_usd_total[1h]))"),
        Recording("agent:tasks_started:increase1h", "sum by (agent) (increase(agent_tasks_started_total[1h]))"),
        Recording("agent_outcome:tasks_ended:increase1h", "sum by (agent, outcome) (increase(agent_tasks_total[1h]))"),
        Recording(
            "agent:usd_per_started_task:ratio1h",
            "agent:spend_usd:increase1h / (agent:tasks_started:increase1h >= 1)",
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
        # Hours with tasks in them that the median stands on.
        Recording(
            "agent:usd_per_started_task:hours7d",
            f"count_over_time(agent:usd_per_started_task:ratio1h[7d] offset 1h) / {EVALUATIONS_PER_HOUR}",
        ),
        Recording(
            "agent:error_ratio:mean7d",
            f"""
              (
                  (
                      sum by (agent) ({_tasks_of_7_days('{outcome="error"}')})
                    or
                      # an agent that never failed has no series for it
                      sum by (agent) ({_tasks_of_7_days()}) * 0
                  )
                + {PRIOR_ERRORS}
              )
            /
              (sum by (agent) ({_tasks_of_7_days()}) + {PRIOR_TASKS})
            """,
        ),
    ),
    INTERVAL,
)
