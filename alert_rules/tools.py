"""A6, M11: calls of a tool with a required field missing or of the wrong type."""

from alert_rules.promql import limit, sigmas_above
from alert_rules.rules import Alert, Group, Recording, Severity

_CALLS, _INVALID = "agent_tool:tool_calls:increase", "agent_tool:tool_calls_invalid:increase"
_CALLS_1H, _INVALID_1H = "agent_tool:tool_calls:increase1h", "agent_tool:tool_calls_invalid:increase1h"
_RATIO = "agent_tool:tool_calls_invalid:ratio"

GROUP = Group(
    "agent-tools",
    (
        Recording(_CALLS_1H, "sum by (agent, tool) (increase(agent_tool_calls_total[1h])) > 0"),
        Recording(_INVALID_1H, 'sum by (agent, tool) (increase(agent_tool_calls_total{result="invalid"}[1h]))'),
        Recording(_CALLS, f"{_CALLS_1H} * 1", {"window": "1h"}),
        Recording(_INVALID, f"{_INVALID_1H} * 1", {"window": "1h"}),
        # For a tool that is called a few times a day: the sum of its hours, twelve figures each.
        Recording(_CALLS, f"sum_over_time({_CALLS_1H}[1d]) / 12", {"window": "1d"}),
        Recording(_INVALID, f"sum_over_time({_INVALID_1H}[1d]) / 12", {"window": "1d"}),
        Recording(_RATIO, f"clamp_max({_INVALID} / {_CALLS}, 1)"),
        Alert(
            name="AgentToolValidityLow",
            requirement="A6, M11",
            severity=Severity.CHAT,
            cause="tools",
            expr=f"""
            max by (agent, tool) (
                {_RATIO}
              and
                {_INVALID} >= on (agent) group_left () {limit("tool_min_count")}
              and
                # too many, and not by chance
                {sigmas_above(_RATIO, f"1 - {limit('tool_validity')}", _CALLS, expected_on="agent")} > 2
              unless on (agent, tool, window) (
                  # a bad day is past trouble, unless the last hour is bad as well
                  {_RATIO}{{window="1d"}}
                unless on (agent, tool)
                  {_RATIO}{{window="1h"}} > on (agent) group_left () (1 - {limit("tool_validity")})
              )
            )
            """,
            keep_firing_for="1h",
            summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of {{ $labels.tool }} calls are invalid",
            description="""
            More than 10 % of the calls of this tool lacked a required field, had one of the wrong type, or asked for a
            tool that does not exist: over the last hour where calls are many, over a day where they are few.
            """,
        ),
    ),
    "5m",
)
