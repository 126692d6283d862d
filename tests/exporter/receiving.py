"""What the tests of both receivers share: a pipeline that does as the body says, and receivers around it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trustme

from exporter.auth import Senders
from exporter.config import Settings, load
from exporter.measures import Measures
from exporter.pipeline import Answer, Malformed, Unavailable
from exporter.receivers.grpc import GrpcReceiver
from exporter.receivers.http import HttpReceiver
from exporter.receivers.intake import Intake


class FakePipeline:
    """Keeps what it was given. The body says what is to happen."""

    def __init__(self) -> None:
        self.measures = Measures()
        self.taken: list[tuple[str, bytes, bool, frozenset[str] | None]] = []

    def take_traces(self, body: bytes, *, json: bool = False, may_speak_for: frozenset[str] | None = None) -> Answer:
        return self._take("traces", body, json, may_speak_for)

    def take_logs(self, body: bytes, *, json: bool = False, may_speak_for: frozenset[str] | None = None) -> Answer:
        return self._take("logs", body, json, may_speak_for)

    def _take(self, signal: str, body: bytes, json: bool, may_speak_for: frozenset[str] | None) -> Answer:
        self.taken.append((signal, body, json, may_speak_for))
        match body[:11]:
            case b"malformed":
                raise Malformed("not an ExportTraceServiceRequest")
            case b"unavailable":
                raise Unavailable("the disk is full")
            case b"fault":
                raise ValueError("could not convert: 'the user's prompt'")
            case b"partial":
                return Answer(3, "the sender's token is not for this agent")
        return Answer()

    def answered(self, signal: str, transport: str, code: str) -> float:
        return self.measures.value("agent_exporter_requests_total", signal, transport, code)

    @property
    def in_flight(self) -> float:
        return self.measures.value("agent_exporter_requests_in_flight")


class Running:
    def __init__(self, pipeline: FakePipeline, receiver: GrpcReceiver | HttpReceiver, port: int) -> None:
        self.pipeline = pipeline
        self.receiver = receiver
        self.port = port


@asynccontextmanager
async def running(kind: Callable[..., Any], **overrides: Any) -> AsyncIterator[Running]:
    """A receiver on a free port; `overrides` are settings, nested like the file."""
    key = "otlp_grpc" if kind is GrpcReceiver else "otlp_http"
    given = {"address": "127.0.0.1:0"} | overrides.pop(key, {})
    settings: Settings = load(None, {key: given, **overrides})
    pipeline = FakePipeline()
    intake = Intake(pipeline, Senders(settings.senders), settings.requests)
    receiver = kind(intake, getattr(settings, key), settings.requests, stop_seconds=1)
    port = await receiver.start()
    try:
        yield Running(pipeline, receiver, port)
    finally:
        await receiver.stop()


def token_file(directory: Path, name: str, *tokens: str) -> Path:
    path = directory / name
    path.write_text("\n".join(tokens) + "\n")
    path.chmod(0o600)
    return path


class Certificates:
    """A server's and a client's certificate of one authority, and its own, as files."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.server = self._write(directory, "server")
        self.client = self._write(directory, "client")
        self.tls = {"certificate_file": str(self.server[0]), "key_file": str(self.server[1])}

    def _write(self, directory: Path, name: str) -> tuple[Path, Path]:
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        chain, key = directory / f"{name}.pem", directory / f"{name}.key"
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(chain), append=True)
        issued.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        return chain, key
