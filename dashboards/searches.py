"""Which traces are behind a number: failed, slow, costly and looping tasks, in TraceQL and for Jaeger.

Spans of running tasks are found too, wherever the search is about calls: the span of a task that hangs never comes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from grafanalib import core as gl

from dashboards.explore import jaeger, link, traces

# The same span in the dialects that the exporter understands: base schema, OTel GenAI, OpenInference.
_TASK = 'name = "agent.task" || span.gen_ai.operation.name = "invoke_agent" || span.openinference.span.kind = "AGENT"'
_CALL = 'name = "agent.iteration" || span.gen_ai.operation.name = "chat" || span.openinference.span.kind = "LLM"'
_TOOL = ("span.tool.name", "span.gen_ai.tool.name")

MOST_ITERATIONS = 25
SLOW_SECONDS = 300
COSTLY_USD = 1
COSTLY_TOKENS = 250_000

CHOSEN = "${agent:pipe}"
"""The agents that the variable `agent` chooses, as a regular expression.

Not `:regex`: the backslash it puts before a dot is no escape that JSON or TraceQL knows, and an unescaped one only
matches more.
"""


@dataclass(frozen=True, slots=True)
class Search:
    """A kind of task, and how its traces are found; Jaeger cannot search for every kind."""

    title: str
    means: str
    traceql: str
    jaeger: str = ""

    def links(self) -> list[gl.DataLink]:
        """Links that open what is found: in Tempo, and in Jaeger where it can be searched for."""
        found = [link(f"{self.title} in Tempo", traces(self.traceql))]
        return [*found, link(f"{self.title} in Jaeger", self.jaeger)] if self.jaeger else found


def failed(agent: str = CHOSEN) -> Search:
    """Tasks that ended without reaching their goal."""
    missed = 'status = error || span.task.success = false || span.task.status != "completed"'
    return Search(
        "Failed tasks",
        "ended with an error, abandoned, or without reaching their goal",
        f"{{ {_of(agent)} && ({_TASK}) && ({missed}) }}",
        jaeger(agent, tags={"error": "true"}),
    )


def slow(agent: str = CHOSEN, seconds: float = SLOW_SECONDS) -> Search:
    """Tasks that took longer than `seconds`."""
    return Search(
        "Slow tasks",
        f"took longer than {seconds / 60:g} minutes",
        f"{{ {_of(agent)} && ({_TASK}) && duration > {seconds:g}s }}",
        jaeger(agent, operation="agent.task", least_seconds=seconds),
    )


def costly(agent: str = CHOSEN) -> Search:
    """Tasks of many tokens, running ones included."""
    of = _of(agent)
    return Search(
        "Costly tasks",
        f"used more than {COSTLY_TOKENS:,} input tokens so far, or cost more than {COSTLY_USD} USD",
        f"({{ {of} }} | sum(span.iteration.input_tokens) > {COSTLY_TOKENS})"
        f" || ({{ {of} }} | sum(span.gen_ai.usage.input_tokens) > {COSTLY_TOKENS})"
        f" || {{ {of} && span.task.cost_usd > {COSTLY_USD} }}",
    )


def looping(agent: str = CHOSEN) -> Search:
    """Tasks of many iterations, running ones included."""
    return Search(
        "Looping tasks",
        f"made more than {MOST_ITERATIONS} LLM calls so far",
        f"{{ {_of(agent)} && ({_CALL}) }} | count() > {MOST_ITERATIONS}",
        jaeger(agent, operation="agent.iteration", tags={"iteration.number": str(MOST_ITERATIONS + 1)}),
    )


def of_tool(agent: str, tool: str) -> Search:
    """Traces in which a tool was called."""
    called = " || ".join(f'{attribute} = "{tool}"' for attribute in _TOOL)
    return Search(
        "Traces with this tool",
        "called the tool",
        f"{{ {_of(agent)} && ({called}) }}",
        jaeger(agent, tags={"tool.name": tool}),
    )


def all_kinds(agent: str = CHOSEN) -> Sequence[Search]:
    """Every kind, what hurts first first."""
    return looping(agent), costly(agent), failed(agent), slow(agent)


def _of(agent: str) -> str:
    return f'(resource.service.name =~ "{agent}" || span.oncall.agent =~ "{agent}")'
