"""Agents of real frameworks, each in an environment of its own that uv makes, before a made-up LLM."""

import itertools
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parents[1] / "docs" / "existing-agents.md"
_BLOCK = re.compile(r"<!-- agent: (.+?) -->\n```python\n(.*?)```", re.DOTALL)
_SDK = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc")

Message = dict[str, Any]
"""A message of OpenAI's chat completions."""


def blocks() -> dict[str, str]:
    """The lines of docs/existing-agents.md: packages → Python. `all` are the lines that every agent needs."""
    return dict(_BLOCK.findall(_PAGE.read_text(encoding="utf-8")))


def command(packages: Sequence[str], program: Path) -> list[str]:
    """Runs the program where these packages and the SDK are installed."""
    installed = [word for package in (*packages, *_SDK) for word in ("--with", package)]
    return ["uv", "run", "--no-project", "--quiet", *installed, "python", str(program)]


def environ(agent: str, llm: str, otlp: str) -> dict[str, str]:
    """The environment of an agent that asks `llm` (a URL) and sends its spans to `otlp` (HOST:PORT, gRPC)."""
    return {
        **os.environ,
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": llm,
        "OPENAI_API_BASE": llm,
        "OPENAI_AGENTS_DISABLE_TRACING": "0",
        "OTEL_SERVICE_NAME": agent,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{otlp}",
        "UV_PYTHON_DOWNLOADS": "never",
    }


@contextmanager
def serving(
    answer: Callable[[list[Message]], Message], *, prompt_tokens: int = 20, completion_tokens: int = 5
) -> Iterator[str]:
    """An LLM of OpenAI's API on the loopback interface, by its URL. `answer` makes a message of those before it."""

    numbers = itertools.count()

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = answer(asked["messages"])
            reason = "tool_calls" if message.get("tool_calls") else "stop"
            usage = {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            }
            # an answer is known by its id: the exporter counts each once
            answered = {"id": f"chatcmpl-{next(numbers)}", "object": "chat.completion", "created": 1}
            whole = {**answered, "model": "gpt-4o-mini-2024-07-18"}
            choice = {"index": 0, "finish_reason": reason, "message": message}
            body = json.dumps({**whole, "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
