"""The lines of docs/existing-agents.md, each with its framework from the package index, a made-up LLM, the exporter."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serving import Serving, samples
from tests.frameworks import Message, blocks, command, environ, serving

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


def hello(messages: list[Message]) -> Message:
    return {"role": "assistant", "content": "Hello."}


@pytest.fixture
def llm() -> Iterator[str]:
    with serving(hello) as url:
        yield url


@pytest.mark.parametrize("packages", [name for name in blocks() if name != "all"])
def test_the_lines_make_an_agent_known_to_the_exporter(packages: str, llm: str, tmp_path: Path) -> None:
    wanted = packages.split()
    program = tmp_path / "agent.py"
    program.write_text("\n".join([blocks()["all"], blocks()[packages], ASK[wanted[0]], "provider.shutdown()"]))
    with Serving() as exporter:
        done = subprocess.run(
            command(wanted, program),
            env=environ("asked-agent", llm, exporter.addresses["OTLP/gRPC"]),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        counted: dict[str, float] = {}
        for (name, labels), value in samples(exporter.page()).items():
            if dict(labels).get("agent") == "asked-agent":
                counted[name] = counted.get(name, 0) + value
    assert counted["agent_tasks_started_total"] == 1
    assert counted["agent_iterations_total"] == 1
    assert counted["agent_tokens_total"] == 25
