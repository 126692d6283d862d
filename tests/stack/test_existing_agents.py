"""The lines of docs/existing-agents.md, each with its framework from the package index, a made-up LLM, the exporter."""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.serving import Serving, samples

PAGE = Path(__file__).parents[2] / "docs" / "existing-agents.md"
BLOCK = re.compile(r"<!-- agent: (.+?) -->\n```python\n(.*?)```", re.DOTALL)
SDK = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc")

ASK = {
    "pydantic-ai-slim[openai]": 'Agent("openai-chat:gpt-4o-mini", name="asked").run_sync("Hello")',
    "openai-agents": (
        "from agents import Agent, Runner, set_default_openai_api\n"
        'set_default_openai_api("chat_completions")\n'
        'Runner.run_sync(Agent(name="asked", model="gpt-4o-mini"), "Hello")'
    ),
    "langchain": (
        "from langchain.agents import create_agent\n"
        "from langchain_openai import ChatOpenAI\n"
        'create_agent(ChatOpenAI(model="gpt-4o-mini"), name="asked").invoke(\n'
        '    {"messages": [{"role": "user", "content": "Hello"}]}\n'
        ")"
    ),
    "llama-index-core": (
        "import asyncio\n"
        "from llama_index.core.agent.workflow import FunctionAgent\n"
        "from llama_index.llms.openai import OpenAI\n"
        "async def ask():\n"
        '    await FunctionAgent(name="asked", llm=OpenAI(model="gpt-4o-mini"), streaming=False).run("Hello")\n'
        "asyncio.run(ask())"
    ),
    "agno": (
        "from agno.agent import Agent\n"
        "from agno.models.openai import OpenAIChat\n"
        'Agent(name="asked", model=OpenAIChat(id="gpt-4o-mini")).run("Hello")'
    ),
    "openai": (
        "import openai\n"
        'with tracer.start_as_current_span("agent.task"):\n'
        "    openai.OpenAI().chat.completions.create(\n"
        '        model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}]\n'
        "    )"
    ),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("uv") is None, reason="the frameworks are installed by uv"),
]


def blocks() -> dict[str, str]:
    return dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


class Answering(BaseHTTPRequestHandler):
    """An LLM that says hello, for 20 tokens in and 5 out."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello."}}
        usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
        whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
        body = json.dumps({**whole, "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def llm() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("packages", [name for name in blocks() if name != "all"])
def test_the_lines_make_an_agent_known_to_the_exporter(packages: str, llm: str, tmp_path: Path) -> None:
    wanted = packages.split()
    program = tmp_path / "agent.py"
    program.write_text("\n".join([blocks()["all"], blocks()[packages], ASK[wanted[0]], "provider.shutdown()"]))
    installed = [word for package in (*wanted, *SDK) for word in ("--with", package)]
    with Serving() as serving:
        done = subprocess.run(
            ["uv", "run", "--no-project", "--quiet", *installed, "python", str(program)],
            env={
                **os.environ,
                "OPENAI_API_KEY": "none",
                "OPENAI_BASE_URL": llm,
                "OPENAI_API_BASE": llm,
                "OPENAI_AGENTS_DISABLE_TRACING": "0",
                "OTEL_SERVICE_NAME": "asked-agent",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{serving.addresses['OTLP/gRPC']}",
                "UV_PYTHON_DOWNLOADS": "never",
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        counted: dict[str, float] = {}
        for (name, labels), value in samples(serving.page()).items():
            if dict(labels).get("agent") == "asked-agent":
                counted[name] = counted.get(name, 0) + value
    assert counted["agent_tasks_started_total"] == 1
    assert counted["agent_iterations_total"] == 1
    assert counted["agent_tokens_total"] == 25
