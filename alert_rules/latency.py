"""A3, M7: tasks that take longer than anybody waits.

"P99 above 300 s" is exactly "more than one task in a hundred above the bucket of 300 s": no interpolation, and the slow
tasks can be counted. So a limit has to be a bucket's bound. Each task is held against the limit of its own type.
"""

from alert_rules.promql import bound_regex, held, judged, limit, sigmas_above, within_bound
from alert_rules.rules import Alert, Group, Recording, Severity
from alert_rules.thresholds import Thresholds

_DURATION = "agent_task_duration_seconds"
_LIMITS = {"p99": "latency_p99_seconds", "p50": "latency_p50_seconds"}
_TIMED, _SLOW, _RATIO = "agent:tasks_timed:increase", "agent:slow_tasks:increase", "agent:slow_tasks:ratio"
_TIMED_1H, _SLOW_1H = "agent:tasks_timed:increase1h", "agent:slow_tasks:increase1h"
_WEEK = "agent:slow_tasks:ratio7d"
_PER_HOUR = 12


def _slow(record: str, window: str, labels: dict[str, str], timed: str, bounds: str) -> Recording:
    """Those of them over the limit."""
    return Recording(
        record,
        f"""
        clamp_min(
            sum by (agent) ({timed})
          - on (agent)
            {within_bound(_DURATION, _LIMITS[labels["over"]], bounds, window)},
          0
        )
        """,
        labels,
    )


def _above(over: str, expected: str | float) -> str:
    """Standard deviations by which the slow tasks exceed this share, for each window."""
    slow = f'sum by (agent, window) ({_RATIO}{{over="{over}"}})'
    return sigmas_above(slow, expected, _TIMED, "agent, window", "agent")


def _usual(over: str) -> str:
    """The share of slow tasks in this agent's week."""
    return f'sum by (agent) (clamp_max({_WEEK}{{over="{over}"}}, 1))'


def group(thresholds: Thresholds) -> Group:
    """The rules. They read only the buckets that are some agent's limit, so they depend on the thresholds."""
    bounds = {over: bound_regex(thresholds.values(name)) for over, name in _LIMITS.items()}
    lately = _TIMED + '{window="20m"}'
    return Group(
        "agent-latency",
        (
            # When no more tasks start, those that end last are the long ones: that is no slowness.
            Recording(
                _TIMED,
                f"""
                  ({judged(_DURATION, _LIMITS["p99"], "20m")} > 0)
                <= on (agent)
                  2 * 1200 * max by (agent) (agent:tasks_started:rate{{window="5m"}})
                """,
                {"window": "20m"},
            ),
            *(_slow(_SLOW, "20m", {"over": over, "window": "20m"}, lately, bounds[over]) for over in _LIMITS),
            Recording(_TIMED_1H, f"{judged(_DURATION, _LIMITS['p99'], '1h')} > 0"),
            *(_slow(_SLOW_1H, "1h", {"over": over}, _TIMED_1H, bounds[over]) for over in _LIMITS),
            Recording(_TIMED, f"{_TIMED_1H} * 1", {"window": "1h"}),
            Recording(_SLOW, f"{_SLOW_1H} * 1", {"window": "1h"}),
            # For an agent with a few tasks an hour, from the hourly figures: six hours of raw samples are too many.
            Recording(_TIMED, f"sum_over_time({_TIMED_1H}[6h]) / {_PER_HOUR}", {"window": "6h"}),
            Recording(_SLOW, f"sum_over_time({_SLOW_1H}[6h]) / {_PER_HOUR}", {"window": "6h"}),
            Recording(_RATIO, f"{_SLOW} / on (agent, window) group_left () {_TIMED}"),
            # What one task in a hundred is, this agent's week says: one that is always slow is no incident.
            Recording(
                _WEEK,
                f"""
                  sum by (agent, over) (avg_over_time({_SLOW_1H}[7d:1h] offset 1h))
                / on (agent) group_left ()
                  sum by (agent) (avg_over_time({_TIMED_1H}[7d:1h] offset 1h))
                """,
            ),
            Alert(
                name="AgentLatencyP99High",
                requirement="A3, M7",
                severity=Severity.PAGE,
                cause="latency",
                expr=f"""
                max by (agent) (
                    {_RATIO}{{over="p99"}}
                  and
                    {_SLOW}{{over="p99"}} >= on (agent) group_left () {limit("latency_min_count")}
                  and on (agent, window)
                    # more than one in a hundred, and not by chance
                    {_above("p99", 0.01)}
                      > on (agent) group_left () {limit("latency_sigmas")}
                  and on (agent, window)
                    # unlike this agent
                    {_above("p99", f"{_usual('p99')} or on (agent) agent:seen * 0.01")} > 2
                  unless on (agent, window) (
                      # six slow hours are past trouble, unless the last minutes are slow as well
                      {_RATIO}{{window="6h"}}
                    unless on (agent)
                      {_RATIO}{{window="1h",over="p99"}} > 0.01
                  )
                )
                """,
                keep_firing_for="15m",
                summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of the tasks take longer than P99 may",
                description="""
                More than one task in a hundred took longer than 5 minutes, over the last 20 minutes where tasks are
                many, an hour or six where they are few: more than chance and this agent's week explain.
                """,
            ),
            Alert(
                name="AgentLatencyP50High",
                requirement="M7",
                severity=Severity.DASHBOARD,
                cause="latency",
                expr=f"""
                max by (agent) (
                    {_RATIO}{{over="p50"}}
                  and on (agent, window)
                    {_TIMED} >= on (agent) group_left () {limit("latency_p50_min_count")}
                  and on (agent, window)
                    # more than half of them, and not by chance
                    {_above("p50", 0.5)}
                      > on (agent) group_left () {limit("latency_sigmas")}
                  and on (agent, window)
                    # unlike this agent: where tasks of a minute are normal they are no news
                    {_above("p50", _usual("p50"))}
                      > on (agent) group_left () {limit("latency_p50_sigmas_own")}
                  and on (agent)
                    {held("agent:watched:hours7d")} >= 24
                  unless on (agent, window) (
                      {_RATIO}{{window="6h"}}
                    unless on (agent)
                      {_RATIO}{{window="1h",over="p50"}} > 0.5
                  )
                )
                """,
                keep_firing_for="30m",
                summary="{{ $labels.agent }}: {{ $value | humanizePercentage }} of the tasks take longer than P50 may",
                description="""
                More than half of the tasks took longer than 30 seconds, over the last 20 minutes where they are many,
                an hour or six where they are few.
                """,
            ),
        ),
        "5m",
    )
