"""SPEC 5, 7: a canary that is proven worse, agents that do not see what was decided, actions that failed."""

from alert_rules.rules import Action, Alert, Group, Severity

GROUP = Group(
    "agent-rollout",
    (
        Alert(
            name="AgentRolloutRollback",
            requirement="SPEC 5",
            severity=Severity.CHAT,
            cause="rollout",
            action=Action.ROLLOUT,
            expr="min by (agent, rollout) (agent_rollout_verdict) == -1",
            keep_firing_for="5m",
            summary="{{ $labels.agent }}: the canary of {{ $labels.rollout }} is worse than what it is to replace",
            description="""
            The canary's success rate or cost per task is proven worse than the stable variant's at the same time: take
            the rollout back. `agent-oncall rollout status --agent {{ $labels.agent }}` says by how much.
            """,
        ),
        Alert(
            name="AgentStateUnreadable",
            requirement="ALERTS: state",
            severity=Severity.CHAT,
            cause="state",
            expr="min by (job, instance) (agent_state_read_ok) == 0",
            wait="2m",
            keep_firing_for="5m",
            summary="{{ $labels.instance }} cannot read the state file: it runs on the last one it could read",
            description="""
            A process of an agent has not been able to read its state file for 2 minutes. Rollbacks and the breaker do
            not reach it; what it read last stays in force.
            """,
        ),
        Alert(
            name="AgentGenerationSkew",
            requirement="ALERTS: state",
            severity=Severity.CHAT,
            cause="state",
            expr="max(agent_state_generation) - min(agent_state_generation) > 0",
            # agents look at the file four times a second; this is scrapes and a slow disk
            wait="2m",
            keep_firing_for="5m",
            summary='Agents run on state files that are {{ $value | printf "%.0f" }} changes apart',
            description="""
            For 2 minutes processes have reported different generations of the state file: some of them follow an old
            copy, so a rollback or a breaker is in force in a part of the fleet only.
            """,
        ),
        Alert(
            name="AgentActionFailed",
            requirement="SPEC 7",
            severity=Severity.CHAT,
            cause="controller",
            # `failed`, not `action`: by that label an alert asks the controller for something
            expr="""
            sum by (failed, why) (
              label_replace(increase(agent_controller_failures_total[15m]), "failed", "$1", "action", "(.+)")
            ) > 0
            """,
            keep_firing_for="5m",
            summary="The controller could not do what it should ({{ $labels.failed }}): {{ $labels.why }}",
            description="""
            An alert asked for an action, or the controller had work of its own to do, and it failed: nothing was cut,
            switched or rolled back. Do it by hand; the controller's log says what was wrong.
            """,
        ),
    ),
)
