"""A11: the calls of one model fail, whatever the agents do with that."""

from alert_rules.promql import limit
from alert_rules.rules import Action, Alert, Group, Recording, Severity

_FAILED, _CALLS = "agent_model:iterations_failed:increase", "agent_model:iterations:increase"


def _window(window: str) -> tuple[Recording, Recording]:
    return (
        Recording(
            _FAILED,
            f'sum by (agent, model) (increase(agent_iterations_total{{stop_reason="error"}}[{window}])) > 0',
            {"window": window},
        ),
        Recording(
            _CALLS,
            f"""
              sum by (agent, model) (increase(agent_iterations_total[{window}]))
            and on (agent, model)
              {_FAILED}{{window="{window}"}}
            """,
            {"window": window},
        ),
    )


GROUP = Group(
    "agent-provider",
    (
        *_window("5m"),
        *_window("30m"),
        Alert(
            name="AgentProviderOutage",
            requirement="A11",
            severity=Severity.PAGE,
            # one incident with AgentErrorRateHigh, which it inhibits
            cause="errors",
            action=Action.PROVIDER,
            expr=f"""
            max by (agent, model) (
                {_FAILED} / {_CALLS} > on (agent) group_left () {limit("provider_error_rate")}
              and
                {_FAILED} >= on (agent) group_left () {limit("provider_min_count")}
              unless on (agent, model, window) (
                  # half an hour is for agents with few calls, and past trouble unless the last minutes are bad as well
                  {_CALLS}{{window="30m"}}
                unless on (agent, model)
                  {_FAILED}{{window="5m"}} / {_CALLS}{{window="5m"}}
                    > on (agent) group_left () {limit("provider_error_rate")}
              )
            )
            """,
            wait="1m",
            keep_firing_for="10m",
            summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of the calls of {{ $labels.model }} fail",
            description="""
            More than half of the LLM calls of this model failed in the last 5 minutes (30 where they are few): its
            provider is down, or the key, the quota or the network to it. Switch to the backup provider.
            """,
        ),
    ),
    "1m",
)
