"""What every dialect needs: the head of an event, numbers that can be meant, and why a span failed."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

from exporter.events import AgentSpan, Event, Iteration, ToolCall
from exporter.spans import STATUS_ERROR, Attributes, Span, text

Tokens: TypeAlias = tuple[int | None, int, int, int]
"""Uncached input (None where no usage was told), output, cache read, cache write."""

# Read on every span of every dialect.
KEYS = frozenset(
    {
        "oncall.agent",
        "oncall.variant",
        "oncall.rollout",
        "oncall.stage",
        "oncall.shard",
        "error.type",
        "exception.type",
        "exception.message",
        "http.response.status_code",
        "http.status_code",
        "task.type",
        "task.success",
        "task.outcome",
        "task.confidence",
    }
)

# How much of a status or exception text is looked at: the tell-tale words stand at its beginning.
_LOOK_AT = 600
# A count above this is nobody's: the longest context windows hold some ten million tokens.
MAX_COUNT = 1_000_000_000
MAX_SECONDS = 7 * 86_400
_MOST_FACT = 256
_NUMBERS = frozenset({int, float})  # and no bool, which is an int as well


class Reading:
    """What the reading of spans needs beside the span: the user's fact keys, and where doubtful values are noted."""

    def __init__(self, fact_keys: Iterable[str] = ()) -> None:
        self.fact_keys = tuple(fact_keys)
        self.rejected: Counter[str] = Counter()

    # -- numbers ---------------------------------------------------------------------------------------------------

    def count(self, attributes: Attributes, key: str) -> int | None:
        """The count at `key`; None where there is none. Nonsense is noted and left out."""
        value = attributes.get(key)
        if value is None or (type(value) is int and 0 <= value <= MAX_COUNT):
            return value
        if isinstance(value, float) and value.is_integer() and 0 <= value <= MAX_COUNT:
            return int(value)
        self._reject(key, value)
        return None

    def first_count(self, attributes: Attributes, keys: Iterable[str]) -> int | None:
        """The first of `keys` that is there, as a count."""
        for key in keys:
            if key in attributes and (count := self.count(attributes, key)) is not None:
                return count
        return None

    def number(self, attributes: Attributes, key: str, least: float, most: float) -> float | None:
        """The finite number at `key` within the limits, else None; nonsense is noted."""
        value = attributes.get(key)
        if value is None:
            return None
        if type(value) in _NUMBERS and least <= value <= most:  # type: ignore[operator]
            return float(value)  # type: ignore[arg-type]
        self._reject(key, value)
        return None

    def flag(self, attributes: Attributes, key: str) -> bool | None:
        value = attributes.get(key)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        self._reject(key, value)
        return None

    def unknown_word(self, key: str) -> None:
        """Note that what stands at `key` is none of the words it may be."""
        self.rejected[f"{key}: unknown word"] += 1

    def _reject(self, key: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            why = "not a number"
        elif math.isnan(value):
            why = "NaN"
        elif value < 0:
            why = "negative"
        else:
            why = "out of range"
        self.rejected[f"{key}: {why}"] += 1

    # -- events ------------------------------------------------------------------------------------------------------

    # By position: msgspec takes 0.2 µs for that, and 2 µs where each of thirty fields is named.

    def passage(self, span: Span, dialect: str = "", error: str = "") -> Event:
        return Event(
            span.trace_id, span.span_id, span.parent_id, span.remote, span.start_ns, span.end_ns,
            span.resource.agent, _variant(span), span.resource.instance, span.scope, dialect, error,
            _rollout(span.attributes), self._facts(span.attributes),
        )  # fmt: skip

    def call(
        self,
        span: Span,
        dialect: str,
        error: str,
        *,
        model: str,
        provider: str,
        tokens: Tokens,
        answered: bool,
        stop_reason: str,
        refused: bool,
        first_token: float | None,
        answered_by: str = "",
        response_id: str = "",
        asked: str = "",
        final: bool = False,
        purpose: str = "",
        own: bool = False,
        client: bool = False,
    ) -> Event:
        inputs, outputs, cache_read, cache_write = tokens
        return Iteration(
            span.trace_id, span.span_id, span.parent_id, span.remote, span.start_ns, span.end_ns,
            span.resource.agent, _variant(span), span.resource.instance, span.scope, dialect, error,
            _rollout(span.attributes), self._facts(span.attributes),
            model, answered_by, provider, inputs, outputs, cache_read, cache_write, answered, response_id,
            stop_reason, asked, refused, final, purpose, first_token, own, client,
            (inputs or 0) + outputs + cache_read + cache_write,
        )  # fmt: skip

    def tool(
        self,
        span: Span,
        dialect: str,
        error: str,
        *,
        tool: str,
        result: str,
        arguments: bytes = b"",
        confidence: float | None = None,
        seconds: float | None = None,
    ) -> Event:
        return ToolCall(
            span.trace_id, span.span_id, span.parent_id, span.remote, span.start_ns, span.end_ns,
            span.resource.agent, _variant(span), span.resource.instance, span.scope, dialect, error,
            _rollout(span.attributes), self._facts(span.attributes),
            tool, result, arguments, confidence, seconds,
        )  # fmt: skip

    def agent(
        self,
        span: Span,
        dialect: str,
        error: str,
        *,
        task_type: str,
        outcome: str,
        tokens: Tokens,
        name: str = "",
        nested: bool = False,
        answers: bool = False,
        reason: str = "",
        status: str = "",
        iterations: int | None = None,
        model: str = "",
        provider: str = "",
        cost_usd: float | None = None,
        refused: bool = False,
        most_iterations: int | None = None,
    ) -> Event:
        return AgentSpan(
            span.trace_id, span.span_id, span.parent_id, span.remote, span.start_ns, span.end_ns,
            span.resource.agent, _variant(span), span.resource.instance, span.scope, dialect, error,
            _rollout(span.attributes), self._facts(span.attributes),
            name, task_type, nested, answers, outcome, reason, self.flag(span.attributes, "task.success"),
            self.number(span.attributes, "task.confidence", 0, 1), status, iterations, model, provider,
            tokens[0], tokens[1], tokens[2], tokens[3], cost_usd, refused, most_iterations,
        )  # fmt: skip

    def _facts(self, attributes: Attributes) -> dict[str, str | int | float | bool] | None:
        if not self.fact_keys:
            return None
        return {
            key: value[:_MOST_FACT] if isinstance(value, str) else value
            for key in self.fact_keys
            if (value := attributes.get(key)) is not None and not isinstance(value, list)
        } or None


def _variant(span: Span) -> str:
    if "oncall.variant" in span.attributes:
        return text(span.attributes["oncall.variant"]) or span.resource.variant
    return span.resource.variant


def _rollout(attributes: Attributes) -> tuple[str, str, str] | None:
    if "oncall.rollout" not in attributes:
        return None
    return (
        text(attributes["oncall.rollout"]),
        label_text(attributes.get("oncall.stage")),
        label_text(attributes.get("oncall.shard")),
    )


def plain_tool(name: str) -> str:
    """A tool's name without the `mcp__server__` that some clients put before it."""
    return name.split("__", 2)[-1] if name.startswith("mcp__") else name


def label_text(value: object) -> str:
    """A label value that some send as a string and some as a number."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def first_text(attributes: Attributes, keys: Iterable[str]) -> str:
    """The first of `keys` that holds a non-empty string."""
    for key in keys:
        if key in attributes and (value := text(attributes[key])):
            return value
    return ""


def seconds(span: Span) -> float:
    return max(0, span.end_ns - span.start_ns) / 1e9


def hash_of(arguments: object) -> bytes:
    """Eight bytes that tell two argument strings apart; the arguments themselves go no further."""
    if not isinstance(arguments, str) or not arguments:
        return b""
    return hashlib.blake2b(arguments.encode(), digest_size=8).digest()


# -- why a span failed -----------------------------------------------------------------------------------------------

CANCELLED = "cancelled"
MAX_ITERATIONS = "max_iterations"

_CANCELLED = re.compile(
    r"keyboardinterrupt|cancell?ederror|aborterror|\bcancell?ed by\b|\buser cancel|^cancell?ed$|generatorexit"
)
_MAX_ITERATIONS = re.compile(
    r"usagelimitexceeded|graphrecursionerror|llmcallslimitexceeded|max(imum)?[ _]?(number of )?[ _]?(iter|turn|step)"
    r"|maxiter|maxturn|recursion limit of|max number of llm calls|iteration limit"
)
_RATE_LIMIT = re.compile(r"ratelimit|rate[ _-]limit|\b429\b|too many requests|resource_?exhausted|throttl|quota")
_TIMEOUT = re.compile(r"timeout|timed[ _]out|deadline[ _]exceeded|\b(408|504)\b")
_PROVIDER = re.compile(
    r"internalservererror|servererror|apierror|api_error|apiconnection|api connection|connection ?error|connecterror"
    r"|overloaded|service ?unavailable|bad gateway|\b5\d\d\b|authenticationerror|permissiondenied"
)
_INVALID_ARGUMENTS = re.compile(
    r"validation error|validationerror|input validation|field required|is a required property|missing required argument"
    r"|missing \d+ required|required positional argument|unexpected keyword argument|invalid arguments?\b"
    r"|not in the tool's input schema|arguments validation failed"
)
_UNKNOWN_TOOL = re.compile(
    r"unknown tool|no such tool|tool [^ ]{1,100} (was )?not found|tool [^ ]{1,100} does not exist|toolnotfound"
    r"|is not a valid tool"
)


def failed(span: Span) -> bool:
    return span.status == STATUS_ERROR or "error.type" in span.attributes


def told(span: Span) -> str:
    """What the span says of its failure, in lower case: exception types and the beginnings of the messages."""
    words = [text(span.attributes.get("error.type")), span.status_message[:_LOOK_AT]]
    code = span.attributes.get("http.response.status_code") or span.attributes.get("http.status_code")
    if isinstance(code, int) and code >= 400:
        words.append(str(code))
    for event in span.events:
        if event.name == "exception":
            words.append(text(event.attributes.get("exception.type")))
            words.append(text(event.attributes.get("exception.message"))[:_LOOK_AT])
    return "\n".join(words).lower()


def reason(words: str, default: str) -> str:
    """Why it failed: one of the contract's error reasons, CANCELLED or MAX_ITERATIONS; else `default`."""
    if _CANCELLED.search(words):
        return CANCELLED
    if _MAX_ITERATIONS.search(words):
        return MAX_ITERATIONS
    if _RATE_LIMIT.search(words):
        return "rate_limit"
    if _TIMEOUT.search(words):
        return "timeout"
    if _PROVIDER.search(words):
        return "provider"
    return default


def failure(span: Span, default: str) -> str:
    """The reason of a failed span, empty for one that did not fail."""
    if span.status == STATUS_ERROR or "error.type" in span.attributes:
        return reason(told(span), default)
    if span.events:
        # An interrupted span may end as OK, with nothing but the exception in it.
        for event in span.events:
            if event.name == "exception" and _CANCELLED.search(text(event.attributes.get("exception.type")).lower()):
                return CANCELLED
    return ""


# google-adk and openai-agents say no more than this of a failed tool call.
_HIDDEN = re.compile(r"^tool_error$|^_other$|details are redacted", re.MULTILINE)
_BEFORE_IT_RAN_NS = 3_000_000


def tool_result(
    span: Span, error: str, hidden: re.Pattern[str] = _HIDDEN, before_it_ran_ns: int = _BEFORE_IT_RAN_NS
) -> str:
    """ok, error, or invalid where the message says that the arguments were wrong or the tool does not exist.

    Some sources hide why a call failed (`hidden` matches what they say instead). Arguments are checked before a tool
    runs: there a call that failed in less time than `before_it_ran_ns` is taken for one with wrong arguments.
    """
    if not error:
        return "ok"
    words = told(span)
    if _INVALID_ARGUMENTS.search(words) or _UNKNOWN_TOOL.search(words):
        return "invalid"
    return "invalid" if hidden.search(words) and span.end_ns - span.start_ns < before_it_ran_ns else "error"


def arguments_fit(schema: object, arguments: object, inside: str = "") -> bool | None:
    """Whether a call's arguments (JSON) have all required fields, of the right type, and no unknown one where those are
    forbidden; None where the schema or the arguments are not there to tell. `inside` is the key that they stand below,
    if they are wrapped."""
    try:
        wanted, given = json.loads(text(schema)), json.loads(text(arguments))
    except (ValueError, RecursionError):
        return None
    if inside and isinstance(given, dict):
        given = given.get(inside)
    if not isinstance(wanted, dict) or not isinstance(given, dict):
        return None
    properties = wanted.get("properties")
    if not isinstance(properties, dict):
        return None
    required = wanted.get("required")
    if isinstance(required, list) and any(key not in given for key in required if isinstance(key, str)):
        return False
    if wanted.get("additionalProperties") is False and any(key not in properties for key in given):
        return False
    return all(_of_type(value, properties.get(key)) for key, value in given.items())


_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def _of_type(value: object, schema: object) -> bool:
    named = schema.get("type") if isinstance(schema, dict) else None
    types = _JSON_TYPES.get(named) if isinstance(named, str) else None
    if types is None:
        return True  # no type, or a union: not ours to judge
    return isinstance(value, types) and not (isinstance(value, bool) and bool not in types)


# -- finish reasons --------------------------------------------------------------------------------------------------

_REFUSALS = frozenset(
    {
        "refusal",
        "refused",
        "content_filter",
        "content_filtered",
        "contentfilter",
        "safety",
        "prohibited_content",
        "blocklist",
    }
)
_SAME = {
    "stop": "end_turn",
    "end_turn": "end_turn",
    "endturn": "end_turn",
    "completed": "end_turn",
    "tool_call": "tool_use",
    "tool_calls": "tool_use",
    "tool_use": "tool_use",
    "tool-calls": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "content_filter": "refusal",
    "content-filter": "refusal",
    "contentfilter": "refusal",
    "safety": "refusal",
    "refused": "refusal",
}


def stop_reason(value: object) -> tuple[str, bool]:
    """A finish reason in the base schema's words, and whether it is a refusal.

    Takes a string, an array, or an array written as a JSON string; of several, a refusal wins, else the first.
    """
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, str):
        return _stop_reason(value)
    told = [_stop_reason(item) for item in value if isinstance(item, str) and item] if isinstance(value, list) else []
    refusal = next((one for one in told if one[1]), None)
    return refusal or next((one for one in told if one[0]), ("", False))


@lru_cache(1 << 10)
def _stop_reason(value: str) -> tuple[str, bool]:
    value = value.lower()
    names = re.findall(r"[\w.-]+", value) if value[:1] in ("[", '"', "'") else [value]
    for name in names:
        # Enumerations come as "FinishReason.SAFETY".
        if name.rpartition(".")[2].replace("-", "_") in _REFUSALS:
            return "refusal", True
    if not names:
        return "", False
    name = names[0].rpartition(".")[2]
    return _SAME.get(name, name[:40]), False
