"""The exporter's own schema is a part of OTLP's, and reads what OTLP's reads."""

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from exporter.otlp import SCHEMA
from exporter.spans import Decoder, Span

OFFICIAL: dict[str, Descriptor] = {}
for module in (trace_service_pb2, logs_service_pb2, trace_pb2, logs_pb2, resource_pb2, common_pb2):
    OFFICIAL |= dict(module.DESCRIPTOR.message_types_by_name)
OFFICIAL["Event"] = OFFICIAL["Span"].nested_types_by_name["Event"]

MAP_ENTRY = {"key": 1, "value": 2}


def test_every_field_has_the_number_it_has_in_otlp() -> None:
    for message, fields in SCHEMA.items():
        for field, (number, _) in fields.items():
            assert OFFICIAL[message].fields_by_name[field].number == number, f"{message}.{field}"


def test_attributes_are_on_the_wire_what_a_map_is() -> None:
    pair = OFFICIAL["KeyValue"].fields_by_name
    assert {name: pair[name].number for name in MAP_ENTRY} == MAP_ENTRY
    for message, fields in SCHEMA.items():
        if "attributes" in fields:
            assert OFFICIAL[message].fields_by_name["attributes"].message_type is OFFICIAL["KeyValue"]


def read(*pairs: KeyValue, long: tuple[str, ...] = ()) -> Span:
    request = trace_service_pb2.ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(attributes=pairs)
    (span,) = Decoder({"key", "other"}, long).spans(request.SerializeToString())
    return span


def pair(value: AnyValue, key: str = "key") -> KeyValue:
    return KeyValue(key=key, value=value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (AnyValue(string_value=""), ""),
        (AnyValue(string_value="tëxt"), "tëxt"),
        (AnyValue(int_value=0), 0),
        (AnyValue(int_value=-(2**63)), -(2**63)),
        (AnyValue(bool_value=False), False),
        (AnyValue(double_value=0.0), 0.0),
        (AnyValue(double_value=float("inf")), float("inf")),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue(string_value="a")])), [1, "a"]),
        (AnyValue(string_value="x" * 10_000), "x" * 256),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="x" * 10_000)] * 1000)), ["x" * 256] * 100),
    ],
)
def test_a_value_is_read_as_what_it_is_and_cut_where_it_is_long(value: AnyValue, expected: Any) -> None:
    for _ in range(2):  # the second time it may be known
        found = read(pair(value)).attributes["key"]
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize("value", [AnyValue(), AnyValue(bytes_value=b"x"), AnyValue(kvlist_value=KeyValueList())])
def test_maps_bytes_and_empty_values_are_as_good_as_absent(value: AnyValue) -> None:
    assert read(pair(value)).attributes == {}


def test_a_pair_without_a_value_is_as_good_as_absent() -> None:
    assert read(KeyValue(key="key")).attributes == {}


def test_a_text_that_is_no_utf8_costs_its_attribute_and_not_the_request() -> None:
    request = trace_service_pb2.ExportTraceServiceRequest()
    bad, good = pair(AnyValue(string_value="abcd")), pair(AnyValue(int_value=1), "other")
    request.resource_spans.add().scope_spans.add().spans.add(attributes=[bad, good])
    (span,) = Decoder({"key", "other"}).spans(request.SerializeToString().replace(b"abcd", b"ab\xff\xfe"))
    assert span.attributes == {"other": 1}


def test_of_a_key_that_comes_twice_the_last_value_stands() -> None:
    assert read(pair(AnyValue(int_value=1)), pair(AnyValue(int_value=2))).attributes == {"key": 2}


def test_keys_that_nobody_reads_are_left_where_they_are() -> None:
    assert read(pair(AnyValue(string_value="a prompt"), "gen_ai.prompt")).attributes == {}


def test_a_text_that_is_only_hashed_may_be_longer() -> None:
    assert read(pair(AnyValue(string_value="x" * 100_000)), long=("key",)).attributes == {"key": "x" * 65_536}


def test_a_status_is_read_and_its_message_cut() -> None:
    request = trace_service_pb2.ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(status=trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message="y" * 5000))
    spans.add(status=trace_pb2.Status())
    spans.add()
    found = [(span.status, span.status_message) for span in Decoder(()).spans(request.SerializeToString())]
    assert found == [(2, "y" * 1000), (0, ""), (0, "")]
