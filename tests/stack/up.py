"""`agent-oncall up` as a process of its own."""

import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from stack.ports import Ports


class Up:
    """A running `agent-oncall up`, on ports of its own. `environ` goes over this process' environment."""

    def __init__(self, folder: Path, *options: str, **environ: str) -> None:
        self.offset = next(n for n in random.sample(range(11_000, 48_000, 100), 50) if not Ports().moved(n).taken())
        self.ports = Ports().moved(self.offset)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.output = folder / "output.txt"
        with self.output.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up", f"--port-offset={self.offset}", *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "TMPDIR": str(self.temporary), **environ},
            )

    def said(self) -> str:
        return self.output.read_text()

    def until(self, text: str) -> None:
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            time.sleep(0.1)

    def ended(self) -> int:
        return self.process.wait(60)

    def children(self) -> list[int]:
        """Processes that name one of its ports, the command itself aside."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes()
            except OSError:
                continue
            pid = int(path.parent.name)
            if f"127.0.0.1:{self.ports.otlp_grpc}".encode() in command or str(self.temporary).encode() in command:
                found.append(pid)
        return found


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)
