import errno
import json
import multiprocessing
import stat
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from agent_oncall.schema import Breaker, BreakerState, State, loads
from controller import actions
from controller.store import Entry, Store, StoreError
from tests.controller.states import BUNDLE, new_store


def open_breaker(store: Store, why: str = "loops") -> Entry | None:
    return store.change(
        lambda state: actions.set_breaker(state, "support", "open", since="2026-01-01T00:00:00Z", why=why),
        action="breaker open",
        agent="support",
        who="ann",
        why=why,
    )


def set_breaker(store: Store, to: BreakerState) -> Entry | None:
    return store.change(
        lambda state: actions.set_breaker(state, "support", to, since="2026-01-01T01:00:00Z", why="x"),
        action=f"breaker {to}",
        agent="support",
        who="ann",
        why="x",
    )


def breaker_of(store: Store) -> str:
    breaker = store.read().agents["support"].breaker
    assert breaker is not None
    return breaker.state


def fill_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch, to: BreakerState) -> None:
    """A change that can't replace the file."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("controller.store.os.replace", full)
        with pytest.raises(StoreError, match="No space"):
            set_breaker(store, to)


def count_one(state: State) -> State:
    return replace(state, metadata={**state.metadata, "count": int(state.metadata.get("count", 0)) + 1})


def test_a_change_is_one_line_with_who_when_why_before_and_after(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    open_breaker(store)
    last = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])
    assert (last["who"], last["why"], last["action"], last["agent"]) == ("ann", "loops", "breaker open", "support")
    assert last["time"] == "2026-01-01T00:00:00Z"
    assert last["before"]["support.breaker"]["defaultVariant"] == "closed"
    assert last["after"]["support.breaker"]["defaultVariant"] == "open"


def test_the_generation_grows_with_every_change(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    before = store.read().generation
    entry = open_breaker(store)
    assert entry is not None
    assert store.read().generation == entry.generation == before + 1


def test_a_change_that_changes_nothing_is_no_change(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    open_breaker(store)
    before = store.path.read_bytes(), store.audit_path.read_bytes()
    assert open_breaker(store) is None
    assert (store.path.read_bytes(), store.audit_path.read_bytes()) == before


def test_an_invalid_state_is_not_written(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    before = store.path.read_bytes()
    bad = replace(BUNDLE, model="gpt-4o-latest")
    with pytest.raises(StoreError, match="alias"):
        store.change(
            lambda state: actions.set_backup(state, "support", bad), action="x", agent="support", who="ann", why="x"
        )
    assert store.path.read_bytes() == before
    assert store.entries()[-1].action == "state init"


def test_what_the_decision_raises_goes_through_and_changes_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    before = store.path.read_bytes()

    def refuse(state: State) -> State:
        raise actions.Refused("no")

    with pytest.raises(actions.Refused):
        store.change(refuse, action="x", agent="support", who="ann", why="x")
    assert store.path.read_bytes() == before


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    for path in (store.path, store.audit_path, tmp_path / ".lock"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_mode_that_was_given_to_the_file_is_kept(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.path.chmod(0o640)
    open_breaker(store)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o640


def test_undo_puts_back_what_was_before(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    before = store.read().agents
    entry = open_breaker(store)
    assert entry is not None
    store.undo(entry.id, who="bob", why="false alarm")
    assert store.read().agents == before
    assert store.entries()[-1].action == f"undo {entry.id}"


def test_an_undo_can_be_undone(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    entry = open_breaker(store)
    assert entry is not None
    back = store.undo(entry.id, who="bob", why="false alarm")
    store.undo(back.id, who="bob", why="no, it was none")
    breaker = store.read().agents["support"].breaker
    assert breaker is not None
    assert breaker.state == "open"


def test_undo_is_refused_where_something_was_changed_again_since(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    first = open_breaker(store)
    assert first is not None
    second = store.change(
        lambda state: actions.set_breaker(state, "support", "closed", since="", why=""),
        action="breaker close",
        agent="support",
        who="ann",
        why="over",
    )
    assert second is not None
    with pytest.raises(StoreError, match=f"changed again by {second.id}"):
        store.undo(first.id, who="bob", why="x")


def test_undo_of_something_else_than_was_changed_since_works(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    off = store.change(
        lambda state: actions.switch(state, "support", on=False, since="", why=""),
        action="rollback off",
        agent="support",
        who="ann",
        why="errors",
    )
    assert off is not None
    open_breaker(store)
    store.undo(off.id, who="ann", why="repaired")
    agent = store.read().agents["support"]
    assert agent.enabled is not None
    assert agent.enabled.on
    assert agent.breaker is not None
    assert agent.breaker.state == "open"


def test_an_unknown_change_can_not_be_undone(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="c99: there is no such change"):
        new_store(tmp_path).undo("c99", who="ann", why="x")


def test_without_a_state_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="agent-oncall state init makes it"):
        Store(tmp_path / "flags.json").read()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"flags": {', b"\xff"])
def test_a_broken_file_is_not_taken_for_a_state_and_is_made_anew_from_the_log(tmp_path: Path, body: bytes) -> None:
    store = new_store(tmp_path)
    open_breaker(store)
    good = store.read()
    store.path.write_bytes(body)
    with pytest.raises(StoreError, match="--recover"):
        open_breaker(store)
    found = store.recover(who="ann", why="torn")
    assert found.agents == good.agents
    assert found.generation > good.generation


def test_a_lost_file_is_not_silently_begun_anew(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.path.unlink()
    with pytest.raises(StoreError, match="--recover"):
        store.create(who="ann", why="again")


def test_an_older_file_that_was_put_back_gets_a_generation_that_agents_take_for_new(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    old = store.path.read_bytes()
    opened = open_breaker(store)
    assert opened is not None
    store.path.write_bytes(old)
    again = open_breaker(store)
    assert again is not None
    assert again.generation > opened.generation


def test_a_log_that_can_not_be_written_stops_the_change(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    before = store.path.read_bytes()
    store.audit_path.unlink()
    store.audit_path.mkdir()
    with pytest.raises(StoreError, match="audit"):
        open_breaker(store)
    assert store.path.read_bytes() == before


def test_a_torn_last_line_of_the_log_spoils_no_other(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with store.audit_path.open("ab") as file:
        file.write(b'{"id": "c3", "ti')
    open_breaker(store)
    assert [entry.action for entry in store.entries()] == ["state init", "state init", "breaker open"]


def _count(folder: Path, times: int) -> None:
    store = Store(folder / "flags.json")
    for _ in range(times):
        store.change(count_one, action="count", agent="", who="w", why="w")


def test_eight_writers_lose_no_update(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_count, args=(tmp_path, 25)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.read().metadata["count"] == 200
    assert sum(entry.action == "count" for entry in store.entries()) == 200


def test_a_reader_never_sees_a_torn_state(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    writer = multiprocessing.get_context("fork").Process(target=_count, args=(tmp_path, 100))
    writer.start()
    reads = 0
    while writer.is_alive():
        loads(store.path.read_bytes())
        reads += 1
    writer.join()
    assert reads > 10


def test_a_killed_writer_leaves_no_change_without_its_line_and_no_broken_state(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    random = Random(1)
    for _ in range(30):
        writer = multiprocessing.get_context("fork").Process(target=_count, args=(tmp_path, 10**6))
        writer.start()
        time.sleep(0.03 * random.random())  # wherever it then is
        writer.kill()
        writer.join()
        state = store.read()
        generations = {entry.generation for entry in store.entries()}
        assert state.generation in generations
    store.change(count_one, action="count", agent="", who="w", why="w")
    happened = [entry for entry in store.entries() if entry.action == "count" and not entry.void]
    assert len(happened) == store.read().metadata["count"]


def test_a_line_whose_change_never_came_is_declared_void_by_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)

    def killed(path: Path, body: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("controller.store.replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            open_breaker(store)
    assert store.read().agents["support"].breaker == Breaker()
    open_breaker(store, "again")
    assert [(entry.why, entry.void) for entry in store.entries()[-2:]] == [("loops", True), ("again", False)]


def kill_the_writer(store: Store, monkeypatch: pytest.MonkeyPatch, to: BreakerState) -> None:
    """A writer that is gone between its line and its change."""

    def killed(path: Path, body: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("controller.store.replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            set_breaker(store, to)


def test_a_line_whose_change_never_came_is_void_before_anybody_writes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    kill_the_writer(store, monkeypatch, "open")
    last = store.entries()[-1]
    assert last.void
    with pytest.raises(StoreError, match="changed nothing"):
        store.undo(last.id, who="ann", why="x")
    store.recover(who="ann", why="x")
    assert breaker_of(store) == "closed"


def test_a_line_whose_change_failed_is_void_at_once_so_that_a_lost_file_does_not_bring_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    open_breaker(store)
    fill_the_disk(store, monkeypatch, "closed")
    store.path.unlink()
    store.recover(who="ann", why="lost")
    assert breaker_of(store) == "open"
    assert [entry.void for entry in store.entries()] == [False, False, False, True, False]


@pytest.mark.parametrize("broken", [b"", None])
def test_where_it_is_not_known_whether_the_breaker_was_closed_what_is_recovered_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bytes | None
) -> None:
    store = new_store(tmp_path)
    open_breaker(store)
    kill_the_writer(store, monkeypatch, "closed")
    if broken is None:
        store.path.unlink()
    else:
        store.path.write_bytes(broken)
    store.recover(who="ann", why="lost")
    assert breaker_of(store) == "open"


def test_what_was_recovered_from_a_torn_file_still_happened(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    open_breaker(store)
    store.path.write_bytes(b"{")
    store.recover(who="ann", why="torn")
    assert not any(entry.void for entry in store.entries())


def test_a_recovery_can_not_be_undone(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.recover(who="ann", why="x")
    with pytest.raises(StoreError, match="no state before it"):
        store.undo(store.entries()[-1].id, who="ann", why="x")
    assert set(store.read().agents) == {"support"}


def test_an_undo_after_an_older_file_was_put_back_says_so(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    old = store.path.read_bytes()
    first = open_breaker(store)
    set_breaker(store, "half_open")
    store.path.write_bytes(old)
    assert first is not None
    with pytest.raises(StoreError, match="an older one put back"):
        store.undo(first.id, who="ann", why="x")


def test_a_writer_that_hangs_with_the_lock_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path)
    monkeypatch.setattr("controller.store._LOCK_SECONDS", 0.05)
    with store._locked(), pytest.raises(StoreError, match="another writer"):
        open_breaker(store)
