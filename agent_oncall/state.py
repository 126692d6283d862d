"""The state file as agents see it: read when it changed, and never worse than it was.

A file that is torn, empty, deleted, invalid or older than what was read before leaves the state as it is.
"""

import hashlib
import json
import logging
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent_oncall import schema
from agent_oncall.schema import Agent, State, StateError

_log = logging.getLogger("agent_oncall")

EVERY_SECONDS = 0.25
"""The file is looked at no more often than this: so long a change may take to be seen."""

_MOST_BYTES = 16_000_000


class StateReader:
    """The state in a file, by `current()`, from any thread. There is no thread of its own, so a fork changes nothing.

    `last_good` names a file that keeps a copy of what was read, for a restart while the file is broken.
    """

    def __init__(
        self,
        path: Path | None,
        last_good: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.ok = False
        """Whether the latest look found a good file. False without a path."""
        self._last_good = last_good
        self._clock = clock
        self._state = State()
        self._seen: tuple[int, int, int, int] | None = None
        self._next_look = float("-inf")
        self._problem = ""
        self._looking = threading.Lock()
        if path is not None:
            self._restore()

    def current(self) -> State:
        """What the file says, at most a quarter of a second old; what it last said where it can't be used; an empty
        State before it ever said anything. Never raises, and waits for no other thread."""
        if self.path is None or self._clock() < self._next_look or not self._looking.acquire(blocking=False):
            return self._state
        try:
            self._look(self.path)
        except Exception as error:  # whatever is in the file, the agent goes on
            self._failed(str(error) or type(error).__name__)
        finally:
            self._next_look = self._clock() + EVERY_SECONDS
            self._looking.release()
        return self._state

    def after_fork(self) -> None:
        """To be called in the child: another thread of the parent may have been looking."""
        self._looking = threading.Lock()

    def _look(self, path: Path) -> None:
        try:
            found = os.stat(path)
        except OSError as error:
            self._seen = None
            self._failed(f"{error.strerror}")
            return
        seen = found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size
        if seen == self._seen:
            return
        self._seen = None  # for want of a descriptor or a permission it is read again, though it has not changed
        try:
            new, body = _read(path)
        except StateError:
            self._seen = seen
            raise
        self._seen = seen
        self._take(new)
        self.ok, self._problem = True, ""
        _log.info("state file %s: generation %d", path, new.generation)
        self._keep(body)

    def _take(self, new: State) -> None:
        if new.generation < self._state.generation:
            raise StateError(
                "metadata.generation",
                f"{new.generation} is older than {self._state.generation}, which was read before"
                f"{f' (a copy is in {self._last_good})' if self._last_good else ''}; a file that is put back needs a "
                f"higher generation: agent-oncall state init --recover --generation {self._state.generation + 1}",
            )
        self._state = _never_closing(self._state, new)

    def _failed(self, problem: str) -> None:
        self.ok = False
        if problem != self._problem:
            self._problem = problem
            _log.error("state file %s: %s; what was read before stays in force", self.path, problem)

    def _restore(self) -> None:
        if self._last_good is None:
            return
        try:
            self._state, _ = _read(self._last_good)
        except FileNotFoundError:
            return
        except (OSError, StateError) as error:
            _log.warning("copy of the state in %s: %s; it is not used", self._last_good, error)

    def _keep(self, body: bytes) -> None:
        """The copy, as it was read. Agents do well without one, so where none can be written that is all."""
        if self._last_good is None:
            return
        try:
            if self._state != schema.loads(body, strict=False):
                body = json.dumps(schema.document(self._state)).encode()
            self._last_good.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._last_good.parent, prefix=".state.")
            with os.fdopen(handle, "wb") as file:
                file.write(body)
            os.replace(temporary, self._last_good)
        except OSError as error:
            _log.warning("no copy of the state in %s: %s", self._last_good, error.strerror)


def default_copy(path: Path) -> Path | None:
    """Where the copy of a state file is kept unless told otherwise: in the user's cache folder. None for a user without
    a home."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):
        _log.warning("no copy of the state %s is kept: the user has no home; give last_good", path)
        return None
    name = hashlib.sha256(str(path.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Path(cache) / "agent-oncall" / f"{name}.json"


def _read(path: Path) -> tuple[State, bytes]:
    # Not to wait for a writer, should somebody have put a pipe there.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise StateError("", "no regular file")
        body = file.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES:
        raise StateError("", f"larger than {_MOST_BYTES} bytes")
    return schema.loads(body, strict=False), body


def _never_closing(old: State, new: State) -> State:
    """The new state. A breaker or an off switch that it leaves out stays as it was: only a word closes one."""
    kept: dict[str, Agent] = {}
    for name, before in old.agents.items():
        after = new.agents.get(name, Agent())
        if after.breaker is None and before.breaker is not None and before.breaker.state != "closed":
            after = replace(after, breaker=before.breaker)
        if after.enabled is None and before.enabled is not None and not before.enabled.on:
            after = replace(after, enabled=before.enabled)
        if after != new.agents.get(name, Agent()):
            kept[name] = after
    return replace(new, agents={**new.agents, **kept}) if kept else new
