"""What can be done to an agent: pure functions from a state to the next one.

Each is safe to repeat: where the state is as asked already, it is returned unchanged. Refused says why one can't be.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Literal

from agent_oncall.schema import (
    Agent,
    AgentConfig,
    Breaker,
    BreakerState,
    Bundle,
    Enabled,
    Experiment,
    Scalar,
    State,
    StateError,
    Variant,
    document_bundle,
    parse_bundle,
)
from controller.store import Entry

PART: Mapping[str, tuple[str, ...]] = {"prompt": ("prompt", "prompt_version"), "model": ("provider", "model")}
"""What `restore` goes back by: the keys of a version that have to differ."""
_PART_OF = {key: part for part, keys in PART.items() for key in keys} | {"pinned": "model"}


class Refused(Exception):
    """The action can't be taken, and nothing was changed. The text says why and what to do."""


class UnknownAgent(Refused):
    """The state has no such agent."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"
        super().__init__(f"agent {name!r}: nobody of that name is in the state; {hint}")


def agent_of(state: State, name: str) -> Agent:
    """What the state says of an agent, or UnknownAgent."""
    try:
        return state.agents[name]
    except KeyError:
        raise UnknownAgent(name, state.agents) from None


def config_of(state: State, name: str) -> AgentConfig:
    """An agent's versions; Refused if there are none."""
    config = agent_of(state, name).config
    if config is None:
        raise Refused(f"agent {name}: the state has no version of it; agent-oncall state init --agent {name} adds one")
    return config


def with_agent(state: State, name: str, agent: Agent) -> State:
    """The state with this agent in place of what it said of it."""
    return replace(state, agents={**state.agents, name: agent})


def with_config(state: State, name: str, config: AgentConfig) -> State:
    """The state with these versions of the agent."""
    return with_agent(state, name, replace(agent_of(state, name), config=config))


def add_agent(state: State, name: str, bundle: Bundle) -> State:
    """A new agent: one version, breaker closed, on. Refused if it is there with another version."""
    known = state.agents.get(name)
    if known is not None and known.config is not None:
        if known.config.variants["stable"] == bundle:
            return state
        raise Refused(f"agent {name}: is there already; a new version comes by agent-oncall rollout start")
    known = known or Agent()
    return with_agent(
        state,
        name,
        replace(
            known,
            config=AgentConfig({"stable": bundle}),
            breaker=known.breaker or Breaker(),
            enabled=known.enabled or Enabled(),
        ),
    )


def set_backup(state: State, name: str, bundle: Bundle) -> State:
    """The version to run while the provider is out."""
    config = config_of(state, name)
    return with_config(state, name, replace(config, variants={**config.variants, "backup": bundle}))


def set_breaker(
    state: State, name: str, to: BreakerState, *, since: str, why: str, share: float | None = None
) -> State:
    """The breaker open, half open or closed. `share` is what is let through half open, in percent of users."""
    agent = agent_of(state, name)
    breaker = agent.breaker or Breaker()
    wanted = breaker.share if share is None else share
    if breaker.state == to and breaker.share == wanted:
        return state
    metadata: dict[str, Scalar] = {"since": since, "why": why, "share": wanted}
    return with_agent(state, name, replace(agent, breaker=Breaker(to, metadata)))


def switch(state: State, name: str, *, on: bool, since: str, why: str) -> State:
    """The agent on, or off: its callers then use what they have without it."""
    agent = agent_of(state, name)
    if (agent.enabled or Enabled()).on == on:
        return state
    return with_agent(state, name, replace(agent, enabled=Enabled(on, {"since": since, "why": why})))


def to_backup(state: State, name: str) -> State:
    """All users on the backup provider. A rollout waits meanwhile."""
    config = config_of(state, name)
    if config.default == "backup":
        return state
    if "backup" not in config.variants:
        raise Refused(f"agent {name}: has no backup provider; agent-oncall state backup --agent {name} sets one")
    return with_config(state, name, replace(config, default="backup", canary_below=0))


def restore(
    state: State,
    name: str,
    part: Literal["prompt", "model"],
    history: Iterable[Entry],
    to: str | None = None,
    *,
    now: str,
    also: Mapping[str, object] | None = None,
) -> State:
    """The latest earlier version of the agent whose prompt, or model, is another: all of it, as it ran then.

    `to` is the prompt's version or the model's name wanted, `also` what else is (provider, pinned); if that never ran,
    only these keys change, and the provider with them where the model is the backup's. A running rollout ends, since
    what it is compared with changes, and so do A/B tests that set what is put back: their users would not be reached.
    """
    agent, config = agent_of(state, name), config_of(state, name)
    stable = config.variants["stable"]
    earlier = earlier_versions(name, stable, history)

    def key(bundle: Bundle) -> tuple[object, ...]:
        return tuple(getattr(bundle, part_key) for part_key in PART[part])

    if to is None:
        found = next((bundle for bundle in earlier if key(bundle) != key(stable)), None)
        if found is None and overriding(agent, {part}):
            found = stable
        if found is None:
            raise Refused(
                f"agent {name}: no earlier version with another {part} ever ran; name one by --to, or switch the agent "
                f"off: agent-oncall rollback off --agent {name}"
            )
    else:
        wanted = {PART[part][-1]: to, **(also or {})}

        def fits(bundle: Bundle) -> bool:
            same = part == "model" or bundle.prompt == stable.prompt
            return same and all(getattr(bundle, key) == value for key, value in wanted.items())

        found = stable if fits(stable) else next(filter(fits, earlier), None)
        backup = config.variants.get("backup")
        if found is None and backup is not None and part == "model" and fits(backup):
            wanted = {"model": backup.model, "provider": backup.provider, "pinned": backup.pinned}
        found = found or _changed(stable, wanted)
    for experiment in overriding(agent, {part} | changed_parts(stable, found)):
        state = stop_experiment(state, name, experiment, now=now)
    if found == stable:
        return state
    variants: dict[Variant, Bundle] = {**without_canary(config), "stable": found}
    return with_config(
        state,
        name,
        replace(config, variants=variants, canary_below=0, metadata=after_rollout(config, "replaced")),
    )


def changed_parts(before: Bundle, after: Bundle) -> set[str]:
    """What differs between two versions: `prompt` and `model` whatever of them does, else the key."""
    return parts(key.name for key in fields(Bundle) if getattr(before, key.name) != getattr(after, key.name))


def parts(keys: Iterable[str]) -> set[str]:
    """The parts of a version that these keys say: a prompt's name and its version are one, so are a model's."""
    return {_PART_OF.get(key, key) for key in keys}


def overriding(agent: Agent, what: set[str]) -> list[str]:
    """The running A/B tests that set any of these parts of a version, by name."""
    return [
        name
        for name, experiment in sorted(agent.experiments.items())
        if experiment.running and parts((*experiment.a, *experiment.b)) & what
    ]


def stopped_experiments(entry: Entry) -> list[str]:
    """The A/B tests that a change ended, by name."""

    def state_of(flag: object) -> object:
        return flag.get("state") if isinstance(flag, Mapping) else None

    return [
        key.partition(f"{entry.agent}.ab.")[2]
        for key, flag in entry.after.items()
        if key.startswith(f"{entry.agent}.ab.")
        and (state_of(entry.before.get(key)), state_of(flag)) == ("ENABLED", "DISABLED")
    ]


def without_canary(config: AgentConfig) -> dict[Variant, Bundle]:
    """The versions that stay when a rollout has ended."""
    return {variant: bundle for variant, bundle in config.variants.items() if variant != "canary"}


def after_rollout(config: AgentConfig, how: str) -> dict[str, Scalar]:
    """What is kept of a rollout's metadata when it has ended: its name, and how it ended."""
    return {"last_rollout": config.rollout, "last_rollout_ended": how} if config.rollout else dict(config.metadata)


def earlier_versions(name: str, now: Bundle, history: Iterable[Entry]) -> list[Bundle]:
    """Versions that ran for all users before the present one, the latest first.

    A version that was gone back to counts where it first stood: going back twice leads to the one before it, not to the
    one that was left.
    """
    stack: list[Bundle] = []
    key = f"{name}.config"
    for entry in _in_effect(history):
        for flags in (entry.before, entry.after):
            bundle = _stable(flags.get(key))
            if bundle is None:
                continue
            if bundle in stack:
                del stack[stack.index(bundle) + 1 :]
                continue
            if stack and flags is entry.after and entry.action.startswith("rollback"):
                stack.pop()  # what was left was bad
            stack.append(bundle)
    if now in stack:
        del stack[stack.index(now) :]
    return stack[::-1]


def _in_effect(history: Iterable[Entry]) -> list[Entry]:
    """The changes that were not taken back; those that took one back are left out with it."""
    found: list[Entry] = []
    undone: set[str] = set()
    for entry in reversed(list(history)):
        if entry.void or entry.id in undone:
            continue
        if entry.action.startswith("undo "):
            undone.add(entry.action.removeprefix("undo "))
        else:
            found.append(entry)
    return found[::-1]


def start_experiment(state: State, name: str, experiment: str, wanted: Experiment, history: Iterable[Entry]) -> State:
    """A new A/B test. Refused if one of that name was there before, by the state or the log (its start may have been
    undone): users and records would mix with the new ones. Refused while a rollout or another test sets the same part
    of the version: each would be in both sides of the other."""
    agent = agent_of(state, name)
    flag = f"{name}.ab.{experiment}"
    if experiment in agent.experiments or any(flag in entry.after and not entry.void for entry in history):
        raise Refused(f"experiment {experiment}: there was one of that name; give the new one another")
    sets = parts((*wanted.a, *wanted.b))
    for other in overriding(agent, sets):
        raise Refused(
            f"experiment {experiment}: experiment {other} runs and sets some of the same ({', '.join(sorted(sets))}), "
            f"so one would hide the other; end it first: agent-oncall ab stop --agent {name} --experiment {other}"
        )
    config = agent.config
    if config is not None and "canary" in config.variants:
        both = sets & changed_parts(config.variants["stable"], config.variants["canary"])
        if both:
            raise Refused(
                f"experiment {experiment}: rollout {config.rollout} runs and sets the {', '.join(sorted(both))} too, "
                f"so one would hide the other; end it first: agent-oncall rollout back --agent {name}"
            )
    return with_agent(state, name, replace(agent, experiments={**agent.experiments, experiment: wanted}))


def check_apart(before: State, after: State) -> None:
    """Refused if a change brings a rollout and an A/B test, or two tests, of the same together, as an undo may."""
    for name, one, other in sorted(_together(after) - _together(before)):
        raise Refused(f"agent {name}: {one} and {other} would run at once and set the same; end one of them first")


def _together(state: State) -> set[tuple[str, str, str]]:
    """Agent, and what of its rollout and tests sets the same as a test does."""
    found: set[tuple[str, str, str]] = set()
    for name, agent in state.agents.items():
        running: list[tuple[str, set[str]]] = []
        config = agent.config
        if config is not None and "canary" in config.variants:
            differs = changed_parts(config.variants["stable"], config.variants["canary"])
            running.append((f"rollout {config.rollout}", differs))
        for test, experiment in sorted(agent.experiments.items()):
            if experiment.running:
                sets = parts((*experiment.a, *experiment.b))
                found |= {(name, other, f"experiment {test}") for other, theirs in running if theirs & sets}
                running.append((f"experiment {test}", sets))
    return found


def stop_experiment(state: State, name: str, experiment: str, *, now: str) -> State:
    """The A/B test ended: all users get arm a's configuration, that is their own."""
    agent = agent_of(state, name)
    found = agent.experiments.get(experiment)
    if found is None:
        known = ", ".join(sorted(agent.experiments)) or "none"
        raise Refused(f"experiment {experiment!r}: agent {name} has no such; there are {known}")
    if not found.running:
        return state
    ended = replace(found, running=False, metadata={**found.metadata, "stopped": now})
    return with_agent(state, name, replace(agent, experiments={**agent.experiments, experiment: ended}))


def changed_version(bundle: Bundle, changes: Mapping[str, object]) -> Bundle:
    """The version with these keys changed; Refused if it is none, or no other."""
    found = _changed(bundle, changes)
    if found == bundle:
        raise Refused("the new version is the one that runs: say what is different, by --model, --prompt-version, ...")
    return found


def _changed(bundle: Bundle, changes: Mapping[str, object]) -> Bundle:
    content: dict[str, object] = {**document_bundle(bundle), **changes}
    if "model" in changes and "pinned" not in changes:
        content.pop("pinned", None)  # that was said of another model
    try:
        return parse_bundle("", content)
    except StateError as error:
        raise Refused(f"{error.key.lstrip('.')}: {error.problem}") from error


def _stable(flag: object) -> Bundle | None:
    if not isinstance(flag, Mapping):
        return None
    try:
        return parse_bundle("", flag["variants"]["stable"], strict=False)
    except (KeyError, TypeError, StateError):
        return None
