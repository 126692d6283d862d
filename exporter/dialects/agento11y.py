"""Grafana's agento11y (Sigil): `generateText` and `streamText`, with `gen_ai.token.semantics` beside the counts."""

from exporter.dialects import genai
from exporter.dialects.common import Reading
from exporter.events import Event
from exporter.spans import Span

NAME = "agento11y"
SCOPES: tuple[str, ...] = ("github.com/grafana/sigil/", "github.com/grafana/agento11y")
KEYS = genai.KEYS

claims = genai.claims


def read(span: Span, reading: Reading) -> Event:
    return genai.read(span, reading, NAME)
