"""OTLP/HTTP: protobuf and JSON, plain or packed."""

import asyncio
from http import HTTPStatus

import grpc
from aiohttp import ClientPayloadError, web
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from exporter.config import HttpListener, RequestLimits
from exporter.listen import HttpServer
from exporter.receivers.body import ENCODINGS, Budget, Full
from exporter.receivers.intake import OTHER_SIGNAL, SIGNALS, Intake, Refused, Signal, response_message

TRANSPORT = "http"
PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_BY_PATH = {path: signal for signal in SIGNALS for path in signal.paths}
_CLIENT_WENT_AWAY = "499"
"""Not HTTP's, but nginx's word for it; only in the counter."""


class HttpReceiver:
    """The listener for OTLP/HTTP."""

    def __init__(self, intake: Intake, settings: HttpListener, limits: RequestLimits, *, stop_seconds: float) -> None:
        self._intake = intake
        self._limits = limits
        self._budget = Budget(limits.max_in_flight_bytes)
        self._server = HttpServer(
            "otlp_http", self._handle, settings.address, settings.tls, limits, stop_seconds=stop_seconds
        )

    async def start(self) -> int:
        """Listens; the port. ListenError if that is not possible."""
        return await self._server.start()

    async def stop(self) -> None:
        """Accepts no more, and gives what is in flight `stop_seconds`."""
        await self._server.stop()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        signal = _BY_PATH.get(request.path)
        # The answer to what is neither goes to a person: JSON is what they can read.
        content_type = PROTOBUF if _media_type(request) == PROTOBUF else JSON
        code = _CLIENT_WENT_AWAY
        self._intake.begin()
        try:
            response = await self._answer(request, signal, content_type)
            code = str(response.status)
        except Refused as refused:
            response = _error(refused, content_type)
            code = str(response.status)
        finally:
            self._intake.end(OTHER_SIGNAL if signal is None else signal.name, TRANSPORT, code)
        return response

    async def _answer(self, request: web.BaseRequest, signal: Signal | None, content_type: str) -> web.Response:
        if signal is None:
            raise _refused(HTTPStatus.NOT_FOUND, f"nothing is taken here; send to {', '.join(_BY_PATH)}")
        if request.method != "POST":
            raise _refused(HTTPStatus.METHOD_NOT_ALLOWED, "send by POST")
        headers = request.headers
        may_speak_for = self._intake.authenticate(headers.get("Authorization"))
        if _media_type(request) != content_type:
            raise _refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the Content-Type has to be {PROTOBUF} or {JSON}")
        encoding: str | None = headers.get("Content-Encoding", "").strip().lower()
        if encoding in ("", "identity"):
            encoding = None
        elif encoding not in ENCODINGS:
            raise _refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the Content-Encoding has to be {' or '.join(ENCODINGS)}, or none"
            )
        if request.content_length is not None and request.content_length > self._limits.max_body_bytes:
            raise self._intake.too_large()
        if headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

        chunks: list[bytes] = []
        try:
            await self._read(request, chunks)
            answer = self._intake.take(
                signal,
                b"".join(chunks),
                encoding=encoding,
                json=content_type == JSON,
                may_speak_for=may_speak_for,
            )
        finally:
            self._budget.give_back(sum(map(len, chunks)))
        return _response(HTTPStatus.OK, response_message(signal, answer), content_type)

    async def _read(self, request: web.BaseRequest, chunks: list[bytes]) -> None:
        """The body into `chunks`, whose bytes are taken from the budget; also when it ends with an exception."""
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while chunk := await request.content.readany():
                    size += len(chunk)
                    if size > self._limits.max_body_bytes:
                        raise self._intake.too_large()
                    self._budget.take(len(chunk))
                    chunks.append(chunk)
        except TimeoutError:
            raise self._intake.too_slow() from None
        except Full:
            raise self._intake.busy() from None
        except (ClientPayloadError, web.RequestPayloadError):
            raise _refused(HTTPStatus.BAD_REQUEST, "the body ends before its end, or its chunks are broken") from None


def _media_type(request: web.BaseRequest) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _refused(status: HTTPStatus, text: str) -> Refused:
    return Refused(status, grpc.StatusCode.INVALID_ARGUMENT, text)


def _response(status: HTTPStatus, message: Message | None, content_type: str) -> web.Response:
    if content_type == JSON:
        body = b"{}" if message is None else json_format.MessageToJson(message, indent=None).encode()
    else:
        body = b"" if message is None else message.SerializeToString()
    return web.Response(status=status, body=body, content_type=content_type)


def _error(refused: Refused, content_type: str) -> web.Response:
    status = Status(code=refused.code.value[0], message=refused.text)
    response = _response(refused.http, status, content_type)
    if refused.retry_seconds is not None:
        response.headers["Retry-After"] = str(refused.retry_seconds)
    match refused.http:
        case HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Bearer"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = "POST"
        case HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            response.headers["Accept-Encoding"] = ", ".join(ENCODINGS)
    return response
