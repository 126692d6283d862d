"""An agent on pydantic-ai whose tool breaks, through the whole stack: Collector, Jaeger, page, breaker, report.

The stack is `agent-oncall up`, the agent a process with the lines of docs/existing-agents.md and the runtime, its LLM
made up: it asks the tool again for as long as the tool answers malformed JSON.
"""

import json
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from stack import servers
from tests.frameworks import Message, blocks, command, environ, serving
from tests.stack.up import Up, get

AGENT = "order-agent"
FRAMEWORK = "pydantic-ai-slim[openai]"
STUCK = 12
"""Tasks at once; ten that loop page."""

PROGRAM = f"""
import asyncio
import sys

from agent_oncall import Config, Cut, Runtime, Stamps
from pydantic_ai import UsageLimits
from pydantic_graph import End

provider.add_span_processor(Stamps())
defaults = Config(
    model="gpt-4o-mini-2024-07-18", provider="openai", prompt="orders", prompt_version="1.0.0", max_iter=1000,
    prompt_text="Help with orders.",
)
state = sys.argv[1]
runtime = Runtime(agent="{AGENT}", state=state, last_good=state + ".last", defaults=defaults, instrumented=True)
agent = Agent("openai-chat:" + defaults.model, name="{AGENT}", instructions=defaults.prompt_text)
works = True

@agent.tool_plain
def lookup_order(order: int) -> str:
    return '{{"order": 7, "status": "shipped"}}' if works else '{{"order": 7, "sta'

async def ask(user):
    try:
        async with (
            runtime.task(user, task_type="order") as task,
            agent.iter("Where is order 7?", usage_limits=UsageLimits(request_limit=None)) as run,
        ):
            node = run.next_node
            while not isinstance(node, End):
                if Agent.is_model_request_node(node):
                    async with task.iteration():
                        node = await run.next(node)
                else:
                    node = await run.next(node)
            task.finish(success=True)
            return "answered"
    except Cut as cut:
        return cut.why

async def work():
    global works
    for number in range(3):
        print(await ask(f"user-{{number}}"))
    works = False
    print(*await asyncio.gather(*(ask(f"stuck-{{number}}") for number in range({STUCK}))), sep="\\n")

asyncio.run(asyncio.wait_for(work(), 150))
provider.shutdown()
"""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not (servers.find(servers.COLLECTOR) and servers.find(servers.JAEGER)),
        reason="no Collector or no Jaeger here: tools/servers otelcol jaeger builds them",
    ),
    pytest.mark.skipif(shutil.which("uv") is None, reason="the framework is installed by uv"),
]


def until_the_order_is_known(messages: list[Message]) -> Message:
    """An LLM that asks for the order until it gets JSON. It takes a second to answer."""
    time.sleep(1)
    last = messages[-1]
    if last["role"] == "tool":
        try:
            return {"role": "assistant", "content": f"It is {json.loads(last['content'])['status']}."}
        except ValueError:
            pass
    asked = {"name": "lookup_order", "arguments": '{"order": 7}'}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call-{len(messages)}", "type": "function", "function": asked}],
    }


@dataclass(frozen=True)
class Told:
    """What was there in the end: what became of each task, the pager's messages, an exemplar's trace, the report."""

    became: list[str]
    pages: list[dict[str, Any]]
    trace: str
    spans: list[dict[str, Any]]
    report: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("framework")
    state = folder / "data" / "state" / "flags.json"
    version = ["--model", "gpt-4o-mini-2024-07-18", "--provider", "openai", "--prompt", "orders@1.0.0"]
    made = ["--agent", AGENT, *version, "--max-iter", "1000", "--reason", "first version"]
    assert main(["state", "init", "--state", str(state), *made]) == 0
    up = Up(folder, "--no-demo", "--data", str(folder / "data"), AGENT_ONCALL_CONTROLLER_ACTIONS__BREAKER="act")
    try:
        up.until("ready: agents send OTLP")
        became = played(folder, state, f"127.0.0.1:{up.ports.otlp_grpc}")
        trace = exemplar(up)
        (found,) = get(f"http://127.0.0.1:{up.ports.jaeger}/api/traces/{trace}")["data"]
        pages = get(f"http://127.0.0.1:{up.ports.pager}/api/pages")["messages"]
        yield Told(became, pages, trace, found["spans"], reported(up, folder / "report.md", state))
    finally:
        up.process.terminate()
        up.ended()


def played(folder: Path, state: Path, otlp: str) -> list[str]:
    """What became of the agent's tasks, from its first to when all that looped were cut."""
    program = folder / "agent.py"
    program.write_text("\n".join([blocks()["all"], blocks()[FRAMEWORK], PROGRAM]), encoding="utf-8")
    with serving(until_the_order_is_known, prompt_tokens=8000, completion_tokens=80) as llm:
        done = subprocess.run(
            [*command([FRAMEWORK], program), str(state)],
            env={**environ(AGENT, llm, otlp), "PYTHONPATH": str(Path(__file__).parents[2])},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


def exemplar(up: Up) -> str:
    """The trace of a task that looped, from the exemplar of the series that counts them; once all is scraped."""
    prometheus = f"http://127.0.0.1:{up.ports.prometheus}/api/v1"
    ended = f'sum(agent_tasks_total{{agent="{AGENT}"}}) == {3 + STUCK}'
    trip = f'agent_breaker_trips_total{{agent="{AGENT}",why="fleet"}} > 0'
    all_scraped = urllib.parse.quote(f"{ended} and on () {trip}")
    looped = urllib.parse.quote(f'agent_tasks_looped_total{{agent="{AGENT}"}}')
    found: list[Any] = []
    while not (found and get(f"{prometheus}/query?query={all_scraped}&time={int(time.time())}")["data"]["result"]):
        assert up.process.poll() is None, up.said()
        time.sleep(0.5)
        between = f"start={time.time() - 600}&end={time.time()}"
        found = get(f"{prometheus}/query_exemplars?query={looped}&{between}")["data"]
    return str(found[0]["exemplars"][-1]["labels"]["trace_id"])


def reported(up: Up, file: Path, state: Path) -> str:
    at = "http://127.0.0.1"
    addresses = [f"--prometheus={at}:{up.ports.prometheus}", f"--alertmanager={at}:{up.ports.alertmanager}"]
    jaeger = f"{at}:{up.ports.jaeger}"
    links = [f"--traces-url={jaeger}/search?service={{agent}}", f"--trace-url={jaeger}/trace/{{trace}}"]
    of = ["--alert", "AgentRunawayLoop", "--agent", AGENT, "--since", "10m", "--state", str(state)]
    assert main(["incident", *of, *addresses, *links, "--output", str(file)]) == 0
    return file.read_text(encoding="utf-8")


def test_the_loop_pages(told: Told) -> None:
    pages = [page for page in told.pages if page["action"] == "trigger"]

    assert [page["service"] for page in pages] == ["pagerduty"]
    assert f"{AGENT}:" in pages[0]["summary"]
    assert "loop" in pages[0]["summary"]


def test_ordinary_tasks_are_answered_and_the_breaker_of_the_fleet_cuts_all_that_loop(told: Told) -> None:
    assert told.became == ["answered"] * 3 + ["fleet"] * STUCK


def test_a_metrics_exemplar_leads_to_the_trace_in_jaeger(told: Told) -> None:
    tags = [{tag["key"]: tag["value"] for tag in span["tags"]} for span in told.spans]

    assert "agent.task" in {span["operationName"] for span in told.spans}
    assert sum(tag.get("gen_ai.tool.name") == "lookup_order" for tag in tags) >= 3
    assert {tag["oncall.agent"] for tag in tags} == {AGENT}


@pytest.mark.parametrize(
    "said",
    [
        f"# AgentRunawayLoop: {AGENT}",
        "**`AgentRunawayLoop` fires**",
        "the breaker of all of the agent's processes opened",
        f"; {STUCK} looped.",
        f"| ended: abandoned | `max_iterations` | {STUCK} |",
        "| `lookup_order` |",
        f"{AGENT}.breaker.defaultVariant: closed → open",
        "In force now: on, breaker open",
        "for `controller`, `pagerduty`: ",
    ],
)
def test_the_report_tells_what_happened(told: Told, said: str) -> None:
    assert said in told.report


def test_the_report_links_to_the_trace(told: Told) -> None:
    assert f"/trace/{told.trace})" in told.report
