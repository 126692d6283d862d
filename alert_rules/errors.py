"""A2: requests to an agent fail, more of them than chance and the agent's own habit explain."""

from alert_rules.baseline import held
from alert_rules.promql import limit
from alert_rules.rules import Alert, Group, Recording, Severity

# 2 minutes for an outage, 10 for what is less than one, 6 hours for an agent with a few tasks an hour.
WINDOWS = ("2m", "10m", "1h", "6h")


def _counts(window: str) -> tuple[Recording, ...]:
    return (
        Recording(
            "agent:tasks_ended:increase",
            f"sum by (agent) (increase(agent_tasks_total[{window}]))",
            {"window": window},
        ),
        Recording(
            "agent:tasks_failed:increase",
            f'sum by (agent) (increase(agent_tasks_total{{outcome="error"}}[{window}]))',
            {"window": window},
        ),
    )


def _evidence(against: str, expected: str) -> Recording:
    """Nats against so many errors having come by chance at the expected rate: n * KL(seen || expected).

    By Chernoff's bound that chance is below exp(-nats), for five tasks as for five thousand; a z-score promises too
    much for few. 2 nats are about 2 standard deviations, 12.5 about 5.
    """
    return Recording(
        "agent:error_evidence:nats",
        f"""
        agent:tasks_ended:increase * (
            agent:error_ratio:rate
              * ln(agent:error_ratio:rate / on (agent) group_left () {expected})
          +
            (1 - agent:error_ratio:rate)
              * ln((1 - agent:error_ratio:rate) / on (agent) group_left () (1 - {expected}))
        )
        # fewer than expected is no evidence of trouble
        and
          agent:error_ratio:rate > on (agent) group_left () {expected}
        """,
        {"against": against},
    )


def _too_many(against: str, limit_name: str) -> str:
    return f"""
    max by (agent) (
        agent:error_ratio:rate{{window=~"2m|10m|6h"}}
      and
        agent:tasks_failed:increase >= on (agent) group_left () {limit("error_min_count")}
      and on (agent, window)
        # over the limit, and not by chance
        agent:error_evidence:nats{{against="{against}"}} > on (agent) group_left () {limit("error_evidence_limit")}
      and on (agent, window)
        # unlike this agent
        agent:error_evidence:nats{{against="own"}} > on (agent) group_left () {limit("error_evidence_own")}
      unless on (agent, window) (
          # six bad hours are past trouble, unless the last one is bad as well
          agent:error_ratio:rate{{window="6h"}}
        unless on (agent)
          agent:error_ratio:rate{{window="1h"}} > on (agent) {limit(limit_name)}
      )
    )
    """


GROUP = Group(
    "agent-errors",
    (
        *(rule for window in WINDOWS for rule in _counts(window)),
        # Just below 1, so that the logarithms below have a value.
        Recording(
            "agent:error_ratio:rate",
            "clamp_max(agent:tasks_failed:increase / (agent:tasks_ended:increase > 0), 0.9999)",
        ),
        _evidence("limit", limit("error_rate")),
        _evidence("critical", limit("error_rate_critical")),
        _evidence("own", held("agent:error_ratio:mean7d")),
        Alert(
            name="AgentErrorRateHigh",
            requirement="A2, M13",
            severity=Severity.PAGE,
            cause="errors",
            expr=_too_many("limit", "error_rate"),
            keep_firing_for="10m",
            summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of the tasks fail",
            description="""
            More than 20 % of the tasks that ended in the last 10 minutes (2 minutes in an outage, 6 hours at a quiet
            agent) failed with an error, more than chance or this agent's last 7 days explain.
            """,
        ),
        Alert(
            name="AgentErrorRateCritical",
            requirement="A2",
            severity=Severity.PAGE,
            cause="errors",
            action="off",
            expr=_too_many("critical", "error_rate_critical"),
            keep_firing_for="10m",
            summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of the tasks fail: switch it off",
            description="""
            More than 30 % of the tasks that ended in the last 10 minutes (2 minutes in an outage, 6 hours at a quiet
            agent) failed with an error, more than chance or this agent's last 7 days explain.
            """,
        ),
    ),
)
