"""Export requests as bytes, made beforehand: what agents send on a busy day, the same for the same seed.

Tasks run side by side, so that a request holds spans of many traces, in the order in which they end.
"""

import heapq
import random
import string
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

SPANS_A_REQUEST = 512
PROMPT_BYTES = 4096
AGENTS = ("support-agent", "research-agent", "coding-agent", "triage-agent", "billing-agent")

_MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash")
_TOOLS = ("search", "fetch", "sql", "calculator", "send_mail", "read_file", "write_file", "run_tests")
_TASK_TYPES = ("question", "report", "debugging", "summary")
_MS = 1_000_000

Value = str | bool | int | float | list[str]
Task = Callable[[random.Random, str, int], Iterator[Span]]
"""From a source of chance, the agent and the start (unix nanoseconds): the task's spans, in the order they end."""


def requests(
    task: Task,
    spans: int,
    *,
    seed: int,
    start: float,
    agents: Sequence[str] = AGENTS,
    spans_a_request: int = SPANS_A_REQUEST,
    side_by_side: int = 200,
) -> list[bytes]:
    """So many spans of so many tasks at once, from `start` (unix seconds) on, as ExportTraceServiceRequests."""
    bodies = []
    batch: defaultdict[str, list[Span]] = defaultdict(list)
    held = 0
    for agent, span in _side_by_side(task, random.Random(seed), agents, int(start * 1e9), side_by_side):
        batch[agent].append(span)
        held += 1
        spans -= 1
        if held == spans_a_request or not spans:
            bodies.append(encoded(batch))
            batch.clear()
            held = 0
        if not spans:
            return bodies
    raise AssertionError("tasks never run out")


def _side_by_side(
    task: Task, chance: random.Random, agents: Sequence[str], start: int, most: int
) -> Iterator[tuple[str, Span]]:
    """The spans of so many tasks at once, for ever, in the order they end."""
    running: list[tuple[int, int, str, Span, Iterator[Span]]] = []
    born, moment = 0, start
    while True:
        while len(running) < most:
            agent = chance.choice(agents)
            following = task(chance, agent, moment + chance.randrange(1000 * _MS))
            span = next(following)
            heapq.heappush(running, (span.end_time_unix_nano, born, agent, span, following))
            born += 1
        moment, number, agent, span, following = heapq.heappop(running)
        yield agent, span
        after = next(following, None)
        if after is not None:
            heapq.heappush(running, (after.end_time_unix_nano, number, agent, after, following))


def base_task(chance: random.Random, agent: str, start: int) -> Iterator[Span]:
    """A task on the base schema with all its attributes, optional ones too: some 5 iterations and 4 tool calls."""
    del agent
    model = chance.choice(_MODELS)
    trace, top = chance.randbytes(16), chance.randbytes(8)
    at = start
    iterations = _iterations(chance)
    total_input = total_output = 0
    recovers = False
    for number in range(1, iterations + 1):
        began, iteration = at, chance.randbytes(8)
        final = number == iterations
        latency = chance.randint(400, 6000)
        input_tokens, output_tokens = 800 + 600 * number, chance.randint(20, 900)
        total_input += input_tokens
        total_output += output_tokens
        at += latency * _MS
        purpose = "recovery" if recovers else "progress"
        recovers = False
        if not final:
            called, tool_latency = at, chance.randint(5, 3000)
            recovers = chance.random() < 0.05
            at += tool_latency * _MS
            yield made(
                trace,
                iteration,
                chance.randbytes(8),
                "tool.execute",
                called,
                at,
                {
                    "tool.name": chance.choice(_TOOLS),
                    "tool.latency_ms": tool_latency,
                    "tool.result": "error" if recovers else "ok",
                    "tool.args_hash": chance.randbytes(8).hex(),
                    "tool.confidence": round(chance.random(), 3),
                },
                failed=recovers,
            )
        yield made(
            trace,
            top,
            iteration,
            "agent.iteration",
            began,
            at,
            {
                "iteration.number": number,
                "iteration.latency_ms": latency,
                "iteration.input_tokens": input_tokens,
                "iteration.output_tokens": output_tokens,
                "iteration.stop_reason": "end_turn" if final else "tool_use",
                "iteration.final": final,
                "iteration.model": model,
                "iteration.purpose": purpose,
                "iteration.ttft_ms": chance.randint(80, 400),
            },
        )
    yield made(
        trace,
        b"",
        top,
        "agent.task",
        start,
        at + _MS,
        {
            "task.id": f"task-{top.hex()}",
            "task.type": chance.choice(_TASK_TYPES),
            "task.input_len": chance.randint(20, 4000),
            "agent.max_iter": 40,
            "task.total_iterations": iterations,
            "task.total_input_tokens": total_input,
            "task.total_output_tokens": total_output,
            "task.cost_usd": round(total_input * 2.5e-6 + total_output * 1e-5, 6),
            "task.status": "completed",
            "task.success": chance.random() < 0.85,
            "task.confidence": round(chance.random(), 3),
        },
    )


def genai_task(chance: random.Random, agent: str, start: int) -> Iterator[Span]:
    """A task by OpenTelemetry's GenAI conventions, contents recorded: each LLM call bears 4 KB of messages."""
    model = chance.choice(_MODELS)
    trace, top = chance.randbytes(16), chance.randbytes(8)
    at = start
    iterations = _iterations(chance)
    words = "".join(chance.choices(string.ascii_lowercase + "      ", k=PROMPT_BYTES - 60))
    prompt = f'[{{"role":"user","parts":[{{"type":"text","content":"{words}"}}]}}]'
    for number in range(1, iterations + 1):
        began, final = at, number == iterations
        at += chance.randint(400, 6000) * _MS
        yield made(
            trace,
            top,
            chance.randbytes(8),
            f"chat {model}",
            began,
            at,
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "server.address": "api.openai.com",
                "server.port": 443,
                "gen_ai.request.model": model,
                "gen_ai.request.temperature": 0.2,
                "gen_ai.request.max_tokens": 1024,
                "gen_ai.response.model": model,
                "gen_ai.response.id": f"chatcmpl-{chance.randbytes(12).hex()}",
                "gen_ai.response.finish_reasons": ["stop" if final else "tool_calls"],
                "gen_ai.usage.input_tokens": 800 + 600 * number,
                "gen_ai.usage.output_tokens": chance.randint(20, 900),
                "gen_ai.input.messages": prompt,
                "gen_ai.output.messages": prompt[:300],
            },
        )
        if final:
            break
        tool, called, failed = chance.choice(_TOOLS), at, chance.random() < 0.05
        at += chance.randint(5, 3000) * _MS
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": f"call_{chance.randbytes(12).hex()}",
            "gen_ai.tool.call.arguments": prompt[:200],
            "gen_ai.tool.call.result": prompt[:500],
        }
        if failed:
            attributes["error.type"] = "ToolError"
        yield made(trace, top, chance.randbytes(8), f"execute_tool {tool}", called, at, attributes, failed=failed)
    yield made(
        trace,
        b"",
        top,
        f"invoke_agent {agent}",
        start,
        at + _MS,
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "openai",
            "gen_ai.agent.name": agent,
            "gen_ai.agent.id": "agent-1",
            "gen_ai.conversation.id": trace.hex(),
            "gen_ai.request.model": model,
        },
    )


def open_tasks(tasks: int, spans_a_task: int, *, seed: int, start: float) -> list[bytes]:
    """Tasks of the base schema that have not ended: of each so many spans, half iterations and half tool calls."""
    chance = random.Random(seed)
    bodies = []
    batch: defaultdict[str, list[Span]] = defaultdict(list)
    at = int(start * 1e9)
    for number in range(1, tasks + 1):
        trace, top = chance.randbytes(16), chance.randbytes(8)
        spans = batch[chance.choice(AGENTS)]
        for turn in range(1, spans_a_task // 2 + 1):
            iteration = chance.randbytes(8)
            called: dict[str, Value] = {
                "tool.name": chance.choice(_TOOLS),
                "tool.result": "ok",
                "tool.args_hash": chance.randbytes(8).hex(),
            }
            asked: dict[str, Value] = {
                "iteration.number": turn,
                "iteration.input_tokens": 1000,
                "iteration.output_tokens": 100,
                "iteration.stop_reason": "tool_use",
                "iteration.model": _MODELS[number % len(_MODELS)],
            }
            spans.append(made(trace, iteration, chance.randbytes(8), "tool.execute", at, at + _MS, called))
            spans.append(made(trace, top, iteration, "agent.iteration", at, at + 2 * _MS, asked))
            at += 2 * _MS
        if sum(map(len, batch.values())) >= SPANS_A_REQUEST or number == tasks:
            bodies.append(encoded(batch))
            batch.clear()
    return bodies


def _iterations(chance: random.Random) -> int:
    return 1 + min(int(chance.expovariate(0.2)), 30)


def made(
    trace: bytes,
    parent: bytes,
    own: bytes,
    name: str,
    start: int,
    end: int,
    attributes: dict[str, Value],
    *,
    failed: bool = False,
) -> Span:
    """A span; times in unix nanoseconds."""
    return Span(
        trace_id=trace,
        span_id=own,
        parent_span_id=parent,
        flags=0x101,
        name=name,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        attributes=[KeyValue(key=key, value=_value(value)) for key, value in attributes.items()],
        status=Status(code=Status.STATUS_CODE_ERROR, message="it failed") if failed else None,
    )


def encoded(batch: dict[str, list[Span]]) -> bytes:
    """Spans by agent as an ExportTraceServiceRequest."""
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(
                    attributes=[
                        KeyValue(key="service.name", value=_value(agent)),
                        KeyValue(key="service.instance.id", value=_value(f"{agent}-0")),
                        KeyValue(key="telemetry.sdk.language", value=_value("python")),
                    ]
                ),
                scope_spans=[ScopeSpans(scope=InstrumentationScope(name="agent", version="1.0"), spans=spans)],
            )
            for agent, spans in batch.items()
        ]
    ).SerializeToString()


def _value(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))
