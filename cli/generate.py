"""`agent-oncall generate`: writes dashboards, rules and routing, or says what of them is stale."""

import argparse
import sys
from pathlib import Path

from alert_rules.generate import prometheus_config, rule_files
from alert_rules.routing import alertmanager_config
from alert_rules.rules import Site
from alert_rules.thresholds import BadThreshold, Thresholds, load
from dashboards.generate import dashboard_files, grafana_files

_EPILOG = """\
examples:
  agent-oncall generate
  agent-oncall generate --out /etc/agent-oncall --thresholds mine.yml --grafana-url https://grafana.example
  agent-oncall generate --check
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        thresholds = load(options.thresholds)
    except BadThreshold as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    files = provisioning(thresholds, Site(runbooks=options.runbook_url, grafana=options.grafana_url))
    stale = [name for name, text in files.items() if _read(options.out / name) != text]
    if options.check:
        for name in stale:
            print(f"stale: {options.out / name}")
        return 1 if stale else 0
    for name in stale:
        path = options.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name], encoding="utf-8")
    print(f"{options.out}: {len(files)} files, {len(stale)} of them written")
    return 0


def provisioning(thresholds: Thresholds, site: Site) -> dict[str, str]:
    """Everything that is generated, by its path in the output folder."""
    return {
        "prometheus/prometheus.yml": prometheus_config(),
        **{f"prometheus/rules/{name}": text for name, text in rule_files(thresholds, site).items()},
        "alertmanager/alertmanager.yml": alertmanager_config(),
        **{f"grafana/{name}": text for name, text in grafana_files().items()},
        **{f"grafana/dashboards/{name}": text for name, text in dashboard_files(thresholds).items()},
    }


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
