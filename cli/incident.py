"""`agent-oncall incident`: what happened, written from what the servers know."""

import argparse
import sys
import time
from pathlib import Path

from alert_rules.generate import alerts
from check.server import Server
from cli.common import fail, state_option, store_of
from cli.options import add_access_options, add_server_options, add_site_options, site, token, url
from incident.report import Sources, UnknownAgent, write
from incident.window import BadWindow, Window

_WATCHDOG = "Watchdog"

_EPILOG = """\
examples:
  agent-oncall incident --alert AgentRunawayLoop --agent support-agent --since 2h
  agent-oncall incident --alert AgentCostAnomaly --agent support-agent --since 2026-03-01T22:00Z \\
      --until 2026-03-02T06:00Z --output night.md
      times are UTC unless they say otherwise
  agent-oncall incident --alert AgentRunawayLoop --agent support-agent --since 2h --state state/flags.json \\
      --traces-url 'http://127.0.0.1:16686/search?service={agent}' --trace-url 'http://127.0.0.1:16686/trace/{trace}'
      with the controller's audit log, and traces in Jaeger

Nothing is changed anywhere. What a server does not tell is said in the report (docs/incident-report.md).
exit codes: 0 written, 1 written though something could not be asked, 2 not written (what is wrong is named)
"""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "incident",
        help="write what happened: timeline, cost, tasks, tools, actions, traces",
        description="Writes a report in Markdown on an alert of an agent, from Prometheus, Alertmanager and the "
        "controller's audit log.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--alert", required=True, metavar="NAME", help="such as AgentRunawayLoop")
    parser.add_argument("--agent", required=True, metavar="NAME", help="the agent, as the label `agent` names it")
    parser.add_argument(
        "--since", required=True, metavar="WHEN", help="a duration before the end, such as 2h, or a time of ISO 8601"
    )
    parser.add_argument("--until", default="", metavar="WHEN", help="likewise, before now; now unless given")
    parser.add_argument("--output", type=Path, metavar="FILE", help="standard output unless given")
    servers = parser.add_argument_group("servers")
    add_server_options(servers)
    add_access_options(servers, "prometheus", "alertmanager")
    state_option(servers)
    where = parser.add_argument_group("links")
    add_site_options(where, without_grafana=True)
    where.add_argument(
        "--trace-url",
        default="",
        type=_trace,
        metavar="URL",
        help="a trace's address with {trace} in it, such as https://jaeger.example/trace/{trace}; Tempo in Grafana's "
        "Explore unless given",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # Watchdog always fires, about no agent.
    found = {alert.name: alert for alert in alerts() if alert.name != _WATCHDOG}
    if options.alert == _WATCHDOG:
        return fail("incident", f"--alert {_WATCHDOG}: it always fires, about no agent: there is nothing to report on")
    if options.alert not in found:
        return fail(
            "incident", f"--alert {options.alert}: there is no such alert; there are {', '.join(sorted(found))}"
        )
    try:
        window = Window.parse(options.since, options.until, time.time())
        sources = Sources(
            _server(options, "prometheus"),
            _server(options, "alertmanager"),
            store_of(options),
            site(options),
            options.trace_url,
        )
        report = write(found[options.alert], options.agent, window, sources, list(found))
        if options.output is None:
            print(report.text, end="")
        else:
            options.output.write_text(report.text, encoding="utf-8")
    except (BadWindow, UnknownAgent, OSError) as error:
        return fail("incident", str(error))
    for what in report.missing:
        print(f"agent-oncall incident: missing in the report: {what}", file=sys.stderr)
    return 1 if report.missing else 0


def _server(options: argparse.Namespace, name: str) -> Server | None:
    address: str = getattr(options, name)
    bearer = token(options, name)
    return Server(address, bearer, options.tenant) if address else None


def _trace(text: str) -> str:
    if text and "{trace}" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} must have {{trace}} where the trace's id goes")
    if text:
        url(text.replace("{trace}", "trace"))
    return text
