"""A2: requests to an agent fail, more of them than chance and the agent's own habit explain."""

from alert_rules.baseline import OUTCOMES, PRIOR_ERRORS, PRIOR_TASKS
from alert_rules.promql import ENDED_TASKS, held, hours, limit, sigmas_above
from alert_rules.rules import Action, Alert, Group, Recording, Severity

_ERRORS = OUTCOMES + '{outcome="error"}'
_ENDED, _FAILED, _RATIO = "agent:tasks_ended:increase", "agent:tasks_failed:increase", "agent:error_ratio:rate"
_UNUSUAL = "agent:error_ratio:unusual"


def _counted(window: str) -> tuple[Recording, Recording]:
    """Ended tasks, and those of them that failed with an error."""
    labels = {"window": window}
    return (
        Recording(_ENDED, f"sum by (agent) (increase({ENDED_TASKS}[{window}])) > 0", labels),
        Recording(_FAILED, f'sum by (agent) (increase(agent_tasks_total{{outcome="error"}}[{window}]))', labels),
    )


def _ratios(windows: str) -> tuple[Recording, Recording]:
    """The share of them, and that share where this agent's week does not explain it."""
    ratio, ended = f'{_RATIO}{{window=~"{windows}"}}', f'{_ENDED}{{window=~"{windows}"}}'
    usual = f"({held('agent:error_ratio:mean7d')} or on (agent) agent:seen * {PRIOR_ERRORS / PRIOR_TASKS:g})"
    return (
        # The exporter serves all outcomes of a task type from its first task on, so there is a zero to divide.
        Recording(_RATIO, f'clamp_max({_FAILED}{{window=~"{windows}"}} / {ended}, 1)'),
        Recording(
            _UNUSUAL,
            f"""
              {ratio}
            and
              {sigmas_above(ratio, usual, ended, expected_on="agent")}
                > on (agent) group_left () {limit("error_sigmas_own")}
            """,
        ),
    )


def _too_many(windows: str, over: str, count: str) -> str:
    unusual, failed, ended = (f'{name}{{window=~"{windows}"}}' for name in (_UNUSUAL, _FAILED, _ENDED))
    return f"""
    max by (agent) (
        {unusual}
      and
        {failed} >= on (agent) group_left () {limit(count)}
      and
        # over the limit, and not by chance
        {sigmas_above(unusual, limit(over), ended, expected_on="agent")}
          > on (agent) group_left () {limit("error_sigmas_limit")}
      unless on (agent, window) (
          # six bad hours are past trouble, unless the last one is bad as well
          {_UNUSUAL}{{window="6h"}}
        unless on (agent)
          sum by (agent) ({held(_ERRORS)}) / sum by (agent) ({held(OUTCOMES)})
            > on (agent) {limit(over)}
      )
    )
    """


GROUP = Group(
    "agent-errors",
    (
        *_counted("5m"),
        *_counted("10m"),
        # For an agent with a few tasks an hour, from the hourly figures: six hours of raw samples are too many.
        Recording(_ENDED, f"sum by (agent) ({hours(OUTCOMES, '6h')}) > 0", {"window": "6h"}),
        Recording(_FAILED, f"sum by (agent) ({hours(_ERRORS, '6h')})", {"window": "6h"}),
        *_ratios("5m|10m|6h"),
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
    ),
    "2m",
)

# What acts by itself looks more often.
CRITICAL = Group(
    "agent-errors-critical",
    (
        *_counted("2m"),
        *_ratios("2m"),
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
    "30s",
)
