"""The state file and its audit log: the only writer of either.

A change takes the folder's lock, appends its line to the log, and only then replaces the file: whatever is killed in
between, no change is without its line and no update is lost. A line whose change never came is void: declared so at
once where the file can't be replaced, and where the writer was killed told by the file, which is older than the line.
Readers need no lock: they see the old file or the new one.
"""

import fcntl
import getpass
import json
import math
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from agent_oncall.schema import State, StateError, document, loads, parse

AUDIT = "audit.jsonl"
_LOCK = ".lock"
_LOCK_SECONDS = 10.0
_PRIVATE = 0o600
_RECOVERY = "state recover"

Flags = Mapping[str, object]
Clock = Callable[[], float]


class StoreError(Exception):
    """The state can't be read or changed. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the audit log. `before` and `after` hold the flags that changed; None: there was, or is, none.

    `trigger` names the alert that caused it, if one did. `void`: the line was written, but its change never happened.
    """

    id: str
    time: str
    who: str
    action: str
    agent: str
    why: str
    generation: int
    before: Flags
    after: Flags
    trigger: Mapping[str, str] | None = None
    void: bool = False


def iso(moment: float) -> str:
    """Unix time as the state and the log tell it: UTC, whole seconds."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def whoami() -> str:
    """Who runs this process, as the log names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


class Store:
    """The state file at `path`, the log and the lock beside it."""

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock = time.time) -> None:
        self.path = Path(path)
        self.audit_path = self.path.parent / AUDIT
        self._clock = clock

    @property
    def now(self) -> float:
        """The clock that stamps changes, in unix seconds."""
        return self._clock()

    @property
    def begun(self) -> bool:
        """Whether there is, or was, a state."""
        return self.path.exists() or self.audit_path.exists()

    def read(self) -> State:
        """The state in force. StoreError if there is none or it is not of the shape."""
        try:
            return loads(self.path.read_bytes())
        except FileNotFoundError:
            raise StoreError(f"{self.path}: there is no state yet: agent-oncall state init makes it") from None
        except OSError as error:
            raise StoreError(f"{self.path}: can't be read: {error.strerror}") from error
        except StateError as error:
            raise StoreError(
                f"{self.path}: {error}. Agents keep the last good state; agent-oncall state init --recover makes it "
                "anew from the audit log"
            ) from error

    def entries(self) -> list[Entry]:
        """The audit log, oldest first. Lines that a crash tore are left out.

        The last one is void as well while the file can be read and is older: its change never came, or comes right now.
        """
        found: dict[str, Entry] = {}
        for content in self._lines():
            if "void" in content and (voided := found.get(str(content["void"]))):
                found[voided.id] = replace(voided, void=True)
            elif "id" in content:
                try:
                    entry = Entry(**content)  # type: ignore[arg-type]
                except TypeError:
                    continue  # a line of a later version
                found[entry.id] = entry
        entries = list(found.values())
        if entries and entries[-1].generation > self._generation():  # read after the log, which is written first
            entries[-1] = replace(entries[-1], void=True)
        return entries

    def create(self, *, who: str, why: str, generation: int = 1) -> None:
        """Makes an empty state of that generation where there is none. StoreError if one is there, or was by the log.

        Agents that have seen another state take no smaller generation than that one's.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            if self.path.exists():
                raise StoreError(f"{self.path}: is there already")
            if any(not entry.void for entry in self.entries()):
                raise StoreError(
                    f"{self.path}: is gone, and {self.audit_path} tells what was in it: agent-oncall state init "
                    "--recover makes it anew"
                )
            before = State(generation=generation - 1)
            self._write(before, State(), action="state init", agent="", who=who, why=why, trigger=None)

    def recover(self, *, who: str, why: str, generation: int = 1) -> State:
        """Makes the file anew from the log: every change that happened, in order. Its generation is at least that one.

        With the file lost, whether the last change came is not known: where it closed a breaker, or switched an agent
        on, that is left to a person.
        """
        with self._locked():
            flags: dict[str, object] = {}
            entries = self.entries()
            for entry in entries:
                if not entry.void:
                    _put(flags, entry.after)
            if entries and not entries[-1].void and self._generation() == math.inf:
                last = entries[-1]
                _put(flags, {name: old for name, old in last.before.items() if _cuts(old) > _cuts(last.after[name])})
            if not flags:
                raise StoreError(f"{self.audit_path}: tells of no change, so there is nothing to make a state of")
            after = replace(_state_of(flags), generation=generation - 1)
            self._write(after, after, action=_RECOVERY, agent="", who=who, why=why, trigger=None)
            return self.read()

    def change(
        self,
        decide: Callable[[State], State],
        *,
        action: str,
        agent: str,
        who: str,
        why: str,
        trigger: Mapping[str, str] | None = None,
    ) -> Entry | None:
        """Replaces the state by `decide(state)`; its line in the log, or None if nothing would change.

        What `decide` raises goes through, and nothing has changed then. StoreError if the result is not of the shape,
        or can't be written.
        """
        with self._locked():
            before = self.read()
            after = decide(before)
            if after == before:
                return None
            return self._write(before, after, action=action, agent=agent, who=who, why=why, trigger=trigger)

    def undo(
        self,
        entry_id: str,
        *,
        who: str,
        why: str,
        check: Callable[[State, State], None] = lambda before, after: None,
    ) -> Entry:
        """Puts back what the change `entry_id` replaced. StoreError if something of it was changed again since. What
        `check`, called with the state before and after, raises goes through, and nothing has changed then."""

        def back(state: State) -> State:
            entries = {entry.id: entry for entry in self.entries()}
            entry = entries.get(entry_id)
            if entry is None:
                raise StoreError(f"{entry_id}: there is no such change; agent-oncall state log lists them")
            if entry.void or not entry.after:
                raise StoreError(f"{entry_id}: changed nothing, so there is nothing to undo")
            if entry.action == _RECOVERY:
                raise StoreError(f"{entry_id}: made the file anew, so there is no state before it to go back to")
            flags = _flags(state)
            for name, value in entry.after.items():
                if flags.get(name) != value:
                    later = [
                        e.id
                        for e in entries.values()
                        if e.generation > entry.generation and name in e.after and not e.void
                    ]
                    if not later:
                        raise StoreError(
                            f"{entry_id}: {name} is not as that change left it, and the log doesn't say why: was "
                            f"{self.path} edited, or an older one put back?"
                        )
                    raise StoreError(f"{entry_id}: {name} was changed again by {', '.join(later)}: undo that first")
            changed = dict(flags)
            _put(changed, entry.before)
            after = replace(_state_of(changed), generation=state.generation, metadata=state.metadata)
            check(state, after)
            return after

        entries = {entry.id: entry for entry in self.entries()}
        agent = entries[entry_id].agent if entry_id in entries else ""
        done = self.change(back, action=f"undo {entry_id}", agent=agent, who=who, why=why)
        assert done is not None  # before and after of an entry differ
        return done

    # -- files ---------------------------------------------------------------------------------------------------

    def _write(
        self,
        before: State,
        after: State,
        *,
        action: str,
        agent: str,
        who: str,
        why: str,
        trigger: Mapping[str, str] | None,
    ) -> Entry:
        last, last_id, void = self._last()
        if last > self._generation() and not void:
            # Its writer was killed before the file was replaced.
            self._void(last_id)
        # Never a number twice, even if an older file was put back: agents take a smaller one for an old file.
        generation = max(before.generation, last) + 1
        after = replace(after, generation=generation)
        try:
            body = json.dumps(document(after), indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            loads(body)
        except (StateError, ValueError) as error:
            raise StoreError(f"nothing was changed, since the state would not be valid: {error}") from error
        old, new = _flags(before), _flags(after)
        changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if action == _RECOVERY:
            old, changed = {}, list(new)
        entry = Entry(
            id=f"c{generation}",
            time=iso(self.now),
            who=who,
            action=action,
            agent=agent,
            why=why,
            generation=generation,
            before={name: old.get(name) for name in changed},
            after={name: new.get(name) for name in changed},
            trigger=trigger,
        )
        line = {key: getattr(entry, key) for key in Entry.__dataclass_fields__ if key != "void"}
        self._append({key: value for key, value in line.items() if value is not None})
        try:
            replace_file(self.path, body)
        except StoreError:
            if self._generation() != generation:
                with suppress(StoreError):  # a full disk: entries() sees by the file that the change never came
                    self._void(entry.id)
            raise
        return entry

    def _void(self, entry_id: str) -> None:
        self._append({"void": entry_id, "time": iso(self.now)})

    def _generation(self) -> float:
        """Of the file; infinity where it can't be read, so that no change is taken for one that never came."""
        try:
            return loads(self.path.read_bytes()).generation
        except (OSError, StateError):
            return math.inf

    def _last(self) -> tuple[int, str, bool]:
        """Generation and id of the log's last change, and whether it is void; 0 without any."""
        voided: set[object] = set()
        for content in self._lines(backwards=True):
            if "void" in content:
                voided.add(content["void"])
            elif isinstance(generation := content.get("generation"), int):
                return generation, str(content.get("id")), content.get("id") in voided
        return 0, "", False

    def _append(self, content: Mapping[str, object]) -> None:
        line = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        try:
            handle = os.open(self.audit_path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
            try:
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    line = b"\n" + line  # what a crash tore stays a line of its own
                while line:
                    line = line[os.write(handle, line) :]
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise StoreError(
                f"{self.audit_path}: can't be written, so nothing was changed: {error.strerror}"
            ) from error

    def _lines(self, *, backwards: bool = False) -> Iterator[dict[str, object]]:
        try:
            body = self.audit_path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self.audit_path}: can't be read: {error.strerror}") from error
        lines = body.splitlines()
        for line in reversed(lines) if backwards else lines:
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.path.parent / _LOCK
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        except OSError as error:
            raise StoreError(
                f"{lock}: can't be opened: {error.strerror}. Is {lock.parent} the state's folder?"
            ) from None
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise StoreError(
                            f"{lock}: another writer has held it for {_LOCK_SECONDS:g} s: `fuser {lock}` says which"
                        ) from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(handle)


def replace_file(path: Path, body: bytes) -> None:
    """Writes a file such that readers see the old one or the new one, after a crash too; it keeps its mode, 0600 at
    first. StoreError if that is not possible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            mode = _PRIVATE
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE)
        try:
            os.fchmod(handle, mode)
            rest = body
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        hint = " (a file that is mounted alone can't be replaced: mount its folder)" if error.errno == 16 else ""
        raise StoreError(f"{path}: can't be replaced: {error.strerror}{hint}") from error


def _flags(state: State) -> dict[str, object]:
    flags = document(state)["flags"]
    assert isinstance(flags, dict)
    return flags


def _put(flags: dict[str, object], changes: Flags) -> None:
    for name, value in changes.items():
        if value is None:
            flags.pop(name, None)
        else:
            flags[name] = value


def _cuts(flag: object) -> int:
    """How much a flag keeps from running: nothing, most, all."""
    variant = flag.get("defaultVariant") if isinstance(flag, Mapping) else None
    return {"half_open": 1, "open": 2, "off": 2}.get(str(variant), 0)


def _state_of(flags: Flags) -> State:
    return parse({"metadata": {"generation": 0}, "flags": dict(flags)})
