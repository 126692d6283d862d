"""The base schema of SPEC section 4: `agent.task` → `agent.iteration` → `tool.execute`, with `oncall.*` beside."""

from exporter.contract import ABANDON_REASONS, ERROR_REASONS, OUTCOMES, PURPOSES, TOOL_RESULTS
from exporter.dialects import common
from exporter.dialects.common import MAX_SECONDS, Reading
from exporter.events import Event
from exporter.spans import Span, text

NAME = "base"
SPAN_NAMES = frozenset({"agent.task", "agent.iteration", "tool.execute"})
SCOPES: tuple[str, ...] = ()
KEYS = common.KEYS | {
    "task.status",
    "task.reason",
    "task.cost_usd",
    "task.total_iterations",
    "task.total_input_tokens",
    "task.total_output_tokens",
    "iteration.input_tokens",
    "iteration.output_tokens",
    "iteration.cache_read_tokens",
    "iteration.cache_write_tokens",
    "iteration.stop_reason",
    "iteration.final",
    "iteration.model",
    "iteration.provider",
    "iteration.purpose",
    "iteration.ttft_ms",
    "tool.name",
    "tool.latency_ms",
    "tool.result",
    "tool.args_hash",
    "tool.confidence",
}


def claims(span: Span) -> bool:
    return span.name in SPAN_NAMES


def read(span: Span, reading: Reading) -> Event:
    if span.name == "agent.iteration":
        return _iteration(span, reading)
    if span.name == "tool.execute":
        return _tool(span, reading)
    return _task(span, reading)


def _iteration(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    inputs = reading.count(attributes, "iteration.input_tokens")
    outputs = reading.count(attributes, "iteration.output_tokens")
    stop, refused = common.stop_reason(attributes.get("iteration.stop_reason"))
    first_token = reading.number(attributes, "iteration.ttft_ms", 0, MAX_SECONDS * 1000)
    purpose = attributes.get("iteration.purpose")
    return reading.call(
        span,
        NAME,
        common.failure(span, "provider"),
        model=text(attributes.get("iteration.model")),
        provider=text(attributes.get("iteration.provider")),
        tokens=(
            inputs if inputs is not None or outputs is None else 0,
            outputs or 0,
            reading.count(attributes, "iteration.cache_read_tokens") or 0,
            reading.count(attributes, "iteration.cache_write_tokens") or 0,
        ),
        answered=inputs is not None or outputs is not None or bool(stop),
        stop_reason=stop,
        refused=refused,
        final=attributes.get("iteration.final") is True or stop == "end_turn",
        purpose=purpose if isinstance(purpose, str) and purpose in PURPOSES else "",
        first_token=None if first_token is None else first_token / 1000,
        own=True,
    )


def _tool(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    error = common.failure(span, "tool")
    result = text(attributes.get("tool.result"))
    latency = reading.number(attributes, "tool.latency_ms", 0, MAX_SECONDS * 1000)
    return reading.tool(
        span,
        NAME,
        error,
        tool=common.plain_tool(text(attributes.get("tool.name"))),
        result=result if result in TOOL_RESULTS else common.tool_result(span, error),
        arguments=common.hash_of(common.label_text(attributes.get("tool.args_hash"))),
        confidence=reading.number(attributes, "tool.confidence", 0, 1),
        seconds=None if latency is None else latency / 1000,
    )


# What people write into task.status, in the contract's words. "" is an end that the status says nothing bad of.
_STATUS = {
    "completed": ("", ""),
    "complete": ("", ""),
    "success": ("success", ""),
    "succeeded": ("success", ""),
    "ok": ("", ""),
    "done": ("", ""),
    "failed": ("failure", ""),
    "failure": ("failure", ""),
    "goal_missed": ("failure", ""),
    "error": ("error", ""),
    "errored": ("error", ""),
    "exception": ("error", "internal"),
    "max_iter_exceeded": ("abandoned", "max_iterations"),
    "max_iterations": ("abandoned", "max_iterations"),
    "max_iterations_exceeded": ("abandoned", "max_iterations"),
    "max_turns_exceeded": ("abandoned", "max_iterations"),
    "cancelled": ("abandoned", "user_cancel"),
    "canceled": ("abandoned", "user_cancel"),
    "user_cancel": ("abandoned", "user_cancel"),
    "user_cancelled": ("abandoned", "user_cancel"),
    "interrupted": ("abandoned", "user_cancel"),
    "aborted": ("abandoned", "user_cancel"),
    "timeout": ("abandoned", "timeout"),
    "timed_out": ("abandoned", "timeout"),
    "deadline_exceeded": ("abandoned", "timeout"),
    "abandoned": ("abandoned", "user_cancel"),
    "budget_exceeded": ("abandoned", "max_iterations"),
}


def outcome(span: Span, reading: Reading) -> tuple[str, str]:
    """What `task.outcome` and `task.status` say, as (outcome, reason); empty strings where they do not tell."""
    attributes = span.attributes
    named = text(attributes.get("task.outcome")).lower()
    status = text(attributes.get("task.status")).lower()
    if status and status not in _STATUS:
        reading.unknown_word("task.status")
    why = text(attributes.get("task.reason")).lower()
    if named in OUTCOMES:
        known = {"error": ERROR_REASONS, "abandoned": ABANDON_REASONS}.get(named, ())
        if named == "abandoned" and why not in known:
            why = _STATUS.get(status, ("", ""))[1] or "user_cancel"
        return named, why if why in known or named == "abandoned" else ""
    if named:
        reading.unknown_word("task.outcome")
    return _STATUS.get(status, ("", ""))


def _task(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    named, why = outcome(span, reading)
    inputs = reading.count(attributes, "task.total_input_tokens")
    outputs = reading.count(attributes, "task.total_output_tokens")
    return reading.agent(
        span,
        NAME,
        common.failure(span, "internal"),
        task_type=text(attributes.get("task.type")),
        outcome=named,
        reason=why,
        status=text(attributes.get("task.status")).lower()[:40],
        iterations=reading.count(attributes, "task.total_iterations"),
        tokens=(inputs if inputs is not None or outputs is None else 0, outputs or 0, 0, 0),
        cost_usd=reading.number(attributes, "task.cost_usd", 0, float("inf")),
    )
