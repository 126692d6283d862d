"""State files for tests, made as the controller makes them."""

import json
from dataclasses import replace
from pathlib import Path

from agent_oncall import schema
from agent_oncall.schema import Agent, AgentConfig, Breaker, Bundle, Enabled, Experiment, State

STABLE = Bundle("gpt-4o-2024-08-06", "openai", "support", "1.9.0", 0.2, 12, "v3")
CANARY = replace(STABLE, model="gpt-4o-2024-11-20", prompt_version="1.10.0", temperature=0.4)
BACKUP = replace(STABLE, model="claude-sonnet-4-5-20250929", provider="anthropic")
ROLLOUT = {"rollout": "r12", "salt": "r12-6f3a", "stage": "5", "stage_started": "2026-01-01T00:00:00Z"}


def state(
    generation: int = 1,
    *,
    canary_below: int = 0,
    default: str = "stable",
    breaker: Breaker | None = None,
    enabled: Enabled | None = None,
    agent: str = "support",
    **experiments: Experiment,
) -> State:
    config = AgentConfig(
        {"stable": STABLE, "canary": CANARY, "backup": BACKUP}
        if canary_below
        else {"stable": STABLE, "backup": BACKUP},
        "backup" if default == "backup" else "stable",
        canary_below,
        ROLLOUT if canary_below else {},
    )
    return State(generation, {agent: Agent(config, breaker, enabled, experiments)})


def write(path: Path, content: State) -> None:
    """As the controller does: a new file in the old one's place."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(schema.document(content)), encoding="utf-8")
    new.replace(path)
