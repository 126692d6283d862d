"""The example of docs/runtime.md is an agent that runs."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent_oncall.metrics import REFUSALS, TRIPS
from agent_oncall.schema import Breaker
from tests.agent_oncall import states
from tests.agent_oncall.conftest import World

PAGE = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text("utf-8")


def agent(world: World, answers: list[SimpleNamespace]) -> dict[str, Any]:
    """The names that the example defines, with a model that gives these answers."""
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    code = code.replace('"/state/flags.json"', repr(str(world.state_file)))
    code = code.replace('"/prompts"', repr(str(world.prompts)))
    names: dict[str, Any] = {
        "call_model": lambda *_: answers.pop(0),
        "run_tool": lambda asked: {"role": "tool", "content": json.dumps(asked.arguments)},
        "reached_its_goal": lambda _: True,
        "rule_based_answer": lambda _: "Please call us.",
    }
    exec(code, names)
    return names


def answer(*tools: str, text: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        model="gpt-4o-2024-08-06",
        input_tokens=100,
        output_tokens=10,
        stop_reason="tool_use" if tools else "end_turn",
        tool_calls=[SimpleNamespace(name=name, arguments={"order": 7}) for name in tools],
        text=text,
    )


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


REQUEST = SimpleNamespace(user_id="u1", text="Where is my order?")


def test_the_example_answers(world: World) -> None:
    names = agent(world, [answer("lookup"), answer(text="On its way.")])

    assert names["handle"](REQUEST) == "On its way."


def test_the_example_falls_back_while_the_breaker_is_open(world: World) -> None:
    states.write(world.state_file, states.state(1, breaker=Breaker("open")))
    names = agent(world, [])

    assert names["handle"](REQUEST) == "Please call us."


def test_the_page_knows_every_reason() -> None:
    assert all(f"`{why}`" in PAGE for why in (*TRIPS, *REFUSALS))
