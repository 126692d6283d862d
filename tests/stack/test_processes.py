import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stack.processes import Died, Processes, Program


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-u", "-c", code)


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    running = Processes(tmp_path)
    yield running
    await running.close()


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie, which nobody here waits for, does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def line_of(log: Path) -> str:
    """The first line of a log, once it is there."""
    while not (log.exists() and "\n" in (text := log.read_text())):
        await asyncio.sleep(0.02)
    return text.splitlines()[0]


async def test_a_process_that_dies_is_told_with_the_end_of_its_log(processes: Processes) -> None:
    await processes.start(Program("server", python("print('cannot open the database'); raise SystemExit(3)")))
    obituary = await processes.died()
    assert "server ended with exit code 3" in obituary
    assert "cannot open the database" in obituary


async def test_a_process_that_dies_before_it_is_ready_is_an_error(processes: Processes) -> None:
    program = Program("server", python("print('bad flag'); raise SystemExit(1)"), ready="http://127.0.0.1:1/ready")
    with pytest.raises(Died, match=r"(?s)server ended with exit code 1.*bad flag"):
        await processes.start(program)


async def test_a_program_that_is_not_there_is_an_error(processes: Processes) -> None:
    with pytest.raises(Died, match=r"server could not be started: .*no/such/program"):
        await processes.start(Program("server", ("/no/such/program",)))


async def test_close_ends_a_process_and_what_it_started(tmp_path: Path) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '1000']).pid); time.sleep(1000)"
    processes = Processes(tmp_path)
    await processes.start(Program("server", python(code)))
    grandchild = int(await line_of(tmp_path / "server.log"))
    await processes.close()
    while alive(grandchild):
        await asyncio.sleep(0.02)


async def test_close_kills_what_does_not_end_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.processes._STOP_SECONDS", 0.2)
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid());"
        " [time.sleep(1) for _ in range(1000)]"
    )
    processes = Processes(tmp_path)
    await processes.start(Program("server", python(code)))
    pid = int(await line_of(tmp_path / "server.log"))
    await processes.close()
    assert not alive(pid)


async def test_orders_reach_a_controlled_program(processes: Processes, tmp_path: Path) -> None:
    await processes.start(Program("demo", python("print(input())"), controlled=True))
    await processes.tell("demo", "break")
    assert await line_of(tmp_path / "demo.log") == "break"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
async def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from stack.processes import Processes, Program
async def main():
    await Processes(Path({str(tmp_path)!r})).start(
        Program("child", (sys.executable, "-u", "-c", "import os, time; print(os.getpid()); time.sleep(1000)")))
    await asyncio.sleep(1000)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    child = int(await line_of(tmp_path / "child.log"))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while alive(child):
        await asyncio.sleep(0.02)
