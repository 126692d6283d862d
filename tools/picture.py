"""Takes the README's picture: starts the stack, waits for the page, and saves what the terminal shows then.

.venv/bin/python tools/picture.py docs/img/up.svg
"""

import asyncio
import io
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from alert_rules import thresholds
from cli.up import DEMO_THRESHOLDS, KEYS
from stack import servers
from stack.local import Plan, Stack
from stack.ports import Ports
from stack.status import Status, render


class Camera:
    """A view that keeps what is shown, and says when there is a page and the alert beside it."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()
        self.status = Status()

    def show(self, status: Status) -> None:
        self.status = status
        if status.open_pages and any(alert.firing for alert in status.now.alerts):
            self.taken.set()

    def close(self) -> None: ...


async def photograph(picture: Path) -> None:
    ports = Ports()
    camera = Camera()
    with tempfile.TemporaryDirectory() as data:
        found = servers.get((servers.PROMETHEUS, servers.ALERTMANAGER))
        stack = Stack(Plan(found, ports, Path(data), thresholds.load(DEMO_THRESHOLDS)), camera)
        running = asyncio.create_task(stack.run())
        taken = asyncio.create_task(camera.taken.wait())
        await asyncio.wait({running, taken}, return_when=asyncio.FIRST_COMPLETED)
        status = camera.status
        stack.stop()
        await running
    console = Console(record=True, width=112, file=io.StringIO())
    console.print(render(status, KEYS, height=40))
    # Without the web font: a picture in a README loads nothing.
    svg = console.export_svg(title="make up", unique_id="up")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(photograph(Path(sys.argv[1])))
