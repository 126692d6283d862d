"""The simulated agents in a controller's state, so that its dry run says what it would do about them.

As a program, for Docker Compose: python -m stack.demo_state STATE_FILE
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent_oncall.schema import Bundle, State
from controller import actions
from controller.store import Store, StoreError
from demo.scenarios import AGENTS, RESEARCH, SUPPORT, Agent

_WHO, _WHY = "agent-oncall up", "the simulated agents"


def make(path: Path) -> bool:
    """Makes a state of the simulated agents where there is none; one that is or was there is a person's and stays.

    StoreError if it can't be written.
    """
    store = Store(path)
    if store.begun:
        return False
    store.create(who=_WHO, why=_WHY)
    for agent in AGENTS:
        store.change(partial(_with, agent=agent), action="state init", agent=agent.name, who=_WHO, why=_WHY)
    return True


def _with(state: State, agent: Agent) -> State:
    bundle = Bundle(
        agent.model, _provider(agent.model), agent.name, "1.0.0", temperature=0.0, max_iter=25, tool_schema=""
    )
    other = RESEARCH.model if bundle.provider == _provider(SUPPORT.model) else SUPPORT.model
    backup = replace(bundle, model=other, provider=_provider(other))
    return actions.set_backup(actions.add_agent(state, agent.name, bundle), agent.name, backup)


def _provider(model: str) -> str:
    return "anthropic" if model.startswith("claude") else "openai"


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]))
    except StoreError as error:
        sys.exit(str(error))
