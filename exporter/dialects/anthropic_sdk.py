"""The Anthropic SDK's own spans: sent beside whatever else reports the same call, so that a twin must be looked for."""

from exporter.dialects import genai
from exporter.dialects.common import Reading
from exporter.events import Event
from exporter.spans import Span, text

NAME = "anthropic-sdk"
SCOPES: tuple[str, ...] = ("com.anthropic.sdk.",)
KEYS = genai.KEYS | {"anthropic.message.stop_reason"}

claims = genai.claims


def read(span: Span, reading: Reading) -> Event:
    if text(span.attributes.get("gen_ai.operation.name")) in genai.LLM_OPERATIONS:
        finish = span.attributes.get("anthropic.message.stop_reason")
        return genai.iteration(span, reading, NAME, finish=finish, client=True)
    return reading.passage(span, NAME)
