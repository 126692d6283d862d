"""AutoGen: agents and tools by GenAI names, no LLM spans; hand-offs are traces of their own."""

from exporter.dialects import genai
from exporter.dialects.common import Reading
from exporter.events import Event
from exporter.spans import Span

NAME = "autogen"
SCOPES: tuple[str, ...] = ("autogen",)
KEYS = genai.KEYS

claims = genai.claims


def read(span: Span, reading: Reading) -> Event:
    return genai.read(span, reading, NAME)
