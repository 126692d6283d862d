"""Senders that mean harm, or have gone mad: each makes export requests from a source of chance.

They speak OTLP well enough to be taken in (tests/exporter/test_fuzz.py has those that don't); what they say makes no
sense, has no end, or has no bounds. `SECRET` stands in each place where agents put what people wrote.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Value = str | bool | int | float
Sender = Callable[[random.Random], bytes]

SECRET = "what-the-user-wrote"
SECONDS = 10**9
SPANS = 200

KINDS: dict[str, dict[str, Value]] = {
    "agent.task": {"task.type": "t", "task.status": "completed", "task.cost_usd": 0.01},
    "agent.iteration": {"iteration.input_tokens": 10, "iteration.output_tokens": 5, "iteration.model": "gpt-4o"},
    "tool.execute": {"tool.name": "search", "tool.latency_ms": 5, "tool.args_hash": "x"},
    "chat x": {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 10},
    "execute_tool x": {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"},
    "invoke_agent x": {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"},
    "ChatOpenAI": {"openinference.span.kind": "LLM", "llm.model_name": "m", "llm.token_count.prompt": 10},
    "AgentExecutor": {"openinference.span.kind": "AGENT"},
    "crew": {"traceloop.span.kind": "workflow", "traceloop.entity.name": "crew"},
    "interaction": {"span.type": "interaction"},
    "llm_request": {"span.type": "llm_request", "model": "claude", "input_tokens": 10, "output_tokens": 1},
    "GET /": {},
}
NUMBERS = {
    *("task.cost_usd", "task.total_input_tokens", "task.total_output_tokens", "task.total_iterations"),
    *("task.confidence", "iteration.input_tokens", "iteration.output_tokens", "iteration.cache_read_tokens"),
    *("iteration.ttft_ms", "tool.latency_ms", "tool.confidence", "gen_ai.usage.input_tokens"),
    *("gen_ai.usage.output_tokens", "gen_ai.usage.cache_read.input_tokens", "llm.token_count.prompt", "input_tokens"),
}
NONSENSE: tuple[Value, ...] = (
    *(float("nan"), float("inf"), float("-inf"), -1, -(2**63), 2**63 - 1, 1e300, 5e-324, -0.0),
    *(True, False, "", "many", "1e9", "NaN", "\x00"),
)


def span(chance: random.Random, name: str = "", **given: object) -> Span:
    """A span of some kind, ended just now, in a trace of its own; `given` are its fields."""
    name = name or chance.choice(list(KINDS))
    end = time.time_ns() - chance.randrange(5 * SECONDS)
    made = Span(
        trace_id=chance.randbytes(16),
        span_id=chance.randbytes(8),
        name=name,
        start_time_unix_nano=end - chance.randrange(60 * SECONDS),
        end_time_unix_nano=end,
        flags=chance.choice((0, 0x100, 0x300)),
    )
    tell(made, KINDS.get(name, {}))
    for field, value in given.items():
        setattr(made, field, value)
    return made


def tell(made: Span, attributes: Mapping[str, Value]) -> None:
    for key, value in attributes.items():
        made.attributes.append(KeyValue(key=key, value=encoded(value)))


def encoded(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
    return AnyValue(string_value=value)


def request(spans: Iterator[Span], agent: str = "hostile", scope: str = "") -> bytes:
    made = ExportTraceServiceRequest()
    of_resource = made.resource_spans.add()
    of_resource.resource.attributes.append(KeyValue(key="service.name", value=encoded(agent)))
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = scope
    of_scope.spans.extend(spans)
    return made.SerializeToString()


def some(chance: random.Random, name: str = "") -> Iterator[Span]:
    return (span(chance, name) for _ in range(SPANS))


# -- names without bounds ----------------------------------------------------------------------------------------------


def new_names_of(key: str, name: str) -> Sender:
    def sender(chance: random.Random) -> bytes:
        def named() -> Iterator[Span]:
            for made in some(chance, name):
                tell(made, {key: f"{chance.randbytes(6).hex()} {{}}\"'\n\\"})
                yield made

        return request(named())

    return sender


def new_agents(chance: random.Random) -> bytes:
    made = ExportTraceServiceRequest()
    for one in some(chance):
        of_resource = made.resource_spans.add()
        of_resource.resource.attributes.append(KeyValue(key="service.name", value=encoded(chance.randbytes(8).hex())))
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name = chance.randbytes(8).hex()
        of_scope.spans.append(one)
    return made.SerializeToString()


def long_names(chance: random.Random) -> bytes:
    def named() -> Iterator[Span]:
        for kind in KINDS:
            made = span(chance, kind)
            tell(made, {pair.key: "y" * 100_000 for pair in made.attributes if pair.value.HasField("string_value")})
            yield made

    return request(named(), agent="z" * 100_000, scope="s" * 100_000)


def what_people_wrote(chance: random.Random) -> bytes:
    """Prompts and answers wherever instrumentations have been seen to put them."""

    def told() -> Iterator[Span]:
        for made in some(chance):
            if chance.random() < 0.5:
                made.name = f"{SECRET} {made.name}"
            if chance.random() < 0.5:
                made.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=f"{SECRET}: timeout"))
                made.events.add(name="exception").attributes.append(
                    KeyValue(key="exception.message", value=encoded(f"validation error: {SECRET}"))
                )
            keys = ("gen_ai.input.messages", "gen_ai.tool.call.arguments", "input.value", "llm.prompts.0.content")
            tell(made, dict.fromkeys(keys, f'{{"text": "{SECRET}"}}'))
            yield made

    return request(told())


# -- values without sense ----------------------------------------------------------------------------------------------


def nonsense_numbers(chance: random.Random) -> bytes:
    def told() -> Iterator[Span]:
        for made in some(chance):
            tell(made, {key: chance.choice(NONSENSE) for key in chance.sample(sorted(NUMBERS), 5)})
            yield made

    return request(told())


def nonsense_everywhere(chance: random.Random) -> bytes:
    def told() -> Iterator[Span]:
        for made in some(chance):
            for pair in made.attributes:
                if chance.random() < 0.3:
                    pair.value.CopyFrom(encoded(chance.choice(NONSENSE)))
            yield made

    return request(told())


def wrong_clocks(chance: random.Random) -> bytes:
    now, day = time.time_ns(), 86_400 * SECONDS
    moments = (0, 1, now - 400 * day, now - day, now, now + day, now + 400 * day, 2**63, 2**64 - 1)
    return request(
        span(chance, start_time_unix_nano=chance.choice(moments), end_time_unix_nano=chance.choice(moments))
        for _ in range(SPANS)
    )


def too_many_attributes(chance: random.Random) -> bytes:
    made = span(chance)
    tell(made, {f"key{number}": number for number in range(20_000)})
    for _ in range(20_000):
        tell(made, {"tool.name": "again"})
    return request(iter([made]))


# -- shapes without end ------------------------------------------------------------------------------------------------


def wrong_ids(chance: random.Random) -> bytes:
    def told() -> Iterator[Span]:
        for made in some(chance):
            ids = (b"", bytes(8), bytes(16), b"\xff" * 3, made.span_id, chance.randbytes(8), chance.randbytes(500))
            for field in ("trace_id", "span_id", "parent_span_id"):
                if chance.random() < 0.4:
                    setattr(made, field, chance.choice(ids))
            yield made

    return request(told())


def circles(chance: random.Random) -> bytes:
    def told() -> Iterator[Span]:
        trace = chance.randbytes(16)
        ids = [chance.randbytes(8) for _ in range(SPANS)]
        for number, own in enumerate(ids):
            above = ids[number - chance.choice((1, 1, 2, 7))]
            yield span(chance, trace_id=trace, span_id=own, parent_span_id=above)

    return request(told())


def deep_nesting(chance: random.Random) -> bytes:
    ids = [chance.randbytes(8) for _ in range(3000)]
    trace = chance.randbytes(16)
    pairs = list(zip(ids, [b"", *ids], strict=False))
    if chance.random() < 0.5:
        pairs.reverse()
    return request(span(chance, trace_id=trace, span_id=own, parent_span_id=above) for own, above in pairs)


def without_end(chance: random.Random) -> bytes:
    """Ever the same traces, which never end: their tops are never sent."""
    del_top = [bytes(15) + bytes([number + 1]) for number in range(5)]
    return request(span(chance, trace_id=chance.choice(del_top), parent_span_id=b"the top!") for _ in range(SPANS))


def never_again(chance: random.Random) -> bytes:
    """Ever new traces of which nothing more comes."""
    return request(span(chance, parent_span_id=chance.randbytes(8)) for _ in range(SPANS))


def the_same_again(chance: random.Random) -> bytes:
    """The ids of an earlier request, with other contents."""
    ids = random.Random(7)
    return request(span(chance, trace_id=ids.randbytes(16), span_id=ids.randbytes(8)) for _ in range(SPANS))


def calls_of_a_client(chance: random.Random) -> bytes:
    """Calls that an SDK reports of itself: they wait for a twin that never comes."""
    return request(some(chance, "chat x"), scope="com.anthropic.sdk.client")


def scores(chance: random.Random) -> bytes:
    def told() -> Iterator[Span]:
        for made in some(chance):
            for _ in range(5):
                event = made.events.add(name="gen_ai.evaluation.result")
                for key, value in (
                    ("gen_ai.evaluation.name", chance.choice(("goal_alignment", "confidence", SECRET))),
                    ("gen_ai.evaluation.score.value", chance.choice((0.5, 1, *NONSENSE))),
                ):
                    event.attributes.append(KeyValue(key=key, value=encoded(value)))
            yield made

    return request(told())


PROTOBUF: dict[str, Sender] = {
    "new tools": new_names_of("tool.name", "tool.execute"),
    "new models": new_names_of("iteration.model", "agent.iteration"),
    "new task types": new_names_of("task.type", "agent.task"),
    "new statuses": new_names_of("task.status", "agent.task"),
    "new stop reasons": new_names_of("iteration.stop_reason", "agent.iteration"),
    "new variants": new_names_of("oncall.variant", "agent.iteration"),
    "new rollouts": new_names_of("oncall.rollout", "agent.task"),
    "new agents by attribute": new_names_of("oncall.agent", "agent.iteration"),
    "new response ids": new_names_of("gen_ai.response.id", "chat x"),
    "new agents": new_agents,
    "long names": long_names,
    "what people wrote": what_people_wrote,
    "nonsense numbers": nonsense_numbers,
    "nonsense everywhere": nonsense_everywhere,
    "wrong clocks": wrong_clocks,
    "too many attributes": too_many_attributes,
    "wrong ids": wrong_ids,
    "circles": circles,
    "deep nesting": deep_nesting,
    "without end": without_end,
    "never again": never_again,
    "the same again": the_same_again,
    "calls of a client": calls_of_a_client,
    "scores": scores,
}


def halves_of_pairs(chance: random.Random) -> bytes:
    """OTLP/JSON whose texts hold what is no character by itself, and numbers of any size."""

    def pair(key: str, value: Mapping[str, object]) -> dict[str, object]:
        return {"key": key, "value": value}

    broken = {"stringValue": "\ud800 half \udfff"}
    spans = [
        {
            "traceId": chance.randbytes(16).hex(),
            "spanId": chance.randbytes(8).hex(),
            "name": chance.choice(["\udc00", *KINDS]),
            "startTimeUnixNano": str(time.time_ns()),
            "endTimeUnixNano": str(time.time_ns()),
            "status": {"code": 2, "message": "\ud83d"},
            "attributes": [
                *(pair(key, broken) for key in ("tool.name", "iteration.model", "task.type", "oncall.agent")),
                *(pair(key, {"intValue": "9" * chance.choice((1, 25, 5000))}) for key in ("task.cost_usd", "attempt")),
                pair("iteration.input_tokens", {"doubleValue": chance.choice(["NaN", "Infinity", 1e308, "1e999"])}),
            ],
        }
        for _ in range(20)
    ]
    resource = {"attributes": [pair("service.name", broken), pair("service.instance.id", broken)]}
    scoped = {"scope": {"name": "com.anthropic.sdk.\ud800"}, "spans": spans}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scoped]}]}).encode()


JSON: dict[str, Sender] = {"halves of pairs": halves_of_pairs}
