"""Objectives of an agent, as of any service: error budgets over 28 days, how fast they burn, and what is left.

Windows and burn rates are those of Google's SRE workbook (chapter 5, "Alerting on SLOs", table 5-8) for 28 days instead
of 30: a fast burn uses 2 % of the budget in an hour or 5 % in six, and still does in a window a twelfth as long. An
objective of 80 % can burn five times too fast at most, so what is asked for ends at a quarter (half, in six hours) of
the good tasks that the objective promises.
"""

from alert_rules.baseline import OUTCOMES
from alert_rules.promql import ENDED_TASKS, SLOW, bound_regex, held, hours, judged, latest, limit, within_bound
from alert_rules.rules import Alert, Group, Recording, Severity
from alert_rules.thresholds import Thresholds

SLOS = ("success", "latency", "cost")
_HISTOGRAMS = {
    "latency": ("agent_task_duration_seconds", "slo_latency_seconds"),
    "cost": ("agent_task_cost_usd", "slo_cost_usd"),
}
_SUCCESSES = OUTCOMES + '{outcome="success"}'
_TASKS, _BAD = "agent_slo:tasks:increase1h", "agent_slo:tasks_bad:increase1h"
_RATIO, _BURN, _OBJECTIVE = "agent:slo_bad:ratio", "agent:slo_burn_rate", "agent:slo_objective"

# Multiples of the rate that uses up the budget in 28 days: 2 % of it in 1 h, 5 % in 6 h.
BURN_IN_1H, BURN_IN_6H = round(0.02 * 28 * 24, 2), round(0.05 * 28 * 24 / 6, 2)


def _burns(long: str, short: str, factor: float, left: float, bad: str) -> str:
    """Agents whose bad tasks, in both windows, exceed `factor` times the budget's share.

    Or, where that is more than all of them, whose good tasks are fewer than the share `left` of the objective.
    """
    objective = held(_OBJECTIVE)
    most = f"1 - {left} * {objective}"
    share = f"({factor:g} * (1 - {objective}) < {most} or {most})"
    return f"""
      {_BURN}{{window="{long}"}}
    and on (agent, slo)
      last_over_time({_RATIO}{{window="{long}"}}[20m]) > on (agent, slo) group_left () {share}
    and on (agent, slo)
      {_RATIO}{{window="{short}"}} > on (agent, slo) group_left () {share}
    and on (agent, slo)
      # a few bad tasks of few are no trend
      {bad} >= on (agent) group_left () {limit("slo_min_count")}
    """


def groups(thresholds: Thresholds) -> tuple[Group, Group]:
    """The budget, and what burns it now. They read only the buckets that are an objective of somebody's."""

    def good(slo: str, window: str) -> str:
        if slo == "success":
            return f'sum by (agent) (increase(agent_tasks_total{{outcome="success"}}[{window}]))'
        metric, name = _HISTOGRAMS[slo]
        return within_bound(metric, name, bound_regex(thresholds.values(name)), window)

    def tasks(slo: str, window: str) -> str:
        if slo == "success":
            return f"sum by (agent) (increase({ENDED_TASKS}[{window}]))"
        return judged(*_HISTOGRAMS[slo], window)

    def hourly(slo: str) -> tuple[Recording, Recording]:
        all_of_them = f"sum by (agent) ({latest(OUTCOMES)})" if slo == "success" else tasks(slo, "1h")
        good_ones = f"sum by (agent) ({latest(_SUCCESSES)})" if slo == "success" else good(slo, "1h")
        return (
            Recording(_TASKS, all_of_them, {"slo": slo}),
            Recording(
                _BAD,
                f"""
                clamp_min(
                    sum by (agent) ({_TASKS}{{slo="{slo}"}})
                  - on (agent)
                    ({good_ones} or on (agent) agent:seen * 0),
                  0
                )
                """,
                {"slo": slo},
            ),
        )

    def now(slo: str, window: str) -> Recording:
        return Recording(
            _RATIO,
            f"""
            clamp_min(
                1
              -
                ({good(slo, window)} or on (agent) agent:seen * 0)
              / on (agent)
                ({tasks(slo, window)} > 0),
              0
            )
            """,
            {"slo": slo, "window": window},
        )

    budget = Group(
        "agent-slo-budget",
        (
            *(rule for slo in SLOS for rule in hourly(slo)),
            *(
                Recording(_RATIO, f"({hours(_BAD, window)}) / ({hours(_TASKS, window)} > 0)", {"window": window})
                for window in ("6h", "1d", "3d", "28d")
            ),
            Recording(_RATIO, f"{_BAD} / ({_TASKS} > 0)", {"window": "1h"}),
            Recording(
                _OBJECTIVE,
                "sum by (agent, slo) (\n"
                + "\nor\n".join(f'label_replace({limit(f"slo_{slo}")}, "slo", "{slo}", "", "")' for slo in SLOS)
                + "\n)",
            ),
            Recording(
                "agent:slo_budget_left:ratio28d",
                f"""
                # below zero it is overspent
                1 - sum by (agent, slo) ({_RATIO}{{window="28d"}}) / on (agent, slo) (1 - {_OBJECTIVE})
                """,
            ),
        ),
        SLOW,
    )
    burn = Group(
        "agent-slo-burn",
        (
            *(now(slo, window) for slo in SLOS for window in ("5m", "30m")),
            Recording(_BURN, f"last_over_time({_RATIO}[20m]) / on (agent, slo) group_left () (1 - {held(_OBJECTIVE)})"),
            Alert(
                name="AgentErrorBudgetBurn",
                requirement="SPEC 2, SLOs",
                severity=Severity.CHAT,
                cause="slo",
                expr=f"""
                # multiples of the rate that uses up the budget in 28 days
                max by (agent, slo) (
                  (
                    {_burns("1h", "5m", BURN_IN_1H, 0.25, held(_BAD))}
                  )
                  or
                  (
                    {_burns("6h", "30m", BURN_IN_6H, 0.5, hours(_BAD, "6h"))}
                  )
                )
                """,
                keep_firing_for="15m",
                summary=(
                    "{{ $labels.agent }} misses its objective for {{ $labels.slo }}: the error budget burns"
                    ' {{ $value | printf "%.0f" }} times too fast'
                ),
                description="""
                At this rate 2 % of the 28 days' error budget is gone in an hour or 5 % in six; or, where the budget is
                too large for that, few of the tasks that the objective promises are good. It still burns in the last
                minutes.
                """,
            ),
        ),
        "5m",
    )
    return budget, burn
