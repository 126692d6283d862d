import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter import journal as module
from exporter.journal import Journal, JournalError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    opened = Journal.open(directory)
    yield opened
    opened.close()


def stored(directory: Path) -> tuple[dict[str, bytes], list[tuple[bytes, float, bytes]], list[bytes]]:
    """State, remembered and log, as the next exporter finds them."""
    journal = Journal.open(directory)
    try:
        loaded = journal.load()
        return loaded.state, list(loaded.remembered), list(loaded.log)
    finally:
        journal.close()


class TestStoring:
    def test_a_new_journal_is_empty(self, directory: Path) -> None:
        assert stored(directory) == ({}, [], [])

    def test_the_log_is_read_in_the_order_of_appending(self, journal: Journal, directory: Path) -> None:
        for at in range(300):
            journal.append(b"%d" % at)
        journal.close()
        assert stored(directory)[2] == [b"%d" % at for at in range(300)]

    def test_a_checkpoint_replaces_the_log(self, journal: Journal, directory: Path) -> None:
        journal.append(b"before")
        journal.checkpoint({"measures": b"m"}, [(b"trace", 12.5, b"t")], [])
        journal.append(b"after")
        journal.close()
        assert stored(directory) == ({"measures": b"m"}, [(b"trace", 12.5, b"t")], [b"after"])

    def test_a_checkpoint_changes_only_what_it_names(self, journal: Journal, directory: Path) -> None:
        journal.checkpoint({"a": b"1", "b": b"1"}, [(b"x", 1, b"1"), (b"y", 1, b"1"), (b"z", 1, b"1")], [])
        journal.checkpoint({"b": b"2"}, [(b"y", 2, b"2")], [b"z", b"never there"])
        journal.close()
        assert stored(directory)[:2] == ({"a": b"1", "b": b"2"}, [(b"x", 1, b"1"), (b"y", 2, b"2")])

    def test_a_key_both_forgotten_and_remembered_stays(self, journal: Journal, directory: Path) -> None:
        journal.checkpoint({}, [(b"x", 1, b"1")], [])
        journal.checkpoint({}, [(b"x", 2, b"2")], [b"x"])
        journal.close()
        assert stored(directory)[1] == [(b"x", 2, b"2")]

    def test_a_checkpoint_that_fails_half_way_changes_nothing(self, journal: Journal, directory: Path) -> None:
        def breaks() -> Iterator[tuple[bytes, float, bytes]]:
            yield b"x", 1, b"1"
            raise RuntimeError("half way")

        journal.append(b"kept")
        with pytest.raises(RuntimeError, match="half way"):
            journal.checkpoint({"a": b"1"}, breaks(), [])
        journal.append(b"kept too")
        journal.close()
        assert stored(directory) == ({}, [], [b"kept", b"kept too"])

    def test_its_size_is_told(self, journal: Journal) -> None:
        journal.append(bytes(100_000))
        assert journal.size_bytes > 100_000


class TestOpening:
    @pytest.mark.parametrize("umask", [0, 0o777])
    def test_nobody_else_may_read_it_whatever_the_umask(self, directory: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            journal = Journal.open(directory)
            journal.append(b"x")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in [directory, *directory.iterdir()]}
            journal.close()
        finally:
            os.umask(before)
        assert modes.pop(directory.name) == 0o700
        assert modes == dict.fromkeys(["lock", "journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"], 0o600)

    def test_a_second_exporter_is_told_who_has_it(self, journal: Journal, directory: Path) -> None:
        with pytest.raises(
            JournalError, match=rf"another exporter \(process {os.getpid()}\) has this journal: stop it"
        ):
            Journal.open(directory)

    def test_a_closed_journal_may_be_opened_by_another(self, directory: Path) -> None:
        Journal.open(directory).close()
        Journal.open(directory).close()

    def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "journal.sqlite").write_bytes(b"precious" * 1000)
        with pytest.raises(JournalError, match=r"journal\.sqlite: not a journal.*move this one away"):
            Journal.open(directory)
        assert (directory / "journal.sqlite").read_bytes() == b"precious" * 1000

    def test_the_database_of_another_program_is_refused(self, directory: Path) -> None:
        directory.mkdir()
        other = sqlite3.connect(directory / "journal.sqlite")
        other.execute("CREATE TABLE precious (id)")
        other.close()
        with pytest.raises(JournalError, match="no journal of this exporter: choose another directory"):
            Journal.open(directory)

    def test_a_journal_of_a_later_format_is_refused(self, directory: Path) -> None:
        Journal.open(directory).close()
        later = sqlite3.connect(directory / "journal.sqlite")
        later.execute("PRAGMA user_version = 99")
        later.close()
        with pytest.raises(JournalError, match="format 99; this exporter reads format 1"):
            Journal.open(directory)

    def test_a_damaged_page_is_an_error_that_says_what_to_do(self, directory: Path) -> None:
        journal = Journal.open(directory)
        for _ in range(200):
            journal.append(os.urandom(20_000))
        journal.close()
        file = directory / "journal.sqlite"
        content = bytearray(file.read_bytes())
        content[8192:] = b"\xff" * (len(content) - 8192)
        file.write_bytes(content)
        with pytest.raises(JournalError, match=r"damaged.*Nothing was deleted"):
            stored(directory)

    def test_a_directory_that_can_not_be_made_is_an_error_with_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(JournalError, match=r"file/journal: can't keep a journal there: Not a directory"):
            Journal.open(tmp_path / "file" / "journal")

    def test_a_process_killed_while_making_it_leaves_what_can_be_opened(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "journal.sqlite").touch()
        half = sqlite3.connect(directory / "journal.sqlite")
        half.execute("PRAGMA auto_vacuum = INCREMENTAL")
        half.execute("PRAGMA journal_mode = WAL")
        half.close()
        assert stored(directory) == ({}, [], [])


class TestSize:
    def test_the_wal_stays_bounded_under_steady_load(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_SYNC_SECONDS", 0.01)
        monkeypatch.setattr(module, "_WAL_LIMIT_BYTES", 2**20)
        journal = Journal.open(directory)
        wal = directory / "journal.sqlite-wal"
        for _ in range(200):
            journal.append(bytes(40_000))
        assert wal.stat().st_size > 0
        while wal.stat().st_size > 2**20:
            journal.append(b"one more")
        journal.close()
        assert len(stored(directory)[2]) >= 200

    def test_the_space_of_a_truncated_log_is_used_again(self, journal: Journal, directory: Path) -> None:
        sizes = []
        for _ in range(4):
            for _ in range(50):
                journal.append(os.urandom(40_000))
            journal.checkpoint({}, [], [])
            journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append((directory / "journal.sqlite").stat().st_size)
        assert sizes[-1] < 1.5 * sizes[0]

    def test_what_is_free_beyond_a_reserve_goes_back_to_the_disk(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_FREE_BYTES", 100_000)
        journal = Journal.open(directory)
        for _ in range(300):
            journal.append(os.urandom(40_000))
        for _ in range(4):
            journal.checkpoint({"measures": b"m"}, [], [])
        journal.close()
        assert (directory / "journal.sqlite").stat().st_size < 300_000


# What follows runs in a process of its own: it is killed, or meets a limit.

WRITER = """
import random, sys
from pathlib import Path
from exporter.journal import Journal

journal = Journal.open(Path(sys.argv[1]))
choose = random.Random(int(sys.argv[2]))
loaded = journal.load()
done = int(loaded.state.get("done", b"0")) + sum(1 for _ in loaded.log)
kept = int(loaded.state.get("done", b"0"))
while True:
    done += 1
    journal.append(b"%d " % done + bytes(choose.choice([10, 5_000, 40_000])))
    print(done, flush=True)
    if choose.random() < 0.1:
        remember = [(b"%d" % at, float(at), bytes(2_000)) for at in range(max(kept, done - 50), done)]
        forget = [b"%d" % at for at in range(kept - 50, done - 50)]
        journal.checkpoint({"done": b"%d" % done, "again": b"%d" % done}, remember, forget)
        kept = done
"""

LIMITED = """
import resource, sys
from pathlib import Path
from exporter.journal import Journal, JournalError

journal = Journal.open(Path(sys.argv[1]))
journal.checkpoint({"measures": b"old"}, [(b"x", 1.0, b"old")], [])
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
stored = refused = 0
while refused < 5:
    try:
        journal.append(b"%d" % stored + bytes(40_000))
        stored += 1
    except JournalError as error:
        refused += 1
        assert "is there room on the disk" in str(error), error
try:
    journal.checkpoint({"measures": bytes(5_000_000)}, [(b"x", 1.0, b"new")], [])
    raise AssertionError("stored more than there is room for")
except JournalError:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(b"%d" % stored + bytes(40_000))
print(stored + 1, flush=True)
"""


def run(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def check_nothing_lost(directory: Path, answered: int) -> None:
    state, remembered, logged = stored(directory)
    done = int(state.get("done", b"0"))
    assert state in ({}, {"done": b"%d" % done, "again": b"%d" % done})
    assert [int(blob.split(b" ")[0]) for blob in logged] == list(range(done + 1, done + 1 + len(logged)))
    assert done + len(logged) >= answered
    assert sorted(int(key) for key, _, _ in remembered) == list(range(max(0, done - 50), done))


def kill_at_random(directory: Path, times: int) -> None:
    choose = random.Random(1)
    for seed in range(times):
        with run(WRITER, directory, seed) as writer:
            assert writer.stdout is not None
            answered = 0
            for _ in range(choose.randrange(1, 150)):
                answered = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            answered = max([answered, *map(int, writer.stdout.read().split("\n")[:-1])])
        check_nothing_lost(directory, answered)


class TestKilled:
    def test_a_process_killed_at_any_moment_loses_nothing_it_answered(self, directory: Path) -> None:
        kill_at_random(directory, 8)

    @pytest.mark.slow
    def test_a_process_killed_a_hundred_times_loses_nothing_it_answered(self, directory: Path) -> None:
        kill_at_random(directory, 100)

    def test_the_journal_of_a_killed_process_may_be_opened_at_once(self, directory: Path) -> None:
        with run(WRITER, directory, 0) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.kill()
        Journal.open(directory).close()


class TestNoRoom:
    def test_what_finds_no_room_is_refused_and_later_ones_are_stored(self, directory: Path) -> None:
        with run(LIMITED, directory) as limited:
            assert limited.stdout is not None
            expected = int(limited.stdout.read())
        state, remembered, logged = stored(directory)
        assert [int(blob.rstrip(b"\0")) for blob in logged] == list(range(expected))
        assert (state, remembered) == ({"measures": b"old"}, [(b"x", 1.0, b"old")])

    def test_a_full_file_can_be_emptied_by_a_checkpoint(self, journal: Journal, directory: Path) -> None:
        journal._connection.execute("PRAGMA max_page_count = 200")

        def fill(append: Callable[[bytes], None]) -> int:
            for at in range(1000):
                try:
                    append(bytes(40_000))
                except JournalError:
                    return at
            raise AssertionError("never full")

        assert fill(journal.append) > 10
        journal.checkpoint({"measures": b"m"}, [], [])
        assert fill(journal.append) > 10
