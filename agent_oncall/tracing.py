"""Spans of the base schema, and what every span below a task is stamped with.

All of it goes through the OpenTelemetry API: without an SDK it costs next to nothing and does nothing. Nothing here
raises: a span that can't be made is no reason for an agent to stop.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextvars import Token
from typing import TypeAlias

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, Status, StatusCode, Tracer

_log = logging.getLogger("agent_oncall")

Attributes: TypeAlias = Mapping[str, str | bool | int | float]

SCOPE = "agent_oncall"
TASK, ITERATION, TOOL = "agent.task", "agent.iteration", "tool.execute"

_STAMPS = otel_context.create_key("agent-oncall-stamps")


def start(tracer: Tracer, name: str, attributes: Attributes) -> Span:
    """A span below the current one."""
    try:
        return tracer.start_span(name, attributes=attributes)
    except Exception:
        _log.warning("no span %s could be started", name, exc_info=True)
        return INVALID_SPAN


def enter(span: Span, values: Mapping[str, object] | None = None) -> Token[Context] | None:
    """Makes the span the current one, for leave() with what this returns. `values` go along in the context."""
    try:
        if values is None and not span.is_recording():
            return None  # the one above is as good a parent
        found = trace.set_span_in_context(span)
        for key, value in (values or {}).items():
            found = otel_context.set_value(key, value, found)
        return otel_context.attach(found)
    except Exception:
        _log.warning("the span could not be made the current one", exc_info=True)
        return None


def stamped(attributes: Attributes) -> dict[str, object]:
    """What enter() takes so that Stamps finds the attributes."""
    return {_STAMPS: attributes}


def leave(token: Token[Context] | None) -> None:
    """Not by opentelemetry's detach(): that logs a traceback where the context is another, which is ordinary: the event
    loop ends an abandoned async generator in one of its own."""
    if token is None:
        return
    try:
        token.var.reset(token)
    except (ValueError, RuntimeError):
        return


def outside(token: Token[Context] | None) -> Context:
    """The context that was current before enter()."""
    found = None if token is None else token.old_value
    return found if isinstance(found, Context) else Context()


def end(span: Span, attributes: Attributes, error: str = "") -> None:
    """Ends the span. `error` is the name of what failed, never its text: that may hold what a user wrote."""
    try:
        if span.is_recording():
            span.set_attributes(attributes)
            if error:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, error))
        span.end()
    except Exception:
        _log.warning("a span could not be ended", exc_info=True)


def event(span: Span, name: str, attributes: Attributes) -> None:
    try:
        span.add_event(name, attributes)
    except Exception:
        _log.warning("a span's event could not be added", exc_info=True)


def hash_arguments(arguments: object) -> str:
    """Sixteen hexadecimal digits that tell a tool's arguments apart; "" for None. The arguments go no further."""
    if arguments is None:
        return ""
    try:
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, sort_keys=True, default=repr)
        return hashlib.blake2b(arguments.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    except Exception:  # arguments of any kind come by here, from a model
        return ""


class Stamps:
    """A span processor that gives every span below a task the task's `oncall.*` attributes, whoever made the span.

    `tracer_provider.add_span_processor(Stamps())`, before or after the exporting one.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        # Not of the SDK's class: an agent without the SDK has none, and the SDK asks for no more than these methods.
        if getattr(getattr(span, "instrumentation_scope", None), "name", "") == SCOPE:
            return  # has them from its start
        attributes = otel_context.get_value(_STAMPS, parent_context)
        if attributes is None:
            # A context that was built by hand, from the parent span alone.
            above = getattr(trace.get_current_span(parent_context), "attributes", None) or {}
            attributes = {key: value for key, value in above.items() if key.startswith("oncall.")}
        if attributes and isinstance(attributes, Mapping):
            span.set_attributes(attributes)

    def _on_ending(self, span: Span) -> None:
        pass

    def on_end(self, span: object) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True
