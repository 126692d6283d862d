"""What the make_*.py scripts share: a scripted LLM server, two tools, and a receiver that keeps what spans are sent.

A script runs one agent of one framework through each scenario, in a process of its own, since instrumentations change
their process for good. Beside each recording stands what really happened, from the server's and the tools' side.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MODEL = "gpt-4o-mini"
PROMPT = "What is the weather and the population of Paris?"
ANSWER = "Paris: sunny, 2.1 million people."

Call = tuple[str, dict[str, Any]]
INTERRUPT = -1


@dataclass(frozen=True)
class Scenario:
    """What the server answers, turn by turn: tools to call, or the answer (None), or an HTTP status (an int); at
    INTERRUPT the agent's process gets a SIGINT while it waits."""

    name: str
    turns: tuple[list[Call] | int | None, ...]
    outcome: tuple[str, str] = ("success", "")
    tasks: int = 1
    stream: bool = False
    tool_fails: bool = False
    finish: str = "stop"
    limit: int | None = None  # most iterations that the framework is to allow


WEATHER: Call = ("get_weather", {"city": "Paris"})
POPULATION: Call = ("get_population", {"city": "Paris"})
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("happy", ([WEATHER], [POPULATION], None)),
        Scenario("streaming", ([WEATHER], None), stream=True),
        Scenario("tool_error", ([WEATHER], [WEATHER], None), tool_fails=True),
        Scenario("invalid_args", ([("get_weather", {"town": "Paris"})], [WEATHER], None)),
        Scenario("llm_down", ([WEATHER], 500), outcome=("error", "provider")),
        Scenario("refusal", (None,), outcome=("failure", ""), finish="content_filter"),
        Scenario("two_tasks", ([WEATHER], None), tasks=2),
        Scenario("cancel", ([WEATHER], INTERRUPT), outcome=("abandoned", "user_cancel")),
        Scenario("max_turns", ([WEATHER],) * 8, outcome=("abandoned", "max_iterations"), limit=3),
    )
}


@dataclass
class Truth:
    """What happened. Tokens are disjoint; tools as [name, result]."""

    calls: int = 0
    failed: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: {"input": 0, "output": 0, "cache_read": 0})
    tools: list[list[str]] = field(default_factory=list)


class Script:
    """One scenario: the server's and the tools' side of it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.truth = Truth()
        self._lock = threading.Lock()
        self._raised = False

    # -- tools: plain functions that frameworks can read the schema of -----------------------------------------------

    def get_weather(self, city: str) -> str:
        """The weather of a city."""
        time.sleep(0.02)
        if self.scenario.tool_fails and not self._raised:
            self._raised = True
            self.truth.tools.append(["get_weather", "error"])
            raise RuntimeError("the weather service answered with garbage")
        self.truth.tools.append(["get_weather", "ok"])
        return "sunny"

    def get_population(self, city: str) -> str:
        """The population of a city."""
        time.sleep(0.02)
        self.truth.tools.append(["get_population", "ok"])
        return "2.1 million"

    # -- the LLM server's side ---------------------------------------------------------------------------------------

    def answer(self, turn: int) -> tuple[int, list[Call] | None, dict[str, int]]:
        """(HTTP status, tools to call or None, usage) for the `turn`-th call of a task, the first being 1."""
        step = self.scenario.turns[min(turn, len(self.scenario.turns)) - 1]
        if step == INTERRUPT:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(2)
            return 500, None, {}
        with self._lock:
            if isinstance(step, int):
                self.truth.failed += 1
                return step, None, {}
            usage = {"input": 1000 * turn + 7, "output": 100 * turn + 3, "cache_read": 64 if turn == 2 else 0}
            self.truth.calls += 1
            for direction, count in usage.items():
                self.truth.tokens[direction] += count
        return 200, step, usage


def _chat_completion(body: dict[str, Any], script: Script) -> tuple[int, list[dict[str, Any]]]:
    """(HTTP status, the completion, or its chunks where a stream is asked for)."""
    messages = body["messages"]
    asked = max(at for at, message in enumerate(messages) if message["role"] == "user")
    turn = 1 + sum(message["role"] == "assistant" for message in messages[asked:])
    status, calls, usage = script.answer(turn)
    if status != 200:
        return status, [{"error": {"message": "the server is down", "type": "server_error"}}]
    finish = "tool_calls" if calls is not None else script.scenario.finish
    head = {"id": f"chatcmpl-{os.urandom(8).hex()}", "created": int(time.time()), "model": f"{MODEL}-2024-07-18"}
    tools = [
        {"index": at, "id": f"call_{turn}_{at}", "type": "function",
         "function": {"name": name, "arguments": json.dumps(arguments)}}
        for at, (name, arguments) in enumerate(calls or ())
    ]  # fmt: skip
    message = {"role": "assistant", "content": None if tools else ANSWER} | ({"tool_calls": tools} if tools else {})
    counts = {
        "prompt_tokens": usage["input"] + usage["cache_read"],
        "completion_tokens": usage["output"],
        "total_tokens": sum(usage.values()),
        "prompt_tokens_details": {"cached_tokens": usage["cache_read"]},
    }
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return 200, [head | {"object": "chat.completion", "choices": [choice], "usage": counts}]
    head["object"] = "chat.completion.chunk"
    chunks = [
        head | {"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
        head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(head | {"choices": [], "usage": counts})
    return 200, chunks


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith("/v1/traces"):
            self.server.received.append((time.time_ns(), body))
            self._send(200, b"", "application/x-protobuf")
        elif self.path.endswith("/chat/completions"):
            request = json.loads(body)
            status, parts = _chat_completion(request, self.server.script)
            if status == 200 and request.get("stream"):
                time.sleep(0.03)
                lines = "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n"
                self._send(200, lines.encode(), "text/event-stream")
            else:
                self._send(status, json.dumps(parts[0]).encode(), "application/json")
        else:
            self._send(404, b"{}", "application/json")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # whoever asked may be gone
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.received: list[tuple[int, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def _serving(script: Script) -> Iterator[_Server]:
    server = _Server(script)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _version(package: str) -> str:
    if package.startswith("npm:"):
        file = Path(os.environ["NODE_PATH"]) / package.removeprefix("npm:") / "package.json"
        return str(json.loads(file.read_text())["version"])
    return importlib.metadata.version(package)


Missed = dict[str, dict[str, Any]]
"""What the spans of a scenario do not tell: `{"as_sent": {measure: what they do tell}, "why": ...}`."""

# Of the machine that a recording was made on, and of the texts that went through it, nothing is kept.
_SCRUBBED_RESOURCE = ("host.", "process.", "os.", "telemetry.")
_SCRUBBED = ("exception.stacktrace", "code.", "thread.", "server.port", "url.", "http.url")
_LONGEST = 2000


def _scrubbed(body: bytes) -> bytes:
    request = ExportTraceServiceRequest.FromString(body)
    for of_resource in request.resource_spans:
        _drop(of_resource.resource.attributes, _SCRUBBED_RESOURCE)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                _drop(span.attributes, _SCRUBBED)
                span.status.message = span.status.message.split("Traceback (most recent call last)")[0]
                for event in span.events:
                    _drop(event.attributes, _SCRUBBED)
    return request.SerializeToString()


def _drop(attributes: Any, prefixes: tuple[str, ...]) -> None:
    kept = [a for a in attributes if not a.key.startswith(prefixes) and len(a.value.string_value) <= _LONGEST]
    del attributes[:]
    attributes.extend(kept)


def _write(server: _Server, source: str, how: str, versions: Mapping[str, str], missed: Missed) -> None:
    script = server.script
    folder = Path(__file__).parent / source
    folder.mkdir(exist_ok=True)
    with (folder / f"{script.scenario.name}.bin").open("wb") as file:
        for arrival_ns, body in server.received:
            scrubbed = _scrubbed(body)
            file.write(struct.pack(">QI", arrival_ns, len(scrubbed)) + scrubbed)
    truth = script.truth
    if script.scenario.name == "invalid_args":
        # Whether the framework rejects the call, or runs the tool and meets the exception, differs; the call does not.
        truth.tools.insert(0, ["get_weather", "invalid"])
    told = {
        "source": source,
        "scenario": script.scenario.name,
        "instrumentation": how,
        "versions": dict(versions),
        "tasks": script.scenario.tasks,
        "outcome": list(_outcome(script)),
        "calls": truth.calls,
        "tokens": truth.tokens,
        "tools": truth.tools,
    } | missed.get(script.scenario.name, {})
    (folder / f"{script.scenario.name}.json").write_text(json.dumps(told, indent=1) + "\n")


def _outcome(script: Script) -> tuple[str, str]:
    if script.scenario.tool_fails and script.truth.calls == 1:
        return "error", "tool"  # the framework raised, rather than telling the model
    return script.scenario.outcome


Run = Callable[[Script, str], None]
"""Asks the agent as often as the scenario has tasks; gets the OpenAI-compatible server's address (…/v1)."""


def main(
    source: str, how: str, packages: list[str], scenarios: list[str], run: Run, *, missed: Missed | None = None
) -> None:
    """Record the scenarios, or those that the command line names. Spans are to go to OTEL_EXPORTER_OTLP_ENDPOINT."""
    parser = argparse.ArgumentParser(description=f"Records {source}: {how}.")
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}")
    chosen = parser.parse_args().scenarios or scenarios
    if len(chosen) != 1:
        for name in chosen:
            subprocess.run([sys.executable, sys.argv[0], name], check=True)
        return
    script = Script(SCENARIOS[chosen[0]])
    with _serving(script) as server:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = server.url
        os.environ["OTEL_SERVICE_NAME"] = f"{source.replace('.', '-')}-svc"
        os.environ["OPENAI_API_KEY"] = "none"
        run(script, f"{server.url}/v1")
        _write(server, source, how, {name: _version(name) for name in packages}, missed or {})
    print(f"{source}/{chosen[0]}: {len(server.received)} requests")


def provider() -> Any:
    """A tracer provider that sends over OTLP/HTTP as agents do, in batches, and the global one from now on."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    made = TracerProvider()
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=100))
    trace.set_tracer_provider(made)
    return made
