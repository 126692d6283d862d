"""`agent-oncall demo SCENARIO`: simulated agents that send their spans by OTLP."""

import argparse
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from types import FrameType

from demo import scenarios
from demo.fleet import Fleet
from demo.play import Sender, play
from demo.scenarios import Runaway, Scenario

_EPILOG = """\
scenarios:
  normal      three agents at ordinary work, until Ctrl-C
  incident    the same, and a tool that answers malformed JSON: 200 tasks of support-agent loop for 45 minutes,
              8,000 tokens a loop, 1,400 USD; none of them ends
  launch      the same, and ten times the tasks
  outage      the same, and the calls of one model fail
  bad-canary  the same, and a tenth of support-agent's tasks get a new version, which is dearer and misses its goal
  quiet       minutes without a task

examples:
  agent-oncall demo incident --otlp 127.0.0.1:4317 --speed 10
  agent-oncall demo normal --backfill 8d --tsdb /var/lib/prometheus
      sends nothing; puts eight days of the scenario into Prometheus' data directory, and what the rules record of them
"""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "demo",
        help="send the spans of simulated agents",
        description="Simulated agents that send their spans by OTLP/gRPC, through the OpenTelemetry SDK.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", choices=tuple(_SCENARIOS))
    parser.add_argument(
        "--otlp",
        type=_address,
        metavar="HOST:PORT",
        default="127.0.0.1:4317",
        help="OTLP/gRPC receiver (default %(default)s)",
    )
    parser.add_argument(
        "--speed", type=_positive, default=1.0, metavar="N", help="N times as fast; times and latencies shrink likewise"
    )
    parser.add_argument(
        "--after",
        type=_seconds,
        metavar="SECONDS",
        help="ordinary traffic before what happens, in the scenario's time (incident and bad-canary 0 unless given, "
        "launch and outage 60)",
    )
    parser.add_argument("--seconds", type=_positive, metavar="N", help="stop after N seconds of the scenario's time")
    parser.add_argument("--seed", type=int, default=0, help="another draw of the same scenario")
    parser.add_argument(
        "--bare", action="store_true", help="only what the base schema requires: no model, no arguments, all spans OK"
    )
    runaway = Runaway()
    parser.add_argument(
        "--runaway-tasks",
        type=int,
        default=runaway.tasks,
        metavar="N",
        help="tasks that loop once the tool is broken (default %(default)s)",
    )
    parser.add_argument(
        "--loop-seconds",
        type=_positive,
        default=runaway.seconds / runaway.loops,
        metavar="SECONDS",
        help="time of one loop, in the scenario's time (default %(default).2f)",
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="read `break` and `repair` from standard input, a line each, and stop when it closes",
    )
    history = parser.add_argument_group("history, instead of sending")
    history.add_argument(
        "--backfill", type=days, metavar="DAYS", help="so many days of the scenario up to now, such as 8d"
    )
    history.add_argument("--tsdb", type=Path, metavar="DIR", help="Prometheus' data directory, which it may be using")
    history.add_argument(
        "--instance",
        default="127.0.0.1:9464",
        metavar="HOST:PORT",
        help="the exporter, as Prometheus scrapes it (default %(default)s)",
    )
    history.add_argument("--thresholds", type=Path, metavar="FILE", help="YAML: agent → limit → number, for the rules")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.backfill or options.tsdb:
        return _backfill(options)
    # Only here, so that --help needs no SDK.
    from demo.sdk import SdkSender

    if reason := _unreachable(*options.otlp):
        target = ":".join(map(str, options.otlp))
        print(
            f"agent-oncall demo: nothing takes OTLP at {target} ({reason}): "
            "start `agent-oncall serve`, or name another receiver by --otlp",
            file=sys.stderr,
        )
        return 2
    scenario = _scenario(options)
    stop = Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    start = time.time()
    fleet = Fleet(scenario, seed=options.seed, start=start, bare=options.bare)
    orders: SimpleQueue[str] = SimpleQueue()
    if options.control:
        Thread(target=_listen, args=(orders, stop), daemon=True).start()
    host, port = options.otlp
    print(f"{scenario.name}: sending to {host}:{port}{_until(options, scenario)}", file=sys.stderr, flush=True)
    sender: Sender = SdkSender(f"{host}:{port}")
    progress = _Progress(fleet, start)

    def after_step(now: float) -> None:
        progress(now)
        while not orders.empty():
            match orders.get():
                case "break":
                    fleet.break_tool(now)
                case "repair":
                    fleet.repair()

    try:
        play(
            fleet,
            sender,
            start=start,
            speed=options.speed,
            seconds=options.seconds or scenario.seconds,
            stop=stop,
            after_step=after_step,
        )
    finally:
        sender.close()
    progress.report()
    return 0


def _scenario(options: argparse.Namespace) -> Scenario:
    after = {} if options.after is None else {"after": options.after}
    usual = Runaway()
    seconds = options.loop_seconds * usual.loops
    spread = usual.spread_seconds * seconds / usual.seconds
    runaway = Runaway(tasks=options.runaway_tasks, seconds=seconds, spread_seconds=spread)
    if options.scenario == "incident":
        return scenarios.incident(runaway=runaway, **after)
    make = _SCENARIOS[options.scenario]
    takes_after = options.scenario not in ("normal", "quiet")
    return replace(make(**after) if takes_after else make(), runaway=runaway)


def _backfill(options: argparse.Namespace) -> int:
    from alert_rules.thresholds import BadThreshold, load
    from stack.history import fill
    from stack.ports import free_port
    from stack.servers import MissingServer

    if not (options.backfill and options.tsdb):
        print("agent-oncall demo: --backfill DAYS and --tsdb DIR go together", file=sys.stderr)
        return 2
    if options.scenario in ("incident", "launch"):
        print(
            f"agent-oncall demo: {options.scenario} is no week: backfill normal, and play {options.scenario} after it",
            file=sys.stderr,
        )
        return 2
    tsdb: Path = options.tsdb
    if not tsdb.parent.is_dir():
        print(f"agent-oncall demo: --tsdb {tsdb}: there is no folder {tsdb.parent}: is it mistyped?", file=sys.stderr)
        return 2
    if not tsdb.exists():
        print(f"agent-oncall demo: {tsdb} is created: no Prometheus has used it yet", file=sys.stderr)
    try:
        fill(
            tsdb,
            _scenario(options),
            load(options.thresholds),
            days=options.backfill,
            end=time.time(),
            instance=options.instance,
            port=free_port(),
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except (BadThreshold, MissingServer, RuntimeError, OSError) as error:
        print(f"agent-oncall demo: {error}", file=sys.stderr)
        return 2
    return 0


_SCENARIOS: dict[str, Callable[..., Scenario]] = {
    "normal": scenarios.normal,
    "incident": scenarios.incident,
    "launch": scenarios.launch,
    "outage": scenarios.outage,
    "bad-canary": scenarios.bad_canary,
    "quiet": scenarios.quiet,
}


def _until(options: argparse.Namespace, scenario: Scenario) -> str:
    seconds = options.seconds or scenario.seconds
    return ", until Ctrl-C" if seconds is None else f", for {seconds / options.speed:.0f} s"


def _listen(orders: "SimpleQueue[str]", stop: Event) -> None:
    for line in sys.stdin:
        orders.put(line.strip())
    stop.set()


class _Progress:
    """A line on what was sent, every ten seconds and at the end."""

    def __init__(self, fleet: Fleet, start: float) -> None:
        self._fleet = fleet
        self._start = start
        self._now = start
        self._next = time.monotonic() + 10

    def __call__(self, now: float) -> None:
        self._now = now
        if time.monotonic() >= self._next:
            self._next += 10
            self.report()

    def report(self) -> None:
        totals = self._fleet.totals.values()
        print(
            f"{self._now - self._start:6.0f} s: "
            f"{sum(t.started for t in totals)} tasks started, {sum(t.ended for t in totals)} ended, "
            f"{sum(t.iterations for t in totals)} iterations, "
            f"{sum(t.input_tokens + t.output_tokens for t in totals)} tokens, "
            f"{sum(t.cost_usd for t in totals):.2f} USD",
            file=sys.stderr,
            flush=True,
        )


def _unreachable(host: str, port: int) -> str:
    """Why nothing can be sent there, or "" if something listens."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and 1 <= int(port) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:4317")
    return host, int(port)


def _positive(text: str) -> float:
    value = _seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def days(text: str) -> float:
    """A number of days from "8d" or "8". Raises ArgumentTypeError."""
    try:
        value = float(text.removesuffix("d"))
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 30:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 0.1 to 30, such as 8d")
    return value
