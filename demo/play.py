"""Plays a fleet to an OTLP receiver, in real time or faster."""

import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Protocol

from demo.fleet import Fleet
from demo.spans import Span


class Sender(Protocol):
    def send(self, spans: Sequence[Span]) -> None: ...

    def close(self) -> None: ...


def play(
    fleet: Fleet,
    sender: Sender,
    *,
    start: float,
    speed: float = 1.0,
    seconds: float | None = None,
    stop: Event | None = None,
    step: float = 0.25,
    clock: Callable[[], float] = time.time,
    after_step: Callable[[float], None] = lambda _: None,
) -> None:
    """Sends the fleet's spans as they end, until `seconds` of the scenario are over or `stop` is set.

    `start` is the fleet's start (epoch seconds). At `speed` N a minute of the scenario takes 60/N seconds, and the
    spans' times and latencies shrink likewise, so none lies in the future. `after_step` is called with the scenario's
    present moment (epoch seconds, uncompressed) after each sending.
    """
    stop = stop or Event()
    end = None if seconds is None else start + seconds
    while True:
        now = start + (clock() - start) * speed
        if end is not None:
            now = min(now, end)
        sender.send([span.compressed(start, speed) for span in fleet.spans(now)])
        after_step(now)
        if (end is not None and now >= end) or stop.wait(step):
            return
