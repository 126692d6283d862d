"""Listening sockets: HTTP servers with limits, TLS, and what to tell when a socket can't be had."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from exporter.config import Address, ConfigError, RequestLimits, Tls

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# aiohttp logs bad requests with their bytes, tokens among them.
_silent = logging.getLogger("exporter.aiohttp")
_silent.setLevel(logging.CRITICAL + 1)

_LINGER_SECONDS = 2
_LAST_WRITE_SECONDS = 1


class ListenError(Exception):
    """An address can't be listened on. The text names the setting."""

    def __init__(self, key: str, address: Address, why: str) -> None:
        option = f"--{key.replace('_', '-')}"
        super().__init__(f"{key}.address: can't listen on {address}: {why}. Give another one by {option} HOST:PORT")


class HttpServer:
    """An HTTP/1.1 server with one handler."""

    def __init__(
        self,
        key: str,
        handler: Handler,
        address: Address,
        tls: Tls | None,
        limits: RequestLimits,
        *,
        stop_seconds: float,
    ) -> None:
        self._key = key
        self._handler = handler
        self._address = address
        self._tls = tls
        self._limits = limits
        self._stop_seconds = stop_seconds
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None
        self._busy = 0
        self._stopping = False
        self._idle = asyncio.Event()

    async def start(self) -> int:
        """Listens; the port. ListenError if that is not possible."""
        context = server_context(self._tls, self._key) if self._tls else None
        server = _Server(
            self._handle,
            self._limits.max_connections,
            logger=_silent,
            access_log=None,
            auto_decompress=False,
            # Also the most that a request's headers may take, since an idle connection is one without a whole request.
            keepalive_timeout=self._limits.idle_seconds,
            lingering_time=_LINGER_SECONDS,
        )
        runner = web.ServerRunner(server, shutdown_timeout=_LAST_WRITE_SECONDS)
        await runner.setup()
        site = web.TCPSite(runner, self._address.host, self._address.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise ListenError(self._key, self._address, _reason(error)) from None
        self._runner, self._site = runner, site
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Accepts no more, and gives what is in flight `stop_seconds`."""
        if self._runner is None or self._site is None:
            return
        self._stopping = True
        await self._site.stop()
        # aiohttp's own way to stop reads nothing more: a request whose body is still on its way would go unanswered.
        if self._busy:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_seconds):
                    await self._idle.wait()
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._busy += 1
        try:
            response = await self._handler(request)
        finally:
            self._busy -= 1
            if self._stopping and not self._busy:
                self._idle.set()
        if self._stopping:
            response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, handler: Handler, most: int, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._most = most

    def __call__(self) -> Any:
        return super().__call__() if len(self._connections) < self._most else _TooManyConnections()


class _TooManyConnections(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        )
        transport.close()


def server_context(tls: Tls, key: str) -> ssl.SSLContext:
    """The TLS of a listener. ConfigError names the setting if its files don't fit together."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.certificate_file, tls.key_file)
        if tls.client_ca_file:
            context.load_verify_locations(tls.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"{key}.tls: the certificate and its key can't be used: {_reason(error)}") from None
    return context


def why_not(address: Address) -> str | None:
    """Why `address` can't be listened on, in words; None if it can."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in found[:1]:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                probe.listen()
    except OSError as error:
        return _reason(error)
    return None


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    # asyncio has put words of its own into error.strerror.
    return os.strerror(error.errno).lower()
