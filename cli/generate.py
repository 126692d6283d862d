"""`agent-oncall generate`: writes dashboards, rules and routing, or says what of them is stale."""

import argparse
import sys
from pathlib import Path

from alert_rules.generate import ALERTMANAGERS, EXPORTERS, prometheus_config, rule_files
from alert_rules.routing import CONTROLLER_URL, SECRETS_DIR, SLACK_CHANNEL, alertmanager_config
from alert_rules.rules import Site
from alert_rules.thresholds import BadThreshold, load
from dashboards.generate import PROMETHEUS_URL, TEMPO_URL, dashboard_files, grafana_files

_EPILOG = """\
examples:
  agent-oncall generate
  agent-oncall generate --check
  agent-oncall generate --out /etc/agent-oncall --thresholds mine.yml \\
      --exporter oncall-1:9464 --exporter oncall-2:9464 --grafana-url https://grafana.example

Secrets are never written: Alertmanager reads the files pagerduty_routing_key and slack_api_url in --secrets-dir.
"""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "generate",
        help="write dashboards, rules and routing",
        description="Writes what Prometheus, Alertmanager and Grafana load. The same settings give the same bytes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    site = Site()
    parser.add_argument("--out", type=Path, default=Path("provisioning"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the files that are stale")
    parser.add_argument(
        "--thresholds", type=Path, metavar="FILE", help="YAML: agent → limit → number, over the defaults"
    )
    parser.add_argument("--runbook-url", default=site.runbooks, metavar="URL", help="where docs/runbooks is served")
    parser.add_argument("--grafana-url", default=site.grafana, metavar="URL", help="Grafana, as the links name it")
    prometheus = parser.add_argument_group("Prometheus")
    prometheus.add_argument("--exporter", action="append", metavar="HOST:PORT", help="may be given several times")
    prometheus.add_argument("--alertmanager", action="append", metavar="HOST:PORT", help="may be given several times")
    alertmanager = parser.add_argument_group("Alertmanager")
    alertmanager.add_argument("--secrets-dir", default=SECRETS_DIR, metavar="DIR", help="default: %(default)s")
    alertmanager.add_argument("--slack-channel", default=SLACK_CHANNEL, metavar="NAME", help="default: %(default)s")
    alertmanager.add_argument(
        "--controller-url", default=CONTROLLER_URL, metavar="URL", help="default: %(default)s; '' for no controller"
    )
    alertmanager.add_argument("--watchdog-url", metavar="URL", help="a dead man's switch, called every minute")
    grafana = parser.add_argument_group("Grafana")
    grafana.add_argument("--prometheus-url", default=PROMETHEUS_URL, metavar="URL", help="default: %(default)s")
    grafana.add_argument("--tempo-url", default=TEMPO_URL, metavar="URL", help="default: %(default)s")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        files = _files(options)
    except BadThreshold as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    stale = [name for name, text in files.items() if _read(options.out / name) != text]
    if options.check:
        for name in stale:
            print(f"stale: {options.out / name}")
        return 1 if stale else 0
    try:
        for name in stale:
            path = options.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name], encoding="utf-8")
    except OSError as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(files)} files, {len(stale)} of them written")
    return 0


def _files(options: argparse.Namespace) -> dict[str, str]:
    """Everything that is generated, by its path in the output folder. Raises BadThreshold."""
    thresholds = load(options.thresholds)
    site = Site(runbooks=options.runbook_url, grafana=options.grafana_url)
    prometheus = prometheus_config(
        exporters=options.exporter or EXPORTERS, alertmanagers=options.alertmanager or ALERTMANAGERS
    )
    alertmanager = alertmanager_config(
        secrets_dir=options.secrets_dir,
        slack_channel=options.slack_channel,
        controller_url=options.controller_url or None,
        watchdog_url=options.watchdog_url,
    )
    grafana = grafana_files(prometheus_url=options.prometheus_url, tempo_url=options.tempo_url)
    return {
        "prometheus/prometheus.yml": prometheus,
        **{f"prometheus/rules/{name}": text for name, text in rule_files(thresholds, site).items()},
        "alertmanager/alertmanager.yml": alertmanager,
        **{f"grafana/{name}": text for name, text in grafana.items()},
        **{f"grafana/dashboards/{name}": text for name, text in dashboard_files(thresholds).items()},
    }


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
