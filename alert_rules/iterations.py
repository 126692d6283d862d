"""A5, M5: tasks take more turns than they did, seen in ended tasks and, for a runaway, in those that still run."""

from alert_rules.promql import SLOW, held, hours, limit, limit_by_task_type, usual_mean
from alert_rules.rules import Alert, Group, Recording, Severity

_TURNS, _TASKS = "agent_task_type:iterations:increase1h", "agent_task_type:tasks_iterated:increase1h"
_BUCKETS = "agent_task_type_le:task_iterations:increase1h"
_MEAN = "agent_task_type:iterations:mean"
_COUNT = "agent_task_type:tasks_iterated:increase"
_BASE = "agent_task_type:iterations:mean7d"
_P99 = "agent_task_type:iterations:p99"


def _window(window: str) -> tuple[Recording, Recording, Recording]:
    """Ended tasks, the mean of their iterations and the 99th percentile."""
    if window == "1h":
        turns, tasks, buckets = _TURNS, f"{_TASKS} * 1", _BUCKETS
    else:
        turns, tasks, buckets = hours(_TURNS, window), hours(_TASKS, window), hours(_BUCKETS, window)
    labels = {"window": window}
    return (
        Recording(_COUNT, tasks, labels),
        Recording(_MEAN, f"({turns}) / ({tasks} > 0)", labels),
        Recording(_P99, f"histogram_quantile(0.99, {buckets})", labels),
    )


BASE = Group(
    "agent-iterations",
    (
        Recording(_TURNS, "sum by (agent, task_type) (increase(agent_task_iterations_sum[1h]))"),
        Recording(_TASKS, "sum by (agent, task_type) (increase(agent_task_iterations_count[1h]))"),
        Recording(_BUCKETS, "sum by (agent, task_type, le) (increase(agent_task_iterations_bucket[1h]))"),
        *_window("1h"),
        *_window("6h"),
        *_window("1d"),
        Recording(
            "agent_task_type:iterations:median7d",
            f'quantile_over_time(0.5, {_MEAN}{{window="1h"}}[7d] offset 1h)',
        ),
        Recording(_BASE, usual_mean(_TURNS, _TASKS, "agent_task_type:iterations:median7d", 1.5)),
        Recording(
            "agent_task_type:iterations:p99_7d",
            f"""
              histogram_quantile(0.99, {hours(_BUCKETS, "7d", "1h")})
            and on (agent, task_type)
              {hours(_TASKS, "7d", "1h")} >= 200
            and on (agent)
              {held("agent:watched:hours7d")} >= 24
            """,
        ),
        Alert(
            name="AgentIterationsP99High",
            requirement="M5",
            severity=Severity.DASHBOARD,
            cause="iterations",
            expr=f"""
            # iterations
            max by (agent, task_type) (
                {_P99}
                > on (agent, task_type) group_left ()
                  (
                    {limit_by_task_type("iterations_p99_factor")}
                      * on (agent, task_type) agent_task_type:iterations:p99_7d
                  )
              and
                # so many that one in a hundred is several
                {_COUNT} >= on (agent) group_left () {limit("iterations_p99_min_count")}
            )
            """,
            keep_firing_for="1h",
            summary=(
                "{{ $labels.agent }}: one in a hundred tasks of type {{ $labels.task_type }} takes"
                ' {{ $value | printf "%.0f" }} turns or more'
            ),
            description="""
            The 99th percentile of the iterations of ended tasks of this type is more than twice that of the last 7
            days.
            """,
        ),
    ),
    SLOW,
)

# Standard deviation of a task's turns in multiples of their mean, at an agent whose tasks are of very different kinds.
_SPREAD = 1.7

_RUNNING = "agent:iterations_per_started_task:rate10m"

GROUP = Group(
    "agent-iterations-now",
    (
        Recording(
            _RUNNING,
            f"""
              sum by (agent) (rate(agent_iterations_total[10m]))
            /
              # What was started an hour ago may still run, and what has just started will: the most of them.
              max by (agent) (
                  max_over_time(agent:tasks_started:rate{{window="5m"}}[10m])
                or
                  agent:tasks_started:rate{{window="30m"}}
                or
                  label_replace({held("agent:tasks_started:increase1h")} / 3600, "window", "1h", "", "")
              )
            """,
        ),
        Alert(
            name="AgentIterationsSpike",
            requirement="A5",
            severity=Severity.CHAT,
            cause="iterations",
            expr=f"""
            # multiples of what is normal
            max by (agent) (
                # tasks that still run: no task type is known of them, so it takes more
                label_replace(
                    {_RUNNING} / on (agent) {held("agent:iterations_per_started_task:median7d")}
                    > on (agent) {limit("iterations_running_factor")}
                    and on (agent)
                      {held("agent:watched:hours7d")} >= 24
                    and on (agent)
                      # and not by chance, where some tasks take thirty times the turns of others
                      {_RUNNING} / on (agent) {held("agent:iterations_per_started_task:median7d")}
                        > on (agent) 1 + {limit("iterations_running_sigmas")} * {_SPREAD}
                          / on (agent) sqrt(600 * agent:tasks_started:rate{{window="30m"}} >= 20),
                  "of", "running", "", ""
                )
              or
                # ended ones, by task type
                label_replace(
                  max by (agent) (
                      last_over_time({_MEAN}[20m]) / on (agent, task_type) group_left () {held(_BASE)}
                      > on (agent, task_type) group_left () {limit_by_task_type("iterations_factor")}
                      and
                        last_over_time({_COUNT}[20m]) >= on (agent) group_left () {limit("iterations_min_count")}
                      unless on (agent, task_type, window) (
                          # bad hours are past trouble, unless the last one is bad as well
                          last_over_time({_MEAN}{{window=~"6h|1d"}}[20m])
                        unless on (agent, task_type)
                          last_over_time({_MEAN}{{window="1h"}}[20m])
                            / on (agent, task_type) group_left () {held(_BASE)}
                            > on (agent, task_type) group_left () {limit_by_task_type("iterations_factor")}
                      )
                  ),
                  "of", "ended", "", ""
                )
            )
            unless on (agent)
              agent:backlog
            """,
            keep_firing_for="1h",
            summary='{{ $labels.agent }}: a task takes {{ $value | printf "%.1f" }} times as many turns as normal',
            description="""
            Either ended tasks of one type took more than 1.5 times the turns that they took in the last 7 days, or
            those that still run take more than twice as many. The prompt has changed, or the input, or tasks loop.
            """,
        ),
    ),
    "2m",
)
