"""What the dashboards' quantiles and counts over days are made of: each five minutes' buckets and counts, by agent.

Raw series have a sample each 15 seconds for each task type and variant: over 8 days of 50 agents a panel would read a
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
TOOL_CALLS = f"agent_tool_result:tool_calls:rate{INTERVAL}"
CALLS = f"agent_model:iterations:rate{INTERVAL}"
REFUSALS = f"agent_model:refusals:rate{INTERVAL}"


def _rate(record: str, by: str, counter: str) -> Recording:
    """A second's increase; each window begins where the one before ended."""
    return Recording(record, f"sum by ({by}) (rate({counter}[{INTERVAL}]))")


GROUP = Group(
    "agent-rates",
    (
        _rate(DURATION, "agent, le", "agent_task_duration_seconds_bucket"),
        _rate(COST, "agent, le", "agent_task_cost_usd_bucket"),
        _rate(ITERATIONS, "agent, le", "agent_task_iterations_bucket"),
        _rate(CALL, "agent, model, le", "agent_iteration_duration_seconds_bucket"),
        _rate(FIRST_TOKEN, "agent, model, le", "agent_time_to_first_token_seconds_bucket"),
        _rate(ENDED, "agent, outcome", "agent_tasks_total"),
        _rate(TOOL_CALLS, "agent, tool, result", "agent_tool_calls_total"),
        _rate(CALLS, "agent, model", "agent_iterations_total"),
        _rate(REFUSALS, "agent, model", "agent_refusals_total"),
    ),
    INTERVAL,
)
