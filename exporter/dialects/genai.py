"""OpenTelemetry's GenAI conventions, in the three generations of names that are in use.

Many frameworks speak them (pydantic-ai, google-adk, LangChain, openai-agents, autogen, Microsoft's agent framework, the
OpenAI and Anthropic clients' instrumentations); those that differ in more than names have a file of their own, which
calls the readers here.
"""

from exporter.dialects import common
from exporter.dialects.common import MAX_SECONDS, Reading, Tokens, first_text, stop_reason
from exporter.events import Event
from exporter.spans import Attributes, Span, text

NAME = "otel-genai"
SCOPES: tuple[str, ...] = (
    "opentelemetry.instrumentation.genai.",
    "opentelemetry.instrumentation.openai_v2",
    "opentelemetry.instrumentation.openai_agents_v2",
    "opentelemetry.instrumentation.google_genai",
    "opentelemetry.instrumentation.vertexai",
    "opentelemetry.instrumentation.botocore",
    "opentelemetry.instrumentation.anthropic_v2",
    "opentelemetry.util.genai",
    "azure.ai.",
)

LLM_OPERATIONS = frozenset(
    {"chat", "text_completion", "generate_content", "generateText", "streamText", "responses", "completion", "messages"}
)
AGENT_OPERATIONS = frozenset({"invoke_agent", "invoke_workflow"})

INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens")
OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens")
CACHE_READ = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.cache_read_tokens",
    "gen_ai.usage.details.cache_read_tokens",
    "gen_ai.usage.details.cache_read_input_tokens",
    "gen_ai.usage.details.cached_tokens",
    "gen_ai.usage.input_tokens.cached",
)
CACHE_WRITE = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write_input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.cache_write_tokens",
    "gen_ai.usage.cache_creation_tokens",
    "gen_ai.usage.details.cache_write_tokens",
    "gen_ai.usage.details.cache_creation_tokens",
    "gen_ai.usage.details.cache_creation_input_tokens",
)
_CACHE = frozenset(CACHE_READ + CACHE_WRITE)
AGGREGATED = {
    "input": ("gen_ai.aggregated_usage.input_tokens",),
    "output": ("gen_ai.aggregated_usage.output_tokens",),
    "cache_read": (
        "gen_ai.aggregated_usage.cache_read.input_tokens",
        "gen_ai.aggregated_usage.details.cache_read_tokens",
    ),
    "cache_write": (
        "gen_ai.aggregated_usage.cache_write.input_tokens",
        "gen_ai.aggregated_usage.cache_creation.input_tokens",
        "gen_ai.aggregated_usage.details.cache_write_tokens",
    ),
}
MODEL = ("gen_ai.request.model", "gen_ai.response.model", "model_name")
PROVIDER = ("gen_ai.provider.name", "gen_ai.system")
FINISH = ("gen_ai.response.finish_reasons", "gen_ai.response.finish_reason", "gen_ai.completion.0.finish_reason")
FIRST_TOKEN_SECONDS = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.server.time_to_first_token",
)
FIRST_TOKEN_EVENTS = frozenset({"gen_ai.content.completion.chunk", "First Token Stream Event"})
TOOL_NAME = ("gen_ai.tool.name", "tool.name", "traceloop.entity.name")
AGENT_NAME = ("gen_ai.agent.name", "agent.name", "agent_name")
ARGUMENTS = ("gen_ai.tool.call.arguments", "tool_arguments", "gen_ai.tool.args")

# Names that frameworks give by themselves: they say nothing of the task.
DEFAULT_NAMES = frozenset(
    {
        "langgraph",
        "agent workflow",
        "agent_workflow",
        "workflow",
        "crewai.workflow",
        "crewai",
        "agent",
        "default",
        "chain",
    }
)

KEYS = common.KEYS.union(
    INPUT, OUTPUT, CACHE_READ, CACHE_WRITE, *AGGREGATED.values(), MODEL, PROVIDER, FINISH, FIRST_TOKEN_SECONDS,
    TOOL_NAME, ARGUMENTS, AGENT_NAME,
    {
        "gen_ai.operation.name",
        "gen_ai.response.id",
        "gen_ai.token.semantics",
        "gen_ai.workflow.name",
        "gen_ai.task.status",
        "mcp.method.name",
    },
)  # fmt: skip


def claims(span: Span) -> bool:
    return "gen_ai.operation.name" in span.attributes or "mcp.method.name" in span.attributes


def read(span: Span, reading: Reading, dialect: str = NAME) -> Event:
    """The plain reading of the conventions; a dialect that only has another name passes its own."""
    operation = text(span.attributes.get("gen_ai.operation.name"))
    if "mcp.method.name" in span.attributes:
        return reading.passage(span, dialect)  # the other end of a tool call that is reported by the agent
    if operation in LLM_OPERATIONS:
        return iteration(span, reading, dialect)
    if operation == "execute_tool":
        return tool_call(span, reading, dialect)
    if operation in AGENT_OPERATIONS:
        return agent_span(span, reading, dialect)
    return reading.passage(span, dialect)


def iteration(
    span: Span,
    reading: Reading,
    dialect: str,
    *,
    cache_included: bool = True,
    finish: object = None,
    first_token: float | None = None,
    client: bool = False,
) -> Event:
    """An LLM call. `cache_included`: the input count holds the cached tokens, as the conventions want it."""
    attributes = span.attributes
    counts = tokens(span, reading, cache_included)
    response_id = text(attributes.get("gen_ai.response.id"))
    stop, refused = stop_reason(told_finish(attributes) if finish is None else finish)
    return reading.call(
        span,
        dialect,
        common.failure(span, "provider"),
        model=first_text(attributes, MODEL),
        answered_by=text(attributes.get("gen_ai.response.model")),
        provider=first_text(attributes, PROVIDER),
        tokens=counts,
        answered=counts[0] is not None or bool(stop) or bool(response_id),
        response_id=response_id,
        stop_reason=stop,
        refused=refused,
        first_token=time_to_first_token(span, reading) if first_token is None else first_token,
        client=client,
    )


def told_finish(attributes: Attributes) -> object:
    for key in FINISH:
        if key in attributes:
            return attributes[key]
    return None


def tokens(span: Span, reading: Reading, cache_included: bool) -> Tokens:
    attributes = span.attributes
    inputs = reading.first_count(attributes, INPUT)
    outputs = reading.first_count(attributes, OUTPUT)
    if inputs is None and outputs is None:
        return None, 0, 0, 0
    if _CACHE.isdisjoint(attributes):
        return inputs or 0, outputs or 0, 0, 0
    cache_read = reading.first_count(attributes, CACHE_READ) or 0
    cache_write = reading.first_count(attributes, CACHE_WRITE) or 0
    semantics = attributes.get("gen_ai.token.semantics")
    if semantics in ("inclusive", "exclusive"):
        cache_included = semantics == "inclusive"
    return uncached(inputs or 0, cache_read, cache_write, cache_included), outputs or 0, cache_read, cache_write


def uncached(inputs: int, cache_read: int, cache_write: int, cache_included: bool) -> int:
    """Input tokens less the cached ones; a count smaller than its own cached part cannot have included it."""
    rest = inputs - cache_read - cache_write
    return rest if cache_included and rest >= 0 else inputs


def time_to_first_token(span: Span, reading: Reading) -> float | None:
    for key in FIRST_TOKEN_SECONDS:
        if key in span.attributes and (told := reading.number(span.attributes, key, 0, MAX_SECONDS)) is not None:
            return told
    for event in span.events:
        if event.name in FIRST_TOKEN_EVENTS and span.start_ns <= event.time_ns <= span.end_ns:
            return (event.time_ns - span.start_ns) / 1e9
    return None


def tool_name(attributes: Attributes) -> str:
    """The tool's name without the `mcp__server__` that some clients put before it."""
    name = first_text(attributes, TOOL_NAME)
    if name.startswith("mcp__"):
        name = name.split("__", 2)[-1]
    return name


def tool_call(
    span: Span, reading: Reading, dialect: str, *, arguments: object = None, result: str = "", failed: bool = False
) -> Event:
    attributes = span.attributes
    error = common.failure(span, "tool") or ("tool" if failed else "")
    if arguments is None:
        arguments = first_text(attributes, ARGUMENTS)
    return reading.tool(
        span,
        dialect,
        error,
        tool=tool_name(attributes),
        result=result or common.tool_result(span, error),
        arguments=common.hash_of(arguments),
        confidence=reading.number(attributes, "tool.confidence", 0, 1),
    )


def agent_span(
    span: Span,
    reading: Reading,
    dialect: str,
    *,
    name: str = "",
    task_type: str = "",
    nested: bool = False,
    answers: bool = False,
    finish: object = None,
    sums: Tokens | None = None,
) -> Event:
    """An agent, workflow or chain. Its sums are pydantic-ai's aggregates, else the same keys as on a call."""
    attributes = span.attributes
    workflow = text(attributes.get("gen_ai.workflow.name"))
    if workflow.lower() in DEFAULT_NAMES:
        workflow = ""
    if not name:
        name = first_text(attributes, AGENT_NAME)
    if name.lower() in DEFAULT_NAMES:
        name = ""
    if sums is None:
        total_in = reading.first_count(attributes, AGGREGATED["input"])
        if total_in is None:
            sums = tokens(span, reading, True)
        else:
            total_read = reading.first_count(attributes, AGGREGATED["cache_read"]) or 0
            total_write = reading.first_count(attributes, AGGREGATED["cache_write"]) or 0
            sums = (
                uncached(total_in, total_read, total_write, True),
                reading.first_count(attributes, AGGREGATED["output"]) or 0,
                total_read,
                total_write,
            )
    named = text(attributes.get("task.outcome")).lower()
    return reading.agent(
        span,
        dialect,
        common.failure(span, "internal"),
        name=name,
        task_type=text(attributes.get("task.type")) or task_type or workflow,
        nested=nested,
        answers=answers,
        outcome=named if named in ("success", "failure") else "",
        model=first_text(attributes, MODEL),
        provider=first_text(attributes, PROVIDER),
        tokens=sums,
        refused=stop_reason(told_finish(attributes) if finish is None else finish)[1],
    )
