"""An event loop in which nothing takes any time but what sleeps, and that only in its own time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):
    """Where the loop would wait, its time goes on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout:
            self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(loop: VirtualLoop, work: Coroutine[Any, Any, None]) -> None:
    """Runs it to its end, and closes the loop."""
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()
