"""Single keystrokes from a terminal."""

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def keystrokes(on_key: Callable[[str], None]) -> Iterator[None]:
    """Calls `on_key` with each key pressed, while inside. Needs a running event loop and a terminal on stdin."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def read() -> None:
        for key in os.read(descriptor, 64).decode(errors="ignore"):
            on_key(key)

    # Keys come at once and unseen; Ctrl-C stays a signal.
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
