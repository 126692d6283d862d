"""SPEC 5: a canary that is proven worse, and agents that do not see what the controller decided."""

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
            the rollout back. `agent-oncall rollout status` says by how much.
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
    ),
)
