"""`agent-oncall up`: the whole stack on this machine, shown while it runs."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cli.demo import days

if TYPE_CHECKING:
    from alert_rules.thresholds import Thresholds
    from stack.local import Plan, Stack
    from stack.ports import Ports

DEMO_THRESHOLDS = Path(__file__).resolve().parent.parent / "stack" / "demo-thresholds.yml"

KEYS = "b break the tool   r repair it   q quit"

_EPILOG = """\
What is started, all of it on 127.0.0.1 alone: the exporter (OTLP on 4317 and 4318, /metrics on 9464), Prometheus
(9090), Alertmanager (9093), the controller (9465), a pager that takes what would go to PagerDuty and Slack (9095), and
simulated agents, of which one runs away after a while. Ctrl-C or q stops all.

Where a Docker engine answers, all of it runs in Docker Compose, with Grafana (3000) and Tempo as well; with one of the
options --local, --data, --port-offset, --thresholds, --config or --backfill, and where there is no engine, as processes
of this machine. Their servers are looked for in AGENT_ONCALL_PROMETHEUS, AGENT_ONCALL_ALERTMANAGER and so on, then on
the PATH, then Debian's packages are fetched and unpacked into a cache, not installed. An OpenTelemetry Collector and
Jaeger (16686) are used where they are found.

With the simulated agents the data is thrown away at the end; with --no-demo, or where --data names a folder, it stays.

examples:
  agent-oncall up                         see it work
  agent-oncall up --no-demo               for your own agents: send OTLP to 127.0.0.1:4317
  agent-oncall up --backfill 8d           with a week of history, made before the start in a minute or two
  agent-oncall up --port-offset 10000     the same services on 14317, 14318, 19464, 19090, 19093, 19095 and 19465
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
    parser.add_argument(
        "--local", action="store_true", help="processes of this machine, whether or not there is Docker"
    )
    parser.add_argument(
        "--backfill", type=days, metavar="DAYS", help="fill Prometheus with so many days of history first, such as 8d"
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
    except (BadThreshold, ConfigError, MissingServer, PortsTaken, RuntimeError, ValueError, OSError) as error:
        print(f"agent-oncall up: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from alert_rules import thresholds
    from exporter import config
    from exporter.pricing import Pricing
    from stack import docker, servers
    from stack.local import Plan, Stack
    from stack.ports import Ports, PortsTaken

    if not _needs_processes(options) and docker.engine_answers():
        return _run_in_docker(options)
    ports = Ports().moved(options.port_offset)
    if taken := ports.taken():
        raise PortsTaken(taken, options.port_offset)
    # Read here too, so that a mistake is told before anything starts.
    Pricing(config.load(options.config, {}).price_file)
    file = options.thresholds or (DEMO_THRESHOLDS if options.demo else None)
    limits = thresholds.load(file)
    found = servers.get((servers.PROMETHEUS, servers.ALERTMANAGER))
    optional = {server: servers.find(server) for server in (servers.COLLECTOR, servers.JAEGER)}
    found |= {server: path for server, path in optional.items() if path}
    data, kept = _data_folder(options)
    if options.backfill:
        _backfill(options.backfill, data / "prometheus" / "tsdb", limits, ports)
    plan = Plan(
        servers=found,
        ports=ports,
        data=data,
        thresholds=limits,
        exporter_config=options.config,
        demo=options.demo,
        break_after=options.break_after,
        data_note=f"data: {data}" + ("" if kept else ", removed at the end"),
        missing=_missing([server.names[0] for server, path in optional.items() if path is None]),
    )
    asyncio.run(_show(plan, Stack))
    if not kept:
        # Where a process failed, its log is worth keeping: then this is not reached.
        shutil.rmtree(data, ignore_errors=True)
    return 0


def _needs_processes(options: argparse.Namespace) -> bool:
    given = (options.local, options.data, options.port_offset, options.thresholds, options.config, options.backfill)
    return any(given)


def _run_in_docker(options: argparse.Namespace) -> int:
    from alert_rules import thresholds
    from stack import docker
    from stack.local import Plan
    from stack.ports import Ports

    with tempfile.TemporaryDirectory(prefix="agent-oncall-") as logs:
        plan = Plan(
            servers={},
            ports=Ports(),
            data=Path(logs),
            thresholds=thresholds.load(None),
            demo=options.demo,
            break_after=options.break_after,
            data_note=docker.NOTE,
        )
        asyncio.run(_show(plan, docker.DockerStack))
    return 0


def _missing(names: list[str]) -> str:
    """What is said of servers that are not here."""
    build = f" ({', '.join(names)}: where there is Go, tools/servers builds them)" if names else ""
    return f"not here: {', '.join([*names, 'Grafana', 'Tempo'])}. Docker Compose has all of them{build}"


def _backfill(length: float, tsdb: Path, limits: "Thresholds", ports: "Ports") -> None:
    from demo.scenarios import normal
    from stack.history import fill
    from stack.ports import LOOPBACK, free_port

    fill(
        tsdb,
        normal(),
        limits,
        days=length,
        end=time.time(),
        instance=f"{LOOPBACK}:{ports.metrics}",
        port=free_port(),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )


async def _show(plan: "Plan", kind: "type[Stack]") -> None:
    from rich.console import Console

    from stack.keys import keystrokes
    from stack.status import LiveView, PlainView, View

    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    keys = KEYS if plan.demo else "q quit"
    view: View = LiveView(Console(), keys) if on_terminal else PlainView(sys.stdout)
    stack = kind(plan, view)
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
