import asyncio
import gzip
import logging
import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import exposition
from exporter.config import load
from exporter.pipeline import Pipeline
from exporter.server import Server
from tests.exporter.receiving import Certificates, token_file

ROOT = Path(__file__).parents[2]
ANY_PORTS = {key: {"address": "127.0.0.1:0"} for key in ("otlp_grpc", "otlp_http", "metrics")}
SUCCESS = 'agent="shop",outcome="success",reason="",task_type="refund",variant="stable"'
TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def task(agent: str = "shop", number: int = 1) -> bytes:
    """A task of the base schema that ended well, as an export request."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add()
    spans.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=agent)))
    span = spans.scope_spans.add().spans.add(
        trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name="agent.task"
    )
    span.end_time_unix_nano = time.time_ns()
    span.start_time_unix_nano = span.end_time_unix_nano - 2 * 10**9
    for key, value in (("task.id", f"t{number}"), ("task.type", "refund"), ("task.status", "completed")):
        span.attributes.append(KeyValue(key=key, value=AnyValue(string_value=value)))
    return bytes(request.SerializeToString())


@asynccontextmanager
async def serving(open_pipeline: Any = None, **overrides: Any) -> AsyncIterator[Server]:
    settings = load(None, {key: value | overrides.pop(key, {}) for key, value in ANY_PORTS.items()} | overrides)
    server = Server(settings, open_pipeline or (lambda: Pipeline(settings)))
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


class Page:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.text = "" if headers.get("Content-Encoding") == "gzip" else body.decode()


async def get(server: Server, path: str, headers: dict[str, str] | None = None, **how: Any) -> Page:
    scheme = "https" if "ssl" in how else "http"
    timeout = aiohttp.ClientTimeout(30)
    async with (
        aiohttp.ClientSession(timeout=timeout, auto_decompress=False, skip_auto_headers=["Accept-Encoding"]) as session,
        session.get(f"{scheme}://{server.addresses['metrics']}{path}", headers=headers, **how) as response,
    ):
        return Page(response.status, response.headers, await response.read())


async def send(address: object, body: bytes, **how: Any) -> bytes:
    async with grpc.aio.insecure_channel(str(address), options=[("grpc.use_local_subchannel_pool", 1)]) as to:
        return bytes(await to.unary_unary(TRACES)(body, timeout=30, **how))


async def post(address: object, body: bytes) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"http://{address}/v1/traces", data=body, headers={"Content-Type": "application/x-protobuf"}
        ) as response,
    ):
        return response.status


async def test_a_task_sent_by_grpc_or_http_is_in_the_metrics() -> None:
    async with serving() as server:
        assert await send(server.addresses["otlp_grpc"], task(number=1)) == b""
        assert await post(server.addresses["otlp_http"], task(number=2)) == 200
        page = (await get(server, "/metrics")).text
        assert (
            'agent_tasks_total{agent="shop",outcome="success",reason="",task_type="refund",variant="stable"} 2.0'
            in page
        )
        assert 'agent_exporter_requests_total{code="OK",signal="traces",transport="grpc"} 1.0' in page
        assert 'agent_exporter_requests_total{code="200",signal="traces",transport="http"} 1.0' in page
        assert "agent_exporter_requests_in_flight 0.0" in page
        assert re.search(r'agent_exporter_build_info\{version="[^"]+"\} 1\.0', page)
        assert re.search(r"agent_exporter_start_time_seconds 1\.\d+e\+09", page)


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain", "text/plain;version=0.0.4", "text/html", "nonsense;;,"])
async def test_metrics_are_plain_text_unless_the_scraper_asks_for_more(accept: str | None) -> None:
    async with serving() as server:
        page = await get(server, "/metrics", {"Accept": accept} if accept else None)
        assert page.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert list(parse_text(page.text))


@pytest.mark.parametrize(
    "accept", [PROMETHEUS_3, "application/openmetrics-text", "application/openmetrics-text;version=2.0.0"]
)
async def test_metrics_are_openmetrics_where_the_scraper_accepts_it(accept: str) -> None:
    async with serving() as server:
        await send(server.addresses["otlp_grpc"], task())
        page = await get(server, "/metrics", {"Accept": accept})
        assert page.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
        assert page.text.endswith("# EOF\n")
        assert list(parse_openmetrics(page.text))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("accept", "packed"),
    [("gzip", True), ("deflate, gzip;q=1.0", True), ("identity", False), ("gzip;q=0", False), ("", False)],
)
async def test_metrics_are_packed_where_the_scraper_accepts_it(accept: str, packed: bool) -> None:
    async with serving() as server:
        page = await get(server, "/metrics", {"Accept-Encoding": accept})
        assert (page.headers.get("Content-Encoding") == "gzip") is packed
        assert b"agent_exporter_spans_total" in (gzip.decompress(page.body) if packed else page.body)


async def test_it_is_alive_and_not_ready_while_it_reads_its_journal() -> None:
    go = threading.Event()

    def open_pipeline() -> Pipeline:
        assert go.wait(30)
        return Pipeline(load())

    settings = load(None, ANY_PORTS)
    server = Server(settings, open_pipeline)
    starting = asyncio.ensure_future(server.start())
    try:
        while "metrics" not in server.addresses:
            await asyncio.sleep(0)
        assert (await get(server, "/healthz")).status == 200
        for path in ("/readyz", "/metrics", "/"):
            page = await get(server, path)
            assert (page.status, page.text) == (503, "starting\n")
        go.set()
        await starting
        assert (await get(server, "/readyz")).status == 200
    finally:
        go.set()
        await server.stop()


async def test_the_page_shows_the_agent_that_was_seen() -> None:
    async with serving() as server:
        await send(server.addresses["otlp_grpc"], task("shop"))
        page = await get(server, "/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "Content-Security-Policy" in page.headers
        assert "<td>shop</td>" in page.text


async def test_other_paths_and_methods_are_refused() -> None:
    async with serving() as server:
        assert (await get(server, "/metric")).status == 404
        async with aiohttp.ClientSession() as session:
            async with session.post(f"http://{server.addresses['metrics']}/metrics") as response:
                assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
            async with session.head(f"http://{server.addresses['metrics']}/metrics") as response:
                assert response.status == 200


async def test_metrics_and_page_need_the_token_and_health_does_not(tmp_path: Path) -> None:
    file = token_file(tmp_path, "scrape", "s3cret")
    async with serving(metrics={"token_file": str(file)}) as server:
        for path in ("/metrics", "/"):
            refused = await get(server, path)
            assert (refused.status, refused.headers["WWW-Authenticate"].partition(",")[0]) == (401, "Bearer")
            assert (await get(server, path, {"Authorization": "Bearer wrong"})).status == 401
            assert (await get(server, path, {"Authorization": "Bearer s3cret"})).status == 200
        for path in ("/healthz", "/readyz"):
            assert (await get(server, path)).status == 200


async def test_metrics_are_served_by_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    async with serving(metrics={"tls": certificates.tls}) as server:
        context = ssl.create_default_context(cafile=certificates.ca_file)
        assert (await get(server, "/metrics", ssl=context)).status == 200


async def test_a_senders_token_rejects_the_spans_of_other_agents(tmp_path: Path) -> None:
    senders = [{"token_file": str(token_file(tmp_path, "a", "token-a")), "agents": ["shop"]}]
    async with serving(senders=senders) as server:
        bearer = (("authorization", "Bearer token-a"),)
        assert await send(server.addresses["otlp_grpc"], task("shop", 1), metadata=bearer) == b""
        assert b"not for this agent" in await send(server.addresses["otlp_grpc"], task("search", 2), metadata=bearer)
        page = (await get(server, "/metrics")).text
        assert 'agent_exporter_spans_total{result="rejected"} 1.0' in page
        assert 'agent="search"' not in page


class Faulty(Pipeline):
    def advance(self) -> None:
        raise ValueError("the user's prompt")


async def test_a_fault_of_the_timers_stops_nothing_and_is_logged_without_what_was_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(lambda: Faulty(load())) as server:
        assert (await get(server, "/metrics")).status == 200
        assert "ValueError at " in caplog.text
        assert "prompt" not in caplog.text


async def test_a_scrape_does_not_hold_up_the_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing, go, draw = threading.Event(), threading.Event(), exposition.render

    def slow(*args: Any, **how: Any) -> bytes:
        drawing.set()
        assert go.wait(30)
        return draw(*args, **how)

    monkeypatch.setattr(exposition, "render", slow)
    async with serving() as server:
        scrape = asyncio.ensure_future(get(server, "/metrics"))
        await asyncio.to_thread(drawing.wait)
        assert await send(server.addresses["otlp_grpc"], task()) == b""
        go.set()
        assert 'agent="shop"' not in (await scrape).text


async def test_scrapers_that_do_not_fetch_their_page_are_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    page = bytes(24 << 20)  # more than the sockets hold
    monkeypatch.setattr(exposition, "render", lambda *_, **__: page)
    async with serving(requests={"body_seconds": 1}) as server:
        host, port = server.addresses["metrics"]
        stuck = [socket.create_connection((host, port)) for _ in range(4)]
        for client in stuck:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(30):
            while (await get(server, "/metrics")).status != 503:
                await asyncio.sleep(0.01)
            while (answer := await get(server, "/metrics")).status != 200:
                await asyncio.sleep(0.01)
        assert len(answer.body) == len(page)
        for client in stuck:
            client.close()


@pytest.mark.parametrize(
    ("tls", "token", "warned"), [(False, False, True), (True, False, True), (False, True, True), (True, True, False)]
)
async def test_a_listener_that_others_reach_is_warned_of_unless_it_is_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tls: bool, token: bool, warned: bool
) -> None:
    metrics: dict[str, Any] = {"address": "0.0.0.0:0"}
    if tls:
        metrics["tls"] = Certificates(tmp_path).tls
    if token:
        metrics["token_file"] = str(token_file(tmp_path, "scrape", "s3cret"))
    caplog.set_level(logging.WARNING)
    async with serving(metrics=metrics):
        assert ("metrics.address: whoever reaches" in caplog.text) is warned


class Process:
    """`agent-oncall serve` as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.log = ""
        self.addresses: dict[str, str] = {}

    async def until(self, wanted: str) -> None:
        assert self._process.stderr
        async with asyncio.timeout(60):
            while wanted not in self.log:
                line = (await self._process.stderr.readline()).decode()
                assert line, self.log
                self.log += line
        self.addresses |= dict(re.findall(r"(\S+) listens on (\S+)", self.log))

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        assert self._process.stderr
        async with asyncio.timeout(60):
            self.log += (await self._process.stderr.read()).decode()
            return await self._process.wait()


@asynccontextmanager
async def process(*options: str, ports: bool = True) -> AsyncIterator[Process]:
    any_ports = [f"--{name}=127.0.0.1:0" for name in ("otlp-grpc", "otlp-http", "metrics")] if ports else []
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "serve", *any_ports, *options, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Process(started)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def scraped(it: Process) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://{it.addresses['/metrics']}/metrics") as page:
        return await page.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_tells_where_it_listens_and_stops_with_0_on_a_signal(number: signal.Signals) -> None:
    async with process() as it:
        await it.until("--journal DIR keeps it")
        assert "no journal directory: what was counted is lost at a restart" in it.log
        assert await send(it.addresses["OTLP/gRPC"], task()) == b""
        assert await post(it.addresses["OTLP/HTTP"], task(number=2)) == 200
        it.signal(number)
        assert await it.ended() == 0
        assert it.log.splitlines()[-1].endswith("stopped")
        assert "Traceback" not in it.log


async def test_a_request_in_flight_is_answered_before_serve_stops() -> None:
    async with process() as it:
        await it.until("--journal DIR keeps it")
        host, _, port = it.addresses["OTLP/HTTP"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = task()
        writer.write(
            b"POST /v1/traces HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        await reader.readuntil(b"100 Continue\r\n\r\n")
        it.signal(signal.SIGTERM)
        await it.until("stopping")
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert await it.ended() == 0
        writer.close()


@pytest.mark.parametrize("name", ["otlp-grpc", "otlp-http", "metrics"])
async def test_a_port_in_use_stops_serve_with_2_and_the_settings_name(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with process(f"--{name}={address}") as it:
            assert await it.ended() == 2
            key = name.replace("-", "_")
            assert f"agent-oncall serve: {key}.address: can't listen on {address}: address already in use" in it.log


async def test_a_bad_setting_stops_serve_with_2_and_its_name(tmp_path: Path) -> None:
    file = tmp_path / "agent-oncall.yml"
    file.write_text("cost_cap_usd: -1\n")
    async with process(f"--config={file}", "--metrics=nowhere") as it:
        assert await it.ended() == 2
        assert f"agent-oncall serve: cost_cap_usd = -1 ({file}): " in it.log
        assert "agent-oncall serve: metrics.address = 'nowhere' (--metrics): " in it.log


async def test_a_journal_that_can_not_be_kept_stops_serve_with_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with process(f"--journal={tmp_path / 'file'}") as it:
        assert await it.ended() == 2
        assert "agent-oncall serve: " in it.log.splitlines()[-1]


async def test_what_was_counted_survives_a_kill_in_files_of_the_owner_alone(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with process(f"--journal={journal}") as it:
        await it.until("ready")
        await send(it.addresses["OTLP/gRPC"], task())
        it.signal(signal.SIGKILL)
        await it.ended()
    assert journal.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in journal.iterdir()} == {0o600}
    async with process(f"--journal={journal}") as it:
        await it.until("ready")
        await send(it.addresses["OTLP/gRPC"], task())
        text = await scraped(it)
        assert f"agent_tasks_total{{{SUCCESS}}} 1.0" in text
        assert 'agent_exporter_spans_total{result="duplicate"} 1.0' in text


def resident_mebibytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found
    return int(found[1]) // 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the memory's high water mark from /proc")
async def test_zip_bombs_and_large_requests_at_once_take_no_more_memory_than_the_limits(tmp_path: Path) -> None:
    file = tmp_path / "agent-oncall.yml"
    file.write_text("requests: {max_body_bytes: 4MiB, max_in_flight_bytes: 16MiB, queue_seconds: 60}\n")
    bomb, large = gzip.compress(bytes(256 << 20)), bytes(4 << 20)
    async with process(f"--config={file}") as it:
        await it.until("ready")
        before = resident_mebibytes(it.pid)

        async def refused(body: bytes) -> None:
            with pytest.raises(grpc.aio.AioRpcError):
                await send(it.addresses["OTLP/gRPC"], body)
            assert await post(it.addresses["OTLP/HTTP"], body) in (400, 413, 429)

        await asyncio.gather(*(refused(body) for body in [bomb, large] * 30))
        assert await send(it.addresses["OTLP/gRPC"], task()) == b""
        # 2 x 16 MiB for gRPC, 16 MiB for HTTP, one body unpacked, and what sockets and allocator keep.
        assert resident_mebibytes(it.pid) - before < 150


async def test_serve_explains_itself() -> None:
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "serve", "--help", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out = (await started.communicate())[0].decode()
    assert started.returncode == 0
    for wanted in (
        "--otlp-grpc HOST:PORT",
        "--otlp-http HOST:PORT",
        "--metrics HOST:PORT",
        "--journal DIR",
        "examples:",
    ):
        assert wanted in out
