"""Child processes that start together, are watched, and never outlive their parent."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

_STOP_SECONDS = 10.0
_READY_SECONDS = 60.0
_SHOWN_LINES = 15


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `ready` is a URL that answers 2xx once it works, "" if it does at once; `url` is for people."""

    name: str
    command: Sequence[str]
    ready: str = ""
    url: str = ""
    controlled: bool = False
    """Whether it takes orders on its standard input."""


class Died(Exception):
    """A process ended that should not have, or never got ready; the text has the last lines of its log."""


class Processes:
    """Runs programs, each with a log `NAME.log` in `logs`. Close stops all, in reverse order."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._closing = False

    async def start(self, program: Program) -> None:
        """Starts it and waits until it is ready. Raises Died if it ends before, or takes longer than a minute."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{program.name}.log").open("wb") as log:
            try:
                process = await asyncio.create_subprocess_exec(
                    *program.command,
                    stdin=asyncio.subprocess.PIPE if program.controlled else asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C in the terminal is for the parent, who stops the rest in order.
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                raise Died(f"{program.name} could not be started: {error}") from None
        self._running[program.name] = process
        if program.ready:
            await self._until_ready(program, process)

    async def died(self) -> str:
        """Waits until a process ends by itself; then what to tell about it."""
        waits = {asyncio.create_task(process.wait()): name for name, process in self._running.items()}
        if not waits:
            await asyncio.Event().wait()
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        name = waits[done.pop()]
        return self._obituary(name, self._running[name])

    async def tell(self, name: str, line: str) -> None:
        """Writes a line to the standard input of a controlled program that still runs."""
        pipe = self._running[name].stdin
        assert pipe is not None, f"{name} takes no orders"
        with contextlib.suppress(ConnectionError):
            pipe.write(f"{line}\n".encode())
            await pipe.drain()

    async def close(self) -> None:
        """Asks each to end, the last started first, and kills what has not after ten seconds."""
        for process in reversed(self._running.values()):
            if process.returncode is None:
                _signal(process, signal.SIGTERM)
                try:
                    await asyncio.wait_for(process.wait(), _STOP_SECONDS)
                except TimeoutError:
                    _signal(process, signal.SIGKILL)
                    await process.wait()
        self._running.clear()

    async def _until_ready(self, program: Program, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            while time.monotonic() < deadline:
                if process.returncode is not None:
                    raise Died(self._obituary(program.name, process))
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.get(program.ready) as answer:
                        if answer.ok:
                            return
                await asyncio.sleep(0.1)
        raise Died(f"{program.name} was not ready after {_READY_SECONDS:.0f} s.\n{self._last_lines(program.name)}")

    def _obituary(self, name: str, process: asyncio.subprocess.Process) -> str:
        code = process.returncode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{name} {how}.\n{self._last_lines(name)}"

    def _last_lines(self, name: str) -> str:
        log = self._logs / f"{name}.log"
        lines = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:] if log.exists() else []
        if not lines:
            return f"Its log {log} is empty."
        return f"The last lines of its log {log}:\n" + "\n".join(f"    {line}" for line in lines)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To the process and what it started in turn: each program leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


# Loaded before any fork: between fork and exec nothing should be looked up.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Has the kernel end this process with its parent, however that ends. Linux only; elsewhere nothing is done."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
