"""pydantic-ai (Logfire): GenAI names; a rejected argument is told by `pydantic_ai.tool.retry.cause`."""

from exporter.dialects import genai
from exporter.dialects.common import Reading
from exporter.events import Event
from exporter.spans import Span

NAME = "pydantic-ai"
SCOPES: tuple[str, ...] = ("pydantic-ai", "pydantic_ai", "logfire")
KEYS = genai.KEYS | {"pydantic_ai.tool.retry.cause", "pydantic_ai.tool.failure_stage"}

claims = genai.claims


def read(span: Span, reading: Reading) -> Event:
    attributes = span.attributes
    rejected = (
        attributes.get("pydantic_ai.tool.retry.cause") in ("validation_error", "unknown_tool")
        or attributes.get("pydantic_ai.tool.failure_stage") == "validation"
    )
    if rejected and attributes.get("gen_ai.operation.name") == "execute_tool":
        return genai.tool_call(span, reading, NAME, result="invalid", failed=True)
    return genai.read(span, reading, NAME)
