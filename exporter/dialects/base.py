"""The base schema of SPEC section 4: `agent.task` → `agent.iteration` → `tool.execute`, with `oncall.*` beside."""

from exporter.contract import ABANDON_REASONS, ERROR_REASONS, OUTCOMES, PURPOSES, TOOL_RESULTS
from exporter.dialects import common
from exporter.dialects.common import MAX_SECONDS, Reading, first_text
from exporter.events import AgentSpan, Event, Iteration, ToolCall
from exporter.spans import Span, text

NAME = "base"
SPAN_NAMES = frozenset({"agent.task", "agent.iteration", "tool.execute"})
SCOPES: tuple[str, ...] = ()
KEYS = common.KEYS | {
    "task.id",
    "task.status",
    "task.reason",
    "task.cost_usd",
    "task.total_iterations",
    "task.total_input_tokens",
    "task.total_output_tokens",
    "iteration.number",
    "iteration.latency_ms",
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
    error = common.failure(span, "provider")
    inputs = reading.count(attributes, "iteration.input_tokens")
    outputs = reading.count(attributes, "iteration.output_tokens")
    stop, refused = common.stop_reason(attributes.get("iteration.stop_reason"))
    first_token = reading.number(attributes, "iteration.ttft_ms", 0, MAX_SECONDS * 1000)
    purpose = text(attributes.get("iteration.purpose"))
    return Iteration(
        *reading.head(span, NAME, error),
        model=text(attributes.get("iteration.model")),
        answered_by="",
        provider=text(attributes.get("iteration.provider")),
        input=inputs if inputs is not None or outputs is None else 0,
        output=outputs or 0,
        cache_read=reading.count(attributes, "iteration.cache_read_tokens") or 0,
        cache_write=reading.count(attributes, "iteration.cache_write_tokens") or 0,
        answered=inputs is not None or outputs is not None or bool(stop),
        response_id="",
        stop_reason=stop,
        asked="",
        refused=refused,
        final=attributes.get("iteration.final") is True or stop == "end_turn",
        purpose=purpose if purpose in PURPOSES else "",
        first_token=None if first_token is None else first_token / 1000,
        own=True,
        client=False,
    )


def _tool(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    error = common.failure(span, "tool")
    result = text(attributes.get("tool.result"))
    latency = reading.number(attributes, "tool.latency_ms", 0, MAX_SECONDS * 1000)
    return ToolCall(
        *reading.head(span, NAME, error),
        tool=text(attributes.get("tool.name")),
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


def outcome(span: Span) -> tuple[str, str]:
    """What `task.outcome` and `task.status` say, as (outcome, reason); empty strings where they do not tell."""
    attributes = span.attributes
    named = text(attributes.get("task.outcome")).lower()
    why = text(attributes.get("task.reason")).lower()
    if named in OUTCOMES:
        known = {"error": ERROR_REASONS, "abandoned": ABANDON_REASONS}.get(named, ())
        if named == "abandoned" and why not in known:
            why = _STATUS.get(text(attributes.get("task.status")).lower(), ("", ""))[1] or "user_cancel"
        return named, why if why in known or named == "abandoned" else ""
    return _STATUS.get(text(attributes.get("task.status")).lower(), ("", ""))


def _task(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    error = common.failure(span, "internal")
    named, why = outcome(span)
    inputs = reading.count(attributes, "task.total_input_tokens")
    outputs = reading.count(attributes, "task.total_output_tokens")
    return AgentSpan(
        *reading.head(span, NAME, error),
        name="",
        task_type=first_text(attributes, "task.type"),
        nested=False,
        answers=False,
        outcome=named,
        reason=why,
        success=reading.flag(attributes, "task.success"),
        confidence=reading.number(attributes, "task.confidence", 0, 1),
        status=text(attributes.get("task.status")).lower()[:40],
        iterations=reading.count(attributes, "task.total_iterations"),
        model="",
        provider="",
        input=inputs if inputs is not None or outputs is None else 0,
        output=outputs or 0,
        cache_read=0,
        cache_write=0,
        cost_usd=reading.number(attributes, "task.cost_usd", 0, float("inf")),
        refused=False,
    )
