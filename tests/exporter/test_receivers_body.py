import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from exporter.receivers.body import BadEncoding, Budget, Full, TooLarge, inflate, packed_as

LIMIT = 1 << 20
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", PACK)
@given(body=st.binary(max_size=2000))
def test_what_was_packed_is_unpacked(encoding: str, body: bytes) -> None:
    assert inflate(PACK[encoding](body), encoding, LIMIT) == body


@pytest.mark.parametrize("encoding", PACK)
def test_a_body_of_the_limit_is_unpacked_and_one_byte_more_is_not(encoding: str) -> None:
    assert len(inflate(PACK[encoding](bytes(LIMIT)), encoding, LIMIT)) == LIMIT
    with pytest.raises(TooLarge):
        inflate(PACK[encoding](bytes(LIMIT + 1)), encoding, LIMIT)


def test_a_zip_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(256 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, "gzip", LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", PACK)
def test_a_body_that_ends_early_is_refused(encoding: str) -> None:
    with pytest.raises(BadEncoding, match="ends before"):
        inflate(PACK[encoding](b"spans" * 100)[:-1], encoding, LIMIT)


def test_a_body_that_goes_on_after_its_end_is_refused() -> None:
    with pytest.raises(BadEncoding, match="goes on"):
        inflate(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", LIMIT)


@pytest.mark.parametrize("encoding", PACK)
@given(body=st.binary(max_size=200))
def test_garbage_is_refused_without_being_quoted(encoding: str, body: bytes) -> None:
    with pytest.raises(BadEncoding, match=r"^the body (is not|ends before its) (gzip|deflate)( stream does)?$"):
        inflate(b"!" + body, encoding, LIMIT)


@given(body=st.binary(max_size=200))
def test_a_packed_message_is_told_by_its_beginning(body: bytes) -> None:
    assert packed_as(gzip.compress(body)) == "gzip"
    assert packed_as(zlib.compress(body)) == "deflate"


def test_a_request_is_never_taken_for_a_packed_one() -> None:
    request = ExportTraceServiceRequest()
    assert packed_as(request.SerializeToString()) is None
    request.resource_spans.add().scope_spans.add().spans.add(name="a")
    assert packed_as(request.SerializeToString()) is None


def test_a_budget_is_full_when_it_is_spent_and_not_after_it_was_given_back() -> None:
    budget = Budget(10)
    budget.take(6)
    with pytest.raises(Full):
        budget.take(5)
    budget.take(4)
    budget.give_back(6)
    budget.take(6)
