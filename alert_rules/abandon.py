"""M2, A8: tasks that nobody waits for the end of, or that never end."""

from alert_rules.baseline import OUTCOMES
from alert_rules.promql import SLOW, held, hours, limit, sigmas_above
from alert_rules.rules import Alert, Group, Recording, Severity

_ABANDONED = OUTCOMES + '{outcome="abandoned"}'
_RATIO = "agent:abandon_ratio:mean"
_TASKS = "agent:tasks_ended:sum"


def _period(name: str, window: str, offset: str = "") -> tuple[Recording, Recording]:
    """Ended tasks and the share of them that was abandoned, over `window` that ended `offset` ago."""
    tasks = f'{_TASKS}{{period="{name}"}}'
    return (
        Recording(_TASKS, f"sum by (agent) ({hours(OUTCOMES, window, offset)}) > 0", {"period": name}),
        Recording(
            _RATIO,
            f"""
              (sum by (agent) ({hours(_ABANDONED, window, offset)}) or sum by (agent) ({tasks}) * 0)
            /
              sum by (agent) ({tasks})
            """,
            {"period": name},
        ),
    )


def _step(earlier: str, later: str) -> str:
    """Agents whose share rose from one day to the other by more than chance explains: 2.5 standard deviations."""
    ratio, tasks = (
        {day: f'sum by (agent) ({series}{{period="{day}"}}{guard})' for day in (earlier, later)}
        for series, guard in ((_RATIO, ""), (_TASKS, " >= 500"))
    )
    return f"""
      2 * (asin(sqrt({ratio[later]})) - on (agent) asin(sqrt({ratio[earlier]})))
      / on (agent)
        sqrt(1 / {tasks[later]} + on (agent) 1 / {tasks[earlier]})
      > 2.5
    """


GROUP = Group(
    "agent-abandon",
    (
        *_period("week", "7d"),
        *_period("today", "1d"),
        *_period("3 days ago", "1d", "3d"),
        *_period("6 days ago", "1d", "6d"),
        Alert(
            name="AgentAbandonRateHigh",
            requirement="M2",
            severity=Severity.DASHBOARD,
            cause="abandon",
            expr=f"""
            sum by (agent) ({_RATIO}{{period="week"}})
            and on (agent)
              {
                sigmas_above(
                    f'sum by (agent) ({_RATIO}{{period="week"}})',
                    limit("abandon_rate"),
                    f'sum by (agent) ({_TASKS}{{period="week"}} >= 200)',
                    on="agent",
                    expected_on="agent",
                )
            } > 2
            and on (agent)
              {held("agent:watched:hours7d")} >= 24
            """,
            keep_firing_for="6h",
            summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of a week's tasks were abandoned",
            description="""
            Of the tasks that ended in the last 7 days, more than 15 % were given up: by the user, by a deadline, by the
            limit of iterations, or because nothing more was heard of them.
            """,
        ),
        Alert(
            name="AgentAbandonRateRising",
            requirement="A8",
            severity=Severity.DASHBOARD,
            cause="abandon",
            expr=f"""
            sum by (agent) ({_RATIO}{{period="today"}})
            and on (agent) (
              {_step("3 days ago", "today")}
            )
            and on (agent) (
              {_step("6 days ago", "3 days ago")}
            )
            and on (agent)
              sum by (agent) ({_RATIO}{{period="today"}})
                > on (agent)
                  {limit("abandon_rise_factor")} * on (agent) sum by (agent) ({_RATIO}{{period="6 days ago"}})
            """,
            keep_firing_for="6h",
            summary="{{ $labels.agent }}: more tasks are abandoned each day, {{ $value | humanizePercentage }} by now",
            description="""
            The share of abandoned tasks of the last day is above that of 3 days ago, that one above that of 6 days ago,
            and it is 1.5 times as high as then.
            """,
        ),
    ),
    SLOW,
)
