"""A10: tasks that run away, seen while they run: they repeat a call, fail on one tool again and again, never end."""

from alert_rules.promql import held, limit
from alert_rules.rules import Action, Alert, Group, Recording, Severity

_USUAL = f"4 * ({held('agent:tasks_looping:mean7d')} or on (agent) agent:seen * 0)"

GROUP = Group(
    "agent-loops",
    (
        Recording("agent:tasks_looping", "sum by (agent) (agent_tasks_looping)"),
        Alert(
            name="AgentRunawayLoop",
            requirement="A10",
            severity=Severity.PAGE,
            # one incident with AgentCostAnomaly
            cause="cost",
            action=Action.BREAKER,
            expr=f"""
            # tasks
            max by (agent) (agent:tasks_looping)
            and on (agent) (
                # so many: at once
                agent:tasks_looping >= on (agent)
                  ({limit("looping_tasks_at_once")} + on (agent) {_USUAL})
              or
                # a few: for two minutes (a second more: Prometheus 3 leaves a range's left end out, 2 does not)
                min_over_time(agent:tasks_looping[121s]) >= on (agent)
                  ({limit("looping_tasks")} + on (agent) {_USUAL})
              or
                # one that has become dear: the dearest task need not be the one that loops, so more have to loop, and
                # for a minute, than usually do
                max by (agent) (agent_task_in_flight_spend_usd_max) >= on (agent) {limit("looping_task_usd")}
                and on (agent)
                  min_over_time(agent:tasks_looping[61s]) > on (agent) {_USUAL}
            )
            unless on (agent)
              agent:backlog
            """,
            keep_firing_for="10m",
            summary='{{ $labels.agent }}: {{ $value | printf "%.0f" }} of its running tasks loop',
            description="""
            Tasks in flight call the same tool with the same arguments again and again, fail on one tool in turn after
            turn, or have gone round far more often than this agent's tasks do. None of them fails, none of them ends:
            look at their traces, and trip the breaker.
            """,
        ),
    ),
    # Two rules on a few gauges: often, since what loops costs money by the second.
    "5s",
)
