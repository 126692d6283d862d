"""A12: money that is not counted, because a model has no price or a call told no tokens."""

from alert_rules.promql import SLOW, limit
from alert_rules.rules import Alert, Group, Recording, Severity

GROUP = Group(
    "agent-unpriced",
    (
        Recording(
            "agent:unpriced_tokens:ratio1h",
            """
              sum by (agent) (increase(agent_unpriced_tokens_total[1h]))
            /
              (sum by (agent) (increase(agent_tokens_total[1h])) > 0)
            """,
        ),
        Recording(
            "agent:unmetered_calls:ratio1h",
            """
              sum by (agent) (increase(agent_unmetered_calls_total[1h]))
            /
              (sum by (agent) (increase(agent_iterations_total{stop_reason!="error"}[1h])) > 0)
            """,
        ),
        Alert(
            name="AgentCostUnknown",
            requirement="A12",
            severity=Severity.DASHBOARD,
            cause="unpriced",
            expr=f"""
            max by (agent) (
                label_replace(agent:unpriced_tokens:ratio1h, "of", "tokens", "", "")
              or
                label_replace(agent:unmetered_calls:ratio1h, "of", "calls", "", "")
            )
            > on (agent) {limit("cost_unknown_ratio")}
            """,
            keep_firing_for="1h",
            summary="{{ $labels.agent }}: the cost of {{ $value | humanizePercentage }} of its work is unknown",
            description="""
            In the last hour tokens were of a model that no price is known for, or answered calls told no token count.
            Spend and every alert on it are too low by that much. Add the price, or turn usage on.
            """,
        ),
        Alert(
            name="AgentCostUnknown",
            requirement="A12",
            severity=Severity.CHAT,
            cause="unpriced",
            expr="""
            # nothing of this agent has a price: no alert on its cost can ever fire
            max by (agent) (
                label_replace(agent:unpriced_tokens:ratio1h, "of", "tokens", "", "")
              or
                label_replace(agent:unmetered_calls:ratio1h, "of", "calls", "", "")
            )
            >= 0.999
            """,
            keep_firing_for="1h",
            summary="{{ $labels.agent }}: nothing it spends is known, so no alert on its cost can fire",
            description="""
            In the last hour none of this agent's tokens had a price, or none of its calls told a token count. Add the
            price of its model, or turn usage on.
            """,
        ),
    ),
    SLOW,
)
