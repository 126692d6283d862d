"""A2: requests to an agent fail, more of them than chance and the agent's own habit explain."""

from alert_rules.baseline import OUTCOMES, PRIOR_ERRORS, PRIOR_TASKS
from alert_rules.promql import held, hours, limit
from alert_rules.rules import Action, Alert, Group, Recording, Severity

_ERRORS = OUTCOMES + '{outcome="error"}'


def _ended(window: str) -> tuple[Recording, Recording]:
    """Ended tasks, and those of them that failed with an error."""
    return (
        Recording(
            "agent:tasks_ended:increase",
            f"sum by (agent) (increase(agent_tasks_total[{window}])) > 0",
            {"window": window},
        ),
        Recording(
            "agent:tasks_failed:increase",
            f'sum by (agent) (increase(agent_tasks_total{{outcome="error"}}[{window}]))',
            {"window": window},
        ),
    )


def _surprise(expected: str) -> str:
    """Standard deviations by which the errors exceed what the expected rate explains."""
    return f"""
      2 * sqrt(agent:tasks_ended:increase) * on (agent, window) (
          asin(sqrt(agent:error_ratio:rate))
        - on (agent) group_left ()
          asin(sqrt({expected}))
      )
    """


def _too_many(windows: str, over: str, count: str) -> str:
    return f"""
    max by (agent) (
        agent:error_ratio:rate{{window=~"{windows}"}}
      and
        agent:tasks_failed:increase >= on (agent) group_left () {limit(count)}
      and on (agent, window)
        # over the limit, and not by chance
        {_surprise(limit(over))} > on (agent) group_left () {limit("error_sigmas_limit")}
      and on (agent, window)
        # unlike this agent
        agent:error_surprise:sigmas > on (agent) group_left () {limit("error_sigmas_own")}
      unless on (agent, window) (
          # six bad hours are past trouble, unless the last one is bad as well
          agent:error_ratio:rate{{window="6h"}}
        unless on (agent)
          sum by (agent) ({held(_ERRORS)}) / sum by (agent) ({held(OUTCOMES)})
            > on (agent) {limit(over)}
      )
    )
    """


GROUP = Group(
    "agent-errors",
    (
        *_ended("2m"),
        *_ended("5m"),
        *_ended("10m"),
        # For an agent with a few tasks an hour, from the hourly figures: six hours of raw samples are too many.
        Recording("agent:tasks_ended:increase", f"sum by (agent) ({hours(OUTCOMES, '6h')}) > 0", {"window": "6h"}),
        Recording("agent:tasks_failed:increase", f"sum by (agent) ({hours(_ERRORS, '6h')})", {"window": "6h"}),
        Recording(
            "agent:error_ratio:rate",
            """
              # an agent that never failed has no series for it
              (agent:tasks_failed:increase or agent:tasks_ended:increase * 0)
            /
              agent:tasks_ended:increase
            """,
        ),
        # By the arcsine: see `sigmas_above`.
        Recording(
            "agent:error_surprise:sigmas",
            _surprise(f"({held('agent:error_ratio:mean7d')} or agent:seen * {PRIOR_ERRORS / PRIOR_TASKS:g})"),
        ),
        Alert(
            name="AgentErrorRateHigh",
            requirement="A2, M13",
            severity=Severity.PAGE,
            cause="errors",
            expr=_too_many("5m|10m|6h", "error_rate", "error_min_count"),
            keep_firing_for="10m",
            summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of the tasks fail",
            description="""
            More than 20 % of the tasks that ended in the last 10 minutes (5 where they are many, 6 hours where they are
            few) failed with an error: more than chance explains, and more than this agent's last 7 days do.
            """,
        ),
        Alert(
            name="AgentErrorRateCritical",
            requirement="A2",
            severity=Severity.PAGE,
            cause="errors",
            action=Action.OFF,
            # It acts by itself and within two minutes, so it asks for more.
            expr=_too_many("2m|10m|6h", "error_rate_critical", "error_critical_min_count"),
            keep_firing_for="10m",
            summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of the tasks fail: switch it off",
            description="""
            More than 30 % of the tasks that ended in the last 10 minutes (2 where they are many, 6 hours where they are
            few) failed with an error: more than chance explains, and more than this agent's last 7 days do.
            """,
        ),
    ),
)
