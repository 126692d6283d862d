"""OpenInference (Arize Phoenix): `openinference.span.kind` on every span, tokens in `llm.token_count.*`."""

from exporter.dialects import common, genai
from exporter.dialects.common import Reading, Tokens, first_text, stop_reason
from exporter.events import Event
from exporter.spans import Span, text

NAME = "openinference"
SCOPES: tuple[str, ...] = ("openinference.instrumentation.",)

_CACHE_READ = ("llm.token_count.prompt_details.cache_read", "llm.token_count.prompt_details.cache_input")
_CACHE_WRITE = ("llm.token_count.prompt_details.cache_write", "llm.token_count.prompt_details.cache_creation")
_ASKED = "llm.output_messages.0.message.tool_calls.0.tool_call.function.name"
_MODEL = ("llm.request.model_name", "llm.model_name", "llm.response.model_name", "embedding.model_name")
_PROVIDER = ("llm.provider", "llm.system")

KEYS = common.KEYS.union(
    genai.TOOL_NAME,
    genai.AGENT_NAME,
    _PROVIDER,
    _CACHE_READ,
    _CACHE_WRITE,
    _MODEL,
    {
        "openinference.span.kind",
        "llm.token_count.prompt",
        "llm.token_count.completion",
        "llm.finish_reason",
        "input.value",
        "graph.node.id",
        "tool.parameters",
        "smolagents.max_steps",
        _ASKED,
    },
)

_REJECTED_CALL = "smolagents.utils.AgentToolCallError"
# Where the framework always puts a workflow above its agents.
_NESTED_SCOPES = ("openinference.instrumentation.openai_agents", "openinference.instrumentation.crewai")


def claims(span: Span) -> bool:
    return "openinference.span.kind" in span.attributes


def read(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    match text(attributes.get("openinference.span.kind")).upper():
        case "LLM":
            return _iteration(span, reading)
        case "TOOL":
            return _tool(span, reading)
        case "AGENT" if "tool.name" in attributes:
            # LangChain's marks whatever has "agent" in its name as an agent, tools included.
            return _tool(span, reading)
        case "CHAIN" if any(e.attributes.get("exception.type") == _REJECTED_CALL for e in span.events):
            # smolagents rejects a call before its tool has a span; the step it happened in is all there is.
            return reading.tool(span, NAME, "tool", tool="", result="invalid", seconds=-1.0)
        case "AGENT":
            return _agent(span, reading, chain=False)
        case "CHAIN":
            return _agent(span, reading, chain=True)
        case _:
            return reading.passage(span, NAME)


def _tool(span: Span, reading: Reading) -> Event:
    arguments = span.attributes.get("input.value")
    schema = span.attributes.get("tool.parameters")
    wrapped = span.scope.endswith(".llama_index")  # {"args": [...], "kwargs": {...}}
    result = ""
    if common.failed(span) and common.arguments_fit(schema, arguments, "kwargs" if wrapped else "") is False:
        result = "invalid"
    return genai.tool_call(span, reading, NAME, arguments=arguments, result=result)


def _tokens(span: Span, reading: Reading) -> Tokens:
    attributes = span.attributes
    inputs = reading.count(attributes, "llm.token_count.prompt")
    outputs = reading.count(attributes, "llm.token_count.completion")
    if inputs is None and outputs is None:
        return None, 0, 0, 0
    cache_read = reading.first_count(attributes, _CACHE_READ) or 0
    cache_write = reading.first_count(attributes, _CACHE_WRITE) or 0
    return genai.uncached(inputs or 0, cache_read, cache_write, True), outputs or 0, cache_read, cache_write


def _iteration(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    tokens = _tokens(span, reading)
    stop, refused = stop_reason(attributes.get("llm.finish_reason"))
    return reading.call(
        span,
        NAME,
        common.failure(span, "provider"),
        model=first_text(attributes, _MODEL),
        answered_by=text(attributes.get("llm.response.model_name")),
        provider=first_text(attributes, _PROVIDER),
        tokens=tokens,
        answered=tokens[0] is not None or bool(stop),
        stop_reason=stop,
        asked=text(attributes.get(_ASKED)),
        refused=refused,
        first_token=genai.time_to_first_token(span, reading),
    )


def _agent(span: Span, reading: Reading, *, chain: bool) -> Event:
    attributes = span.attributes
    name = first_text(attributes, genai.AGENT_NAME)
    if not name and not chain:
        name = text(attributes.get("graph.node.id")) or _own_name(span)
    if name.lower() in genai.DEFAULT_NAMES:
        name = ""
    return reading.agent(
        span,
        NAME,
        common.failure(span, "internal"),
        name=name,
        task_type=text(attributes.get("task.type")),
        nested=chain or span.scope in _NESTED_SCOPES,
        outcome="",
        model=first_text(attributes, _MODEL),
        provider=first_text(attributes, _PROVIDER),
        tokens=_tokens(span, reading),
        refused=stop_reason(attributes.get("llm.finish_reason"))[1],
        most_iterations=reading.count(attributes, "smolagents.max_steps"),
    )


def _own_name(span: Span) -> str:
    """An AGENT span's own name, less `.run` or `.agent`: what LangChain, smolagents and agno tell the agent's name by.

    A name that is no identifier may be anything, a prompt too, and is not used.
    """
    name = span.name
    for suffix in (".run", ".arun", ".agent", ".query"):
        name = name.removesuffix(suffix)
    return name if len(name) <= 60 and name.replace("_", "").replace("-", "").replace(".", "").isalnum() else ""
