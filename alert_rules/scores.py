"""A9, M3, M10: the agent's own scores of its tasks, or a judge's, are spread differently than they were."""

from alert_rules.promql import SLOW, held, hours, limit
from alert_rules.rules import Alert, Group, Recording, Severity


def _rules(metric: str, alert: str, requirement: str, summary: str, description: str) -> tuple[Recording | Alert, ...]:
    """Largest distance between the cumulative distributions of a window and of the week, within task types.

    It exceeds e by chance at most 2 * exp(-2 * n * e^2) of the times, n scores in the window (Dvoretzky, Kiefer and
    Wolfowitz, with Massart's constant): 2.5 / sqrt(n) is one in a hundred thousand.
    """
    hourly = f"agent_task_type_le:{metric}:increase1h"
    share, scored = f"agent_task_type_le:{metric}:share", f"agent_task_type:{metric}:count"
    distance = f"agent_task_type:{metric}:distance"

    def window(name: str) -> tuple[Recording, Recording]:
        counts = hours(hourly, name)
        everything = hours(hourly + '{le="+Inf"}', name)
        return (
            Recording(scored, f"sum by (agent, task_type) ({everything}) > 0", {"window": name}),
            Recording(
                share,
                f"""
                  ({counts}) / on (agent, task_type) group_left ()
                    sum by (agent, task_type) ({scored}{{window="{name}"}})
                """,
                {"window": name},
            ),
        )

    return (
        # Without the bucket of 1, which holds them all, and which Prometheus 3 writes as 1.0: after an upgrade the week
        # would have another one.
        Recording(hourly, f'sum by (agent, task_type, le) (increase(agent_{metric}_bucket{{le!~"1|1[.]0"}}[1h]))'),
        *window("6h"),
        *window("1d"),
        Recording(
            f"agent_task_type_le:{metric}:share7d",
            f"""
              sum by (agent, task_type, le) ({hours(hourly, "7d", "6h")})
            / on (agent, task_type) group_left ()
              (sum by (agent, task_type) ({hours(hourly + '{le="+Inf"}', "7d", "6h")}) >= 200)
            """,
        ),
        Recording(
            distance,
            f"""
            max by (agent, task_type, window) (
              abs({share} - on (agent, task_type, le) group_left () agent_task_type_le:{metric}:share7d)
            )
            """,
        ),
        Alert(
            name=alert,
            requirement=requirement,
            severity=Severity.DASHBOARD,
            cause="quality",
            expr=f"""
            max by (agent, task_type) (
                {distance} > on (agent) group_left () {limit("score_shift")}
              and
                {distance} * sqrt({scored}) > 2.5
              and
                {scored} >= on (agent) group_left () {limit("score_min_count")}
              and on (agent)
                {held("agent:watched:hours7d")} >= 24
            )
            """,
            keep_firing_for="6h",
            summary=summary,
            description=description,
        ),
    )


GROUP = Group(
    "agent-scores",
    (
        *_rules(
            "task_confidence",
            "AgentConfidenceShift",
            "A9, M10",
            "{{ $labels.agent }}: its confidence in tasks of type {{ $labels.task_type }} is not what it was",
            """
            The distribution of the agent's own scores over the last 6 hours (a day where they are few) differs from
            that of 7 days: somewhere between 0 and 1, the share of scores below is off by more than 15 points.
            """,
        ),
        *_rules(
            "task_goal_alignment",
            "AgentGoalAlignmentShift",
            "A9, M3",
            "{{ $labels.agent }}: the judge's scores of tasks of type {{ $labels.task_type }} are not what they were",
            """
            The distribution of the judge's scores over the last 6 hours (a day where they are few) differs from that of
            7 days: somewhere between 0 and 1, the share of scores below is off by more than 15 points.
            """,
        ),
    ),
    SLOW,
)
