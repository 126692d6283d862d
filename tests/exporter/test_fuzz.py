"""Random and mutated requests to a real exporter: each gets the protocol's own answer, and nothing is left of it."""

import gzip
import json
import random
import signal
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList

from tests.exporter.test_server import SUCCESS, Process, process, resident_mebibytes, scraped, send, task

HTTP_ANSWERS = {200, 400, 415}
GRPC_ANSWERS = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
METHODS = {
    "/v1/traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/v1/logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
# Names that make the exporter look closer, and values that no one can mean.
NAMES = (
    *("task.id", "task.type", "task.status", "task.cost_usd", "task.success", "task.confidence", "tool.name"),
    *("iteration.number", "iteration.input_tokens", "iteration.output_tokens", "iteration.model", "tool.args_hash"),
    *("gen_ai.operation.name", "gen_ai.request.model", "gen_ai.usage.input_tokens", "gen_ai.response.finish_reasons"),
    *("openinference.span.kind", "llm.token_count.prompt", "gen_ai.evaluation.name", "gen_ai.evaluation.score.value"),
    *("oncall.agent", "oncall.variant", "oncall.rollout", "oncall.shard", "service.name", "event.name"),
)
SCOPES = ("", "agent_oncall", "openinference.instrumentation.openai", "opentelemetry.instrumentation.openai", "x" * 500)
SPANS = (
    "agent.task",
    "agent.iteration",
    "tool.execute",
    "chat gpt-5",
    "execute_tool search",
    "",
    "please ignore " * 99,
)
NUMBERS = (0, 1, -1, 2**31, 2**63 - 1, -(2**63))
DOUBLES = (0.0, -0.0, -1.5, 0.5, 1e300, -1e300, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "",
    "chat",
    "completed",
    "gpt-5",
    "gen_ai.evaluation.result",
    "goal_alignment",
    "a" * 5000,
    '\x00\n"\\{}',
    "ü🙂",
    "NaN",
)


def value(random: random.Random, depth: int = 0) -> AnyValue:
    made = AnyValue()
    match random.randrange(7 if depth < 4 else 5):
        case 0:
            made.string_value = random.choice(TEXTS)
        case 1:
            made.int_value = random.choice(NUMBERS)
        case 2:
            made.double_value = random.choice(DOUBLES)
        case 3:
            made.bool_value = random.random() < 0.5
        case 4:
            made.bytes_value = random.randbytes(random.randrange(40))
        case 5:
            made.array_value.values.extend(value(random, depth + 1) for _ in range(random.randrange(4)))
        case 6:
            made.kvlist_value.CopyFrom(KeyValueList(values=attributes(random, 3, depth + 1)))
    return made


def attributes(random: random.Random, most: int, depth: int = 0) -> list[KeyValue]:
    return [KeyValue(key=random.choice(NAMES), value=value(random, depth)) for _ in range(random.randrange(most + 1))]


def traces(random: random.Random) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for _ in range(random.randrange(3)):
        of_resource = request.resource_spans.add()
        of_resource.resource.attributes.extend(attributes(random, 3))
        for _ in range(random.randrange(3)):
            of_scope = of_resource.scope_spans.add()
            of_scope.scope.name = random.choice(SCOPES)
            for _ in range(random.randrange(6)):
                span = of_scope.spans.add(name=random.choice(SPANS))
                span.trace_id = (
                    bytes(15) + bytes([random.randrange(4)]) if random.random() < 0.8 else random.randbytes(3)
                )
                span.span_id = bytes(7) + bytes([random.randrange(9)])
                span.parent_span_id = bytes(7) + bytes([random.randrange(9)]) if random.random() < 0.7 else b""
                span.start_time_unix_nano = random.choice((0, 1, 1_795_000_000 * 10**9, 2**64 - 1))
                span.end_time_unix_nano = random.choice((0, 1, 1_795_000_001 * 10**9, 2**64 - 1))
                span.flags = random.choice((0, 0x100, 0x300, 2**32 - 1))
                span.kind = random.randrange(9)  # type: ignore[assignment]
                span.status.code = random.randrange(5)  # type: ignore[assignment]
                span.attributes.extend(attributes(random, 8))
                if random.random() < 0.2:
                    span.events.add(name="gen_ai.evaluation.result").attributes.extend(attributes(random, 4))
    return request


def logs(random: random.Random) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for _ in range(random.randrange(4)):
        record = records.add(event_name=random.choice(("gen_ai.evaluation.result", "", "other")))
        record.trace_id = bytes(15) + bytes([random.randrange(4)]) if random.random() < 0.8 else random.randbytes(3)
        record.attributes.extend(attributes(random, 6))
    return request


def mangled(random: random.Random, body: bytes) -> bytes:
    match random.randrange(5):
        case 0:
            return body
        case 1:
            return body[: random.randrange(len(body) + 1)]
        case 2:
            return random.randbytes(random.randrange(300))
        case _:
            changed = bytearray(body)
            for _ in range(random.randrange(1, 6)):
                if changed:
                    changed[random.randrange(len(changed))] = random.randrange(256)
            return bytes(changed)


def json_of(random: random.Random, request: Any) -> bytes:
    """OTLP/JSON, or something that is nearly so."""
    made = json_format.MessageToDict(request)

    def spoilt(at: Any) -> Any:
        if random.random() < 0.03:
            return random.choice([None, True, -1, 1e400, "x", [], {}, [[]], {"": {}}, "2e400", "9" * 400])
        if isinstance(at, dict):
            return {key: spoilt(under) for key, under in at.items()}
        return [spoilt(under) for under in at] if isinstance(at, list) else at

    body = json.dumps(spoilt(made)).encode()
    if random.random() < 0.02:
        depth = random.choice((100, 5000, 200_000))
        body = b'{"resourceSpans":' + b"[" * depth + b"]" * depth + b"}"
    return mangled(random, body) if random.random() < 0.3 else body


async def fuzzed(it: Process, seed: int, requests: int) -> None:
    random_ = random.Random(seed)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session,
        grpc.aio.insecure_channel(it.addresses["OTLP/gRPC"], options=options) as channel,
    ):
        for number in range(requests):
            path = random_.choice(list(METHODS))
            request = traces(random_) if path == "/v1/traces" else logs(random_)
            why = ""
            if random_.random() < 0.4:
                body = mangled(random_, request.SerializeToString())
                try:
                    await channel.unary_unary(METHODS[path])(body, timeout=60)
                except grpc.aio.AioRpcError as error:
                    why = "" if error.code() in GRPC_ANSWERS else f"{error.code()}: {error.details()}"
            else:
                is_json = random_.random() < 0.5
                body = json_of(random_, request) if is_json else mangled(random_, request.SerializeToString())
                headers = {"Content-Type": "application/json" if is_json else "application/x-protobuf"}
                if random_.random() < 0.3:
                    body = gzip.compress(body)
                    body = mangled(random_, body) if random_.random() < 0.5 else body
                    headers["Content-Encoding"] = "gzip"
                url = f"http://{it.addresses['OTLP/HTTP']}{path}"
                async with session.post(url, data=body, headers=headers) as answer:
                    text = await answer.text(errors="replace")
                    why = "" if answer.status in HTTP_ANSWERS else f"{answer.status}: {text}"
            if why:
                it.signal(signal.SIGTERM)
                await it.ended()
                pytest.fail(f"seed {seed}, request {number}: {why}\n{it.log}", pytrace=False)


async def stays_well(seed: int, requests: int, tmp_path: Path) -> None:
    async with process(f"--journal={tmp_path / 'journal'}") as it:
        await it.until("ready")
        await fuzzed(it, seed, requests // 10)
        before = resident_mebibytes(it.pid)
        await fuzzed(it, seed + 1, requests)
        assert resident_mebibytes(it.pid) - before < 50
        assert await send(it.addresses["OTLP/gRPC"], task(number=1000)) == b""
        text = await scraped(it)
        assert f"agent_tasks_total{{{SUCCESS}}} 1.0" in text
        assert "agent_exporter_requests_in_flight 0.0" in text


async def test_random_and_mutated_requests_do_no_harm(tmp_path: Path) -> None:
    await stays_well(1, 1_000, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10, 14))
async def test_many_random_and_mutated_requests_do_no_harm(seed: int, tmp_path: Path) -> None:
    await stays_well(seed, 30_000, tmp_path)
