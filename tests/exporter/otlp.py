"""OTLP requests for tests: spans in a line each, and an exporter with a clock to send them to."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from exporter.config import Settings, load
from exporter.journal import Journal
from exporter.pipeline import Answer, Pipeline
from exporter.pricing import Pricing

SECOND = 10**9
START = 1_790_000_000
PRICING = Pricing()
MODEL = "gpt-4o-mini"

Attributes = Mapping[str, Any]


def put(holder: Any, attributes: Attributes) -> None:
    for key, value in attributes.items():
        _set(holder.attributes.add(key=key).value, value)


def _set(any_value: Any, value: Any) -> None:
    match value:
        case bool():
            any_value.bool_value = value
        case int():
            any_value.int_value = value
        case float():
            any_value.double_value = value
        case list():
            any_value.array_value.SetInParent()
            for item in value:
                _set(any_value.array_value.values.add(), item)
        case _:
            any_value.string_value = value


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def span(
    name: str,
    id: int,
    parent: int = 0,
    attributes: Attributes | None = None,
    *,
    at: tuple[float, float] = (0, 1),
    trace: int = 1,
    error: str | None = None,
    remote: bool = False,
    kind: int = 0,
    events: Iterable[tuple[str, float, Attributes]] = (),
) -> Span:
    """Times are seconds after START. `error` is the status message of a failed span, which may be empty."""
    made = Span(
        trace_id=trace_id(trace),
        span_id=id.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        kind=Span.SpanKind.ValueType(kind),
        flags=0x300 if remote else 0x100,
        start_time_unix_nano=int((START + at[0]) * SECOND),
        end_time_unix_nano=int((START + at[1]) * SECOND),
    )
    put(made, attributes or {})
    for event_name, time, event_attributes in events:
        put(made.events.add(name=event_name, time_unix_nano=int((START + time) * SECOND)), event_attributes)
    if error is not None:
        made.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=error))
    return made


def chat(id: int, parent: int = 0, attributes: Attributes | None = None, **more: Any) -> Span:
    """An LLM call by the GenAI conventions: 100 tokens in, 10 out."""
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": MODEL,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 10,
    }
    return span(f"chat {MODEL}", id, parent, told | dict(attributes or {}), **more)


def tool(id: int, parent: int, attributes: Attributes | None = None, **more: Any) -> Span:
    told = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    return span("execute_tool search", id, parent, told | dict(attributes or {}), **more)


def agent(id: int, parent: int = 0, attributes: Attributes | None = None, **more: Any) -> Span:
    told = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"}
    return span("invoke_agent helper", id, parent, told | dict(attributes or {}), **more)


def iteration(id: int, parent: int, attributes: Attributes | None = None, **more: Any) -> Span:
    """One of the base schema's: 100 tokens in, 10 out."""
    told = {"iteration.input_tokens": 100, "iteration.output_tokens": 10, "iteration.stop_reason": "tool_use"}
    return span("agent.iteration", id, parent, told | dict(attributes or {}), **more)


def task(id: int, parent: int = 0, attributes: Attributes | None = None, **more: Any) -> Span:
    return span("agent.task", id, parent, {"task.type": "order", **(attributes or {})}, **more)


def traces(*spans: Span, scope: str = "my.agent", resource: Attributes | None = None) -> bytes:
    return _traces(spans, scope, resource).SerializeToString()


def traces_json(*spans: Span, scope: str = "my.agent", resource: Attributes | None = None) -> bytes:
    """The same request as OTLP/JSON writes it: ids in hexadecimal digits."""
    request = MessageToDict(_traces(spans, scope, resource), use_integers_for_enums=True)
    for written, made in zip(request["resourceSpans"][0]["scopeSpans"][0]["spans"], spans, strict=True):
        written["traceId"], written["spanId"] = made.trace_id.hex(), made.span_id.hex()
        if made.parent_span_id:
            written["parentSpanId"] = made.parent_span_id.hex()
    return json.dumps(request).encode()


def _traces(spans: Iterable[Span], scope: str, resource: Attributes | None) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    put(of_resource.resource, {"service.name": "shop", **(resource or {})})
    of_resource.scope_spans.add(spans=spans).scope.name = scope
    return request


def evaluation(
    attributes: Attributes, *, trace: int = 1, span_id: int = 0, event_name: str = "gen_ai.evaluation.result"
) -> bytes:
    """A judge's log record."""
    request = ExportLogsServiceRequest()
    of_resource = request.resource_logs.add()
    put(of_resource.resource, {"service.name": "judge"})
    record = of_resource.scope_logs.add().log_records.add(trace_id=trace_id(trace), event_name=event_name)
    if span_id:
        record.span_id = span_id.to_bytes(8, "big")
    put(record, attributes)
    return request.SerializeToString()


class Exporter:
    """An exporter and its clock, which stands still until it is told."""

    def __init__(self, journal: Journal | None = None, **settings: Any) -> None:
        self.now = START + 2.0
        self.settings: Settings = load(None, settings)
        self.start(journal)

    def start(self, journal: Journal | None = None) -> None:
        self.pipeline = Pipeline(self.settings, clock=lambda: self.now, pricing=PRICING, journal=journal)

    def send(self, *spans: Span, scope: str = "my.agent", resource: Attributes | None = None) -> Answer:
        return self.pipeline.take_traces(traces(*spans, scope=scope, resource=resource))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.pipeline.advance()

    def value(self, name: str, *labels: str) -> float:
        self.pipeline.advance()
        return self.pipeline.measures.value(name, *labels)

    def by(self, name: str, label: str) -> dict[str, float]:
        """A counter summed by one label, without zeros."""
        return {key: value for key, value in self.pipeline.measures.sums(name, label).items() if value}

    def tokens(self) -> dict[str, float]:
        return self.by("agent_tokens_total", "direction")

    def calls(self) -> float:
        return sum(self.by("agent_iterations_total", "agent").values())

    def tasks(self) -> float:
        return sum(self.by("agent_tasks_total", "agent").values())

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Ended tasks by outcome and reason."""
        ended = re.findall(r'^agent_tasks_total\{.*outcome="(\w+)",reason="(\w*)".*\} (\S+)', self.page(), re.MULTILINE)
        found: Counter[tuple[str, str]] = Counter()
        for outcome, reason, tasks in ended:
            found[outcome, reason] += int(float(tasks))
        return dict(+found)

    def tools(self) -> dict[str, float]:
        return self.by("agent_tool_calls_total", "result")

    def page(self, *, openmetrics: bool = False) -> str:
        return self.pipeline.measures.exposition(openmetrics=openmetrics, process=False).decode()
