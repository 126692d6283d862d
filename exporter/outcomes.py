"""How a task ended: the contract's outcome and reason, from its span and the work below it. Pure functions."""

from collections.abc import Iterable

from exporter.config import Condition
from exporter.contract import ERROR_REASONS
from exporter.dialects.common import CANCELLED, MAX_ITERATIONS
from exporter.events import AgentSpan, Event
from exporter.traces import Unit, Work

Outcome = tuple[str, str]

USER_CANCEL: Outcome = ("abandoned", "user_cancel")
_AT_ONCE_NS = 500_000_000
TOO_MANY: Outcome = ("abandoned", "max_iterations")


def of_agent(unit: Unit, goal_reached: bool | None) -> Outcome:
    """`goal_reached` is what the user's own rule says, None where there is none for this task type."""
    span, work = unit.span, unit.work
    if span.outcome == "success" and not span.error:
        return ("failure" if goal_reached is False else "success"), ""
    error = span.error or _inner_error(unit)
    if error == CANCELLED or (span.outcome, span.reason) == USER_CANCEL:
        return USER_CANCEL
    if error == MAX_ITERATIONS:
        return TOO_MANY
    # The task's own word goes before the failure of a framework's span inside, through which a breaker's cut goes.
    if span.outcome == "abandoned" and not span.error:
        # The base schema's own example says max_iter_exceeded whenever the last allowed turn was used, answered or not.
        if span.reason == "max_iterations" and (work.call_final or span.success is True):
            return _goal(span, work, goal_reached)
        return "abandoned", span.reason
    if error or span.outcome == "error":
        return _failed(error or span.reason or "internal", work)
    if work.call_error == CANCELLED:
        return USER_CANCEL
    if work.call_error and span.success is None:
        return _failed(work.call_error, work)
    if work.calls and not work.call_answered and span.success is None:
        return USER_CANCEL
    if span.most_iterations and work.iterations > span.most_iterations and not unit.inner_name and span.success is None:
        return TOO_MANY  # it was made to answer after its limit
    if span.answers and work.call_asked and span.success is None:
        # The model's last word was a call for a tool. A limit cuts in at once; a person, while the next call runs.
        idle_ns = span.end_ns - max(work.call_end_ns, work.tool_end_ns)
        return TOO_MANY if idle_ns < _AT_ONCE_NS else USER_CANCEL
    return _goal(span, work, goal_reached)


def of_root(root: Event, work: Work, goal_reached: bool | None) -> Outcome:
    """Of a request that no agent span tells of: calls and tools below a plain root, or a lone call."""
    if root.error == CANCELLED:
        return USER_CANCEL
    if root.error == MAX_ITERATIONS:
        return TOO_MANY
    if work.call_error == CANCELLED:
        return USER_CANCEL
    if root.error or work.call_error:
        return _failed(root.error or work.call_error, work)
    if work.calls and not work.call_answered:
        return USER_CANCEL
    if work.call_refused or goal_reached is False:
        return "failure", ""
    return "success", ""


def reached(conditions: Iterable[Condition], facts: dict[str, str | int | float | bool]) -> bool:
    """Whether all of the user's conditions hold for a task with these span attributes."""
    return all(_holds(condition, facts.get(condition.attribute)) for condition in conditions)


def _holds(condition: Condition, value: str | int | float | bool | None) -> bool:
    if condition.exists is not None:
        return (value is not None) == condition.exists
    if value is None:
        return False
    if condition.equals is not None:
        return value == condition.equals
    if condition.not_equals is not None:
        return value != condition.not_equals
    if condition.one_of is not None:
        return value in condition.one_of
    if isinstance(value, (str, bool)):
        return False
    if condition.at_least is not None:
        return value >= condition.at_least
    return condition.at_most is not None and value <= condition.at_most


def _inner_error(unit: Unit) -> str:
    """A failed agent child fails the task, unless the model was heard again after it: then it was met."""
    return unit.inner_error if unit.inner_error and unit.work.answered_end_ns <= unit.inner_error_ns else ""


def _failed(error: str, work: Work) -> Outcome:
    if error == "timeout" and "timeout" not in (work.call_error, work.tool_error):
        return "abandoned", "timeout"  # the task's own deadline: no call and no tool of it timed out
    if error == "internal" and work.call_error in ERROR_REASONS:
        error = work.call_error
    elif error == "internal" and work.tool_error and work.tool_end_ns > work.call_end_ns:
        error = "tool"  # nothing but a failed tool call stands between the last call and the end
    return "error", error if error in ERROR_REASONS else "other"


def _goal(span: AgentSpan, work: Work, goal_reached: bool | None) -> Outcome:
    if goal_reached is not None:
        return ("success" if goal_reached else "failure"), ""
    if span.success is not None:
        return ("success" if span.success else "failure"), ""
    if span.outcome == "failure" or work.call_refused or (span.refused and not work.calls):
        return "failure", ""
    return "success", ""
