"""OTLP/gRPC.

A message is handed on as the raw bytes it came in: grpc-core is told not to unpack it. It would bound the unpacked size
as well (measured with 1.85), but it unpacks on every stream at once, before anyone is asked; here it is one at a time.

The methods are served as streams of which one message is read. On the wire that is the same, but the sender's token is
looked at, and room for the message made, before the message is read.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from exporter.config import GrpcListener, RequestLimits, Tls
from exporter.listen import ListenError, why_not
from exporter.receivers.body import packed_as
from exporter.receivers.intake import SIGNALS, Intake, Refused, Signal, response_message

TRANSPORT = "grpc"

_Context: TypeAlias = Any  # grpc.aio.ServicerContext, which has no types
_Export = Callable[[AsyncIterator[bytes], _Context], Awaitable[bytes]]

_STREAMS_PER_CONNECTION = 100
_MOST_WAITING = 1000


class GrpcReceiver:
    """The listener for OTLP/gRPC."""

    def __init__(self, intake: Intake, settings: GrpcListener, limits: RequestLimits, *, stop_seconds: float) -> None:
        self._intake = intake
        self._settings = settings
        self._limits = limits
        self._stop_seconds = stop_seconds
        self._room = asyncio.Semaphore(limits.max_in_flight_bytes // limits.max_body_bytes)
        self._waiting = 0
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listens; the port. ListenError if that is not possible."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", int(self._limits.max_body_bytes)),
                ("grpc.per_message_decompression", 0),
                # Without it the window of each stream grows to megabytes, which a sender fills before anyone reads: 300
                # requests of 15 MiB took 2.9 GB, with it 0.6 GB, and no more time.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.max_concurrent_streams", _STREAMS_PER_CONNECTION),
                ("grpc.max_allowed_incoming_connections", self._limits.max_connections),
                ("grpc.max_connection_idle_ms", int(self._limits.idle_seconds * 1000)),
                # Two exporters on one port would each get a share of the spans, and nobody would know.
                ("grpc.so_reuseport", 0),
            ]
        )
        server.add_generic_rpc_handlers([_Methods({signal.method: self._export(signal) for signal in SIGNALS})])
        address = str(self._settings.address)
        why = why_not(self._settings.address)
        if why is not None:
            raise ListenError("otlp_grpc", self._settings.address, why)
        try:
            if self._settings.tls:
                port = server.add_secure_port(address, _credentials(self._settings.tls))
            else:
                port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise ListenError("otlp_grpc", self._settings.address, str(error)) from None
        await server.start()
        self._server = server
        return int(port)

    async def stop(self) -> None:
        """Accepts no more, and gives what is in flight `stop_seconds`."""
        if self._server is not None:
            await self._server.stop(self._stop_seconds)

    def _export(self, signal: Signal) -> _Export:
        intake = self._intake

        async def export(_: AsyncIterator[bytes], context: _Context) -> bytes:
            code = grpc.StatusCode.CANCELLED
            intake.begin()
            try:
                response = await self._response(signal, context)
                code = grpc.StatusCode.OK
                return response
            except Refused as refused:
                code = refused.code
                # abort() raises an exception that outlives this request for a while: it is not to hold the body.
                refused.__traceback__ = refused.__context__ = None
                await context.abort(refused.code, refused.text, trailing_metadata=_details(refused))
                raise AssertionError("abort raises") from None
            finally:
                intake.end(signal.name, TRANSPORT, code.name)

        return export

    async def _response(self, signal: Signal, context: _Context) -> bytes:
        intake = self._intake
        may_speak_for = intake.authenticate(_authorization(context)) if intake.authenticates else None
        await self._make_room()
        try:
            message = await self._read(context)
            answer = intake.take(signal, message, encoding=packed_as(message), json=False, may_speak_for=may_speak_for)
        finally:
            self._room.release()
        response = response_message(signal, answer)
        return b"" if response is None else bytes(response.SerializeToString())

    async def _make_room(self) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        if self._waiting >= _MOST_WAITING:
            raise self._intake.busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.queue_seconds):
                await self._room.acquire()
        except TimeoutError:
            raise self._intake.busy() from None
        finally:
            self._waiting -= 1

    async def _read(self, context: _Context) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                message = await context.read()
        except TimeoutError:
            raise self._intake.too_slow() from None
        if message is grpc.aio.EOF:
            # Over the limit (grpc-core refuses that in words of its own), or the client is gone, or it sent no message:
            # they look the same from here. Counted as the first, which someone has to do something about.
            raise self._intake.too_large()
        return bytes(message)


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, exports: dict[str, _Export]) -> None:
        self._handlers = {method: grpc.stream_unary_rpc_method_handler(export) for method, export in exports.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


def _authorization(context: _Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, str) else value.decode("latin-1")
    return None


def _details(refused: Refused) -> tuple[tuple[str, bytes], ...]:
    if refused.retry_seconds is None:
        return ()
    retry = RetryInfo()
    retry.retry_delay.seconds = refused.retry_seconds
    packed = AnyMessage()
    packed.Pack(retry)
    status = Status(code=refused.code.value[0], message=refused.text, details=[packed])
    return (("grpc-status-details-bin", status.SerializeToString()),)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    pair = (tls.key_file.read_bytes(), tls.certificate_file.read_bytes())
    authority = tls.client_ca_file.read_bytes() if tls.client_ca_file else None
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)
