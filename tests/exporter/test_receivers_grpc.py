import asyncio
import contextlib
import gzip
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from exporter.listen import ListenError
from exporter.receivers.grpc import GrpcReceiver
from tests.exporter.receiving import Certificates, Running, running, token_file

SERVICE = "/opentelemetry.proto.collector."
TRACES = f"{SERVICE}trace.v1.TraceService/Export"
LOGS = f"{SERVICE}logs.v1.LogsService/Export"
METRICS = f"{SERVICE}metrics.v1.MetricsService/Export"
PROFILES = f"{SERVICE}profiles.v1development.ProfilesService/Export"
SMALL = {"requests": {"max_body_bytes": 1 << 20, "max_in_flight_bytes": 1 << 20}}


def channel(port: int, **options: Any) -> Any:
    arguments = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1), *options.items()]
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=arguments)


async def send(port: int, body: bytes, method: str = TRACES, **how: Any) -> bytes:
    async with channel(port) as to:
        return bytes(await to.unary_unary(method)(body, timeout=30, **how))


async def refused(port: int, body: bytes, method: str = TRACES, **how: Any) -> tuple[str, str, int | None]:
    """The code, the text, and the seconds after which to try again."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await send(port, body, method, **how)
    return told(error.value)


def told(error: Any) -> tuple[str, str, int | None]:
    retry = None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = Status.FromString(value)
            assert (status.code, status.message) == (error.code().value[0], error.details())
            info = RetryInfo()
            assert status.details[0].Unpack(info)
            retry = info.retry_delay.seconds
    return error.code().name, error.details(), retry


@pytest.mark.parametrize(("method", "signal"), [(TRACES, "traces"), (LOGS, "logs")])
async def test_a_request_reaches_the_pipeline_as_it_is_and_success_is_the_empty_message(
    method: str, signal: str
) -> None:
    async with running(GrpcReceiver) as it:
        assert await send(it.port, b"\n\x00", method) == b""
        assert it.pipeline.taken == [(signal, b"\n\x00", False, None)]
        assert it.pipeline.answered(signal, "grpc", "OK") == 1


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_packed_request_is_unpacked(compression: grpc.Compression) -> None:
    body = b"\n" * 100_000
    async with running(GrpcReceiver) as it:
        await send(it.port, body, compression=compression)
        assert it.pipeline.taken == [("traces", body, False, None)]


async def test_a_zip_bomb_is_refused_for_good() -> None:
    async with running(GrpcReceiver, **SMALL) as it:
        code, text, retry = await refused(it.port, bytes(64 << 20), compression=grpc.Compression.Gzip)
        assert (code, retry) == ("RESOURCE_EXHAUSTED", None)
        assert "1048576 bytes (requests.max_body_bytes)" in text
        assert it.pipeline.taken == []


async def test_a_request_over_the_limit_is_refused_for_good_and_counted() -> None:
    async with running(GrpcReceiver, **SMALL) as it:
        code, _, retry = await refused(it.port, bytes((1 << 20) + 1))
        assert (code, retry) == ("RESOURCE_EXHAUSTED", None)
        await until(lambda: it.pipeline.answered("traces", "grpc", "RESOURCE_EXHAUSTED") == 1)
        assert it.pipeline.taken == []


async def until(holds: Any) -> None:
    """Waits for what happens right after the client has its answer."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_request_that_is_no_otlp_is_refused_for_good() -> None:
    async with running(GrpcReceiver) as it:
        assert await refused(it.port, b"malformed") == ("INVALID_ARGUMENT", "not an ExportTraceServiceRequest", None)


async def test_a_packed_request_that_ends_early_is_refused_for_good() -> None:
    async with running(GrpcReceiver) as it:
        code, _, retry = await refused(it.port, gzip.compress(b"spans" * 100)[:-4])
        assert (code, retry) == ("INVALID_ARGUMENT", None)


async def test_a_request_that_can_not_be_made_safe_is_to_be_sent_again() -> None:
    async with running(GrpcReceiver) as it:
        assert await refused(it.port, b"unavailable") == ("UNAVAILABLE", "the disk is full", 5)


async def test_a_fault_is_told_and_logged_without_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    async with running(GrpcReceiver) as it:
        code, text, retry = await refused(it.port, b"fault")
        assert (code, retry) == ("INTERNAL", None)
        assert "prompt" not in text + caplog.text
        assert "ValueError at " in caplog.text
        assert await send(it.port, b"") == b""


async def test_rejected_spans_are_a_partial_success() -> None:
    async with running(GrpcReceiver) as it:
        answer = ExportTraceServiceResponse.FromString(await send(it.port, b"partial"))
        assert answer.partial_success.rejected_spans == 3
        assert answer.partial_success.error_message == "the sender's token is not for this agent"
        logs = ExportLogsServiceResponse.FromString(await send(it.port, b"partial", LOGS))
        assert logs.partial_success.rejected_log_records == 3


@pytest.mark.parametrize(("method", "signal"), [(METRICS, "metrics"), (PROFILES, "profiles")])
async def test_other_signals_are_answered_with_success_and_dropped(method: str, signal: str) -> None:
    async with running(GrpcReceiver) as it:
        assert await send(it.port, b"whatever", method) == b""
        assert it.pipeline.taken == []
        assert it.pipeline.answered(signal, "grpc", "OK") == 1


async def test_an_unknown_method_is_unimplemented() -> None:
    async with running(GrpcReceiver) as it:
        assert (await refused(it.port, b"", "/some.Service/Export"))[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic dG9rZW4tYQ==", "token-a"])
async def test_without_a_known_token_nothing_is_taken(tmp_path: Path, header: str | None) -> None:
    senders = [{"token_file": str(token_file(tmp_path, "a", "token-a"))}]
    async with running(GrpcReceiver, senders=senders) as it:
        metadata = () if header is None else (("authorization", header),)
        assert (await refused(it.port, b"", metadata=metadata))[0] == "UNAUTHENTICATED"
        assert it.pipeline.taken == []


async def test_a_token_speaks_for_its_own_agents(tmp_path: Path) -> None:
    senders = [
        {"token_file": str(token_file(tmp_path, "a", "# being changed", "old-a", "", "new-a")), "agents": ["shop"]},
        {"token_file": str(token_file(tmp_path, "b", "token-b"))},
    ]
    async with running(GrpcReceiver, senders=senders) as it:
        for header in ("Bearer old-a", "bearer new-a", "Bearer token-b"):
            await send(it.port, b"", metadata=(("authorization", header),))
        assert [agents for *_, agents in it.pipeline.taken] == [frozenset({"shop"}), frozenset({"shop"}), None]


class HeldBack:
    """A request whose message is sent when `go` is set."""

    def __init__(self, to: Any, body: bytes = b"", **how: Any) -> None:
        self.go = asyncio.Event()
        self.call = to.stream_unary(TRACES)(self._messages(body), timeout=30, **how)

    async def _messages(self, body: bytes) -> AsyncIterator[bytes]:
        await self.go.wait()
        yield body


async def test_a_sender_without_a_token_is_refused_before_it_sends_anything(tmp_path: Path) -> None:
    senders = [{"token_file": str(token_file(tmp_path, "a", "token-a"))}]
    async with running(GrpcReceiver, senders=senders) as it, channel(it.port) as to:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await HeldBack(to).call
        assert told(error.value)[0] == "UNAUTHENTICATED"


async def test_a_sender_that_does_not_go_on_is_given_up() -> None:
    async with running(GrpcReceiver, requests={"body_seconds": 0.1}) as it, channel(it.port) as to:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await HeldBack(to).call
        assert told(error.value)[0] == "DEADLINE_EXCEEDED"
        assert await send(it.port, b"") == b""


async def test_a_request_without_room_waits_until_there_is_some() -> None:
    async with running(GrpcReceiver, **SMALL) as it, channel(it.port) as to:
        first = HeldBack(to)
        await until(lambda: it.pipeline.in_flight == 1)
        second = asyncio.ensure_future(send(it.port, b"second"))
        await until(lambda: it.pipeline.in_flight == 2)
        assert it.pipeline.taken == []
        first.go.set()
        assert await first.call == b""
        assert await second == b""


async def test_a_request_that_finds_no_room_in_time_is_to_be_sent_again() -> None:
    requests = SMALL["requests"] | {"queue_seconds": 0.1}
    async with running(GrpcReceiver, requests=requests) as it, channel(it.port) as to:
        first = HeldBack(to)
        await until(lambda: it.pipeline.in_flight == 1)
        code, text, retry = await refused(it.port, b"second")
        assert (code, retry) == ("RESOURCE_EXHAUSTED", 1)
        assert "max_in_flight_bytes" in text
        first.go.set()
        assert await first.call == b""


async def test_a_client_that_vanishes_leaves_its_room_to_others() -> None:
    async with running(GrpcReceiver, **SMALL) as it:
        async with channel(it.port) as to:
            gone = HeldBack(to)
            await until(lambda: it.pipeline.in_flight == 1)
            gone.call.cancel()
        assert await send(it.port, b"next") == b""
        await until(lambda: it.pipeline.in_flight == 0)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 10_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 10_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x10\x01\x04",
    ],
)
async def test_what_is_no_grpc_does_no_harm(rubbish: bytes) -> None:
    async with running(GrpcReceiver) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        with contextlib.suppress(OSError):  # the receiver may hang up first
            writer.write(rubbish)
            writer.write_eof()
            await reader.read()
        writer.close()
        assert await send(it.port, b"") == b""


async def test_headers_over_grpcs_limit_are_refused() -> None:
    async with running(GrpcReceiver) as it:
        metadata = tuple((f"x-{n}", "y" * 1000) for n in range(100))
        assert (await refused(it.port, b"", metadata=metadata))[0] == "RESOURCE_EXHAUSTED"
        assert await send(it.port, b"") == b""


async def test_connections_over_the_limit_are_refused() -> None:
    async with running(GrpcReceiver, requests={"max_connections": 1}) as it, channel(it.port) as to:
        await to.unary_unary(TRACES)(b"", timeout=30)
        assert (await refused(it.port, b""))[0] == "UNAVAILABLE"


async def test_a_port_in_use_is_told_with_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError) as error:
            async with running(GrpcReceiver, otlp_grpc={"address": address}):
                pass
        assert str(error.value).startswith(f"otlp_grpc.address: can't listen on {address}: address already in use")


async def test_two_exporters_never_share_a_port() -> None:
    async with running(GrpcReceiver) as it:
        with pytest.raises(ListenError):
            async with running(GrpcReceiver, otlp_grpc={"address": f"127.0.0.1:{it.port}"}):
                pass


async def send_by_tls(it: Running, certificates: Certificates, *, with_certificate: bool) -> bytes:
    chain, key = certificates.client
    own = (key.read_bytes(), chain.read_bytes()) if with_certificate else (None, None)
    credentials = grpc.ssl_channel_credentials(certificates.ca_file.read_bytes(), *own)
    async with grpc.aio.secure_channel(f"127.0.0.1:{it.port}", credentials) as to:
        return bytes(await to.unary_unary(TRACES)(b"", timeout=10))


async def test_requests_come_by_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    async with running(GrpcReceiver, otlp_grpc={"tls": certificates.tls}) as it:
        assert await send_by_tls(it, certificates, with_certificate=False) == b""


async def test_a_client_needs_a_certificate_where_an_authority_is_set(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    tls = certificates.tls | {"client_ca_file": str(certificates.ca_file)}
    async with running(GrpcReceiver, otlp_grpc={"tls": tls}) as it:
        assert await send_by_tls(it, certificates, with_certificate=True) == b""
        with pytest.raises(grpc.aio.AioRpcError):
            await send_by_tls(it, certificates, with_certificate=False)
        assert len(it.pipeline.taken) == 1


async def test_what_is_in_flight_is_answered_when_the_receiver_stops(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(GrpcReceiver) as it, channel(it.port) as to:
        last = HeldBack(to)
        await until(lambda: it.pipeline.in_flight == 1)
        stopping = asyncio.ensure_future(it.receiver.stop())
        last.go.set()
        assert await last.call == b""
        await stopping
