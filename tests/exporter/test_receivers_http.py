import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from exporter.config import ConfigError
from exporter.listen import ListenError
from exporter.receivers.http import HttpReceiver
from tests.exporter.receiving import Certificates, running, token_file

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
SMALL = {"requests": {"max_body_bytes": 1 << 20, "max_in_flight_bytes": 1 << 20}}


class Answered:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def message(self) -> str:
        """The text of an error, from the Status in the answer's own encoding."""
        if self.headers["Content-Type"] == "application/json":
            return str(json.loads(self.body)["message"])
        assert self.headers["Content-Type"] == "application/x-protobuf"
        return str(Status.FromString(self.body).message)


async def send(
    port: int,
    body: Any,
    headers: dict[str, str] | None = None,
    path: str = "/v1/traces",
    method: str = "POST",
    **how: Any,
) -> Answered:
    scheme = "https" if "ssl" in how else "http"
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30), skip_auto_headers=["Content-Type"]) as session,
        session.request(
            method,
            f"{scheme}://127.0.0.1:{port}{path}",
            data=body,
            headers=PROTOBUF if headers is None else headers,
            **how,
        ) as response,
    ):
        return Answered(response.status, response.headers, await response.read())


async def raw(port: int, data: bytes, *, end: bool = False) -> bytes:
    """What the receiver answers to bytes on the wire until it closes the connection; `end` says that no more come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    if end:
        writer.write_eof()
    answer = b""
    with contextlib.suppress(ConnectionResetError):  # hung up on while it still sends
        async with asyncio.timeout(20):
            while part := await reader.read(65536):
                answer += part
    writer.close()
    return answer


@pytest.mark.parametrize("signal", ["traces", "logs"])
async def test_protobuf_reaches_the_pipeline_as_it_is_and_success_is_the_empty_message(signal: str) -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, b"\n\x00", path=f"/v1/{signal}")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Type"] == "application/x-protobuf"
        assert it.pipeline.taken == [(signal, b"\n\x00", False, None)]
        assert it.pipeline.answered(signal, "http", "200") == 1


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_json_is_answered_in_json(content_type: str) -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, b"{}", {"Content-Type": content_type})
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"{}", "application/json")
        assert it.pipeline.taken == [("traces", b"{}", True, None)]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
async def test_a_packed_request_is_unpacked(encoding: str, pack: Any) -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, pack(b"spans" * 1000), PROTOBUF | {"Content-Encoding": encoding})
        assert answer.status == 200
        assert it.pipeline.taken == [("traces", b"spans" * 1000, False, None)]


async def chunks(*parts: bytes) -> Any:
    for part in parts:
        yield part


async def test_a_request_in_chunks_is_put_together() -> None:
    async with running(HttpReceiver) as it:
        await send(it.port, chunks(b"a" * 100_000, b"b" * 100_000))
        assert it.pipeline.taken[0][1] == b"a" * 100_000 + b"b" * 100_000


async def test_several_requests_come_by_one_connection() -> None:
    async with running(HttpReceiver) as it:
        one = HEAD + b"Content-Length: 2\r\n\r\n{}"
        last = HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"
        assert (await raw(it.port, one + one + last)).count(b"HTTP/1.1 200 OK") == 3


async def test_a_client_that_waits_for_the_word_gets_it() -> None:
    async with running(HttpReceiver) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        writer.close()


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
async def test_a_request_that_is_no_otlp_gets_400_and_a_status(headers: dict[str, str]) -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, b"malformed", headers)
        assert (answer.status, answer.message) == (400, "not an ExportTraceServiceRequest")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x1f\x8b", id="only the magic number"),
        pytest.param(gzip.compress(b"spans" * 100)[:-4], id="cut short"),
        pytest.param(b"no gzip", id="no gzip"),
    ],
)
async def test_a_body_that_is_not_what_its_encoding_says_gets_400(body: bytes) -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, body, PROTOBUF | {"Content-Encoding": "gzip"})
        assert answer.status == 400
        assert "gzip" in answer.message


async def test_a_request_that_can_not_be_made_safe_gets_503_and_when_to_send_it_again() -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, b"unavailable")
        assert (answer.status, answer.headers["Retry-After"], answer.message) == (503, "5", "the disk is full")


async def test_a_fault_gets_500_and_is_logged_without_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, b"fault")
        assert answer.status == 500
        assert "prompt" not in answer.message + caplog.text
        assert "ValueError at " in caplog.text


async def test_rejected_spans_are_a_partial_success() -> None:
    async with running(HttpReceiver) as it:
        traces = ExportTraceServiceResponse.FromString((await send(it.port, b"partial")).body)
        assert traces.partial_success.rejected_spans == 3
        logs = ExportLogsServiceResponse.FromString((await send(it.port, b"partial", path="/v1/logs")).body)
        assert logs.partial_success.rejected_log_records == 3
        assert json.loads((await send(it.port, b"partial", JSON)).body) == {
            "partialSuccess": {"rejectedSpans": "3", "errorMessage": "the sender's token is not for this agent"}
        }


@pytest.mark.parametrize(
    ("path", "signal"),
    [("/v1/metrics", "metrics"), ("/v1development/profiles", "profiles"), ("/v1/profiles", "profiles")],
)
async def test_other_signals_are_answered_with_success_and_dropped(path: str, signal: str) -> None:
    async with running(HttpReceiver) as it:
        assert (await send(it.port, b"whatever", path=path)).status == 200
        assert it.pipeline.taken == []
        assert it.pipeline.answered(signal, "http", "200") == 1


async def test_a_mistaken_path_gets_404_and_the_right_ones() -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, b"", path="/v1/trace")
        assert answer.status == 404
        assert "/v1/traces" in answer.message
        assert it.pipeline.answered("other", "http", "404") == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_another_method_gets_405(method: str) -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, None, method=method)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-protobufs", "application/xml"])
async def test_another_content_type_gets_415(content_type: str | None) -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, b"", {} if content_type is None else {"Content-Type": content_type})
        assert answer.status == 415
        assert "application/x-protobuf or application/json" in answer.message


async def test_another_encoding_gets_415_and_those_there_are() -> None:
    async with running(HttpReceiver) as it:
        answer = await send(it.port, b"", PROTOBUF | {"Content-Encoding": "zstd"})
        assert (answer.status, answer.headers["Accept-Encoding"]) == (415, "gzip, deflate")


async def test_a_body_over_the_limit_gets_413_whether_it_tells_its_length_or_not() -> None:
    async with running(HttpReceiver, **SMALL) as it:
        told = await send(it.port, bytes((1 << 20) + 1))
        assert told.status == 413
        assert "requests.max_body_bytes" in told.message
        assert (await send(it.port, chunks(bytes(1 << 20), b"1"))).status == 413
        assert it.pipeline.taken == []


async def test_a_zip_bomb_gets_413() -> None:
    async with running(HttpReceiver, **SMALL) as it:
        answer = await send(it.port, gzip.compress(bytes(64 << 20)), PROTOBUF | {"Content-Encoding": "gzip"})
        assert answer.status == 413
        assert it.pipeline.taken == []


async def test_a_request_without_room_gets_429_and_when_to_send_it_again() -> None:
    async with running(HttpReceiver, **SMALL) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(HEAD + b"Content-Length: 1000000\r\n\r\n" + bytes(999_999))
        answer = await send(it.port, bytes(100_000))
        while answer.status == 200:  # the first one's bytes are still on their way
            answer = await send(it.port, bytes(100_000))
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert "max_in_flight_bytes" in answer.message
        writer.write(b"1")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        assert (await send(it.port, bytes(100_000))).status == 200


async def test_a_sender_that_does_not_go_on_gets_408() -> None:
    async with running(HttpReceiver, requests={"body_seconds": 0.1}) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(HEAD + b"Content-Length: 2\r\n\r\n{")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")
        writer.close()


@pytest.mark.parametrize("begun", [b"", b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nX-Slow: "])
async def test_a_connection_without_a_whole_request_is_closed(begun: bytes) -> None:
    async with running(HttpReceiver, requests={"idle_seconds": 0.1}) as it:
        assert await raw(it.port, begun) == b""


@pytest.mark.parametrize(
    "flood",
    [
        b"".join(b"X-%d: y\r\n" % n for n in range(10_000)),
        b"X: " + b"y" * 1_000_000 + b"\r\n",
        b"\x00\xff: y\r\n",
    ],
)
async def test_too_many_too_long_or_broken_headers_are_refused(flood: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with running(HttpReceiver) as it:
        answer = await raw(it.port, HEAD + b"Authorization: Bearer s3cret\r\n" + flood + b"\r\n")
        assert answer[:8] in (b"", b"HTTP/1.0")
        assert b" 200 OK" not in answer
        assert "s3cret" not in caplog.text
        assert it.pipeline.taken == []
        assert (await send(it.port, b"")).status == 200


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 100\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/traces HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100_000,
    ],
)
async def test_a_body_or_request_that_is_broken_off_does_no_harm(data: bytes) -> None:
    async with running(HttpReceiver) as it:
        await raw(it.port, data, end=True)
        assert it.pipeline.taken == []
        assert (await send(it.port, b"")).status == 200
        assert it.pipeline.in_flight == 0


async def test_connections_over_the_limit_get_503() -> None:
    async with running(HttpReceiver, requests={"max_connections": 1}) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert (await raw(it.port, b"")).startswith(b"HTTP/1.1 503 ")
        writer.close()


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", "Basic dG9rZW4tYQ==", "token-a", "Bearer \udcff"]
)
async def test_without_a_known_token_nothing_is_taken(tmp_path: Path, header: str | None) -> None:
    senders = [{"token_file": str(token_file(tmp_path, "a", "token-a"))}]
    async with running(HttpReceiver, senders=senders) as it:
        value = b"" if header is None else b"Authorization: " + header.encode("utf-8", "surrogateescape") + b"\r\n"
        answer = await raw(it.port, HEAD + b"Connection: close\r\nContent-Length: 2\r\n" + value + b"\r\n{}")
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"WWW-Authenticate: Bearer" in answer
        assert it.pipeline.taken == []


async def test_a_token_speaks_for_its_own_agents(tmp_path: Path) -> None:
    senders = [
        {"token_file": str(token_file(tmp_path, "a", "token-a")), "agents": ["shop"]},
        {"token_file": str(token_file(tmp_path, "b", "token-b"))},
    ]
    async with running(HttpReceiver, senders=senders) as it:
        for token in ("token-a", "token-b"):
            await send(it.port, b"", PROTOBUF | {"Authorization": f"Bearer {token}"})
        assert [agents for *_, agents in it.pipeline.taken] == [frozenset({"shop"}), None]


async def test_a_port_in_use_is_told_with_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError) as error:
            async with running(HttpReceiver, otlp_http={"address": address}):
                pass
        assert str(error.value).startswith(f"otlp_http.address: can't listen on {address}: address already in use")
        assert "--otlp-http HOST:PORT" in str(error.value)


async def test_requests_come_by_tls_and_a_client_needs_a_certificate_where_an_authority_is_set(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    tls = certificates.tls | {"client_ca_file": str(certificates.ca_file)}
    async with running(HttpReceiver, otlp_http={"tls": tls}) as it:
        context = ssl.create_default_context(cafile=certificates.ca_file)
        with pytest.raises(aiohttp.ClientError):
            await send(it.port, b"", ssl=context)
        context.load_cert_chain(*certificates.client)
        assert (await send(it.port, b"", ssl=context)).status == 200


async def test_a_key_that_does_not_fit_its_certificate_is_told_with_the_setting(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    tls = {"certificate_file": str(certificates.server[0]), "key_file": str(certificates.client[1])}
    with pytest.raises(ConfigError, match=r"^otlp_http\.tls: "):
        async with running(HttpReceiver, otlp_http={"tls": tls}):
            pass
