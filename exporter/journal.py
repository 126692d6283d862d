"""What was answered, on disk: it survives `kill -9` at any moment.

One SQLite file in WAL mode holds the log (every request since the last checkpoint) and the checkpoint itself. A commit
is a write to the WAL, which outlives the process; the fsyncs are done by a thread of its own with a connection of its
own, so that no request waits for the disk. A power cut may lose the last second but leaves the file whole.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)

_FILE = "journal.sqlite"
_LOCK = "lock"
_APPLICATION = 0x0A6E7C11  # Says in the file's header whose it is.
_SCHEMA = 1

_TABLES = """
CREATE TABLE log (id INTEGER PRIMARY KEY, blob BLOB NOT NULL);
CREATE TABLE state (name TEXT PRIMARY KEY, blob BLOB NOT NULL);
CREATE TABLE remembered (key BLOB NOT NULL UNIQUE, expiry REAL NOT NULL, blob BLOB NOT NULL);
"""

# Measured: of the page sizes, 8 KiB is a good middle between many short appends and long ones; with auto_vacuum the log
# is emptied three times as fast, and without secure_delete ten times.
_PAGE_BYTES = 8192
_BUSY_SECONDS = 10.0
_SYNC_SECONDS = 1.0
_WAL_LIMIT_BYTES = 128 * 2**20  # From this size on the WAL starts over even if appends have to wait for it.
_FREE_BYTES = 64 * 2**20  # Kept free in the file for the log to grow into;
_SHRINK_BYTES = 4 * 2**20  # of what is over, so much goes back to the disk at each checkpoint.


class JournalError(Exception):
    """The journal can't be used, or could not store something; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a journal holds: the last checkpoint, and the log since.

    The iterators read as they go: use them once, before anything is written.
    """

    state: dict[str, bytes]
    remembered: Iterator[tuple[bytes, float, bytes]]
    """Key, expiry (unix time in seconds), blob."""
    log: Iterator[bytes]
    """In the order of appending."""


class Journal:
    """A log of requests and a checkpoint, in a directory that one exporter has to itself.

    Use: `load()` once, then `append()` each request before it is answered, and `checkpoint()` now and then: it replaces
    the log by its outcome, in one step. All from one thread at a time.
    """

    def __init__(self, file: Path, lock: int, connection: sqlite3.Connection, syncing: sqlite3.Connection) -> None:
        self._file = file
        self._wal = file.with_name(f"{file.name}-wal")
        self._lock = lock
        self._connection = connection
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync, args=(syncing,), name="journal-sync", daemon=True)
        self._syncer.start()

    @property
    def directory(self) -> Path:
        return self._file.parent

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the journal in `directory`, or make one: the directory with mode 0700, its files with 0600.

        JournalError if it can't be made, another process has it, or the file is not a journal of this version or is
        damaged. Nothing is ever deleted.
        """
        file = directory / _FILE
        with contextlib.ExitStack() as undo:
            lock = _lock(directory)
            undo.callback(os.close, lock)
            # Made here for its mode; SQLite gives the files beside it the same one.
            _make_private(file)
            with _reading(file):
                connection = undo.enter_context(contextlib.closing(_connect(file)))
                _prepare(connection, file)
                syncing = undo.enter_context(contextlib.closing(_connect(file)))
            undo.pop_all()
        return cls(file, lock, connection, syncing)

    def append(self, blob: bytes) -> None:
        """Store one request: when this returns, a killed process has it.

        JournalError if it could not be stored (disk full, I/O error); then nothing of it is, and the next one is tried
        anew.
        """
        try:
            self._connection.execute("INSERT INTO log (blob) VALUES (?)", (blob,))
        except sqlite3.Error as error:
            self._undo()
            raise self._not_stored(error) from error

    def checkpoint(
        self, state: Mapping[str, bytes], remember: Iterable[tuple[bytes, float, bytes]], forget: Iterable[bytes]
    ) -> None:
        """Replace the log by what came of it, all in one step: a kill leaves the old checkpoint and log, or the new.

        `state` replaces the blobs of the names it has. Of the remembered ones, by key, those in `forget` go and those
        in `remember` (key, expiry as unix time in seconds, blob) are added or replaced; a key in both stays.
        JournalError if it could not be stored; then all is as before, and the same call may be tried again.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM remembered WHERE key = ?", ((key,) for key in forget))
            self._connection.executemany(
                "INSERT INTO remembered (key, expiry, blob) VALUES (?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET expiry = excluded.expiry, blob = excluded.blob",
                remember,
            )
            self._connection.executemany("REPLACE INTO state (name, blob) VALUES (?, ?)", state.items())
            self._connection.execute("DELETE FROM log")
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            raise self._not_stored(error) from error
        except BaseException:
            self._undo()
            raise
        self._shrink()

    def load(self) -> Loaded:
        """All that is stored. JournalError, here or from the iterators, if the file is damaged."""
        with _reading(self._file):
            state = dict(self._connection.execute("SELECT name, blob FROM state"))
        return Loaded(state, self._remembered(), self._logged())

    def _remembered(self) -> Iterator[tuple[bytes, float, bytes]]:
        with _reading(self._file):
            yield from self._connection.execute("SELECT key, expiry, blob FROM remembered ORDER BY rowid")

    def _logged(self) -> Iterator[bytes]:
        with _reading(self._file):
            for (blob,) in self._connection.execute("SELECT blob FROM log ORDER BY id"):
                yield blob

    @property
    def size_bytes(self) -> int:
        """What the journal takes on the disk."""
        return sum(_size(file) for file in (self._file, self._wal))

    def close(self) -> None:
        """Sync, and let another exporter have the directory. A second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._syncer.join()
        try:
            self._connection.close()
        except sqlite3.Error as error:
            log.warning("closing the journal: %s", error)
        finally:
            os.close(self._lock)

    def _undo(self) -> None:
        # SQLite may have rolled back by itself.
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _not_stored(self, error: sqlite3.Error) -> JournalError:
        return JournalError(f"{self._file}: not stored: {error}: is there room on the disk, and may it be written?")

    def _shrink(self) -> None:
        """Give back what the file no longer needs, a little at a time: SQLite moves pages to do so."""
        try:
            (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            over = free - _FREE_BYTES // _PAGE_BYTES
            if over > 0:
                # execute() would take one step, which frees one page.
                pages = min(over, _SHRINK_BYTES // _PAGE_BYTES)
                self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")
        except sqlite3.Error as error:
            log.warning("the journal stays as large as it is: %s", error)

    def _sync(self, connection: sqlite3.Connection) -> None:
        """In its own thread: copy the WAL into the file and sync both, so that the WAL starts over and stays short."""
        failed = False
        while not self._closing.wait(_SYNC_SECONDS):
            try:
                # PASSIVE holds nobody up, but under steady load never quite catches up with the appends. RESTART makes
                # them wait while it copies and syncs the rest: the second pass leaves it little.
                _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages * _PAGE_BYTES > _WAL_LIMIT_BYTES:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                failed = False
            except sqlite3.Error as error:
                if not failed:
                    log.warning("%s: can't be synced, will be tried again: %s", self._file, error)
                failed = True
        connection.close()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _lock(directory: Path) -> int:
    try:
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(0o700)
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(lock, 0o600)
    except OSError as error:
        raise JournalError(f"{directory}: can't keep a journal there: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise JournalError(
            f"{directory}: another exporter (process {holder or 'unknown'}) has this journal:"
            " stop it, or give each exporter a directory of its own"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _make_private(file: Path) -> None:
    try:
        created = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(created, 0o600)
        os.close(created)
    except OSError as error:
        raise JournalError(f"{file}: can't be opened: {error.strerror}") from error


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA secure_delete = OFF")
    # What a burst made of the WAL is cut off when it starts over.
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    return connection


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    """Make the tables in a new file; refuse what isn't a journal that this version reads."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == 0 and tables == 0:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalError(f"{file}: this file system has no shared memory for SQLite: choose a local directory")
        connection.executescript(
            f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA}; COMMIT"
        )
    elif application != _APPLICATION:
        raise JournalError(
            f"{file}: an SQLite file, but no journal of this exporter: choose another directory for the journal"
        )
    elif schema != _SCHEMA:
        raise JournalError(
            f"{file}: a journal in format {schema}; this exporter reads format {_SCHEMA}:"
            " use the version that wrote it, or move the directory away to start with an empty journal"
        )
    # A file that can be read but not written is found here and not by the first request.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise JournalError(
            f"{file}: can't be opened: {error}: may it be read and written, and is there room?"
        ) from error
    except sqlite3.Error as error:
        raise JournalError(
            f"{file}: not a journal, or damaged: {error}. Nothing was deleted: mend it, choose another directory,"
            " or move this one away to start with an empty journal (counters then start at 0)"
        ) from error
