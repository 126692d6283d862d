"""OpenLLMetry (Traceloop): `traceloop.span.kind` on workflows, agents, tasks, tools; old calls: `llm.request.type`."""

from exporter.dialects import genai
from exporter.dialects.common import Reading, first_text
from exporter.events import Event
from exporter.spans import Span, text

NAME = "openllmetry"
SCOPES: tuple[str, ...] = (
    "traceloop.tracer",
    "opentelemetry.instrumentation.openai.v1",
    "opentelemetry.instrumentation.openai.v0",
    "opentelemetry.instrumentation.openai_agents",
    "opentelemetry.instrumentation.anthropic",
    "opentelemetry.instrumentation.langchain",
    "opentelemetry.instrumentation.crewai",
    "opentelemetry.instrumentation.llamaindex",
    "opentelemetry.instrumentation.bedrock",
    "opentelemetry.instrumentation.cohere",
    "opentelemetry.instrumentation.google_generativeai",
    "opentelemetry.instrumentation.groq",
    "opentelemetry.instrumentation.haystack",
    "opentelemetry.instrumentation.mistralai",
    "opentelemetry.instrumentation.ollama",
    "opentelemetry.instrumentation.together",
    "opentelemetry.instrumentation.watsonx",
    "@traceloop/",
)
_FINISH = ("llm.response.finish_reason", "llm.response.stop_reason")
KEYS = genai.KEYS.union(_FINISH) | {
    "traceloop.span.kind",
    "traceloop.workflow.name",
    "traceloop.entity.name",
    "traceloop.entity.input",
    "tool.arguments",
    "llm.request.type",
    "llm.request.model",
    "llm.response.model",
}

_ARGUMENTS = (*genai.ARGUMENTS, "tool.arguments")
# Where the framework always puts a workflow above its agents.
_NESTED_SCOPES = ("opentelemetry.instrumentation.openai_agents", "opentelemetry.instrumentation.crewai")


def claims(span: Span) -> bool:
    attributes = span.attributes
    return (
        "traceloop.span.kind" in attributes
        or "llm.request.type" in attributes
        or (genai.claims(span) and span.scope.startswith(SCOPES))
    )


def read(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    if "mcp.method.name" in attributes:
        return reading.passage(span, NAME)
    operation = text(attributes.get("gen_ai.operation.name"))
    kind = text(attributes.get("traceloop.span.kind"))
    if operation in genai.LLM_OPERATIONS or (
        not operation and attributes.get("llm.request.type") in ("chat", "completion")
    ):
        finish = genai.told_finish(attributes)
        return genai.iteration(
            span, reading, NAME, finish=first_text(attributes, _FINISH) if finish is None else finish
        )
    # LlamaIndex's tool calls are tasks that name a tool.
    if operation == "execute_tool" or kind == "tool" or (kind == "task" and "tool.name" in attributes):
        arguments = first_text(attributes, _ARGUMENTS) or attributes.get("traceloop.entity.input")
        return genai.tool_call(span, reading, NAME, arguments=arguments)
    if kind == "task":
        return reading.passage(span, NAME)  # a node of a graph: its name may hold the user's prompt
    if operation in genai.AGENT_OPERATIONS or kind in ("workflow", "agent"):
        return _agent(span, reading, workflow=kind == "workflow")
    return reading.passage(span, NAME)


def _agent(span: Span, reading: Reading, *, workflow: bool) -> Event:
    attributes = span.attributes
    name = first_text(attributes, genai.AGENT_NAME)
    task_type = text(attributes.get("traceloop.workflow.name")) or (
        text(attributes.get("traceloop.entity.name")) if workflow else ""
    )
    if not name and not workflow:
        name = text(attributes.get("traceloop.entity.name"))
    return genai.agent_span(
        span,
        reading,
        NAME,
        name=name,
        task_type="" if task_type.lower() in genai.DEFAULT_NAMES else task_type,
        nested=span.scope.startswith(_NESTED_SCOPES) and not workflow,
    )
