"""Google's Agent Development Kit: GenAI names; its agents always stand below a workflow or an invocation."""

from exporter.dialects import genai
from exporter.dialects.common import Reading
from exporter.events import Event
from exporter.spans import Span

NAME = "google-adk"
SCOPES: tuple[str, ...] = ("gcp.vertex.agent", "google.adk")
KEYS = genai.KEYS

claims = genai.claims


def read(span: Span, reading: Reading) -> Event:
    if span.attributes.get("gen_ai.operation.name") == "invoke_agent":
        return genai.agent_span(span, reading, NAME, nested=True)
    return genai.read(span, reading, NAME)
