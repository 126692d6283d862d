"""Claude Code and the Claude Agent SDK's own spans, told apart by `span.type`; tokens exclude the cached ones."""

import re

from exporter.dialects import common, genai
from exporter.dialects.common import MAX_SECONDS, Reading, first_text, stop_reason
from exporter.events import Event
from exporter.spans import Span, text

NAME = "claude-code"
SCOPES: tuple[str, ...] = ("com.anthropic.claude_code",)
KEYS = genai.KEYS | {
    "span.type",
    "model",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "stop_reason",
    "ttft_ms",
    "attempt",
    "error",
    "error_class",
    "status_code",
    "tool_name",
    "success",
}


# Of an MCP tool that failed no more is told than this. Its arguments are checked on the other side of a pipe.
_HIDDEN = re.compile(r"^mcptoolcallerror$", re.MULTILINE)
_MCP_ROUND_TRIP_NS = 25_000_000


def claims(span: Span) -> bool:
    return "span.type" in span.attributes


def read(span: Span, reading: Reading) -> Event:
    match span.attributes.get("span.type"):
        case "interaction":
            return genai.agent_span(span, reading, NAME, answers=True, sums=(None, 0, 0, 0))
        case "llm_request":
            return _iteration(span, reading)
        case "tool":
            return _tool(span, reading)
        case "tool.execution":
            # The call's failure is told here only; `tasks` hands it to the call above.
            error = common.failure(span, "tool")
            return reading.passage(span, NAME, error and common.tool_result(span, error, _HIDDEN, _MCP_ROUND_TRIP_NS))
        case _:
            return reading.passage(span, NAME)


def _iteration(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    error = common.failure(span, "provider")
    if error and attributes.get("status_code") == 429:
        error = "rate_limit"
    inputs = reading.count(attributes, "input_tokens")
    outputs = reading.count(attributes, "output_tokens")
    stop, refused = stop_reason(attributes.get("stop_reason"))
    response_id = text(attributes.get("gen_ai.response.id"))
    first_token = reading.number(attributes, "ttft_ms", 0, MAX_SECONDS * 1000)
    attempt = reading.count(attributes, "attempt") or 1
    return reading.call(
        span,
        NAME,
        error,
        model=first_text(attributes, ("gen_ai.request.model", "model")),
        provider="anthropic",
        tokens=(
            inputs if inputs is not None or outputs is None else 0,
            outputs or 0,
            reading.count(attributes, "cache_read_tokens") or 0,
            reading.count(attributes, "cache_creation_tokens") or 0,
        ),
        answered=inputs is not None or outputs is not None or bool(stop) or bool(response_id),
        response_id=response_id,
        stop_reason=stop,
        refused=refused,
        purpose="retry" if attempt > 1 else "",
        first_token=None if first_token is None else first_token / 1000,
    )


def _tool(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    error = common.failure(span, "tool")
    name = first_text(attributes, ("gen_ai.tool.name", "tool_name"))
    if name.startswith("mcp__"):
        name = name.split("__", 2)[-1]
    return reading.tool(span, NAME, error, tool=name, result=common.tool_result(span, error))
