"""Spans as OTLP: export requests as bytes, and a plain gRPC sender for them.

The fast way, for tests and load; what a real agent does (the OpenTelemetry SDK) is in `demo.sdk`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from demo.spans import Span, Value

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_SCOPE = "demo.agent"


def request(spans: Iterable[Span]) -> ExportTraceServiceRequest:
    """One export request that holds all of `spans`, grouped by agent as separate processes' resources."""
    by_agent: defaultdict[str, list[trace_pb2.Span]] = defaultdict(list)
    for span in spans:
        by_agent[span.agent].append(_proto(span))
    message = ExportTraceServiceRequest()
    for agent, protos in by_agent.items():
        resource = message.resource_spans.add(resource=Resource(attributes=[_pair("service.name", agent)]))
        scope = resource.scope_spans.add()
        scope.scope.name = _SCOPE
        scope.spans.extend(protos)
    return message


def requests(spans: Sequence[Span], most: int = 512) -> Iterator[bytes]:
    """`spans` as serialised export requests of at most `most` spans each."""
    for i in range(0, len(spans), most):
        yield request(spans[i : i + most]).SerializeToString()


class RawSender:
    """Sends spans to an OTLP/gRPC receiver, HOST:PORT without TLS. Raises grpc.RpcError when it is not taken."""

    def __init__(self, target: str, *, timeout: float = 10.0) -> None:
        self._channel = grpc.insecure_channel(target)
        self._timeout = timeout
        self._export = self._channel.unary_unary(
            _EXPORT,
            request_serializer=bytes,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )

    def send(self, spans: Sequence[Span]) -> None:
        for body in requests(spans):
            self._export(body, timeout=self._timeout, wait_for_ready=True)

    def close(self) -> None:
        self._channel.close()


def _proto(span: Span) -> trace_pb2.Span:
    code = trace_pb2.Status.STATUS_CODE_ERROR if span.error else trace_pb2.Status.STATUS_CODE_UNSET
    return trace_pb2.Span(
        trace_id=span.trace_id.to_bytes(16, "big"),
        span_id=span.span_id.to_bytes(8, "big"),
        parent_span_id=span.parent_id.to_bytes(8, "big") if span.parent_id else b"",
        name=span.name,
        kind=trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=int(span.start * 1e9),
        end_time_unix_nano=int(span.end * 1e9),
        attributes=[_pair(key, value) for key, value in span.attributes.items()],
        status=trace_pb2.Status(code=code, message=span.error),
    )


def _pair(key: str, value: Value) -> KeyValue:
    match value:
        case bool():
            return KeyValue(key=key, value=AnyValue(bool_value=value))
        case int():
            return KeyValue(key=key, value=AnyValue(int_value=value))
        case float():
            return KeyValue(key=key, value=AnyValue(double_value=value))
        case str():
            return KeyValue(key=key, value=AnyValue(string_value=value))
