"""States and stores for tests."""

from pathlib import Path

from agent_oncall.schema import Bundle, State
from controller import actions
from controller.store import Store

BUNDLE = Bundle(
    model="gpt-4o-2024-08-06",
    provider="openai",
    prompt="support",
    prompt_version="1.9.0",
    temperature=0.0,
    max_iter=25,
    tool_schema="v1",
)
BACKUP = Bundle(
    model="claude-sonnet-4-5-20250929",
    provider="anthropic",
    prompt="support",
    prompt_version="1.9.0",
    temperature=0.0,
    max_iter=25,
    tool_schema="v1",
)
START = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def new_store(folder: Path, clock: Clock | None = None, agent: str = "support") -> Store:
    """A store with one agent that has a backup."""
    store = Store(folder / "flags.json", clock=clock or Clock())
    store.create(who="ann", why="made")

    def add(state: State) -> State:
        return actions.set_backup(actions.add_agent(state, agent, BUNDLE), agent, BACKUP)

    store.change(add, action="state init", agent=agent, who="ann", why="first version")
    return store
