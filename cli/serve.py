"""`agent-oncall serve`: the exporter, until it is told to stop."""

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.config import Settings

EXAMPLE = """\
examples:
  agent-oncall serve
      OTLP on 127.0.0.1:4317 (gRPC) and 127.0.0.1:4318 (HTTP), http://127.0.0.1:9464/metrics; in memory
  agent-oncall serve --journal /var/lib/agent-oncall --config agent-oncall.yml
      what was counted survives a restart; settings from a file
  AGENT_ONCALL_COST_CAP_USD=50 AGENT_ONCALL_METRICS__ADDRESS=127.0.0.1:9999 agent-oncall serve
      any setting by the environment: AGENT_ONCALL_ and its name, __ for each level

The command line wins over the environment, that over the file. docs/configuration.md has every setting.
exit codes: 0 stopped by a signal, 2 a setting can't be used (it is named), 1 anything else
"""


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = subparsers.add_parser(
        "serve",
        help="run the exporter: OTLP in, /metrics out",
        description="Run the exporter: takes agents' OpenTelemetry traces by OTLP, serves Prometheus metrics.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, what in (("grpc", "OTLP/gRPC, 127.0.0.1:4317"), ("http", "OTLP/HTTP, 127.0.0.1:4318")):
        parser.add_argument(f"--otlp-{option}", metavar="HOST:PORT", help=f"where to listen for {what} unless given")
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="where to serve /metrics and the landing page, 127.0.0.1:9464 unless given",
    )
    parser.add_argument(
        "--journal", metavar="DIR", help="directory that keeps what was counted over a restart; in memory unless given"
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="YAML file of settings")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT; the exit code."""
    # grpc-core has a log of its own on stderr, which says to a hostile client's every move what we answer anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import uvloop

    from exporter.config import ConfigError, load, unknown_variables
    from exporter.journal import JournalError
    from exporter.listen import ListenError
    from exporter.pricing import PriceFileError

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    log = logging.getLogger("exporter")
    # Whatever this process writes is its owner's.
    os.umask(0o077)
    _keep_freed_memory()
    overrides: dict[str, Any] = {
        key: {"address": value}
        for key, value in (
            ("otlp_grpc", options.otlp_grpc),
            ("otlp_http", options.otlp_http),
            ("metrics", options.metrics),
        )
        if value is not None
    }
    if options.journal is not None:
        overrides["journal"] = options.journal
    try:
        # The state has no cycles: to look for them often is for nothing, and costs more the more tasks are in flight.
        gc.set_threshold(50_000, 20, 100)
        settings = load(options.config, overrides)
        for name in unknown_variables(os.environ):
            log.warning("the environment variable %s is no setting; docs/configuration.md has them", name)
        return uvloop.run(_serve(settings))
    except (ConfigError, JournalError, ListenError, PriceFileError) as error:
        for line in str(error).splitlines():
            print(f"agent-oncall serve: {line}", file=sys.stderr, flush=True)
        return 2


def _keep_freed_memory() -> None:
    """Tell glibc not to hand a body's memory back to the system only to ask for it again with the next one.

    Measured: of the 4.6 ms that a request of 2.2 MB over HTTP took, 3.6 ms were page faults; with this it takes 1.2 ms.
    """
    mmap_threshold, trim_threshold = -3, -1  # of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # another C library, which has ways of its own
    mallopt(mmap_threshold, 32 << 20)
    mallopt(trim_threshold, 64 << 20)


async def _serve(settings: "Settings") -> int:
    from exporter.journal import Journal
    from exporter.pipeline import Pipeline
    from exporter.pricing import Pricing
    from exporter.server import Server

    log = logging.getLogger("exporter")
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    journal: Journal | None = None

    def open_pipeline() -> Pipeline:
        nonlocal journal
        if settings.journal is not None:
            log.info("reading the journal in %s", settings.journal)
            journal = Journal.open(settings.journal)
        return Pipeline(settings, journal=journal, pricing=Pricing(settings.price_file))

    server = Server(settings, open_pipeline)
    try:
        await server.start()
        if settings.journal is None:
            log.info("no journal directory: what was counted is lost at a restart (--journal DIR keeps it)")
        await stopped.wait()
        log.info("stopping: what is in flight is answered within %g s", settings.stop_seconds)
    finally:
        await server.stop()
        if journal is not None:
            journal.close()
    log.info("stopped")
    return 0
