"""The state file: what the controller writes and agents read. A flags file of flagd, of this shape and no other.

`loads()` and `parse()` name the key that is wrong; `document()` is their inverse. Other kinds of flags are kept.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias, cast

from agent_oncall.bucket import BUCKETS
from agent_oncall.models import UnpinnedModel, check_pin
from agent_oncall.prompts import PromptError, check_name, check_version

SCHEMA = "https://flagd.dev/schema/v0/flags.json"

Scalar: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Mapping[str, Scalar]
Variant: TypeAlias = Literal["stable", "canary", "backup"]
BreakerState: TypeAlias = Literal["closed", "half_open", "open"]
Arm: TypeAlias = Literal["a", "b"]

BREAKER_STATES: tuple[BreakerState, ...] = ("closed", "half_open", "open")
DEFAULT_SHARE = 1.0
"""Percent of users that a half-open breaker lets through."""

_AGENT = re.compile(r"[A-Za-z0-9_.:/@-]{1,100}")
# A dot would part the name of the experiment's bucket in flagd's evaluation context.
_EXPERIMENT = re.compile(r"[A-Za-z0-9_-]{1,60}")
_KINDS = ("config", "breaker", "enabled")
_MOST_ITERATIONS = 10_000


class StateError(ValueError):
    """The state is not of the shape; `key` says where, `problem` what is wrong there."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Bundle:
    """A version of an agent: what is rolled out, and rolled back, together."""

    model: str
    provider: str
    prompt: str
    prompt_version: str
    temperature: float
    max_iter: int
    tool_schema: str
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """AGENT.config. Users whose bucket under `salt` is below `canary_below` get the canary; all others `default`."""

    variants: Mapping[Variant, Bundle]
    default: Literal["stable", "backup"] = "stable"
    canary_below: int = 0
    metadata: Metadata = field(default_factory=dict)

    @property
    def rollout(self) -> str:
        """The id of the rollout, empty where none runs."""
        return str(self.metadata.get("rollout", ""))

    @property
    def salt(self) -> str:
        return str(self.metadata.get("salt", ""))

    @property
    def stage(self) -> str:
        return str(self.metadata.get("stage", ""))


@dataclass(frozen=True, slots=True)
class Breaker:
    """AGENT.breaker, for all of an agent's processes. `share` is in percent of users, and of use while half open."""

    state: BreakerState = "closed"
    metadata: Metadata = field(default_factory=dict)

    @property
    def since(self) -> str:
        return str(self.metadata.get("since", ""))

    @property
    def why(self) -> str:
        return str(self.metadata.get("why", ""))

    @property
    def share(self) -> float:
        return float(self.metadata.get("share", DEFAULT_SHARE))


@dataclass(frozen=True, slots=True)
class Enabled:
    """AGENT.enabled: where it is off, the agent's callers use what they have without it."""

    on: bool = True
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experiment:
    """AGENT.ab.EXPERIMENT. Users whose bucket under `salt` is below `b_below` are arm b. The arms hold the keys of a
    bundle that differ."""

    running: bool
    a: Mapping[str, Scalar] = field(default_factory=dict)
    b: Mapping[str, Scalar] = field(default_factory=dict)
    b_below: int = BUCKETS // 2
    metadata: Metadata = field(default_factory=dict)

    @property
    def salt(self) -> str:
        return str(self.metadata.get("salt", ""))


@dataclass(frozen=True, slots=True)
class Agent:
    """All that the state says of an agent; None where it says nothing."""

    config: AgentConfig | None = None
    breaker: Breaker | None = None
    enabled: Enabled | None = None
    experiments: Mapping[str, Experiment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """The whole file. `generation` grows with each change; `others` are flags that are not this project's."""

    generation: int = 0
    agents: Mapping[str, Agent] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=dict)
    others: Mapping[str, object] = field(default_factory=dict)


# -- reading -------------------------------------------------------------------------------------------------------


def loads(body: str | bytes, *, strict: bool = True) -> State:
    """The state in a file's content; StateError if it is none. See parse() for `strict`."""
    try:
        content = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError as error:
        raise StateError("", "not JSON of this shape: nested too deeply") from error
    except UnicodeDecodeError as error:
        raise StateError("", "not UTF-8") from error
    except StateError:
        raise
    except ValueError as error:
        raise StateError("", f"not JSON: {error}") from error
    return parse(content, strict=strict)


def parse(content: object, *, strict: bool = True) -> State:
    """The state in decoded JSON. `strict` refuses unknown keys in bundles and flags, as a writer must; a reader that
    is older than its writer does better without: it would not see the breaker open either."""
    reading = _Reading(strict)
    root = reading.mapping("", content)
    reading.only("", root, ("$schema", "$evaluators", "metadata", "flags"))
    metadata = reading.metadata("metadata", root.get("metadata"))
    generation = metadata.get("generation")
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 0:
        raise StateError("metadata.generation", f"a whole number is needed, not {generation!r}")
    parts: dict[str, dict[str, object]] = {}
    others: dict[str, object] = {}
    for key, flag in reading.mapping("flags", root.get("flags")).items():
        where = f"flags.{key}"
        match _flag_name(key):
            case None:
                others[key] = flag
            case agent, kind, experiment:
                if not _AGENT.fullmatch(agent):
                    raise StateError(where, "an agent's name has letters, digits and _ . : / @ -, at most 100")
                part = parts.setdefault(agent, {"experiments": {}})
                if kind == "ab":
                    cast(dict[str, Experiment], part["experiments"])[experiment] = reading.experiment(where, flag)
                else:
                    part[kind] = getattr(reading, kind)(where, flag)
    agents = {name: Agent(**part) for name, part in parts.items()}  # type: ignore[arg-type]
    rest = {key: value for key, value in metadata.items() if key != "generation"}
    return State(generation, agents, rest, others)


def parse_bundle(key: str, content: object, *, strict: bool = True) -> Bundle:
    """A bundle in decoded JSON; StateError, with `key` before the key that is wrong."""
    return _Reading(strict).bundle(key, content)


def _flag_name(key: str) -> tuple[str, str, str] | None:
    """A flag's agent, kind and experiment; None for a flag of another kind."""
    agent, _, kind = key.rpartition(".")
    if agent and kind in _KINDS:
        return agent, kind, ""
    agent, marker, experiment = key.rpartition(".ab.")
    if agent and marker and _EXPERIMENT.fullmatch(experiment):
        return agent, "ab", experiment
    return None


def check_experiment_name(name: str) -> None:
    """StateError unless an experiment may be called so."""
    if not _EXPERIMENT.fullmatch(name) or name in _KINDS:
        raise StateError(name, "an experiment's name has letters, digits, _ and -, at most 60, and is no flag's kind")


def _no_constant(name: str) -> object:
    raise StateError("", f"not JSON: {name} is no number")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise StateError(twice, "stands twice in one object")
    return found


class _Reading:
    """The shape, key by key."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def config(self, key: str, content: object) -> AgentConfig:
        flag = self.flag(key, content)
        variants: dict[Variant, Bundle] = {}
        for name, bundle in self.mapping(f"{key}.variants", flag.get("variants")).items():
            if name not in ("stable", "canary", "backup"):
                raise StateError(f"{key}.variants.{name}", "the variants are stable, canary and backup")
            variants[cast(Variant, name)] = self.bundle(f"{key}.variants.{name}", bundle)
        if "stable" not in variants:
            raise StateError(f"{key}.variants.stable", "is missing: it is what runs where nothing else does")
        default = flag.get("defaultVariant")
        if default not in ("stable", "backup") or default not in variants:
            raise StateError(f"{key}.defaultVariant", f"stable, or a backup that is there, not {default!r}")
        metadata = self.metadata(f"{key}.metadata", flag.get("metadata"))
        below = self.share(f"{key}.targeting", flag.get("targeting"), "bucket", "canary", "stable")
        if below is not None:
            if default != "stable":
                raise StateError(f"{key}.targeting", "has to be {} while the backup is the default")
            if "canary" not in variants:
                raise StateError(f"{key}.variants.canary", "is missing, and targeting sends users to it")
            for needed in ("rollout", "salt", "stage"):
                if not str(metadata.get(needed, "")):
                    raise StateError(f"{key}.metadata.{needed}", "is missing, and a rollout runs")
        return AgentConfig(variants, default, below or 0, metadata)

    def breaker(self, key: str, content: object) -> Breaker:
        flag = self.flag(key, content)
        self.exactly(f"{key}.variants", flag.get("variants"), {state: state for state in BREAKER_STATES})
        self.nothing(f"{key}.targeting", flag.get("targeting"))
        state = flag.get("defaultVariant")
        if state not in BREAKER_STATES:
            raise StateError(f"{key}.defaultVariant", f"closed, half_open or open, not {state!r}")
        metadata = self.metadata(f"{key}.metadata", flag.get("metadata"))
        share = metadata.get("share", DEFAULT_SHARE)
        if not _number(share) or not 0 <= float(share) <= 100:
            raise StateError(f"{key}.metadata.share", f"a share of users in percent, 0 to 100, not {share!r}")
        return Breaker(state, metadata)

    def enabled(self, key: str, content: object) -> Enabled:
        flag = self.flag(key, content)
        self.exactly(f"{key}.variants", flag.get("variants"), {"on": True, "off": False})
        self.nothing(f"{key}.targeting", flag.get("targeting"))
        state = flag.get("defaultVariant")
        if state not in ("on", "off"):
            raise StateError(f"{key}.defaultVariant", f"on or off, not {state!r}")
        return Enabled(state == "on", self.metadata(f"{key}.metadata", flag.get("metadata")))

    def experiment(self, key: str, content: object) -> Experiment:
        flag = self.flag(key, content, states=("ENABLED", "DISABLED"))
        name = key.rpartition(".")[2]
        variants = self.mapping(f"{key}.variants", flag.get("variants"))
        if set(variants) != {"a", "b"}:
            raise StateError(f"{key}.variants", "a and b are needed, and no other")
        if flag.get("defaultVariant") != "a":
            raise StateError(f"{key}.defaultVariant", f"a, not {flag.get('defaultVariant')!r}")
        below = self.share(f"{key}.targeting", flag.get("targeting"), f"bucket_{name}", "b", "a")
        metadata = self.metadata(f"{key}.metadata", flag.get("metadata"))
        if not str(metadata.get("salt", "")):
            raise StateError(f"{key}.metadata.salt", "is missing: users are split by it")
        return Experiment(
            flag.get("state") == "ENABLED",
            self.overrides(f"{key}.variants.a", variants["a"]),
            self.overrides(f"{key}.variants.b", variants["b"]),
            below or 0,
            metadata,
        )

    def bundle(self, key: str, content: object) -> Bundle:
        found = self.overrides(key, content)
        for needed in _BUNDLE:
            if needed not in found:
                raise StateError(f"{key}.{needed}", "is missing")
        return Bundle(**found)  # type: ignore[arg-type]

    def overrides(self, key: str, content: object) -> Mapping[str, Scalar]:
        """Some or all keys of a bundle, each checked."""
        given = self.mapping(key, content)
        self.only(key, given, (*_BUNDLE, "pinned"))
        found: dict[str, Scalar] = {}
        for name, wanted in (*_BUNDLE.items(), ("pinned", bool)):
            if name not in given:
                continue
            value = given[name]
            if wanted is float and _number(value):
                value = float(cast(float, value))
            if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
                raise StateError(f"{key}.{name}", f"{_KIND_NAMES[wanted]} is needed, not {value!r}")
            found[name] = cast(Scalar, value)
        try:
            if "model" in found:
                check_pin(str(found["model"]), pinned=found.get("pinned") is True)
        except UnpinnedModel as error:
            raise StateError(f"{key}.model", str(error)) from error
        try:
            if "prompt" in found:
                check_name(str(found["prompt"]))
            if "prompt_version" in found:
                check_version(str(found["prompt_version"]))
        except PromptError as error:
            raise StateError(f"{key}.prompt", str(error)) from error
        if not 0 <= float(found.get("temperature", 0)) <= 10:
            raise StateError(f"{key}.temperature", f"0 to 10, not {found['temperature']!r}")
        if not 1 <= int(found.get("max_iter", 1)) <= _MOST_ITERATIONS:
            raise StateError(f"{key}.max_iter", f"1 to {_MOST_ITERATIONS}, not {found['max_iter']!r}")
        return found

    def flag(self, key: str, content: object, states: tuple[str, ...] = ("ENABLED",)) -> Mapping[str, object]:
        flag = self.mapping(key, content)
        self.only(key, flag, ("state", "defaultVariant", "variants", "targeting", "metadata"))
        if flag.get("state") not in states:
            # flagd answers a disabled flag with the code's default: a disabled breaker would be a closed one.
            raise StateError(f"{key}.state", f"{' or '.join(states)}, not {flag.get('state')!r}")
        return flag

    def share(self, key: str, content: object, variable: str, inside: str, outside: str) -> int | None:
        """The bucket below which users are inside, by the one form of targeting there is; None for no targeting."""
        if content is None or content == {}:
            return None
        match content:
            case {"if": [{"<": [{"var": [name, most]}, below]}, yes, no]} if (
                (name, most, yes, no) == (variable, BUCKETS, inside, outside)
                and isinstance(below, int)
                and not isinstance(below, bool)
                and 0 <= below <= BUCKETS
                and content == _targeting(variable, below, inside, outside)
            ):
                return below
        raise StateError(
            key, f"{{}}, or {json.dumps(_targeting(variable, 5000, inside, outside))} with 0 to {BUCKETS} for 5000"
        )

    def nothing(self, key: str, content: object) -> None:
        if content not in (None, {}):
            raise StateError(key, "has to be {} or left out")

    def exactly(self, key: str, content: object, wanted: Mapping[str, Scalar]) -> None:
        if content != wanted:
            raise StateError(key, f"has to be {json.dumps(wanted)}")

    def metadata(self, key: str, content: object) -> dict[str, Scalar]:
        found = self.mapping(key, {} if content is None else content)
        for name, value in found.items():
            if not isinstance(value, (str, int, float, bool)):
                raise StateError(f"{key}.{name}", "a string, a number or a bool is needed: flagd takes no other")
        return cast(dict[str, Scalar], dict(found))

    def mapping(self, key: str, content: object) -> Mapping[str, object]:
        if not isinstance(content, dict):
            what = "nothing" if content is None else type(content).__name__
            raise StateError(key, f"a JSON object is needed, not {what}")
        return content

    def only(self, key: str, content: Mapping[str, object], known: tuple[str, ...]) -> None:
        if self.strict and (unknown := sorted(set(content) - set(known))):
            raise StateError(f"{key}.{unknown[0]}".lstrip("."), f"is unknown; there are {', '.join(known)}")


_BUNDLE: Mapping[str, type] = {
    "model": str,
    "provider": str,
    "prompt": str,
    "prompt_version": str,
    "temperature": float,
    "max_iter": int,
    "tool_schema": str,
}
_KIND_NAMES: Mapping[type, str] = {str: "a string", float: "a number", int: "a whole number", bool: "true or false"}


def _number(value: object) -> bool:
    """A number that a float holds; not NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e15 <= value <= 1e15


def parse_time(text: str) -> datetime | None:
    """A moment as metadata has it (ISO 8601 with an offset or Z); None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


# -- writing -------------------------------------------------------------------------------------------------------


def document(state: State) -> dict[str, object]:
    """The state as JSON to be, valid for flagd's file provider. parse() reads it back to an equal state."""
    flags: dict[str, object] = dict(state.others)
    for name, agent in state.agents.items():
        if agent.config is not None:
            flags[f"{name}.config"] = _config(agent.config)
        if agent.breaker is not None:
            states: dict[str, object] = {state: state for state in BREAKER_STATES}
            flags[f"{name}.breaker"] = _flag(agent.breaker.state, states, agent.breaker.metadata)
        if agent.enabled is not None:
            on = "on" if agent.enabled.on else "off"
            flags[f"{name}.enabled"] = _flag(on, {"on": True, "off": False}, agent.enabled.metadata)
        for key, experiment in agent.experiments.items():
            arms = {"a": dict(experiment.a), "b": dict(experiment.b)}
            flag = _flag("a", arms, experiment.metadata, _targeting(f"bucket_{key}", experiment.b_below, "b", "a"))
            flag["state"] = "ENABLED" if experiment.running else "DISABLED"
            flags[f"{name}.ab.{key}"] = flag
    return {"$schema": SCHEMA, "metadata": {**state.metadata, "generation": state.generation}, "flags": flags}


def document_bundle(bundle: Bundle) -> dict[str, Scalar]:
    """The bundle as JSON to be."""
    found: dict[str, Scalar] = {name: getattr(bundle, name) for name in _BUNDLE}
    if bundle.pinned:
        found["pinned"] = True
    return found


def _config(config: AgentConfig) -> dict[str, object]:
    variants: dict[str, object] = {name: document_bundle(bundle) for name, bundle in config.variants.items()}
    targeting = {}
    if config.default == "stable" and config.canary_below:
        targeting = _targeting("bucket", config.canary_below, "canary", "stable")
    return _flag(config.default, variants, config.metadata, targeting)


def _flag(
    default: str,
    variants: Mapping[str, object],
    metadata: Metadata,
    targeting: Mapping[str, object] | None = None,
) -> dict[str, object]:
    return {
        "state": "ENABLED",
        "defaultVariant": default,
        "variants": dict(variants),
        "targeting": dict(targeting or {}),
        "metadata": dict(metadata),
    }


def _targeting(variable: str, below: int, inside: str, outside: str) -> dict[str, object]:
    return {"if": [{"<": [{"var": [variable, BUCKETS]}, below]}, inside, outside]}
