"""A rollout's steps: pure functions from a state to the next one. What the verdict is, and who may overrule it, is
decided by who calls them."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from agent_oncall.bucket import BUCKETS
from agent_oncall.schema import AgentConfig, Bundle, Scalar, State, Variant, parse_time
from controller.actions import (
    Refused,
    after_rollout,
    agent_of,
    changed_parts,
    config_of,
    overriding,
    with_config,
    without_canary,
)
from controller.plan import BadPlan, Plan, Stage
from controller.store import Entry, iso

AutoRollback = Literal["hard", "any", "off"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A running rollout, as the state's metadata tells it. Times are unix seconds."""

    agent: str
    id: str
    stage: str
    stage_started: float
    plan: Plan
    auto_rollback: AutoRollback
    auto_promote: bool
    paused: bool
    """The backup provider is in use: nobody gets the canary."""

    @classmethod
    def of(cls, agent: str, config: AgentConfig | None) -> Self | None:
        """The rollout that runs for an agent; None if none does. Refused if its metadata can't be understood."""
        if config is None or "canary" not in config.variants or not config.rollout:
            return None
        metadata = config.metadata
        began = parse_time(str(metadata.get("stage_started", "")))
        try:
            plan = Plan.parse(
                str(metadata.get("plan", "")) or "5,10,25,50",
                hold_hours=float(metadata.get("hold_hours", 24)),
                look_hours=float(metadata.get("look_hours", 24)),
            )
            float(config.stage)
        except (BadPlan, ValueError) as error:
            raise Refused(f"flags.{agent}.config.metadata: {error}") from error
        if began is None:
            raise Refused(f"flags.{agent}.config.metadata.stage_started: a time such as 2026-01-01T00:00:00Z is needed")
        auto = str(metadata.get("auto_rollback", "hard"))
        return cls(
            agent,
            config.rollout,
            config.stage,
            began.timestamp(),
            plan,
            auto if auto in ("any", "off") else "hard",  # type: ignore[arg-type]
            metadata.get("auto_promote") is True,
            config.default != "stable",
        )

    @property
    def percent(self) -> float:
        return float(self.stage)

    @property
    def current(self) -> Stage | None:
        """The stage it is in; None at 0 %."""
        return self.plan.at(self.stage)


def rollout_of(state: State, agent: str) -> Rollout:
    """The rollout that runs for an agent, or Refused."""
    found = Rollout.of(agent, config_of(state, agent))
    if found is None:
        raise Refused(f"agent {agent}: no rollout runs; agent-oncall rollout start --agent {agent} begins one")
    return found


def taken_back(history: Iterable[Entry], rollout: Rollout) -> Entry | None:
    """The change by which a person took back an automatic rollback of this rollout; None if nobody did."""
    key, automatic = f"{rollout.agent}.config", set()
    for entry in history:
        if entry.void:
            continue
        if entry.action == "rollout back" and entry.trigger is not None and _of(entry.before.get(key)) == rollout.id:
            automatic.add(f"undo {entry.id}")
        elif entry.action in automatic:
            return entry
    return None


def _of(flag: object) -> object:
    return flag["metadata"].get("rollout") if isinstance(flag, Mapping) else None


def start(
    state: State,
    agent: str,
    canary: Bundle,
    plan: Plan,
    *,
    now: float,
    auto_rollback: AutoRollback = "hard",
    auto_promote: bool = False,
) -> State:
    """A rollout of `canary` in its first stage. Its salt is its own: other users go first than the last time."""
    config = config_of(state, agent)
    if (running := Rollout.of(agent, config)) is not None:
        raise Refused(
            f"agent {agent}: rollout {running.id} runs, at {running.stage} %; end it by agent-oncall rollout back first"
        )
    if config.default != "stable":
        raise Refused(
            f"agent {agent}: is on its backup provider; end that first: agent-oncall rollback provider --back"
        )
    sets = changed_parts(config.variants["stable"], canary)
    for experiment in overriding(agent_of(state, agent), sets):
        raise Refused(
            f"agent {agent}: experiment {experiment} runs and sets some of the same ({', '.join(sorted(sets))}), so "
            f"its users would be on both; end it first: agent-oncall ab stop --agent {agent} --experiment {experiment}"
        )
    name = f"r{state.generation + 1}"
    metadata: dict[str, Scalar] = {
        "rollout": name,
        "salt": f"{name}-{secrets.token_hex(4)}",
        "started": iso(now),
        "plan": str(plan),
        "hold_hours": plan.hold_hours,
        "look_hours": plan.look_hours,
        "auto_rollback": auto_rollback,
        "auto_promote": auto_promote,
    }
    config = replace(config, variants={**config.variants, "canary": canary}, metadata=metadata)
    return _to(state, agent, config, plan.stages[0], now)


def advance(state: State, agent: str, *, now: float, to: float | None = None, stage: str | None = None) -> State:
    """The next stage, or the one of `to` percent; after the last the canary is stable.

    `stage` is the one that was judged: if the rollout has moved on since, nothing changes.
    """
    rollout = rollout_of(state, agent)
    config = config_of(state, agent)
    if stage is not None and rollout.stage != stage:
        return state
    if rollout.paused:
        raise Refused(
            f"agent {agent}: is on its backup provider; end that first: agent-oncall rollback provider --back"
        )
    if to is None:
        following = rollout.plan.after(rollout.percent)
    elif to == 100:
        following = None
    else:
        following = rollout.plan.at(f"{to:g}")
        if following is None or to <= rollout.percent:
            stages = ", ".join(s.name for s in rollout.plan.stages if s.percent > rollout.percent)
            raise Refused(
                f"rollout {rollout.id}: {to:g} is no later stage of it; there are {stages + ', ' if stages else ''}100"
            )
    if following is not None:
        return _to(state, agent, config, following, now)
    variants: dict[Variant, Bundle] = {**without_canary(config), "stable": config.variants["canary"]}
    return with_config(
        state, agent, replace(config, variants=variants, canary_below=0, metadata=after_rollout(config, "complete"))
    )


def back(state: State, agent: str) -> State:
    """All users on stable, the rollout ended. Without a rollout nothing changes."""
    config = config_of(state, agent)
    if "canary" not in config.variants:
        return state
    ended = after_rollout(config, "rolled back")
    return with_config(state, agent, replace(config, variants=without_canary(config), canary_below=0, metadata=ended))


def off_backup(state: State, agent: str) -> State:
    """All users off the backup provider: on what runs now, and on the canary again where its rollout waited."""
    config = config_of(state, agent)
    if config.default != "backup":
        return state
    waited = Rollout.of(agent, config)
    below = _below(waited.percent) if waited is not None else 0
    return with_config(state, agent, replace(config, default="stable", canary_below=below))


def _below(percent: float) -> int:
    return round(percent * BUCKETS / 100)


def _to(state: State, agent: str, config: AgentConfig, stage: Stage, now: float) -> State:
    metadata = {**config.metadata, "stage": stage.name, "stage_started": iso(now)}
    return with_config(state, agent, replace(config, canary_below=_below(stage.percent), metadata=metadata))
