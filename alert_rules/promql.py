"""Pieces of PromQL that several rules share."""

import re
from collections.abc import Iterable
from math import asin, sqrt

# Groups that say what is normal, and those on slow things, are evaluated this often.
SLOW = "15m"
EVALUATIONS_PER_HOUR = 4

_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}

# One for each ended task. (The sum of agent_tasks_total is the same from a dozen times as many series.)
ENDED_TASKS = "agent_task_iterations_count"

# The buckets that are somebody's limit: see `within_bound`.
BOUND = "agent_task_type_le:limit:bound"


def duration_seconds(duration: str) -> float:
    """A duration of Prometheus' in seconds: 1h30m is 5400, nothing 0."""
    return sum(int(n) * _UNIT_SECONDS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def limit(name: str) -> str:
    """The limit of this name for each agent seen: the agent's own, else the one of `agent="*"`. Labels: agent."""
    return (
        f'(agent:limit{{name="{name}",agent!="*",task_type=""}} '
        f'or on (agent) agent:seen * on () group_left () agent:limit{{name="{name}",agent="*"}})'
    )


def limit_by_task_type(name: str) -> str:
    """The limit of this name for each task type seen: its own, else its agent's. Labels: agent, task_type."""
    return (
        f'(sum by (agent, task_type) (agent:limit{{name="{name}",task_type!=""}}) '
        f"or on (agent, task_type) {held('agent_task_type:seen')} * on (agent) group_left () {limit(name)})"
    )


def held(series: str) -> str:
    """A series of a slow group as the other groups read it: the last figure of the last hour.

    The group is evaluated more seldom than instant queries look back (5 minutes), and after a restart of Prometheus its
    first evaluation may be a whole interval away.
    """
    return f"last_over_time({series}[1h])"


def latest(series: str) -> str:
    """The same for a figure that is of use while it is fresh only: one interval, and a few minutes more."""
    return f"last_over_time({series}[20m])"


def hours(series: str, window: str, offset: str = "") -> str:
    """The sum over `window` of a series that holds an hour's increase and is recorded every quarter of an hour."""
    return f"sum_over_time({series}[{window}]{f' offset {offset}' if offset else ''}) / {EVALUATIONS_PER_HOUR}"


def sigmas_above(share: str, expected: str | float, count: str, on: str = "", expected_on: str = "") -> str:
    """Standard deviations by which `share` of `count` exceeds `expected`, a number or a vector.

    `on` are the labels that `share` and `count` have in common, if not all, and `expected_on` those that `share` has in
    common with a coarser `expected`. The arcsine of a proportion's root has the same spread, 1 / (2 * sqrt(n)), at
    every rate (Anscombe 1948): five in six and five hundred in six thousand are measured alike, where the usual z-score
    promises too much for few.
    """
    with_share = f"on ({on}) " if on else ""
    if isinstance(expected, float):
        # PromQL takes no function of a number
        base = f"- {asin(sqrt(expected)):.4f}"
    else:
        base = f"- {f'on ({expected_on}) group_left () ' if expected_on else ''}asin(sqrt({expected}))"
    return f"2 * sqrt({count}) * {with_share}(asin(sqrt({share})) {base})"


def bound_regex(bounds: Iterable[float]) -> str:
    """A regular expression for these bounds in the label `le`: Prometheus 2 keeps 300, Prometheus 3 writes 300.0."""
    texts = {text for bound in bounds for text in (f"{bound:g}", f"{float(bound)}")}
    return "|".join(re.escape(text).replace("\\", "\\\\") for text in sorted(texts))


def within_bound(metric: str, name: str, bounds: str, window: str) -> str:
    """What a histogram counted up to the limit of this name: each task against the limit of its own type, by agent.

    The limit is recorded as the label `le` that its bucket has, so that it can be another for each agent and type.
    """
    counted = f'sum by (agent, task_type, le) (increase({metric}_bucket{{le=~"{bounds}"}}[{window}]))'
    return f"""sum by (agent) (
        sum by (agent, task_type, le) (label_replace({counted}, "le", "$1", "le", "([0-9]+)[.]0"))
      * on (agent, task_type, le) group_left ()
        {held(f'{BOUND}{{limit="{name}"}}')}
    )"""


def judged(metric: str, name: str, window: str) -> str:
    """All that `within_bound` looks at, by agent: a task of a type that is too new to have a limit is no slow one."""
    return (
        f"sum by (agent) (sum by (agent, task_type) (increase({metric}_count[{window}]))"
        f""" and on (agent, task_type) {held(f'{BOUND}{{limit="{name}"}}')})"""
    )


def usual_mean(total: str, tasks: str, median: str, most: float) -> str:
    """What a task of a type usually takes, from 50 tasks and a day on. Labels: agent, task_type.

    `total` and `tasks` are series of an hour's increase, `median` that of 7 days of hourly means. It is the median: one
    bad night must not make the next one look normal. But where an hour holds a task or two the median of hours is too
    low, so it is the mean as far as that is above it, and not by `most` times, which such a night would explain.
    """
    counted = hours(tasks, "7d", "1h")
    return f"""
      (
          (sum by (agent, task_type) ({hours(total, "7d", "1h")}) / (sum by (agent, task_type) ({counted}) > 0))
          < on (agent, task_type) {most:g} * sum by (agent, task_type) ({median})
          > on (agent, task_type) sum by (agent, task_type) ({median})
        or
          sum by (agent, task_type) ({median})
      )
    and on (agent, task_type)
      {counted} >= 50
    and on (agent)
      {held("agent:watched:hours7d")} >= 24
    """
