"""What the dashboards' quantiles and counts over days are made of: a histogram of each five minutes, by agent.

Raw buckets have a sample each 15 seconds for each task type and variant: over 8 days of 50 agents a panel would read a
hundred million of them. No alert reads these.
"""

from alert_rules.rules import Group, Recording

INTERVAL = "5m"

DURATION = f"agent_le:task_duration_seconds:rate{INTERVAL}"
COST = f"agent_le:task_cost_usd:rate{INTERVAL}"
ITERATIONS = f"agent_le:task_iterations:rate{INTERVAL}"
CALL = f"agent_model_le:iteration_duration_seconds:rate{INTERVAL}"
FIRST_TOKEN = f"agent_model_le:time_to_first_token_seconds:rate{INTERVAL}"
ENDED = f"agent_outcome:tasks_ended:rate{INTERVAL}"


def _rate(record: str, by: str, counter: str) -> Recording:
    """A second's increase; each window begins where the one before ended."""
    return Recording(record, f"sum by ({by}) (rate({counter}[{INTERVAL}]))")


GROUP = Group(
    "agent-quantiles",
    (
        _rate(DURATION, "agent, le", "agent_task_duration_seconds_bucket"),
        _rate(COST, "agent, le", "agent_task_cost_usd_bucket"),
        _rate(ITERATIONS, "agent, le", "agent_task_iterations_bucket"),
        _rate(CALL, "agent, model, le", "agent_iteration_duration_seconds_bucket"),
        _rate(FIRST_TOKEN, "agent, model, le", "agent_time_to_first_token_seconds_bucket"),
        _rate(ENDED, "agent, outcome", "agent_tasks_total"),
    ),
    INTERVAL,
)
