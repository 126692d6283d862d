from dataclasses import replace
from pathlib import Path

import pytest

from agent_oncall.schema import Bundle, State
from controller import actions, rollouts
from controller.plan import Plan
from controller.store import Store, iso
from tests.controller.states import BACKUP, BUNDLE, START, new_store

OLD = replace(BUNDLE, prompt_version="1.8.0")
NEW_MODEL = replace(BUNDLE, model="gpt-4o-2024-11-20")


def stable(store: Store) -> Bundle:
    return actions.config_of(store.read(), "support").variants["stable"]


def release(store: Store, bundle: Bundle) -> None:
    """A new version for everybody."""

    def whole(state: State) -> State:
        state = rollouts.start(state, "support", bundle, Plan.parse("50"), now=START)
        return rollouts.advance(state, "support", now=START, to=100)

    store.change(whole, action="rollout override", agent="support", who="ann", why="release")


def go_back(store: Store, part: str, to: str | None = None) -> None:
    store.change(
        lambda state: actions.restore(state, "support", part, store.entries(), to, now=iso(START)),  # type: ignore[arg-type]
        action=f"rollback {part}",
        agent="support",
        who="ann",
        why="bad",
    )


def test_an_unknown_agent_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    state = new_store(tmp_path).read()
    with pytest.raises(actions.UnknownAgent, match="did you mean support"):
        actions.set_breaker(state, "suport", "open", since="", why="")


def test_opening_an_open_breaker_changes_nothing(tmp_path: Path) -> None:
    state = actions.set_breaker(new_store(tmp_path).read(), "support", "open", since="a", why="b")
    assert actions.set_breaker(state, "support", "open", since="c", why="d") is state


def test_a_prompt_goes_back_to_the_latest_earlier_one_with_all_that_ran_with_it(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    release(store, replace(BUNDLE, prompt_version="1.10.0", temperature=0.7))
    release(store, replace(BUNDLE, prompt_version="1.11.0", temperature=0.9))
    release(store, replace(BUNDLE, prompt_version="1.11.0", temperature=0.9, max_iter=50))
    go_back(store, "prompt")
    assert stable(store) == replace(BUNDLE, prompt_version="1.10.0", temperature=0.7)


def test_a_model_goes_back_to_the_latest_version_with_another_model(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    release(store, NEW_MODEL)
    release(store, replace(NEW_MODEL, prompt_version="1.10.0"))
    go_back(store, "model")
    assert stable(store) == BUNDLE


def test_going_back_twice_does_not_lead_to_the_version_that_was_left(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    release(store, replace(BUNDLE, prompt_version="1.10.0"))
    release(store, replace(BUNDLE, prompt_version="1.11.0"))
    go_back(store, "prompt")
    go_back(store, "prompt")
    assert stable(store) == BUNDLE


def test_after_a_version_that_was_named_one_does_not_come_back_to_the_bad_one(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    go_back(store, "prompt", to="1.8.0")
    assert stable(store) == OLD
    with pytest.raises(actions.Refused, match="no earlier version"):
        go_back(store, "prompt")


def test_an_undone_rollback_can_be_done_again(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    release(store, replace(BUNDLE, prompt_version="1.10.0"))
    go_back(store, "prompt")
    store.undo(store.entries()[-1].id, who="ann", why="x")
    go_back(store, "prompt")
    assert stable(store) == BUNDLE


def test_without_an_earlier_version_the_way_out_is_told(tmp_path: Path) -> None:
    with pytest.raises(actions.Refused, match="rollback off"):
        go_back(new_store(tmp_path), "model")


def test_a_named_version_that_ran_comes_back_whole_and_another_changes_that_key_alone(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    release(store, replace(BUNDLE, prompt_version="1.10.0", temperature=0.7))
    go_back(store, "prompt", to="1.9.0")
    assert stable(store) == BUNDLE
    go_back(store, "prompt", to="1.7.0")
    assert stable(store) == replace(BUNDLE, prompt_version="1.7.0")


def test_a_rollback_ends_the_rollout_that_compares_with_what_is_left(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    release(store, replace(BUNDLE, prompt_version="1.10.0"))
    store.change(
        lambda state: rollouts.start(state, "support", NEW_MODEL, Plan.parse("5"), now=START),
        action="rollout start",
        agent="support",
        who="ann",
        why="x",
    )
    go_back(store, "prompt")
    config = actions.config_of(store.read(), "support")
    assert (set(config.variants), config.canary_below, config.rollout) == ({"stable", "backup"}, 0, "")


def test_an_alias_is_refused_as_a_model_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(actions.Refused, match="alias"):
        go_back(new_store(tmp_path), "model", to="gpt-4o-latest")


def test_the_backup_provider_takes_all_users(tmp_path: Path) -> None:
    state = actions.to_backup(new_store(tmp_path).read(), "support")
    config = actions.config_of(state, "support")
    assert (config.default, config.variants["backup"]) == ("backup", BACKUP)
    assert actions.to_backup(state, "support") is state


def test_without_a_backup_that_is_told(tmp_path: Path) -> None:
    state = actions.add_agent(State(), "support", BUNDLE)
    with pytest.raises(actions.Refused, match="agent-oncall state backup"):
        actions.to_backup(state, "support")


def test_the_pinned_word_of_one_model_does_not_go_over_to_another() -> None:
    pinned = replace(BUNDLE, model="my-deployment", pinned=True)
    assert not actions.changed_version(pinned, {"model": "gpt-4o-2024-08-06"}).pinned
    with pytest.raises(actions.Refused, match="model"):
        actions.changed_version(pinned, {"model": "gpt-4o"})
