"""A1: an agent spends far more than its traffic explains, seen while the tasks still run."""

from alert_rules.promql import held, limit
from alert_rules.rules import Action, Alert, Group, Recording, Severity

_USD_PER_TASK = held("agent:usd_per_started_task:median7d")


def _spend(window: str) -> Recording:
    """USD a second, of running and ended tasks alike: from ended tasks alone a runaway is never seen."""
    return Recording(
        "agent:spend_usd:rate", f"sum by (agent) (rate(agent_spend_usd_total[{window}]))", {"window": window}
    )


def _started(window: str) -> Recording:
    """Tasks a second, as they start."""
    return Recording(
        "agent:tasks_started:rate", f"sum by (agent) (rate(agent_tasks_started_total[{window}]))", {"window": window}
    )


GROUP = Group(
    "agent-cost",
    (
        _spend("3m"),
        _spend("5m"),
        _started("5m"),
        # Longer than most tasks run: what was started half an hour ago may still spend.
        _started("30m"),
        Recording(
            "agent:spend_usd:expected",
            f"""
            # what the week makes normal
            {held("agent:tasks_started:mean7d")} * {_USD_PER_TASK}
            """,
            {"basis": "week"},
        ),
        Recording(
            "agent:spend_usd:expected",
            f"""
            # what the tasks started of late make normal
            max by (agent) (agent:tasks_started:rate) * on (agent) {_USD_PER_TASK}
            """,
            {"basis": "traffic"},
        ),
        Recording(
            "agent:spend_usd:limit",
            f"""
            # USD a second; the highest of these bounds is the limit
            max by (agent) (
                # far above both expectations: at a launch the week is the smaller, at night the traffic
                label_replace(
                  {limit("cost_anomaly_factor")} * on (agent) min by (agent) (
                      agent:spend_usd:expected{{basis="week"}}
                    or
                      # the traffic of as many minutes as spend is judged by: the higher of two windows is too high
                      avg_over_time(agent:tasks_started:rate{{window="5m"}}[301s]) * on (agent) {_USD_PER_TASK}
                  ),
                  "bound", "smaller", "", ""
                )
              or
                # and well above either, so that neither a launch nor a Monday morning is an anomaly
                label_replace(
                  {limit("cost_anomaly_least_factor")} * on (agent) max by (agent) (agent:spend_usd:expected),
                  "bound", "larger", "", ""
                )
              or
                # small change
                label_replace({limit("cost_anomaly_floor_usd")} / 300, "bound", "floor", "", "")
              or
                # no day of history yet: a constant for what a task may cost, and a higher floor
                label_replace(
                    {limit("cost_anomaly_least_factor")}
                      * on (agent) max by (agent) (agent:tasks_started:rate)
                      * on (agent) {limit("cost_per_task_unknown_usd")}
                    unless on (agent)
                      {held("agent:usd_per_started_task:hours7d")} >= 24,
                  "bound", "unknown", "", ""
                )
              or
                label_replace(
                    {limit("cost_unknown_floor_usd")} / 300
                    unless on (agent)
                      {held("agent:usd_per_started_task:hours7d")} >= 24,
                  "bound", "unknown floor", "", ""
                )
            )
            """,
        ),
        # Multiples of the limit. Above 1 it is an anomaly, and how far above decides how long it must last.
        Recording("agent:spend_usd:excess", "agent:spend_usd:rate / on (agent) group_left () agent:spend_usd:limit"),
        Recording("agent:lag_seconds:max5m", "max by (agent) (max_over_time(agent_exporter_lag_seconds[5m]))"),
        Recording(
            "agent:backlog",
            f"""
            # after a backlog the spans of an hour arrive in a minute
              agent:lag_seconds:max5m > on (agent) {limit("lag_hold_seconds")}
            unless (
              # but what lasts half an hour is a wrong clock, be it one of many, and hides nothing
              min_over_time(agent:lag_seconds:max5m[30m]) > on (agent) {limit("lag_hold_seconds")}
              and on (agent)
                # (half an hour of it, not what there is since an exporter has come back)
                agent:lag_seconds:max5m offset 30m
            )
            """,
        ),
        Alert(
            name="AgentCostAnomaly",
            requirement="A1, M14",
            severity=Severity.PAGE,
            cause="cost",
            action=Action.BREAKER,
            expr=f"""
            # USD an hour, now
            3600 * max by (agent) (agent:spend_usd:rate)
            # (a second more than the minutes meant: Prometheus 3 leaves a range's left end out, 2 does not)
            and on (agent) (
                # an extreme: at once
                agent:spend_usd:excess{{window="3m"}} > 1.5
                and on (agent)
                  180 * agent:spend_usd:rate{{window="3m"}} > on (agent) {limit("cost_anomaly_fast_usd")}
              or
                (
                    # clearly over the limit: a minute
                    min_over_time(agent:spend_usd:excess{{window="5m"}}[61s]) > 1.3
                  or
                    # just over the limit: in the mean of ten minutes
                    avg_over_time(agent:spend_usd:excess{{window="5m"}}[301s]) > 1
                )
                and on (agent)
                  300 * agent:spend_usd:rate{{window="5m"}} > on (agent) {limit("cost_anomaly_fast_usd")}
              or
                # little money: longer than one dear task stays within five minutes
                min_over_time(agent:spend_usd:excess{{window="5m"}}[361s]) > 1
              or
                # more than an hour may cost, whatever the traffic: tasks that are cut and sent again start again
                min_over_time(agent:spend_usd:rate{{window="5m"}}[121s]) * 3600
                  > on (agent) {held("agent:spend_usd:hour_budget")}
            )
            unless on (agent)
              agent:backlog
            """,
            keep_firing_for="10m",
            summary=(
                '{{ $labels.agent }} spends {{ $value | printf "%.0f" }} USD an hour, beyond what its traffic explains'
            ),
            description="""
            Spend of the last minutes is more than ten times the week's normal, and more than 4.5 times what the tasks
            started explain; or it is more than an hour of this agent may cost, whatever the traffic. Tasks that still
            run are counted: look for a loop in the traces, and trip the breaker if there is one.
            """,
        ),
    ),
)
