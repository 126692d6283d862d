"""Strands Agents: finish reasons in the event `gen_ai.choice`, time to first token in milliseconds."""

from exporter.dialects import genai
from exporter.dialects.common import MAX_SECONDS, Reading
from exporter.events import Event
from exporter.spans import Span

NAME = "strands"
SCOPES: tuple[str, ...] = ("strands.",)
KEYS = genai.KEYS | {"finish_reason", "gen_ai.tool.status"}

claims = genai.claims


def read(span: Span, reading: Reading) -> Event:
    match span.attributes.get("gen_ai.operation.name"):
        case "chat":
            first = reading.number(span.attributes, "gen_ai.server.time_to_first_token", 0, MAX_SECONDS * 1000)
            first_token = None if first is None else first / 1000
            return genai.iteration(span, reading, NAME, finish=_finish(span), first_token=first_token)
        case "invoke_agent":
            return genai.agent_span(span, reading, NAME, finish=_finish(span))
        case "execute_tool":
            return genai.tool_call(span, reading, NAME, failed=span.attributes.get("gen_ai.tool.status") == "error")
        case _:
            return reading.passage(span, NAME)


def _finish(span: Span) -> object:
    for event in reversed(span.events):
        if event.name == "gen_ai.choice" and "finish_reason" in event.attributes:
            return event.attributes["finish_reason"]
    return None
