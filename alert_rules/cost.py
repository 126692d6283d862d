"""A1: an agent spends far more than its traffic explains, seen while the tasks still run."""

from alert_rules.baseline import held
from alert_rules.promql import limit
from alert_rules.rules import Alert, Group, Recording, Severity

_MEDIAN = held("agent:usd_per_started_task:median7d")

GROUP = Group(
    "agent-cost",
    (
        Recording("agent:seen", "group by (agent) (agent_tasks_started_total)"),
        # USD a second, of running and ended tasks alike: from ended tasks alone a runaway is never seen.
        Recording("agent:spend_usd:rate5m", "sum by (agent) (rate(agent_spend_usd_total[5m]))"),
        # Tasks a second, as they start.
        Recording(
            "agent:tasks_started:rate",
            "sum by (agent) (rate(agent_tasks_started_total[5m]))",
            {"window": "5m"},
        ),
        Recording(
            "agent:tasks_started:rate",
            "sum by (agent) (rate(agent_tasks_started_total[30m]))",
            {"window": "30m"},
        ),
        # What may be spent before it is an anomaly, in USD a second, by each of the terms; the highest one holds.
        Recording(
            "agent:spend_usd:bound",
            f"""
            # ten times the week's normal spend
            {limit("cost_anomaly_factor")}
              * on (agent) {held("agent:tasks_started:mean7d")}
              * on (agent) {_MEDIAN}
            """,
            {"term": "baseline"},
        ),
        Recording(
            "agent:spend_usd:bound",
            f"""
            # what the tasks started of late explain: a launch or a Monday morning is no anomaly
            {limit("cost_anomaly_traffic_factor")}
              * on (agent) max by (agent) (agent:tasks_started:rate)
              * on (agent) {_MEDIAN}
            """,
            {"term": "traffic"},
        ),
        Recording(
            "agent:spend_usd:bound",
            f"""
            # the same by a constant, in place of the baseline, for agents with less than a day of history
            (
              {limit("cost_anomaly_traffic_factor")}
                * on (agent) max by (agent) (agent:tasks_started:rate)
                * on (agent) {limit("cost_per_task_unknown_usd")}
            )
            unless on (agent)
              {held("agent:usd_per_started_task:hours7d")} >= 24
            """,
            {"term": "unknown"},
        ),
        Recording(
            "agent:spend_usd:bound",
            f"""
            # five minutes of small change
            {limit("cost_anomaly_floor_usd")} / 300
            """,
            {"term": "floor"},
        ),
        Recording("agent:spend_usd:limit", "max by (agent) (agent:spend_usd:bound)"),
        # Multiples of the limit. Above 1 it is an anomaly, and how far above decides how long it must last.
        Recording("agent:spend_usd:excess", "agent:spend_usd:rate5m / agent:spend_usd:limit"),
        # After a backlog an hour of spans arrives in a minute. A lag that has lasted half an hour is a wrong clock.
        Recording(
            "agent:backlog",
            f"""
              max by (agent) (max_over_time(agent_exporter_lag_seconds[5m]))
                > on (agent) {limit("lag_hold_seconds")}
            unless on (agent)
              min by (agent) (min_over_time(agent_exporter_lag_seconds[30m]))
                > on (agent) {limit("lag_hold_seconds")}
            """,
        ),
        Alert(
            name="AgentCostAnomaly",
            requirement="A1, M14",
            severity=Severity.PAGE,
            cause="cost",
            action="breaker",
            expr="""
            # USD an hour, now
            3600 * agent:spend_usd:rate5m
            and on (agent) (
                # twice the limit: at once
                agent:spend_usd:excess > 2
              or
                # half as much again: two minutes
                min_over_time(agent:spend_usd:excess[1m]) > 1.3
              or
                # over the limit: three minutes
                min_over_time(agent:spend_usd:excess[3m]) > 1
            )
            unless on (agent)
              agent:backlog
            """,
            keep_firing_for="10m",
            summary=(
                '{{ $labels.agent }} spends {{ $value | printf "%.0f" }} USD an hour, beyond what its traffic explains'
            ),
            description="""
            Spend of the last 5 minutes is more than ten times the week's normal and more than 4.5 times what the tasks
            started explain. Tasks that still run are counted: look for a loop in the traces, and trip the breaker if
            there is one.
            """,
        ),
    ),
)
