"""M1, A4: fewer tasks reach their goal than this agent's week, or anybody's, lets expect."""

from alert_rules.baseline import ENDED, OUTCOMES
from alert_rules.promql import SLOW, held, hours, latest, limit, sigmas_above
from alert_rules.rules import Action, Alert, Group, Recording, Severity

_BASE = "agent_task_type:success_ratio:mean7d"
_WINDOWED = "agent_task_type_variant_outcome:tasks_ended:increase"
_STABLE = ENDED + '{variant="stable"}'
_WEEK = "agent_task_type_outcome:tasks_ended:sum7d"


def _fallen(drop: str) -> str:
    least = f"agent_variant:success_ratio:expected * on (agent) group_left () (1 - {limit(drop)})"
    surprise = sigmas_above(least, "agent_variant:success_ratio:rate", "agent_variant:tasks_judged:increase")
    unlike = sigmas_above(
        "agent_variant:success_ratio:expected",
        "agent_variant:success_ratio:rate",
        "agent_variant:tasks_judged:increase",
    )
    return f"""
    min by (agent, variant) (
        agent_variant:success_ratio:rate
      and
        # further below than chance explains
        {surprise} > on (agent) group_left () {limit("success_sigmas")}
      and
        # unlike this agent
        {unlike} > on (agent) group_left () {limit("success_sigmas_own")}
      and
        agent_variant:tasks_judged:increase >= on (agent) group_left () {limit("success_min_count")}
      unless on (agent, variant, window) (
          # bad hours are past trouble, unless the last one is bad as well
          agent_variant:success_ratio:rate{{window=~"6h|1d"}}
        unless on (agent, variant)
          agent_variant:success_ratio:rate{{window="1h"}} < {least}
      )
    )
    """


_DROP = """
    than the present mix of task types lets expect, by the success rates of the stable variant's last 7 days. The window
    is the last hour where tasks are many, 6 hours or a day where they are few.
    """

GROUP = Group(
    "agent-success",
    (
        Recording(_WEEK, f"sum by (agent, task_type, outcome) ({hours(_STABLE, '7d', '1h')})"),
        # By task type, so that another mix of tasks is no drop; of the stable variant, so that a canary is no norm.
        Recording(
            _BASE,
            f"""
              (
                  sum by (agent, task_type) ({_WEEK}{{outcome="success"}})
                or
                  # a task type that never reached its goal has no series for it
                  sum by (agent, task_type) ({_WEEK}) * 0
              )
            /
              (sum by (agent, task_type) ({_WEEK}) >= 50)
            and on (agent)
              {held("agent:watched:hours7d")} >= 24
            """,
        ),
        Recording(_WINDOWED, f"{latest(ENDED)} * 1", {"window": "1h"}),
        Recording(_WINDOWED, hours(ENDED, "6h"), {"window": "6h"}),
        Recording(_WINDOWED, hours(ENDED, "1d"), {"window": "1d"}),
        Recording(
            "agent_variant:tasks_judged:increase",
            f"sum by (agent, variant, window) ({_WINDOWED} and on (agent, task_type) {_BASE}) > 0",
        ),
        Recording(
            "agent_variant:success_ratio:rate",
            f"""
              (
                  sum by (agent, variant, window) (
                    {_WINDOWED}{{outcome="success"}} and on (agent, task_type) {_BASE}
                  )
                or on (agent, variant, window)
                  agent_variant:tasks_judged:increase * 0
              )
            / on (agent, variant, window)
              agent_variant:tasks_judged:increase
            """,
        ),
        Recording(
            "agent_variant:success_ratio:expected",
            f"""
              sum by (agent, variant, window) ({_WINDOWED} * on (agent, task_type) group_left () {_BASE})
            / on (agent, variant, window)
              agent_variant:tasks_judged:increase
            """,
        ),
        Recording(
            "agent:success_ratio:mean7d",
            f"""
              (
                  sum by (agent) ({hours(OUTCOMES + '{outcome="success"}', "7d")})
                or on (agent)
                  {held("agent:watched:hours7d")} * 0
              )
            / on (agent)
              (sum by (agent) ({hours(OUTCOMES, "7d")}) > 0)
            """,
        ),
        Alert(
            name="AgentSuccessRateDrop",
            requirement="A4",
            severity=Severity.CHAT,
            cause="success",
            expr=_fallen("success_drop"),
            keep_firing_for="1h",
            summary="{{ $labels.agent }} ({{ $labels.variant }}): only {{ $value | humanizePercentage }} succeed",
            description="The success rate is more than 15 % lower" + _DROP,
        ),
        Alert(
            name="AgentSuccessRateCritical",
            requirement="A4, SPEC 7",
            severity=Severity.CHAT,
            cause="success",
            action=Action.PROMPT,
            expr=_fallen("success_drop_critical"),
            keep_firing_for="1h",
            summary=(
                "{{ $labels.agent }} ({{ $labels.variant }}): only {{ $value | humanizePercentage }} of tasks succeed:"
                " take the prompt back"
            ),
            description="The success rate is more than 20 % lower" + _DROP,
        ),
        Alert(
            name="AgentSuccessRateLow",
            requirement="M1",
            severity=Severity.CHAT,
            cause="success",
            expr=f"""
            max by (agent) (agent:success_ratio:mean7d)
            and on (agent)
              {
                sigmas_above(
                    limit("success_rate"),
                    "agent:success_ratio:mean7d",
                    f"(sum by (agent) ({hours(OUTCOMES, '7d')}) >= 200)",
                    on="agent",
                    expected_on="agent",
                )
            } > 2
            and on (agent)
              {held("agent:watched:hours7d")} >= 24
            """,
            keep_firing_for="6h",
            summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of a week's tasks succeeded",
            description="Of the tasks that ended in the last 7 days, less than 70 % reached their goal.",
        ),
    ),
    SLOW,
)
