"""A real OTLP/gRPC receiver that keeps what it was sent."""

from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2


class Receiver:
    """Listens on a free port, `target`, until `server` is stopped."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        self.target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def _export(self, body: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        self.requests.append(body)
        return ExportTraceServiceResponse()

    def spans(self) -> dict[bytes, trace_pb2.Span]:
        return flat(self.requests)


def flat(requests: list[ExportTraceServiceRequest]) -> dict[bytes, trace_pb2.Span]:
    """All spans by id, each as the wire has it, but for what a sender may choose: order of attributes, flags."""
    found = {}
    for body in requests:
        for resource in body.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    span.ClearField("flags")
                    attributes = sorted(span.attributes, key=lambda pair: pair.key)
                    del span.attributes[:]
                    span.attributes.extend(attributes)
                    found[span.span_id] = span
    return found
