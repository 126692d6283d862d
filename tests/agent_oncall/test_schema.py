"""The state file's shape: what is read, what is refused and how that is told."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_oncall import schema
from agent_oncall.schema import Agent, Breaker, Enabled, Experiment, State, StateError, parse_time
from tests.agent_oncall import states

EXPERIMENT = Experiment(True, {}, {"prompt_version": "2.0-rc1"}, 50_000, {"salt": "tone-1", "planned_users": 1400})
FULL = states.state(
    7,
    canary_below=5_000,
    breaker=Breaker("half_open", {"since": "2026-01-01T00:00:00Z", "why": "spend", "share": 2}),
    enabled=Enabled(True, {"by": "cli"}),
    tone=EXPERIMENT,
)

CONFIG, BREAKER, ENABLED, TONE = "support.config", "support.breaker", "support.enabled", "support.ab.tone"


def full() -> dict[str, Any]:
    return copy.deepcopy(schema.document(FULL))


def test_what_is_written_is_read_back_equal() -> None:
    assert schema.loads(json.dumps(full())) == FULL


def test_flags_of_other_kinds_are_kept() -> None:
    content = full()
    content["flags"]["banner"] = {"state": "ENABLED", "variants": {"on": True}, "defaultVariant": "on"}

    assert schema.document(schema.parse(content)) == content


def test_an_agents_name_may_have_dots() -> None:
    state = states.state(agent="shop.support.v2", tone=EXPERIMENT)

    assert schema.parse(schema.document(state)) == state


def test_a_backup_in_force_has_no_targeting() -> None:
    content = schema.document(states.state(canary_below=5_000, default="backup"))
    flags: Any = content["flags"]

    assert flags[CONFIG]["targeting"] == {}
    assert schema.parse(content).agents["support"].config == schema.parse(content).agents["support"].config


def test_an_agent_of_which_nothing_is_said_is_none() -> None:
    assert schema.parse({"metadata": {"generation": 0}, "flags": {}}) == State()


def change(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def edit(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        if to is None:
            del content[path[-1]]
        else:
            content[path[-1]] = to

    return edit


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (change("metadata", "generation", to=True), "metadata.generation"),
        (change("metadata", "generation", to=-1), "metadata.generation"),
        (change("metadata", to=None), "metadata.generation"),
        (change("flags", to=None), "flags"),
        (change("flag", to={}), "flag"),
        (change("flags", CONFIG, to="x"), f"flags.{CONFIG}"),
        (change("flags", CONFIG, "state", to="DISABLED"), f"flags.{CONFIG}.state"),
        (change("flags", CONFIG, "defaultVariant", to="canary"), f"flags.{CONFIG}.defaultVariant"),
        (change("flags", CONFIG, "defaultVariant", to=[]), f"flags.{CONFIG}.defaultVariant"),
        (change("flags", CONFIG, "defaultVariant", to="backup"), f"flags.{CONFIG}.targeting"),
        (change("flags", CONFIG, "variants", "control", to={}), f"flags.{CONFIG}.variants.control"),
        (change("flags", CONFIG, "variants", "stable", to=None), f"flags.{CONFIG}.variants.stable"),
        (change("flags", CONFIG, "variants", "canary", to=None), f"flags.{CONFIG}.variants.canary"),
        (change("flags", CONFIG, "variants", "canary", "model", to="gpt-4o-latest"), "variants.canary.model"),
        (change("flags", CONFIG, "variants", "canary", "model", to="gpt-4o"), "variants.canary.model"),
        (change("flags", CONFIG, "variants", "canary", "prompt_version", to="latest"), "variants.canary.prompt"),
        (change("flags", CONFIG, "variants", "canary", "prompt", to="../secrets"), "variants.canary.prompt"),
        (change("flags", CONFIG, "variants", "canary", "temprature", to=1), "variants.canary.temprature"),
        (change("flags", CONFIG, "variants", "canary", "temperature", to="0.1"), "variants.canary.temperature"),
        (change("flags", CONFIG, "variants", "canary", "temperature", to=float("nan")), "variants.canary.temperature"),
        (change("flags", CONFIG, "variants", "canary", "temperature", to=-1), "variants.canary.temperature"),
        (change("flags", CONFIG, "variants", "canary", "max_iter", to=True), "variants.canary.max_iter"),
        (change("flags", CONFIG, "variants", "canary", "max_iter", to=0), "variants.canary.max_iter"),
        (change("flags", CONFIG, "variants", "canary", "max_iter", to=None), "variants.canary.max_iter"),
        (change("flags", CONFIG, "targeting", "if", 0, "<", 1, to=5_000.5), f"flags.{CONFIG}.targeting"),
        (change("flags", CONFIG, "targeting", "if", 0, "<", 1, to=100_001), f"flags.{CONFIG}.targeting"),
        (change("flags", CONFIG, "targeting", "if", 1, to="stable"), f"flags.{CONFIG}.targeting"),
        (change("flags", CONFIG, "targeting", to={"fractional": []}), f"flags.{CONFIG}.targeting"),
        (change("flags", CONFIG, "metadata", "salt", to=None), f"flags.{CONFIG}.metadata.salt"),
        (change("flags", CONFIG, "metadata", "stage", to={"a": 1}), f"flags.{CONFIG}.metadata.stage"),
        (change("flags", BREAKER, "state", to="DISABLED"), f"flags.{BREAKER}.state"),
        (change("flags", BREAKER, "defaultVariant", to="opened"), f"flags.{BREAKER}.defaultVariant"),
        (change("flags", BREAKER, "variants", "open", to="closed"), f"flags.{BREAKER}.variants"),
        (change("flags", BREAKER, "targeting", to={"if": []}), f"flags.{BREAKER}.targeting"),
        (change("flags", BREAKER, "metadata", "share", to=101), f"flags.{BREAKER}.metadata.share"),
        (change("flags", ENABLED, "defaultVariant", to=True), f"flags.{ENABLED}.defaultVariant"),
        (change("flags", TONE, "variants", "b", "model", to="gpt-4o"), f"flags.{TONE}.variants.b.model"),
        (change("flags", TONE, "variants", "c", to={}), f"flags.{TONE}.variants"),
        (change("flags", TONE, "targeting", "if", 0, "<", 0, "var", 0, to="bucket"), f"flags.{TONE}.targeting"),
        (change("flags", TONE, "metadata", "salt", to=None), f"flags.{TONE}.metadata.salt"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(edit: Callable[[dict[str, Any]], None], key: str) -> None:
    content = full()
    edit(content)

    with pytest.raises(StateError) as error:
        schema.parse(content)

    assert key in error.value.key
    assert error.value.problem


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        b'{"metadata": {"generation": NaN}, "flags": {}}',
        b'{"metadata": {"generation": 1, "generation": 2}, "flags": {}}',
        b"[" * 100_000,
        b'{"metadata": {"generation": ' + b"9" * 5_000 + b'}, "flags": {}}',
    ],
)
def test_what_is_no_state_at_all_is_refused(body: bytes) -> None:
    with pytest.raises(StateError):
        schema.loads(body)


def test_a_reader_may_pass_over_keys_it_does_not_know() -> None:
    content = full()
    content["flags"][CONFIG]["variants"]["stable"]["effort"] = "high"

    assert schema.parse(content, strict=False) == FULL


@pytest.mark.parametrize("name", ["", "a.b", "config", "a b", "x" * 61])
def test_an_experiment_that_would_be_misread_can_not_be_called_so(name: str) -> None:
    with pytest.raises(StateError):
        schema.check_experiment_name(name)


def test_times_have_an_offset() -> None:
    assert parse_time("2026-01-01T00:00:00Z") is not None
    assert parse_time("2026-01-01T00:00:00") is None
    assert parse_time("soon") is None


def test_the_defaults_say_closed_and_on() -> None:
    assert (Breaker().state, Breaker().share, Enabled().on, Agent().config) == ("closed", 1.0, True, None)
