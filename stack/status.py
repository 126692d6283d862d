"""How the running stack is shown: a live view on a terminal, plain lines where the output goes elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stack.pager import Message
from stack.processes import Program
from stack.watch import Now

_FEWEST_EVENTS, _MOST_EVENTS = 2, 10
_OTHER_LINES = 13  # the frame, three headers, the gaps, the two last lines, and one for the cursor
_SUMMARY_SECONDS = 10.0
_STYLES = {"good": "green", "bad": "bold red", "info": ""}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: epoch seconds, what, and `good`, `bad` or `info`."""

    at: float
    text: str
    kind: str = "info"

    def __str__(self) -> str:
        return f"{time.strftime('%H:%M:%S', time.localtime(self.at))}  {self.text}"


@dataclass(frozen=True, slots=True)
class Status:
    """All that is shown. `next_step` says what will happen or what the reader can do; `open_pages` are incidents."""

    now: Now = field(default_factory=Now)
    events: Sequence[Event] = ()
    open_pages: Sequence[Message] = ()
    services: Sequence[Program] = ()
    next_step: str = ""
    data: str = ""


class View(Protocol):
    def show(self, status: Status) -> None: ...

    def close(self) -> None: ...


class LiveView:
    """Redraws the status in place."""

    def __init__(self, console: Console, keys: str) -> None:
        self._keys = keys
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, status: Status) -> None:
        self._live.update(render(status, self._keys, self._live.console.height), refresh=True)

    def close(self) -> None:
        self._live.stop()


class PlainView:
    """Writes each event once, as it happens, and a line on the agents every ten seconds."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._told = 0
        self._next_summary = 0.0
        self._services_told = 0

    def show(self, status: Status) -> None:
        for service in status.services[self._services_told :]:
            self._say(f"{service.name}: {service.url}")
        self._services_told = len(status.services)
        for event in status.events[self._told :]:
            self._say(str(event))
        self._told = len(status.events)
        if status.now.agents and time.monotonic() >= self._next_summary:
            self._next_summary = time.monotonic() + _SUMMARY_SECONDS
            self._say(str(Event(time.time(), summary(status.now))))

    def close(self) -> None:
        pass

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def summary(now: Now) -> str:
    """The agents in one line."""
    return "; ".join(
        f"{name}: {agent.in_flight:.0f} in flight, {agent.looping:.0f} looping, {agent.usd_per_minute:.2f} USD/min"
        for name, agent in now.agents.items()
    )


def render(status: Status, keys: str, height: int) -> Group:
    """The whole status for a terminal of `height` lines: on a low one, fewer of the past events."""
    rows = (len(status.now.agents), len(status.now.alerts), len(status.open_pages))
    room = height - _OTHER_LINES - len(status.services) - sum(max(count, 1) for count in rows)
    latest = status.events[-max(_FEWEST_EVENTS, min(room, _MOST_EVENTS)) :]
    return Group(
        Panel(
            Text(status.next_step or " ", style="bold"), title="agent-oncall", title_align="left", border_style="cyan"
        ),
        _agents(status.now),
        Text(),
        _alerts(status.now),
        Text(),
        _pages(status.open_pages),
        Text(),
        *(Text(str(event), style=_STYLES[event.kind], overflow="ellipsis", no_wrap=True) for event in latest),
        Text(),
        _services(status.services),
        Text(status.data, style="dim"),
        Text(keys, style="cyan"),
    )


def _agents(now: Now) -> Table:
    table = _table("agent", *(("tasks in flight", "looping", "ended", "USD/min", "USD")))
    for name, agent in now.agents.items():
        looping = Text(f"{agent.looping:.0f}", style=_STYLES["bad"] if agent.looping else "")
        numbers = (f"{agent.ended:.0f}", f"{agent.usd_per_minute:.2f}", f"{agent.usd:.2f}")
        table.add_row(name, f"{agent.in_flight:.0f}", looping, *numbers)
    if not now.agents:
        table.add_row(Text("waiting for the first spans", style="dim"), *[""] * 5)
    return table


def _alerts(now: Now) -> Table:
    table = _table("alert", left=("state", "severity", "what"))
    for alert in now.alerts:
        state = Text("firing", style=_STYLES["bad"]) if alert.firing else Text("pending", style="yellow")
        table.add_row(alert.name, state, alert.severity, alert.summary)
    if not now.alerts:
        table.add_row(Text("none", style="dim"), "", "", "")
    return table


def _pages(pages: Sequence[Message]) -> Table:
    table = _table("page", left=("at", "what"))
    for page in pages:
        at = time.strftime("%H:%M:%S", time.localtime(page.received))
        table.add_row("PagerDuty", at, Text(page.summary, style=_STYLES["bad"]))
    if not pages:
        table.add_row(Text("none", style="dim"), "", "")
    return table


def _services(services: Sequence[Program]) -> Table:
    table = Table.grid(padding=(0, 2))
    for service in services:
        table.add_row(service.name, Text(service.url, style="underline"))
    return table


def _table(first: str, *right: str, left: Sequence[str] = ()) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first, min_width=20, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for name in left:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    return table
