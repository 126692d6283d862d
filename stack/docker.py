"""The stack in Docker Compose, shown like the one of this machine's processes."""

import asyncio
import contextlib
import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from stack.credentials import FOLDER, ensure
from stack.local import Plan, Stack
from stack.pager import Message
from stack.ports import LOOPBACK
from stack.processes import Died, Program
from stack.status import View

ROOT = Path(__file__).resolve().parent.parent
NOTE = f"data: Docker volumes, which stay; Grafana's password for admin: {FOLDER}/grafana_admin_password"

_COMPOSE = ("docker", "compose", "--project-directory", str(ROOT))
_PAGES = {"exporter": 9464, "prometheus": 9090, "alertmanager": 9093, "controller": 9465, "grafana": 3000}


def engine_answers() -> bool:
    """Whether this is a checkout, and Docker Compose can start its services."""
    if not (ROOT / "docker-compose.yml").exists() or not shutil.which("docker"):
        return False
    asked = (("docker", "info"), ("docker", "compose", "version"))
    return all(subprocess.run(command, capture_output=True, check=False).returncode == 0 for command in asked)


class DockerStack(Stack):
    """Compose's services; the simulated agents alone are a process of this machine, so that a key reaches them."""

    def __init__(self, plan: Plan, view: View) -> None:
        super().__init__(plan, view)
        self._log = plan.data / "compose.log"
        self._pages_seen = 0

    async def _start_services(self, cleanup: AsyncExitStack) -> None:
        made = ensure(FOLDER)
        if made:
            self._say(f"made in {FOLDER}: {', '.join(made)}")
        cleanup.push_async_callback(self._stop_services)
        self._say("starting Docker Compose: the first time it fetches and builds images")
        # Returns once Prometheus is healthy, for which Grafana waits.
        await self._compose("up", "--detach", "--build")
        if self._plan.demo:
            await self._compose("run", "--rm", "-T", "demo-state")
        self._services += [Program(name, (), url=f"http://{LOOPBACK}:{port}") for name, port in _PAGES.items()]
        follow = asyncio.create_task(self._follow_pager())
        cleanup.callback(follow.cancel)

    async def _stop_services(self) -> None:
        # Where the engine is gone, what failed before is what to tell.
        with contextlib.suppress(Died):
            await self._compose("stop")

    async def _compose(self, *command: str) -> None:
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *_COMPOSE, *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            if await process.wait():
                lines = self._log.read_text(errors="replace").splitlines()[-15:]
                said = "\n".join(f"    {line}" for line in lines)
                raise Died(f"docker compose {' '.join(command)} failed:\n{said}")

    async def _follow_pager(self) -> None:
        """Takes over what the pager's container was told."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
                    async with http.get(f"http://{LOOPBACK}:{self._plan.ports.pager}/api/pages") as answer:
                        messages = [Message(**one) for one in (await answer.json())["messages"]]
                    for message in reversed(messages[: max(len(messages) - self._pages_seen, 0)]):
                        self._pager.take(message)
                    self._pages_seen = len(messages)
                await asyncio.sleep(1)
