"""What agents make of a state file that changes, breaks or goes."""

import json
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_oncall import schema
from agent_oncall.schema import Breaker, Enabled, State
from agent_oncall.state import StateReader, default_copy
from tests.agent_oncall import states

OPEN = Breaker("open", {"why": "spend"})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flags.json"


def later(reader: StateReader, clock: Clock) -> State:
    clock.now += 0.25
    return reader.current()


def breaker(state: State) -> str:
    agent = state.agents.get("support")
    return agent.breaker.state if agent and agent.breaker else "none"


def test_a_change_is_seen_within_a_quarter_of_a_second(path: Path, clock: Clock) -> None:
    states.write(path, states.state(1))
    reader = StateReader(path, clock=clock)
    assert reader.current().generation == 1

    states.write(path, states.state(2))
    clock.now += 0.1
    assert reader.current().generation == 1
    assert later(reader, clock).generation == 2
    assert reader.ok


def test_a_file_that_is_not_there_yet_is_an_empty_state(path: Path, clock: Clock) -> None:
    reader = StateReader(path, clock=clock)

    assert reader.current() == State()
    assert not reader.ok

    states.write(path, states.state(1))
    assert later(reader, clock).generation == 1


def test_a_change_with_an_older_date_is_seen(path: Path, clock: Clock) -> None:
    states.write(path, states.state(1))
    reader = StateReader(path, clock=clock)
    reader.current()

    states.write(path, states.state(2))
    os.utime(path, (1, 1))

    assert later(reader, clock).generation == 2


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def older(path: Path) -> None:
    states.write(path, states.state(6))


def invalid(path: Path) -> None:
    content = json.loads(path.read_bytes())
    content["metadata"]["generation"] = 8
    content["flags"]["support.breaker"]["defaultVariant"] = "shut"
    path.write_text(json.dumps(content), encoding="utf-8")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BREAKS: list[Callable[[Path], object]] = [
    torn,
    older,
    invalid,
    a_folder,
    Path.unlink,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"{}"),
    lambda path: path.write_bytes(b"\0" * 4096),
    lambda path: path.write_bytes(b'{"metadata": {"generation": 8}, "flags": {}}'),
    lambda path: path.write_bytes(b"[" * 200_000),
]


@pytest.mark.parametrize("broken", BREAKS)
def test_an_open_breaker_stays_open_whatever_becomes_of_the_file(
    path: Path, clock: Clock, broken: Callable[[Path], object]
) -> None:
    states.write(path, states.state(7, breaker=OPEN))
    reader = StateReader(path, path.parent / "copy" / "state.json", clock=clock)
    assert breaker(reader.current()) == "open"

    broken(path)

    assert breaker(later(reader, clock)) == "open"
    restarted = StateReader(path, path.parent / "copy" / "state.json", clock=clock)
    assert breaker(restarted.current()) == "open"
    assert breaker(later(restarted, clock)) == "open"


def test_an_agent_that_was_off_stays_off_where_its_flag_is_gone(path: Path, clock: Clock) -> None:
    states.write(path, states.state(7, enabled=Enabled(False)))
    reader = StateReader(path, clock=clock)
    reader.current()

    states.write(path, states.state(8))

    enabled = later(reader, clock).agents["support"].enabled
    assert enabled is not None
    assert not enabled.on


def test_what_is_wrong_is_logged_once_and_with_its_key(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    states.write(path, states.state(7, breaker=OPEN))
    reader = StateReader(path, clock=clock)
    reader.current()
    invalid(path)
    for _ in range(5):
        later(reader, clock)

    assert not reader.ok
    assert caplog.text.count("flags.support.breaker.defaultVariant: closed, half_open or open, not 'shut'") == 1


def test_a_word_closes_it(path: Path, clock: Clock) -> None:
    states.write(path, states.state(7, breaker=OPEN))
    reader = StateReader(path, clock=clock)
    reader.current()

    states.write(path, states.state(8, breaker=Breaker()))

    assert breaker(later(reader, clock)) == "closed"


def test_a_file_that_comes_good_again_is_read(path: Path, clock: Clock) -> None:
    states.write(path, states.state(7))
    reader = StateReader(path, clock=clock)
    reader.current()
    path.unlink()
    later(reader, clock)
    assert not reader.ok

    states.write(path, states.state(7))

    assert later(reader, clock).generation == 7
    assert reader.ok


def test_a_file_that_could_not_be_opened_is_read_once_it_can_be(path: Path, clock: Clock) -> None:
    states.write(path, states.state(7))
    reader = StateReader(path, path.parent / "copy" / "state.json", clock=clock)
    reader.current()
    states.write(path, states.state(8, breaker=OPEN))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # as where all descriptors are in use
    try:
        assert breaker(later(reader, clock)) == "none"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert breaker(later(reader, clock)) == "open"
    assert schema.loads((path.parent / "copy" / "state.json").read_bytes()).generation == 8


def test_a_change_in_place_that_keeps_date_and_size_is_seen(path: Path, clock: Clock) -> None:
    states.write(path, states.state(1))
    reader = StateReader(path, clock=clock)
    reader.current()

    before = path.stat()
    path.write_text(json.dumps(schema.document(states.state(2))), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert path.stat().st_size == before.st_size
    assert later(reader, clock).generation == 2


def test_a_copy_that_can_not_be_kept_or_read_changes_nothing(path: Path, clock: Clock) -> None:
    (path.parent / "copy").write_text("not a folder", encoding="utf-8")
    states.write(path, states.state(7))
    reader = StateReader(path, path.parent / "copy" / "state.json", clock=clock)

    assert reader.current().generation == 7
    (path.parent / "bad.json").write_text("{", encoding="utf-8")
    assert StateReader(path, path.parent / "bad.json", clock=clock).current().generation == 7


def test_the_copy_is_for_its_owners_eyes(path: Path, clock: Clock) -> None:
    states.write(path, states.state(7))
    copy = path.parent / "copy" / "state.json"
    StateReader(path, copy, clock=clock).current()

    assert copy.stat().st_mode & 0o777 == 0o600
    assert schema.loads(copy.read_bytes()).generation == 7


def test_two_files_have_two_copies() -> None:
    assert default_copy(Path("/a/flags.json")) != default_copy(Path("/b/flags.json"))


@pytest.mark.parametrize("home", [None, "state"])
def test_a_user_without_a_home_has_no_copy_in_the_working_directory(
    path: Path, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    def nobody(_: int) -> object:
        raise KeyError("uid not found")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    states.write(path, states.state(7))

    assert default_copy(path) is None
    assert StateReader(path, default_copy(path), clock=clock).current().generation == 7
    assert os.listdir(tmp_path) == ["flags.json"]


def test_a_pipe_in_the_files_place_does_not_hold_up_the_agent(path: Path, clock: Clock) -> None:
    states.write(path, states.state(1))
    reader = StateReader(path, clock=clock)
    reader.current()
    path.unlink()
    os.mkfifo(path)

    assert later(reader, clock).generation == 1
    assert not reader.ok


def test_one_thread_looks_at_a_time(path: Path) -> None:
    states.write(path, states.state(1))
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return looks * 0.3  # each look is due

    reader = StateReader(path, clock=clock)
    readers = [threading.Thread(target=lambda: [reader.current() for _ in range(2000)]) for _ in range(4)]
    for thread in readers:
        thread.start()
    for generation in range(2, 40):
        states.write(path, states.state(generation))
    for thread in readers:
        thread.join()

    assert reader.current().generation == 39
    assert reader.ok
