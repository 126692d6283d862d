"""Sends spans the way an instrumented agent does: by the OpenTelemetry SDK, a batch processor and OTLP/gRPC."""

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from demo.spans import Span


class SdkSender:
    """One tracer provider per agent, as separate processes would have. `target` is HOST:PORT without TLS."""

    def __init__(self, target: str, *, delay_ms: float = 500) -> None:
        self._target = target
        self._delay_ms = delay_ms
        self._providers: dict[str, TracerProvider] = {}
        self._ids = _SimulatedIds()

    def send(self, spans: Sequence[Span]) -> None:
        """Hands the spans to the SDK, which sends them within `delay_ms`."""
        for span in spans:
            tracer = self._provider(span.agent).get_tracer("demo.agent")
            self._ids.next = span
            parent = SpanContext(
                span.trace_id, span.parent_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
            )
            context = trace.set_span_in_context(NonRecordingSpan(parent)) if span.parent_id else None
            recorded = tracer.start_span(
                span.name, context=context, start_time=int(span.start * 1e9), attributes=span.attributes
            )
            if span.error:
                recorded.set_status(Status(StatusCode.ERROR, span.error))
            recorded.end(int(span.end * 1e9))

    def close(self) -> None:
        """Sends what is still waiting, for some seconds at most."""
        for provider in self._providers.values():
            provider.shutdown()

    def _provider(self, agent: str) -> TracerProvider:
        if agent not in self._providers:
            provider = TracerProvider(
                sampler=ALWAYS_ON,
                resource=Resource.create({"service.name": agent}),
                id_generator=self._ids,
                shutdown_on_exit=False,
            )
            exporter = OTLPSpanExporter(endpoint=self._target, insecure=True, timeout=5)
            provider.add_span_processor(
                BatchSpanProcessor(exporter, max_queue_size=65536, schedule_delay_millis=self._delay_ms)
            )
            self._providers[agent] = provider
        return self._providers[agent]


class _SimulatedIds(IdGenerator):
    """The ids the simulator gave, so that parents and children, ended in any order, still find each other."""

    next: Span

    def generate_trace_id(self) -> int:
        return self.next.trace_id

    def generate_span_id(self) -> int:
        return self.next.span_id
