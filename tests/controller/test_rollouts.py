from dataclasses import replace
from pathlib import Path

import pytest

from agent_oncall.schema import State, document, parse
from controller import actions, rollouts
from controller.plan import DEFAULT, BadPlan, Plan
from controller.rollouts import Rollout
from tests.controller.states import BUNDLE, START, new_store

CANARY = replace(BUNDLE, prompt_version="1.10.0")


def started(tmp_path: Path, plan: Plan = DEFAULT) -> State:
    return rollouts.start(new_store(tmp_path).read(), "support", CANARY, plan, now=START)


def rollout(state: State) -> Rollout:
    return rollouts.rollout_of(state, "support")


def test_a_rollout_begins_with_the_first_stage(tmp_path: Path) -> None:
    state = started(tmp_path)
    config = actions.config_of(state, "support")
    assert (config.canary_below, config.stage, config.variants["canary"]) == (5000, "5", CANARY)
    assert rollout(state).plan == DEFAULT
    assert parse(document(state)) == state


def test_its_stages_follow_each_other_until_the_canary_is_stable(tmp_path: Path) -> None:
    state = started(tmp_path)
    shares = []
    for day in range(3):
        state = rollouts.advance(state, "support", now=START + 86400 * day)
        shares.append(actions.config_of(state, "support").canary_below)
    assert shares == [10_000, 25_000, 50_000]
    config = actions.config_of(rollouts.advance(state, "support", now=START), "support")
    assert (config.variants["stable"], config.canary_below, config.rollout) == (CANARY, 0, "")
    assert "canary" not in config.variants


def test_each_stage_has_its_own_start(tmp_path: Path) -> None:
    state = rollouts.advance(started(tmp_path), "support", now=START + 86400)
    assert rollout(state).stage_started == START + 86400


def test_two_rollouts_have_different_salts(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    salts = {
        actions.config_of(rollouts.start(store.read(), "support", CANARY, DEFAULT, now=START), "support").salt
        for _ in range(2)
    }
    assert len(salts) == 2


def test_a_stage_that_was_left_meanwhile_is_not_advanced_again(tmp_path: Path) -> None:
    state = rollouts.advance(started(tmp_path), "support", now=START)
    assert rollouts.advance(state, "support", now=START, stage="5") is state


def test_back_ends_the_rollout(tmp_path: Path) -> None:
    state = rollouts.back(started(tmp_path), "support")
    config = actions.config_of(state, "support")
    assert (config.variants["stable"], config.canary_below, config.rollout) == (BUNDLE, 0, "")
    assert rollouts.back(state, "support") is state


def test_only_one_rollout_runs_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(actions.Refused, match="at 5 %"):
        rollouts.start(started(tmp_path), "support", CANARY, DEFAULT, now=START)


def test_a_rollout_can_jump_to_a_later_stage_but_not_to_an_earlier_one(tmp_path: Path) -> None:
    state = rollouts.advance(started(tmp_path), "support", now=START, to=25)
    assert rollout(state).stage == "25"
    with pytest.raises(actions.Refused, match="there are 50, 100"):
        rollouts.advance(state, "support", now=START, to=10)


def test_a_rollout_waits_while_the_backup_provider_is_in_use(tmp_path: Path) -> None:
    state = actions.to_backup(started(tmp_path), "support")
    assert rollout(state).paused
    with pytest.raises(actions.Refused, match="backup provider"):
        rollouts.advance(state, "support", now=START)


def test_a_plan_is_read_back_from_its_text() -> None:
    plan = Plan.parse("0.5,5:0.1:1.2,100")
    assert Plan.parse(str(plan)) == plan
    assert [stage.name for stage in plan.stages] == ["0.5", "5"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a stage is PERCENT"),
        ("5,x", "'x'"),
        ("10,5", "larger than the one before"),
        ("100", "below 100"),
        ("120", "a stage is PERCENT|at most 100"),
        ("5:1.5:2", "from 0 to 1"),
        ("5:0.2:0.9", "above 1"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadPlan, match=why):
        Plan.parse(text)


@pytest.mark.parametrize(("hours", "look"), [(0, None), (23.9, None), (24, 24), (47.9, 24), (48, 48), (200, 192)])
def test_it_is_looked_once_a_day_from_the_end_of_the_hold_on(hours: float, look: float | None) -> None:
    assert DEFAULT.last_look(hours) == look
