"""`agent-oncall replay`: what recorded spans would count as."""

import argparse
import json
import sys
from pathlib import Path

_EPILOG = """\
examples:
  agent-oncall replay traces.jsonl
  agent-oncall replay --explain traces.jsonl | less
"""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "replay",
        help="what recorded spans would count as",
        description="Sends recorded export requests through the exporter on the times they arrived at, winds its clock "
        "past every time-out and prints the metrics. Reads OTLP/JSON lines as the Collector's file exporter writes "
        "them, and recordings of protobuf requests (docs/replay.md).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the exporter's configuration")
    parser.add_argument(
        "--each",
        action="store_true",
        help="a fresh exporter for each file; one JSON object a line: {'recording': PATH, 'metrics': TEXT}",
    )
    parser.add_argument("--explain", action="store_true", help="print each span and what it was taken for")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from exporter.config import ConfigError, load
    from exporter.events import Event
    from exporter.pricing import Pricing
    from exporter.replay import ReplayError, replay

    def explain(event: Event, verdict: str) -> None:
        kind = type(event).__name__ if type(event) is not Event else "Span"
        known = event.dialect or "no dialect"
        print(
            f"{event.trace_id.hex()[:8]} {event.span_id.hex()} below {event.parent_id.hex() or '-':16} "
            f"{kind:9} {known:16} {event.scope[:48]:48} {verdict}"
        )

    try:
        settings = load(args.config, {})
        pricing = Pricing(settings.price_file)
        groups = [[file] for file in args.files] if args.each else [args.files]
        for group in groups:
            pipeline = replay(group, settings, pricing, explain=explain if args.explain else None)
            metrics = pipeline.measures.exposition(openmetrics=False, process=False).decode()
            if args.each:
                print(json.dumps({"recording": str(group[0]), "metrics": metrics}))
            elif not args.explain:
                print(metrics, end="")
    except (ConfigError, ReplayError, ValueError) as error:
        print(f"agent-oncall replay: {error}", file=sys.stderr)
        return 2
    return 0
