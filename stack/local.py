"""The stack, shown while it runs: as processes of this machine, or in Docker Compose."""

import asyncio
import contextlib
import math
import shlex
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from alert_rules.thresholds import Thresholds
from stack import configure, demo_state, programs
from stack.pager import Message, Pager
from stack.ports import LOOPBACK, Ports
from stack.processes import Died, Processes, Program
from stack.servers import ALERTMANAGER, COLLECTOR, JAEGER, PROMETHEUS, Server
from stack.status import Event, Status, View
from stack.watch import AlertNow, Now, Watch

_TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. `break_after` is when the demo's tool breaks, in seconds from when all runs; None for never."""

    servers: Mapping[Server, Path]
    ports: Ports
    data: Path
    thresholds: Thresholds
    exporter_config: Path | None = None
    demo: bool = True
    break_after: float | None = 25.0
    data_note: str = ""
    missing: str = ""
    """Which servers are not here, and how to get them."""


class Stack:
    """The running stack and what is known of it. One event loop, one instance."""

    def __init__(self, plan: Plan, view: View) -> None:
        self._plan = plan
        self._view = view
        self._stop = asyncio.Event()
        self._events: list[Event] = []
        self._pager = Pager(on_message=self._paged)
        self._processes = Processes(plan.data / "logs")
        self._services: list[Program] = []
        self._now = Now()
        self._alerts: dict[tuple[str, str], AlertNow] = {}
        self._broken_at: float | None = None
        self._break_at = math.inf
        self._report = ""
        self._orders: asyncio.Queue[str] = asyncio.Queue()

    async def run(self) -> None:
        """Starts all, shows it until `stop` or a signal to end, and stops all. Raises Died if a process fails."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop)
        work = asyncio.create_task(self._work())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    def stop(self) -> None:
        self._stop.set()

    def on_key(self, key: str) -> None:
        match key.lower():
            case "b" if self._plan.demo:
                self._orders.put_nowait("break")
            case "r" if self._plan.demo:
                self._orders.put_nowait("repair")
            case "q":
                self.stop()

    async def _work(self) -> None:
        async with AsyncExitStack() as cleanup:
            cleanup.push_async_callback(self._close)
            watch = await self._start(cleanup)
            died = asyncio.create_task(self._processes.died())
            cleanup.callback(died.cancel)
            while not died.done():
                self._now = await watch.now()
                self._note_alerts()
                await self._carry_out_orders()
                self._show()
                await asyncio.wait({died}, timeout=_TICK_SECONDS)
            raise Died(died.result())

    async def _start(self, cleanup: AsyncExitStack) -> Watch:
        plan = self._plan
        await self._start_services(cleanup)
        self._services.append(Program("pager", (), url=f"http://{LOOPBACK}:{plan.ports.pager}"))
        self._say(
            f"ready: agents send OTLP to {LOOPBACK}:{plan.ports.otlp_grpc} (gRPC) or :{plan.ports.otlp_http} (HTTP)"
        )
        if plan.demo:
            await self._processes.start(programs.demo(plan.ports))
            self._say("three demo agents start to work")
            if plan.break_after is not None:
                self._break_at = time.time() + plan.break_after
        watch = Watch(f"http://{LOOPBACK}:{plan.ports.prometheus}")
        cleanup.push_async_callback(watch.close)
        return watch

    async def _start_services(self, cleanup: AsyncExitStack) -> None:
        plan = self._plan
        with_collector, with_jaeger = COLLECTOR in plan.servers, JAEGER in plan.servers
        # Only a Collector sends traces on.
        traced = with_collector and with_jaeger
        configure.write(plan.data, plan.ports, plan.thresholds, jaeger=traced)
        if plan.demo:
            demo_state.make(programs.state_file(plan.data))
        serving = await self._pager.serve(plan.ports.pager)
        cleanup.push_async_callback(serving.close)
        started = [
            programs.exporter(plan.data, plan.ports, plan.exporter_config, behind_collector=with_collector),
            programs.controller(plan.data, plan.ports),
            programs.alertmanager(plan.servers[ALERTMANAGER], plan.data, plan.ports),
            programs.prometheus(plan.servers[PROMETHEUS], plan.data, plan.ports),
        ]
        if with_jaeger:
            started.append(programs.jaeger(plan.servers[JAEGER], plan.ports))
        if with_collector:
            started.append(programs.collector(plan.servers[COLLECTOR], plan.data, plan.ports))
        for program in started:
            self._say(f"starting {program.name}")
            await self._processes.start(program)
            if program.url:
                self._services.append(program)
        if plan.missing:
            self._say(plan.missing)
        self._say(
            "no Grafana runs here: the alerts' links to dashboards"
            f"{'' if traced else ' and traces'} lead nowhere" + (", those to traces to Jaeger" if traced else "")
        )
        self._report = _report_command(plan, jaeger=traced)

    async def _close(self) -> None:
        self._say("stopping")
        await self._processes.close()

    async def _carry_out_orders(self) -> None:
        if time.time() >= self._break_at:
            self._orders.put_nowait("break")
        while not self._orders.empty():
            order = self._orders.get_nowait()
            if order == "break" and self._broken_at is None:
                self._broken_at, self._break_at = time.time(), math.inf
                await self._processes.tell("demo", order)
                self._say(
                    "support-agent's tool lookup_order breaks: it answers malformed JSON, tasks begin to loop", "bad"
                )
            elif order == "repair" and self._broken_at is not None:
                self._broken_at = None
                await self._processes.tell("demo", order)
                self._say("lookup_order is repaired: the looping tasks come to an end", "good")

    def _note_alerts(self) -> None:
        firing = {(alert.name, alert.agent): alert for alert in self._now.alerts if alert.firing}
        for key in firing.keys() - self._alerts.keys():
            alert = firing[key]
            self._say(f"{alert.name} fires ({alert.severity}): {alert.summary}", "bad")
        for key in self._alerts.keys() - firing.keys():
            self._say(f"{' '.join(key).strip()} no longer fires", "good")
        self._alerts = firing

    def _paged(self, message: Message) -> None:
        if message.service == "slack":
            self._say(f"Slack {message.key}: {message.summary}")
        elif message.action == "resolve":
            self._say(f"PagerDuty: resolved: {message.summary}", "good")
        else:
            after = (
                "" if self._broken_at is None else f", {message.received - self._broken_at:.0f} s after the tool broke"
            )
            self._say(f"PagerDuty pages{after}: {message.summary}", "bad")
            if self._report:
                self._say(f"a report: {self._report}")
                self._report = ""

    def _say(self, text: str, kind: str = "info") -> None:
        self._events.append(Event(time.time(), text, kind))
        self._show()

    def _show(self) -> None:
        self._view.show(
            Status(
                now=self._now,
                events=tuple(self._events),
                open_pages=self._pager.open_incidents(),
                services=self._services,
                next_step=self._next_step(),
                data=self._plan.data_note,
            )
        )

    def _next_step(self) -> str:
        if not self._plan.demo:
            return f"Agents send OTLP to {LOOPBACK}:{self._plan.ports.otlp_grpc}."
        if self._broken_at is not None:
            since = time.time() - self._broken_at
            if self._pager.open_incidents():
                return f"The tool broke {since:.0f} s ago, and the pager was called. r repairs the tool."
            return f"The tool broke {since:.0f} s ago: tasks loop, none ends, every span is OK. Wait for the page."
        if self._break_at < math.inf:
            wait = max(0, self._break_at - time.time())
            return f"Ordinary work. A tool breaks by itself in {wait:.0f} s; b breaks it now."
        return "Ordinary work. b breaks a tool."


def _report_command(plan: Plan, *, jaeger: bool) -> str:
    """The command that reports on the demo's incident, as far back as the stack runs."""
    ports = plan.ports
    words = [
        "agent-oncall incident --alert AgentRunawayLoop --agent support-agent --since 15m",
        f"--prometheus http://{LOOPBACK}:{ports.prometheus} --alertmanager http://{LOOPBACK}:{ports.alertmanager}",
        f"--state {shlex.quote(str(programs.state_file(plan.data)))} --grafana-url ''",
    ]
    if jaeger:
        words.append(
            f"--traces-url '{configure.jaeger_search(ports)}' "
            f"--trace-url 'http://{LOOPBACK}:{ports.jaeger}/trace/{{trace}}'"
        )
    return " ".join(words) if plan.demo else ""
