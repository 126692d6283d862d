"""Microsoft's Agent Framework and Semantic Kernel: GenAI names, finish reasons as a JSON string, sums on the root."""

from exporter.dialects import genai
from exporter.dialects.common import Reading
from exporter.events import Event
from exporter.spans import Span

NAME = "ms-agent-framework"
SCOPES: tuple[str, ...] = ("agent_framework", "semantic_kernel", "Microsoft.Agents", "Experimental.Microsoft")
KEYS = genai.KEYS

claims = genai.claims


def read(span: Span, reading: Reading) -> Event:
    return genai.read(span, reading, NAME)
