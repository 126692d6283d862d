"""`agent-oncall up`: the whole stack on this machine, shown while it runs."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stack.local import Plan

DEMO_THRESHOLDS = Path(__file__).resolve().parent.parent / "stack" / "demo-thresholds.yml"

KEYS = "b break the tool   r repair it   q quit"

_EPILOG = """\
What is started, all of it on 127.0.0.1 alone: the exporter (OTLP on 4317 and 4318, /metrics on 9464), Prometheus
(9090), Alertmanager (9093), a pager that takes what would go to PagerDuty and Slack (9095), and simulated agents, of
which one runs away after a while. Ctrl-C or q stops all.

Servers are looked for in AGENT_ONCALL_PROMETHEUS and AGENT_ONCALL_ALERTMANAGER, then on the PATH, then Debian's
packages are fetched and unpacked into a cache, not installed.

With the simulated agents the data is thrown away at the end; with --no-demo, or where --data names a folder, it stays.

examples:
  agent-oncall up                         see it work
  agent-oncall up --no-demo               for your own agents: send OTLP to 127.0.0.1:4317
  agent-oncall up --port-offset 10000     the same services on 14317, 14318, 19464, 19090, 19093 and 19095
exit codes: 0 stopped by you, 1 a process failed, 2 it could not start as asked
"""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "up",
        help="start the whole stack on this machine and show it",
        description="Start the whole stack as processes of this machine, and show what it does.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="where data, logs and generated configuration go")
    parser.add_argument("--port-offset", type=int, default=0, metavar="N", help="add N to every port")
    parser.add_argument("--no-demo", dest="demo", action="store_false", help="without simulated agents")
    parser.add_argument(
        "--break-after",
        type=_seconds_or_never,
        default=25.0,
        metavar="SECONDS",
        help="when the simulated agents' tool breaks, or `never` (default %(default).0f)",
    )
    parser.add_argument("--thresholds", type=Path, metavar="FILE", help="YAML: agent → limit → number, for the alerts")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the exporter's settings, as for `serve`")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from alert_rules.thresholds import BadThreshold
    from exporter.config import ConfigError
    from stack.ports import PortsTaken
    from stack.processes import Died
    from stack.servers import MissingServer

    try:
        return _run(options)
    except Died as error:
        print(f"agent-oncall up: {error}", file=sys.stderr)
        return 1
    except (BadThreshold, ConfigError, MissingServer, PortsTaken, ValueError, OSError) as error:
        print(f"agent-oncall up: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from alert_rules import thresholds
    from exporter import config
    from exporter.pricing import Pricing
    from stack import servers
    from stack.local import Plan
    from stack.ports import Ports, PortsTaken

    ports = Ports().moved(options.port_offset)
    if taken := ports.taken():
        raise PortsTaken(taken, options.port_offset)
    # Read here too, so that a mistake is told before anything starts.
    Pricing(config.load(options.config, {}).price_file)
    file = options.thresholds or (DEMO_THRESHOLDS if options.demo else None)
    limits = thresholds.load(file)
    found = servers.get((servers.PROMETHEUS, servers.ALERTMANAGER))
    data, kept = _data_folder(options)
    plan = Plan(
        servers=found,
        ports=ports,
        data=data,
        thresholds=limits,
        exporter_config=options.config,
        demo=options.demo,
        break_after=options.break_after,
        data_note=f"data: {data}" + ("" if kept else ", removed at the end"),
    )
    asyncio.run(_show(plan))
    if not kept:
        # Where a process failed, its log is worth keeping: then this is not reached.
        shutil.rmtree(data, ignore_errors=True)
    return 0


async def _show(plan: "Plan") -> None:
    from rich.console import Console

    from stack.keys import keystrokes
    from stack.local import Stack
    from stack.status import LiveView, PlainView, View

    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    keys = KEYS if plan.demo else "q quit"
    view: View = LiveView(Console(), keys) if on_terminal else PlainView(sys.stdout)
    stack = Stack(plan, view)
    listening: AbstractContextManager[None] = keystrokes(stack.on_key) if on_terminal else nullcontext()
    try:
        with listening:
            await stack.run()
    finally:
        view.close()


def _data_folder(options: argparse.Namespace) -> tuple[Path, bool]:
    """The folder for all that is written, and whether it stays."""
    if options.data is None and options.demo:
        return Path(tempfile.mkdtemp(prefix="agent-oncall-")), False
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    data = (options.data or state / "agent-oncall").resolve()
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return data, True


def _seconds_or_never(text: str) -> float | None:
    if text == "never":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of 0 or more nor `never`")
    return value
