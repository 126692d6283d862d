"""What both receivers do with a request: to the pipeline, and what came of it back as OTLP says it.

OTLP's rules: https://opentelemetry.io/docs/specs/otlp/ (failures, throttling, partial success).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from exporter.auth import Senders, Unauthenticated
from exporter.config import RequestLimits
from exporter.faults import where
from exporter.measures import Counter, Measures
from exporter.pipeline import Answer, Malformed, Unavailable
from exporter.receivers.body import BadEncoding, TooLarge, inflate

log = logging.getLogger(__name__)

BUSY_RETRY_SECONDS = 1
"""Room comes back as fast as requests are answered."""
UNAVAILABLE_RETRY_SECONDS = 5
"""A full disk takes longer."""


class Takes(Protocol):
    """What the receivers need of the pipeline."""

    @property
    def measures(self) -> Measures: ...

    def take_traces(self, body: bytes, *, json: bool = ..., may_speak_for: frozenset[str] | None = ...) -> Answer: ...

    def take_logs(self, body: bytes, *, json: bool = ..., may_speak_for: frozenset[str] | None = ...) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Signal:
    """A kind of telemetry, and where it comes in."""

    name: str
    paths: tuple[str, ...]
    method: str


TRACES = Signal("traces", ("/v1/traces",), "/opentelemetry.proto.collector.trace.v1.TraceService/Export")
LOGS = Signal("logs", ("/v1/logs",), "/opentelemetry.proto.collector.logs.v1.LogsService/Export")
METRICS = Signal("metrics", ("/v1/metrics",), "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
PROFILES = Signal(
    "profiles",
    ("/v1development/profiles", "/v1/profiles"),
    "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
)
SIGNALS = (TRACES, LOGS, METRICS, PROFILES)
OTHER_SIGNAL = "other"


class Refused(Exception):
    """A request that gets an error: with which HTTP status, which gRPC code, and after which time to try again."""

    def __init__(self, http: HTTPStatus, code: grpc.StatusCode, text: str, retry_seconds: int | None = None) -> None:
        super().__init__(text)
        self.http = http
        self.code = code
        self.text = text
        self.retry_seconds = retry_seconds


class Intake:
    """Takes requests of every transport, counts them, and knows how many are not answered yet."""

    def __init__(self, pipeline: Takes, senders: Senders, limits: RequestLimits) -> None:
        self._pipeline = pipeline
        self._senders = senders
        self._limits = limits
        self._counters: dict[tuple[str, str, str], Counter] = {}
        self._in_flight = 0
        self._in_flight_gauge = pipeline.measures.gauge("agent_exporter_requests_in_flight")
        self._take: dict[str, Callable[..., Answer]] = {
            TRACES.name: pipeline.take_traces,
            LOGS.name: pipeline.take_logs,
        }

    def begin(self) -> None:
        """A request has come."""
        self._in_flight += 1
        self._in_flight_gauge.set(self._in_flight)

    def end(self, signal: str, transport: str, code: str) -> None:
        """It has been answered with `code` (an HTTP status, or the name of a gRPC code)."""
        self._in_flight -= 1
        self._in_flight_gauge.set(self._in_flight)
        counter = self._counters.get((signal, transport, code))
        if counter is None:
            counter = self._pipeline.measures.counter("agent_exporter_requests_total", signal, transport, code)
            self._counters[signal, transport, code] = counter
        counter.inc()

    def answered(self) -> dict[tuple[str, str, str], int]:
        """Requests answered since the start, by signal, transport and code."""
        return {key: int(counter.value) for key, counter in self._counters.items()}

    @property
    def authenticates(self) -> bool:
        """Whether senders have to show a token."""
        return self._senders.required

    def authenticate(self, authorization: str | None) -> frozenset[str] | None:
        """The agents that this sender may speak for; None: any. Refused without a known token."""
        try:
            return self._senders.may_speak_for(authorization)
        except Unauthenticated as error:
            raise Refused(HTTPStatus.UNAUTHORIZED, grpc.StatusCode.UNAUTHENTICATED, str(error)) from None

    def take(
        self, signal: Signal, body: bytes, *, encoding: str | None, json: bool, may_speak_for: frozenset[str] | None
    ) -> Answer:
        """What the pipeline says to this body, or Refused. Signals that nothing is made of are dropped unread."""
        take = self._take.get(signal.name)
        if take is None:
            return _NOTHING_REJECTED
        try:
            if encoding is not None:
                body = inflate(body, encoding, self._limits.max_body_bytes)
            return take(body, json=json, may_speak_for=may_speak_for)
        except TooLarge:
            raise self.too_large() from None
        except (Malformed, BadEncoding) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        except Unavailable as error:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, str(error), UNAVAILABLE_RETRY_SECONDS
            ) from None
        except Exception as error:
            log.error("a request of %s failed, which is a fault of the exporter: %s", signal.name, where(error))
            raise Refused(
                HTTPStatus.INTERNAL_SERVER_ERROR, grpc.StatusCode.INTERNAL, "a fault of the exporter: see its log"
            ) from None

    def too_large(self) -> Refused:
        """For a body over the limit. Final: the same body is too large the next time, too."""
        return Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the request is larger than {self._limits.max_body_bytes} bytes (requests.max_body_bytes): "
            "send smaller batches",
        )

    def too_slow(self) -> Refused:
        """For a body that didn't arrive in time."""
        return Refused(
            HTTPStatus.REQUEST_TIMEOUT,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"the request did not arrive within {self._limits.body_seconds:g} s (requests.body_seconds)",
        )

    def busy(self) -> Refused:
        """For a request that there is no room for just now."""
        return Refused(
            HTTPStatus.TOO_MANY_REQUESTS,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "too many requests at once (requests.max_in_flight_bytes): try again",
            BUSY_RETRY_SECONDS,
        )


_NOTHING_REJECTED = Answer()


def response_message(signal: Signal, answer: Answer) -> Any | None:
    """The protobuf response if there is something to say; None for success, which is the empty message."""
    if not answer.rejected and not answer.message:
        return None
    if signal is TRACES:
        traces = ExportTraceServiceResponse()
        traces.partial_success.rejected_spans = answer.rejected
        traces.partial_success.error_message = answer.message
        return traces
    logs = ExportLogsServiceResponse()
    logs.partial_success.rejected_log_records = answer.rejected
    logs.partial_success.error_message = answer.message
    return logs
