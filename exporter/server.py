"""The exporter as a process: receivers, pipeline and pages put together, from start to stop."""

import asyncio
import gzip
import ipaddress
import logging
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Literal

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from exporter import exposition, page
from exporter.auth import Readers, Senders, warn_of_open_files
from exporter.config import Address, Settings
from exporter.faults import where
from exporter.journal import JournalError
from exporter.listen import HttpServer
from exporter.pipeline import Pipeline
from exporter.receivers.grpc import GrpcReceiver
from exporter.receivers.http import HttpReceiver
from exporter.receivers.intake import Intake

log = logging.getLogger(__name__)

_ADVANCE_SECONDS = 1.0
_MOST_SCRAPES = 4
"""Pages that are drawn, or not yet fetched by their reader, at once: each may hold tens of megabytes."""

State = Literal["starting", "ready", "stopping"]


class Server:
    """All listeners around one pipeline.

    The pipeline is opened after `/healthz` and `/readyz` are served, since to read a day's journal takes a while; the
    receivers listen when it is open. Everything that touches the pipeline afterwards runs on the event loop.
    """

    def __init__(self, settings: Settings, open_pipeline: Callable[[], Pipeline]) -> None:
        """Reads the token files. ConfigError if one can't be used."""
        self._settings = settings
        self._open_pipeline = open_pipeline
        self._senders = Senders(settings.senders)
        self._readers = Readers(settings.metrics.token_file)
        self._started_at = time.time()
        self._pipeline: Pipeline | None = None
        self._intake: Intake | None = None
        self._receivers: list[GrpcReceiver | HttpReceiver] = []
        self._advancing: asyncio.Task[None] | None = None
        self._drawing = asyncio.Lock()
        self._scrapes = asyncio.Semaphore(_MOST_SCRAPES)
        self._pages = HttpServer(
            "metrics",
            self._page,
            settings.metrics.address,
            settings.metrics.tls,
            settings.requests,
            stop_seconds=settings.stop_seconds,
        )
        self.state: State = "starting"
        self.addresses: dict[str, Address] = {}
        """Where each listener really listens, by its key in the settings."""

    async def start(self) -> None:
        """Listens and opens the pipeline. ListenError, ConfigError, or what opening it raises. Then call `stop`."""
        settings = self._settings
        warn_of_open_files(settings)
        self._listening("metrics", settings.metrics.address, await self._pages.start())
        pipeline = await asyncio.to_thread(self._open_pipeline)
        measures = pipeline.measures
        measures.gauge("agent_exporter_start_time_seconds").set(self._started_at)
        measures.gauge("agent_exporter_build_info", version("agent-oncall")).set(1)
        self._pipeline = pipeline
        self._intake = Intake(pipeline, self._senders, settings.requests)
        grpc = GrpcReceiver(self._intake, settings.otlp_grpc, settings.requests, stop_seconds=settings.stop_seconds)
        http = HttpReceiver(self._intake, settings.otlp_http, settings.requests, stop_seconds=settings.stop_seconds)
        self._listening("otlp_grpc", settings.otlp_grpc.address, await grpc.start())
        self._receivers.append(grpc)
        self._listening("otlp_http", settings.otlp_http.address, await http.start())
        self._receivers.append(http)
        self._advancing = asyncio.create_task(self._advance())
        self.state = "ready"
        log.info("ready")

    async def stop(self) -> None:
        """Accepts no more, answers what is in flight (`stop_seconds` at most), writes the state down."""
        self.state = "stopping"
        await asyncio.gather(*(receiver.stop() for receiver in self._receivers))
        if self._advancing is not None:
            self._advancing.cancel()
        await self._pages.stop()
        if self._pipeline is not None:
            try:
                self._pipeline.checkpoint()
            except JournalError as error:
                # Nothing is lost: it is in the journal's log, which the next start goes through again.
                log.warning("no last checkpoint: %s", error)

    def _listening(self, key: str, wanted: Address, port: int) -> None:
        address = Address(wanted.host, port)
        self.addresses[key] = address
        log.info("%s listens on %s", _NAMES[key], address)
        listener = getattr(self._settings, key)
        closed = self._settings.metrics.token_file if key == "metrics" else self._settings.senders
        if (
            not _is_loopback(wanted.host)
            and not (closed and listener.tls)
            and not (listener.tls and listener.tls.client_ca_file)
        ):
            log.warning(
                "%s.address: whoever reaches %s can %s: set %s.tls, and %s",
                key,
                address,
                "read the metrics" if key == "metrics" else "send anything",
                key,
                "metrics.token_file" if key == "metrics" else "senders",
            )

    async def _advance(self) -> None:
        assert self._pipeline is not None
        while True:
            await asyncio.sleep(_ADVANCE_SECONDS)
            self._advance_once(self._pipeline)

    def _advance_once(self, pipeline: Pipeline) -> None:
        try:
            pipeline.advance()
        except Exception as error:
            log.error("the timers failed, which is a fault of the exporter: %s", where(error))

    async def _page(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ConnectionError:
            raise
        except Exception as error:
            log.error("%s failed, which is a fault of the exporter: %s", request.path, where(error))
            return _text(500, "a fault of the exporter: see its log\n")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in ("/", "/metrics", "/healthz", "/readyz"):
            return _text(404, "not found: there are /metrics, /healthz, /readyz and /\n")
        if request.method not in ("GET", "HEAD"):
            return _text(405, "read by GET\n", {"Allow": "GET, HEAD"})
        if request.path == "/healthz":
            return _text(200, "alive\n")
        if request.path == "/readyz":
            return _text(200 if self.state == "ready" else 503, f"{self.state}\n")
        if not self._readers.admit(request.headers.get("Authorization")):
            # Bearer for Prometheus; Basic makes a browser ask, and the token is the password.
            headers = {"WWW-Authenticate": 'Bearer, Basic realm="agent-oncall: the token is the password"'}
            return _text(401, "a token of metrics.token_file is needed\n", headers)
        if self._pipeline is None or self._intake is None:
            return _text(503, f"{self.state}\n", {"Retry-After": "1"})
        if request.path == "/metrics":
            return await self._metrics(request, self._pipeline)
        facts = page.Facts(
            version=version("agent-oncall"),
            started_at=self._started_at,
            now=time.time(),
            state=self.state,
            addresses={_NAMES[key]: str(address) for key, address in self.addresses.items()},
            requests=self._intake.answered(),
        )
        self._advance_once(self._pipeline)
        return web.Response(
            text=page.render(self._pipeline.summary(), facts), content_type="text/html", headers=page.HEADERS
        )

    async def _metrics(self, request: web.BaseRequest, pipeline: Pipeline) -> web.StreamResponse:
        if self._scrapes.locked():
            return _text(503, "too many scrapes at once\n", {"Retry-After": "1"})
        _, content_type = choose_encoder(request.headers.get("Accept", ""))
        openmetrics = content_type.startswith("application/openmetrics-text")
        if openmetrics:
            # choose_encoder says the version that was asked for; 1.0.0 is what is written.
            content_type = re.sub(r"version=[^;]+", "version=1.0.0", content_type)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        packed = _accepts_gzip(request.headers.get("Accept-Encoding", ""))
        if packed:
            headers["Content-Encoding"] = "gzip"
        async with self._scrapes:
            async with self._drawing:
                self._advance_once(pipeline)
                frozen = pipeline.measures.freeze()
                body = await asyncio.to_thread(_draw, frozen, openmetrics, packed)
            response = web.Response(body=body, headers=headers)
            try:
                async with asyncio.timeout(self._settings.requests.body_seconds):
                    await response.prepare(request)
                    await response.write_eof()
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            return response


_NAMES = {"otlp_grpc": "OTLP/gRPC", "otlp_http": "OTLP/HTTP", "metrics": "/metrics"}


def _draw(frozen: exposition.Frozen, openmetrics: bool, packed: bool) -> bytes:
    body = exposition.render(frozen, openmetrics=openmetrics)
    return gzip.compress(body, compresslevel=1) if packed else body


def _accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.lower().split(","):
        name, _, parameter = part.partition(";")
        if name.strip() == "gzip":
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", parameter)
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text, headers=headers)
