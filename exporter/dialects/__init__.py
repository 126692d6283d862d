"""Who speaks what: a span → an event.

A dialect is a module with NAME, SCOPES (the instrumentation scopes it is sent under, by prefix), KEYS (the attributes
it reads), `claims(span)` and `read(span, reading)`. To teach the exporter a new one, add a file here and list it below.
"""

from collections.abc import Callable
from typing import NamedTuple

from exporter.dialects import (
    agento11y,
    anthropic_sdk,
    autogen,
    base,
    claude_code,
    genai,
    google_adk,
    ms_agent_framework,
    openinference,
    openlit,
    openllmetry,
    pydantic_ai,
    strands,
    vercel_ai,
)
from exporter.dialects.common import Reading
from exporter.events import Event
from exporter.spans import Span


class Dialect(NamedTuple):
    name: str
    scopes: tuple[str, ...]
    claims: Callable[[Span], bool]
    read: Callable[[Span, Reading], Event]


_MODULES = (
    claude_code,
    anthropic_sdk,
    openlit,
    agento11y,
    strands,
    pydantic_ai,
    google_adk,
    ms_agent_framework,
    autogen,
    vercel_ai,
    openinference,
    openllmetry,
    genai,
)
DIALECTS = tuple(Dialect(m.NAME, m.SCOPES, m.claims, m.read) for m in _MODULES)
# Whoever uses these conventions' attributes under a scope of its own is read by them.
_GENERIC = tuple(d for d in DIALECTS if d.name in (openinference.NAME, openllmetry.NAME, genai.NAME))
# Attributes that only an LLM call bears: a span that has one and is claimed by nobody is worth a look.
LLM_LIKE = frozenset(
    {"gen_ai.system", "gen_ai.provider.name", "gen_ai.request.model", "llm.model_name", "llm.system", *genai.INPUT}
)
KEYS = base.KEYS.union(*(m.KEYS for m in _MODULES), LLM_LIKE)
# Of these, those whose texts are hashed or searched and go no further: no label is made of them.
LONG = frozenset(
    {
        *genai.ARGUMENTS,
        "input.value",
        "tool.parameters",
        "traceloop.entity.input",
        "tool.arguments",
        "ai.toolCall.args",
        "exception.message",
    }
)

_MAX_SCOPES = 1000


class Recogniser:
    """Finds each span's dialect; remembers which dialects a scope may speak."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._by_scope: dict[str, tuple[Dialect, ...]] = {}

    def read(self, span: Span) -> Event:
        """The span's event; one that no dialect knows is a plain `Event` without a dialect."""
        if span.name in base.SPAN_NAMES:
            return base.read(span, self._reading)
        for dialect in self._dialects(span.scope):
            if dialect.claims(span):
                return dialect.read(span, self._reading)
        return self._reading.passage(span)

    def _dialects(self, scope: str) -> tuple[Dialect, ...]:
        found = self._by_scope.get(scope)
        if found is None:
            own = tuple(d for d in DIALECTS if scope.startswith(d.scopes))
            found = own + tuple(d for d in _GENERIC if d not in own)
            if len(self._by_scope) < _MAX_SCOPES:  # scopes are the senders' to choose
                self._by_scope[scope] = found
        return found
