"""`agent-oncall check`: are an existing Prometheus, Alertmanager, Grafana, exporter connected and complete?"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator

from alert_rules.generate import alerts, groups
from alert_rules.thresholds import BadThreshold, Thresholds, load
from check import alertmanager, others, prometheus
from check.findings import Finding
from check.server import NoAnswer, Server
from cli.options import add_access_options, add_rule_options, add_server_options, site, token, url

_EPILOG = """\
examples:
  agent-oncall check
      the Prometheus and the Alertmanager of this machine
  agent-oncall check --prometheus https://prometheus.example --alertmanager https://alerts.example \\
      --grafana https://grafana.example --grafana-token-file token --exporter http://oncall-1:9464
  agent-oncall check --thresholds mine.yml --runbook-url https://wiki.example/runbooks
      with the options that the rules were generated with
  agent-oncall check --without controller --without library
      where nothing acts by itself and no agent uses the library

Nothing is changed anywhere. A line each: ok, or problem and below it what to do (docs/check.md).
exit codes: 0 all is well, 1 there are problems, 2 a setting can't be used (it is named)
"""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "check",
        help="are an existing Prometheus, Alertmanager, Grafana, agent connected and complete?",
        description="Asks running servers whether alerts can fire, and whether they reach those who are to hear them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    servers = parser.add_argument_group("servers")
    add_server_options(servers)
    servers.add_argument("--grafana", type=url, metavar="URL", help="not checked unless given")
    servers.add_argument(
        "--exporter", action="append", type=url, metavar="URL", help="its metrics address; may be given several times"
    )
    servers.add_argument("--controller", type=url, metavar="URL", help="not checked unless given")
    add_access_options(servers, "prometheus", "alertmanager", "grafana")
    parser.add_argument(
        "--without",
        action="append",
        choices=prometheus.COMPONENTS,
        default=[],
        help="is not in use, so that alerts on it cannot fire; may be given several times",
    )
    add_rule_options(parser.add_argument_group("rules", "as they were given to `agent-oncall generate`"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        thresholds = load(options.thresholds)
        tokens = {name: token(options, name) for name in ("prometheus", "alertmanager", "grafana")}
    except (BadThreshold, OSError) as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    problems = 0
    for finding in _findings(options, thresholds, tokens):
        print(finding, flush=True)
        problems += finding.is_problem
    print(f"{problems} problem{'' if problems == 1 else 's'}" if problems else "all is well")
    return 1 if problems else 0


_MOST_AGENTS = 500


def _findings(options: argparse.Namespace, thresholds: Thresholds, tokens: dict[str, str]) -> Iterator[Finding]:
    for address in options.exporter or ():
        yield from others.exporter(Server(address))
    agents: list[str] = []
    if options.prometheus:
        server = Server(options.prometheus, tokens["prometheus"], options.tenant)
        yield from prometheus.check(server, groups(thresholds), site(options), without=options.without)
        with contextlib.suppress(NoAnswer):
            # That it does not answer is told already.
            agents = prometheus.agents(server, time.time())[:_MOST_AGENTS]
    if options.alertmanager:
        server = Server(options.alertmanager, tokens["alertmanager"], options.tenant)
        acting = "controller" not in options.without
        yield from alertmanager.check(server, alerts(), agents=agents, acting=acting)
    if options.controller:
        yield from others.controller(Server(options.controller))
    if options.grafana:
        from dashboards.generate import dashboard_files

        yield from others.grafana(Server(options.grafana, tokens["grafana"]), dashboard_files(thresholds))
