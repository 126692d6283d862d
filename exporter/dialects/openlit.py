"""OpenLIT: GenAI names, but Anthropic's input tokens come without the cached ones."""

from exporter.dialects import genai
from exporter.dialects.common import Reading, first_text
from exporter.events import Event
from exporter.spans import Span, text

NAME = "openlit"
SCOPES: tuple[str, ...] = ("openlit.",)
KEYS = genai.KEYS

claims = genai.claims


def read(span: Span, reading: Reading) -> Event:
    if text(span.attributes.get("gen_ai.operation.name")) in genai.LLM_OPERATIONS:
        anthropic = first_text(span.attributes, genai.PROVIDER).startswith("anthropic")
        return genai.iteration(span, reading, NAME, cache_included=not anthropic)
    return genai.read(span, reading, NAME)
