"""Vercel's AI SDK (`ai.*` operations): `ai.generateText` → `ai.generateText.doGenerate` → `ai.toolCall`.

The outer span repeats the sums of its calls. Its counts include cached ones, which have names of their own.
"""

from exporter.dialects import common, genai
from exporter.dialects.common import MAX_SECONDS, Reading, Tokens, first_text, stop_reason
from exporter.events import Event
from exporter.spans import Span, text

NAME = "vercel-ai"
SCOPES: tuple[str, ...] = ("ai",)

_INPUT = ("ai.usage.inputTokens", "gen_ai.usage.input_tokens", "ai.usage.promptTokens")
_OUTPUT = ("ai.usage.outputTokens", "gen_ai.usage.output_tokens", "ai.usage.completionTokens")
_CACHE_READ = ("ai.usage.inputTokenDetails.cacheReadTokens", "ai.usage.cachedInputTokens")
_CACHE_WRITE = ("ai.usage.inputTokenDetails.cacheWriteTokens",)
_MODEL = ("gen_ai.request.model", "ai.model.id")
_PROVIDER = ("gen_ai.system", "ai.model.provider")
_ANSWERED_BY = ("gen_ai.response.model", "ai.response.model")
_RESPONSE_ID = ("gen_ai.response.id", "ai.response.id")

KEYS = common.KEYS.union(
    _INPUT,
    _OUTPUT,
    _CACHE_READ,
    _CACHE_WRITE,
    _MODEL,
    _PROVIDER,
    _ANSWERED_BY,
    _RESPONSE_ID,
    {
        "ai.operationId",
        "ai.telemetry.functionId",
        "ai.response.finishReason",
        "ai.response.msToFirstChunk",
        "ai.toolCall.name",
        "ai.toolCall.args",
    },
)

_AGENTS = frozenset({"ai.generateText", "ai.streamText", "ai.generateObject", "ai.streamObject", "ai.agent"})


def claims(span: Span) -> bool:
    return "ai.operationId" in span.attributes


def read(span: Span, reading: Reading) -> Event:
    operation = text(span.attributes.get("ai.operationId"))
    if operation.endswith((".doGenerate", ".doStream")):
        return _iteration(span, reading)
    if operation == "ai.toolCall":
        return _tool(span, reading)
    if operation in _AGENTS:
        return _agent(span, reading)
    return reading.passage(span, NAME)  # embeddings, and whatever comes next


def _tokens(span: Span, reading: Reading) -> Tokens:
    attributes = span.attributes
    inputs = reading.first_count(attributes, _INPUT)
    outputs = reading.first_count(attributes, _OUTPUT)
    if inputs is None and outputs is None:
        return None, 0, 0, 0
    cache_read = reading.first_count(attributes, _CACHE_READ) or 0
    cache_write = reading.first_count(attributes, _CACHE_WRITE) or 0
    return genai.uncached(inputs or 0, cache_read, cache_write, True), outputs or 0, cache_read, cache_write


def _iteration(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    tokens = _tokens(span, reading)
    stop, refused = stop_reason(attributes.get("ai.response.finishReason"))
    response_id = first_text(attributes, _RESPONSE_ID)
    first_ms = reading.number(attributes, "ai.response.msToFirstChunk", 0, MAX_SECONDS * 1000)
    return reading.call(
        span,
        NAME,
        common.failure(span, "provider"),
        model=first_text(attributes, _MODEL),
        answered_by=first_text(attributes, _ANSWERED_BY),
        provider=first_text(attributes, _PROVIDER),
        tokens=tokens,
        answered=tokens[0] is not None or bool(stop) or bool(response_id),
        response_id=response_id,
        stop_reason=stop,
        refused=refused,
        first_token=None if first_ms is None else first_ms / 1000,
    )


def _tool(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    error = common.failure(span, "tool")
    return reading.tool(
        span,
        NAME,
        error,
        tool=text(attributes.get("ai.toolCall.name")),
        result=common.tool_result(span, error),
        arguments=common.hash_of(attributes.get("ai.toolCall.args")),
        confidence=reading.number(attributes, "tool.confidence", 0, 1),
    )


def _agent(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    named = text(attributes.get("task.outcome")).lower()
    return reading.agent(
        span,
        NAME,
        common.failure(span, "internal"),
        name=text(attributes.get("ai.telemetry.functionId")),
        task_type=text(attributes.get("task.type")),
        outcome=named if named in ("success", "failure") else "",
        model=first_text(attributes, _MODEL),
        provider=first_text(attributes, _PROVIDER),
        tokens=_tokens(span, reading),
        refused=stop_reason(attributes.get("ai.response.finishReason"))[1],
    )
