"""A/B tests in the agent: which arm a user is in, and a record of each task, written off the agent's path.

Records are JSON lines in FOLDER/AGENT.EXPERIMENT.jsonl, for the owner's eyes alone. A user is in them by a keyed
hash: the same user, the same hash, for who has the key; the key is FOLDER/user.key unless it is given.
"""

import atexit
import hashlib
import hmac
import json
import logging
import os
import queue
import re
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent_oncall.bucket import bucket
from agent_oncall.schema import Arm, Experiment

_log = logging.getLogger("agent_oncall")

KEY_FILE = "user.key"

_MOST_WAITING = 10_000
_BATCH = 500
_FLUSH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Record:
    """One task in one experiment. `timestamp` is when it ended, ISO 8601 in UTC; `success` is None where nobody said;
    `cost_usd` is None where no cost was known."""

    experiment_id: str
    user_id: str
    variant: Arm
    task_id: str
    timestamp: str
    success: bool | None
    cost_usd: float | None
    iterations: int
    latency_ms: float


def records_file(folder: Path, agent: str, experiment: str) -> Path:
    """Where the records of an agent's experiment are."""
    return folder / f"{re.sub(r'[^A-Za-z0-9_.@-]', '_', agent)}.{experiment}.jsonl"


def arms(experiments: Mapping[str, Experiment], user_id: str) -> dict[str, Arm]:
    """The user's arm in each running experiment."""
    return {
        name: "b" if bucket(experiment.salt, user_id) < experiment.b_below else "a"
        for name, experiment in sorted(experiments.items())
        if experiment.running
    }


def utc(seconds: float) -> str:
    """Seconds since the epoch, as a record's timestamp has them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Records:
    """Writes records to a folder, by a thread that begins with the first of them. Never blocks, never raises.

    `lost` is called with the number of records that could not be written. `key` makes the users' hashes; with
    `plain_users` their ids are written as they are.
    """

    def __init__(
        self,
        folder: Path,
        agent: str,
        lost: Callable[[int], None],
        *,
        key: bytes | None = None,
        plain_users: bool = False,
    ) -> None:
        self._folder = folder
        self._agent = agent
        self._lost = lost
        self._key = key
        self._plain_users = plain_users
        self._complained = False
        self._waiting: queue.SimpleQueue[Record | threading.Event] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        atexit.register(self.close)

    def put(self, record: Record) -> None:
        if self._waiting.qsize() >= _MOST_WAITING:
            self._lost(1)
            return
        self._waiting.put(record)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(target=self._write_all, args=(self._waiting,), daemon=True)
                    try:
                        thread.start()
                    except (
                        RuntimeError
                    ):  # no threads left, or the interpreter is ending: the queue tells when it is full
                        return
                    self._thread = thread

    def close(self, timeout: float = _FLUSH_SECONDS) -> None:
        """Waits for what was put before, at most `timeout` seconds."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        written = threading.Event()
        self._waiting.put(written)
        written.wait(timeout)

    def after_fork(self) -> None:
        """To be called in the child: what waits in the parent is the parent's to write."""
        self._waiting = queue.SimpleQueue()
        self._thread = None
        self._starting = threading.Lock()

    def _write_all(self, waiting: "queue.SimpleQueue[Record | threading.Event]") -> None:
        while True:
            batch = [waiting.get()]
            while len(batch) < _BATCH:
                try:
                    batch.append(waiting.get_nowait())
                except queue.Empty:
                    break
            by_experiment: dict[str, list[Record]] = defaultdict(list)
            for item in batch:
                if isinstance(item, Record):
                    by_experiment[item.experiment_id].append(item)
            for experiment, records in by_experiment.items():
                self._write(experiment, records)
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()

    def _write(self, experiment: str, records: list[Record]) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lines = [line for record in records if (line := self._line(record)) is not None]
            body = b"".join(lines)
            handle = os.open(
                records_file(self._folder, self._agent, experiment), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
            )
            try:
                # One write: the lines of several processes do not mix.
                written = os.write(handle, body)
                if written < len(body):
                    os.write(handle, b"\n")
                    raise OSError(0, "the disk is full")
            finally:
                os.close(handle)
            self._failed(experiment, len(records) - len(lines), "a record can not be JSON")
        except Exception as error:
            self._failed(experiment, len(records), error)

    def _line(self, record: Record) -> bytes | None:
        """None where it can't be JSON; OSError where there is no key for the user's hash."""
        user = self._user(record.user_id)
        try:
            return json.dumps({**asdict(record), "user_id": user}, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError):
            return None

    def _failed(self, experiment: str, records: int, why: object) -> None:
        if not records:
            return
        self._lost(records)
        if not self._complained:
            self._complained = True
            _log.error("records of experiment %s could not be written to %s: %s", experiment, self._folder, why)

    def _user(self, user_id: str) -> str:
        if self._plain_users:
            return user_id
        if self._key is None:
            self._key = user_key(self._folder)
        return hash_user(self._key, user_id)


def hash_user(key: bytes, user_id: str) -> str:
    """A user's id as records have it: 32 hexadecimal digits of an HMAC-SHA256."""
    return hmac.new(key, user_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def user_key(folder: Path) -> bytes:
    """The folder's key, made when first asked for; OSError where it can be neither read nor made."""
    path = folder / KEY_FILE
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = folder / f".{KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    handle = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, secrets.token_bytes(32))
    finally:
        os.close(handle)
    try:
        # By a link, so that of several processes one wins and none ever sees half a key.
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
    return path.read_bytes()
