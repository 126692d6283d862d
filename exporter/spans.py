"""OTLP bytes → spans and log records, as plain objects.

Only the attributes that a dialect or the user's own success rules name are read off the wire: what nobody asked for
(prompts, completions, documents) never becomes a Python object, so it can reach no label, log line or journal.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from exporter import otlp

Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | list[Any]
Attributes: TypeAlias = dict[str, Value]

# Span.flags, OTLP trace.proto: bit 8 says that bit 9 ("the parent is in another process") is known.
_HAS_IS_REMOTE = 0x100
_IS_REMOTE = 0x200
# Span kinds whose parent is in another process by definition.
_SERVER, _CONSUMER = 2, 5
_REMOTE_KINDS = (_SERVER, _CONSUMER)

STATUS_ERROR = 2

# What is kept of a text, in characters: labels are cut to less. Texts that are only hashed or searched may be longer.
_MOST_TEXT = 256
_MOST_LONG_TEXT = 65_536
_MOST_STATUS_TEXT = 1000
_MOST_ITEMS = 100
# Names, models and counts come again and again: so many encoded values, of so many bytes at most, are decoded once.
_MOST_KNOWN = 20_000
_SHORT = 64


class Malformed(Exception):
    """A body that is not OTLP. The text says what is wrong and has nothing of the body in it."""


class Resource:
    """Who sent the spans: the attributes of the resource, read once per request."""

    __slots__ = ("agent", "attributes", "instance", "variant")

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self.instance = text(attributes.get("service.instance.id")) or text(attributes.get("service.name"))
        self.agent = ""  # the label, set by the pipeline, which knows the config
        self.variant = text(attributes.get("oncall.variant"))


class SpanEvent:
    __slots__ = ("attributes", "name", "time_ns")

    def __init__(self, name: str, time_ns: int, attributes: Attributes) -> None:
        self.name = name
        self.time_ns = time_ns
        self.attributes = attributes


class Span:
    """One span. Times are unix nanoseconds; ids are raw bytes, `parent_id` is empty for the root of a trace."""

    __slots__ = (
        "attributes",
        "end_ns",
        "events",
        "name",
        "parent_id",
        "remote",
        "resource",
        "scope",
        "span_id",
        "start_ns",
        "status",
        "status_message",
        "trace_id",
    )

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    scope: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: Sequence[SpanEvent]
    status: int
    status_message: str
    remote: bool  # the parent is in another process
    resource: Resource


class LogRecord:
    """One log record that carries a judge's score: an event name and its attributes."""

    __slots__ = ("attributes", "event_name", "resource", "span_id", "trace_id")

    def __init__(
        self, trace_id: bytes, span_id: bytes, event_name: str, attributes: Attributes, resource: Resource
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.event_name = event_name
        self.attributes = attributes
        self.resource = resource


def text(value: object) -> str:
    """`value` if it is a string, else nothing: an attribute of the wrong type is as good as absent."""
    return value if isinstance(value, str) else ""


class Decoder:
    """Decodes export requests. `keys` are the attribute keys that are kept (on spans, span events and log records),
    `long` those of them whose texts may be long."""

    def __init__(self, keys: Collection[str], long: Collection[str] = ()) -> None:
        self._keys = frozenset(keys)
        self._long = frozenset(long)
        self._known: dict[bytes, Value] = {}

    # -- protobuf ------------------------------------------------------------------------------------------------

    def spans(self, body: bytes) -> Iterator[Span]:
        """The spans of an `ExportTraceServiceRequest`. Raises Malformed before the first one."""
        try:
            request = otlp.TRACES.FromString(body)
        except DecodeError:
            raise Malformed("the body is not an ExportTraceServiceRequest in protobuf") from None
        return self._spans(request)

    def _spans(self, request: Any) -> Iterator[Span]:
        attributes = self._attributes
        for of_resource in request.resource_spans:
            resource = Resource(_all_attributes(of_resource.resource.attributes))
            for of_scope in of_resource.scope_spans:
                scope = of_scope.scope.name[:_MOST_TEXT]
                for raw in of_scope.spans:
                    span = Span()
                    span.trace_id, span.span_id, span.parent_id = raw.trace_id, raw.span_id, raw.parent_span_id
                    span.start_ns, span.end_ns = raw.start_time_unix_nano, raw.end_time_unix_nano
                    span.name = raw.name[:_MOST_TEXT]
                    span.attributes = attributes(raw.attributes)
                    span.resource, span.scope = resource, scope
                    span.remote = _parent_is_remote(raw.flags, raw.kind)
                    span.events = [self._event(event) for event in events] if (events := raw.events) else ()
                    span.status, span.status_message = _status(status) if (status := raw.status) else (0, "")
                    yield span

    def _event(self, raw: Any) -> SpanEvent:
        return SpanEvent(raw.name[:_MOST_TEXT], raw.time_unix_nano, self._attributes(raw.attributes))

    def _attributes(self, raw: Any) -> Attributes:
        keys, known = self._keys, self._known.get
        found: Attributes = {}
        for key in raw:
            if key in keys:
                encoded = raw[key]
                value = known(encoded)
                if value is None:
                    value = self._value(key, encoded)
                    if value is None:
                        continue
                found[key] = value
        return found

    def _value(self, key: str, encoded: bytes) -> Value | None:
        value = _decoded(encoded, _MOST_LONG_TEXT if key in self._long else _MOST_TEXT)
        if value is not None and len(encoded) <= _SHORT:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[encoded] = value
        return value

    def log_records(self, body: bytes) -> Iterator[LogRecord]:
        """The records of an `ExportLogsServiceRequest`; raises Malformed before the first one."""
        try:
            request = otlp.LOGS.FromString(body)
        except DecodeError:
            raise Malformed("the body is not an ExportLogsServiceRequest in protobuf") from None
        return self._log_records(request)

    def _log_records(self, request: Any) -> Iterator[LogRecord]:
        for of_resource in request.resource_logs:
            resource = Resource(_all_attributes(of_resource.resource.attributes))
            for of_scope in of_resource.scope_logs:
                for raw in of_scope.log_records:
                    attributes = self._attributes(raw.attributes)
                    # Before the field `event_name` was born, the name was an attribute.
                    name = raw.event_name or text(attributes.get("event.name"))
                    yield LogRecord(raw.trace_id, raw.span_id, name, attributes, resource)

    # -- JSON ----------------------------------------------------------------------------------------------------

    def spans_json(self, body: bytes | str) -> Iterator[Span]:
        """The same from OTLP/JSON (hex ids, 64-bit numbers as strings, unknown fields ignored); raises Malformed."""
        request = _json_object(body)
        return iter([self._span_json(*found) for found in _walk(request, "resourceSpans", "scopeSpans", "spans")])

    def _span_json(self, raw: dict[str, Any], scope: str, resource: Resource) -> Span:
        span = Span()
        span.trace_id = _hex(raw, "traceId")
        span.span_id = _hex(raw, "spanId")
        span.parent_id = _hex(raw, "parentSpanId")
        span.name = _text_json(raw.get("name"))
        span.scope = scope
        span.start_ns = _uint(raw, "startTimeUnixNano")
        span.end_ns = _uint(raw, "endTimeUnixNano")
        span.attributes = self._attributes_json(raw)
        kind = raw.get("kind")
        if isinstance(kind, str):
            kind = {"SPAN_KIND_SERVER": _SERVER, "SPAN_KIND_CONSUMER": _CONSUMER}.get(kind)
        span.remote = _parent_is_remote(_uint(raw, "flags"), kind)
        span.resource = resource
        span.events = [
            SpanEvent(_text_json(event.get("name")), _uint(event, "timeUnixNano"), self._attributes_json(event))
            for event in _objects(raw, "events")
        ]
        status = raw.get("status")
        status = status if isinstance(status, dict) else {}
        code = status.get("code")
        span.status = (
            {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": STATUS_ERROR}.get(code, 0) if isinstance(code, str) else 0
        )
        if isinstance(code, int) and code in (1, STATUS_ERROR):
            span.status = code
        span.status_message = _text_json(status.get("message"), _MOST_STATUS_TEXT)
        return span

    def _attributes_json(self, holder: dict[str, Any]) -> Attributes:
        wanted = (pair for pair in _pairs_json(holder) if pair[0] in self._keys)
        return {
            key: value
            for key, encoded in wanted
            if (value := _any_value_json(encoded, _MOST_LONG_TEXT if key in self._long else _MOST_TEXT)) is not None
        }

    def log_records_json(self, body: bytes | str) -> Iterator[LogRecord]:
        """The same as `log_records`, from OTLP/JSON; raises Malformed."""
        request = _json_object(body)
        records = []
        for raw, _scope, resource in _walk(request, "resourceLogs", "scopeLogs", "logRecords"):
            attributes = self._attributes_json(raw)
            name = _text_json(raw.get("eventName")) or text(attributes.get("event.name"))
            records.append(LogRecord(_hex(raw, "traceId"), _hex(raw, "spanId"), name, attributes, resource))
        return iter(records)


def _parent_is_remote(flags: int, kind: object) -> bool:
    return flags & _IS_REMOTE != 0 if flags & _HAS_IS_REMOTE else kind in _REMOTE_KINDS


@lru_cache(1 << 10)
def _status(encoded: bytes) -> tuple[int, str]:
    try:
        status = Status.FromString(encoded)
    except DecodeError:
        return 0, ""
    return status.code, status.message[:_MOST_STATUS_TEXT]


def _decoded(encoded: bytes, most: int) -> Value | None:
    """An AnyValue, its texts cut to `most` characters; None for maps and bytes, which no dialect uses, and for what is
    not one."""
    try:
        return _any_value(AnyValue.FromString(encoded), most)
    except DecodeError:
        return None  # a text that is no UTF-8 is not worth a whole request


def _any_value(value: Any, most: int) -> Value | None:
    which = value.WhichOneof("value")
    match which:
        case "string_value":
            string: str = value.string_value[:most]
            return string
        case "int_value" | "bool_value" | "double_value":
            scalar: Scalar = getattr(value, which)
            return scalar
        case "array_value":
            items = (_any_value(item, most) for item in value.array_value.values[:_MOST_ITEMS])
            return [item for item in items if item is not None]
        case _:
            return None


def _all_attributes(raw: Any) -> Attributes:
    return {key: value for key in raw if (value := _decoded(raw[key], _MOST_TEXT)) is not None}


def _json_object(body: bytes | str) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None
    if not isinstance(request, dict):
        raise Malformed("the body is JSON, but not an object")
    return request


def _objects(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = holder.get(key)
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Malformed(f"{key} must be a list of objects")
    return items


def _walk(request: dict[str, Any], by_resource: str, by_scope: str, leaves: str) -> Iterator[tuple[Any, str, Resource]]:
    """Every leaf with its scope's name and its resource: the three-storey form that all OTLP signals share."""
    for of_resource in _objects(request, by_resource):
        described = of_resource.get("resource")
        pairs = _pairs_json(described) if isinstance(described, dict) else ()
        resource = Resource(
            {key: value for key, encoded in pairs if (value := _any_value_json(encoded, _MOST_TEXT)) is not None}
        )
        for of_scope in _objects(of_resource, by_scope):
            scope = of_scope.get("scope")
            name = _text_json(scope.get("name")) if isinstance(scope, dict) else ""
            for leaf in _objects(of_scope, leaves):
                yield leaf, name, resource


def _hex(holder: dict[str, Any], key: str) -> bytes:
    value = holder.get(key)
    if value is None:
        return b""
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise Malformed(f"{key} must be a string of hexadecimal digits") from None


def _uint(holder: dict[str, Any], key: str) -> int:
    """A 64-bit number, which OTLP/JSON writes as a string or a number."""
    value = holder.get(key, 0)
    try:
        number = int(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else -1
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise Malformed(f"{key} must be an unsigned 64-bit number")
    return number


def _pairs_json(holder: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for pair in _objects(holder, "attributes"):
        key, value = pair.get("key"), pair.get("value")
        if isinstance(key, str) and isinstance(value, dict):
            yield key, value


def _text_json(value: object, most: int = _MOST_TEXT) -> str:
    """JSON can hold halves of a surrogate pair, which are no text and can't be written anywhere."""
    return value[:most].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _any_value_json(value: dict[str, Any], most: int) -> Value | None:
    if isinstance(string := value.get("stringValue"), str):
        return _text_json(string, most)
    if isinstance(boolean := value.get("boolValue"), bool):
        return boolean
    if "intValue" in value:
        number = value["intValue"]
        try:
            whole = int(number) if isinstance(number, (str, int)) and not isinstance(number, bool) else None
        except ValueError:
            return None
        return whole if whole is not None and -(1 << 63) <= whole < 1 << 63 else None
    if "doubleValue" in value:
        try:
            return float(value["doubleValue"])  # "NaN" and "Infinity" are strings here
        except (TypeError, ValueError, OverflowError):
            return None
    array = value.get("arrayValue")
    items = array.get("values") if isinstance(array, dict) else None
    if isinstance(items, list):
        plain = [_any_value_json(item, most) for item in items[:_MOST_ITEMS] if isinstance(item, dict)]
        return [item for item in plain if item is not None]
    return None
