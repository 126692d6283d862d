"""`agent-oncall generate`: writes dashboards, rules and routing, or says what of them is stale."""

import argparse
import re
import sys
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from alert_rules.generate import ALERTMANAGERS, EXPORTERS, prometheus_config, prometheus_rules, rule_files
from alert_rules.routing import (
    CONTROLLER_URL,
    SECRETS_DIR,
    SLACK_CHANNEL,
    Receivers,
    alertmanager_config,
    alertmanager_fragment,
)
from alert_rules.text import HEADER
from alert_rules.thresholds import BadThreshold, Thresholds, load
from cli.options import add_rule_options, site, url, url_or_none
from dashboards.generate import PROMETHEUS_URL, TEMPO_URL, dashboard_files, grafana_files
from stack import compose

_EPILOG = """\
examples:
  agent-oncall generate
  agent-oncall generate --check
  agent-oncall generate --out /etc/agent-oncall --thresholds mine.yml \\
      --exporter oncall-1:9464 --exporter oncall-2:9464 --grafana-url https://grafana.example
  agent-oncall generate --format prometheus-operator --namespace monitoring --label release=prometheus \\
      | kubectl apply -f -
  agent-oncall generate --format alertmanager-fragment --secrets-dir /run/secrets > fragment.yml

formats:
  files                  a folder for each server: Prometheus, Alertmanager, Grafana (the default)
  prometheus-operator    the rules as PrometheusRule resources
  alertmanager-fragment  route, receivers and inhibitions to add to an existing Alertmanager's configuration
The latter two go to the standard output unless --out names a folder.

Secrets are never written: Alertmanager reads the files pagerduty_routing_key, slack_api_url and controller_token in
--secrets-dir.
exit codes: 0 written, or with --check nothing is stale; 1 something is stale or left over; 2 a setting can't be used
(it is named)
"""

_PROVISIONING = Path("provisioning")
_HOST_PORT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?)=([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?|)")


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "generate",
        help="write dashboards, rules and routing",
        description="Writes what Prometheus, Alertmanager and Grafana load. The same settings give the same bytes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", choices=sorted(_FORMATS), default="files", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"default: {_PROVISIONING}, for --format files")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 and name the files that are stale or left over"
    )
    add_rule_options(parser)
    prometheus = parser.add_argument_group("Prometheus")
    prometheus.add_argument(
        "--exporter", action="append", type=_host_port, metavar="HOST:PORT", help="may be given several times"
    )
    prometheus.add_argument(
        "--agent",
        action="append",
        type=_host_port,
        metavar="HOST:PORT",
        help="an agent's process that serves the library's /metrics; may be given several times",
    )
    prometheus.add_argument(
        "--alertmanager", action="append", type=_host_port, metavar="HOST:PORT", help="may be given several times"
    )
    prometheus.add_argument(
        "--namespace", type=_namespace, metavar="NAME", help="of the PrometheusRule resources; none unless given"
    )
    prometheus.add_argument(
        "--label",
        action="append",
        type=_label,
        metavar="KEY=VALUE",
        help="of the PrometheusRule resources, for Prometheus' ruleSelector; may be given several times",
    )
    alertmanager = parser.add_argument_group("Alertmanager")
    alertmanager.add_argument(
        "--secrets-dir", default=SECRETS_DIR, type=_text, metavar="DIR", help="default: %(default)s"
    )
    alertmanager.add_argument(
        "--slack-channel", default=SLACK_CHANNEL, type=_text, metavar="NAME", help="default: %(default)s"
    )
    alertmanager.add_argument(
        "--controller-url",
        default=CONTROLLER_URL,
        type=url_or_none,
        metavar="URL",
        help="default: %(default)s; '' for no controller. Prometheus scrapes /metrics of the same server",
    )
    switch = alertmanager.add_mutually_exclusive_group()
    switch.add_argument("--watchdog-url", type=url, metavar="URL", help="a dead man's switch, called every minute")
    switch.add_argument(
        "--watchdog-url-file", type=_text, metavar="FILE", help="holds its address (Alertmanager 0.26 and later)"
    )
    grafana = parser.add_argument_group("Grafana")
    grafana.add_argument(
        "--prometheus-url", default=PROMETHEUS_URL, type=url, metavar="URL", help="default: %(default)s"
    )
    grafana.add_argument("--tempo-url", default=TEMPO_URL, type=url, metavar="URL", help="default: %(default)s")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        thresholds = load(options.thresholds)
        files = _FORMATS[options.format](options, thresholds)
    except BadThreshold as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    out = options.out or (_PROVISIONING if options.format == "files" else None)
    if out is None:
        if options.check:
            print(f"generate: --check needs --out with --format {options.format}", file=sys.stderr)
            return 2
        print("---\n".join(files.values()), end="")
        return 0
    try:
        stale = [name for name, text in files.items() if _read(out / name) != text.encode()]
        left_over = _left_over(out, files, _all_names(options, thresholds)) if options.check else []
    except OSError as error:
        return _unusable(out, error)
    if options.check:
        for name in stale:
            print(f"stale: {out / name}")
        for path in left_over:
            print(f"not generated any more: {path}: remove it, a server may still load it")
        return 1 if stale or left_over else 0
    try:
        for name in stale:
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name], encoding="utf-8")
    except OSError as error:
        return _unusable(out, error)
    print(f"{out}: {len(files)} files, {len(stale)} of them written")
    return 0


def _files(options: argparse.Namespace, thresholds: Thresholds) -> dict[str, str]:
    """Everything that servers of their own load, by its path in the output folder."""
    prometheus = prometheus_config(
        exporters=options.exporter or EXPORTERS,
        alertmanagers=options.alertmanager or ALERTMANAGERS,
        others=_other_jobs(options),
    )
    grafana = grafana_files(prometheus_url=options.prometheus_url, tempo_url=options.tempo_url)
    return {
        "prometheus/prometheus.yml": prometheus,
        **{f"prometheus/rules/{name}": text for name, text in rule_files(thresholds, site(options)).items()},
        "alertmanager/alertmanager.yml": alertmanager_config(_receivers(options)),
        **{f"grafana/{name}": text for name, text in grafana.items()},
        **{f"grafana/dashboards/{name}": text for name, text in dashboard_files(thresholds, site(options)).items()},
        **compose.files(),
    }


def _other_jobs(options: argparse.Namespace) -> dict[str, list[str]]:
    """What else serves series that rules read: job → HOST:PORT."""
    jobs = {}
    if options.controller_url:
        address = urlsplit(options.controller_url)
        # HTTPS is spoken by a proxy, which need not show /metrics: name the controller's job yourself.
        if address.scheme == "http":
            jobs["agent-controller"] = [f"{address.hostname}:{address.port or 80}"]
    if options.agent:
        jobs["agent-library"] = options.agent
    return jobs


def _operator(options: argparse.Namespace, thresholds: Thresholds) -> dict[str, str]:
    labels = dict(options.label or ())
    return prometheus_rules(thresholds, site(options), namespace=options.namespace, labels=labels)


def _fragment(options: argparse.Namespace, thresholds: Thresholds) -> dict[str, str]:
    return {"alertmanager-fragment.yml": alertmanager_fragment(_receivers(options))}


_FORMATS = {"files": _files, "prometheus-operator": _operator, "alertmanager-fragment": _fragment}


def _receivers(options: argparse.Namespace) -> Receivers:
    return Receivers(
        secrets_dir=options.secrets_dir.rstrip("/"),
        slack_channel=options.slack_channel,
        controller_url=options.controller_url or None,
        watchdog_url=options.watchdog_url,
        watchdog_url_file=options.watchdog_url_file,
    )


def _host_port(text: str) -> str:
    parts = _HOST_PORT.fullmatch(text)
    if not parts or not 1 <= int(parts[2]) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as exporter:9464")
    return text


def _namespace(text: str) -> str:
    if not _DNS_LABEL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a Kubernetes namespace (a-z, 0-9, -)")
    return text


def _label(text: str) -> tuple[str, str]:
    parts = _LABEL.fullmatch(text)
    if not parts:
        raise argparse.ArgumentTypeError(f"{text!r} is no Kubernetes label KEY=VALUE, such as release=prometheus")
    return parts[1], parts[3]


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _all_names(options: argparse.Namespace, thresholds: Thresholds) -> set[str]:
    """The files of all formats, which may share a folder."""
    return {name for write in _FORMATS.values() for name in write(options, thresholds)}


def _left_over(out: Path, files: Collection[str], known: Collection[str]) -> list[Path]:
    """What `generate` wrote into the folders of these files at another time, and would write no more."""
    return [
        path
        for folder in sorted({(out / name).parent for name in files})
        for path in sorted(folder.glob("*.yml"))
        if str(path.relative_to(out)) not in known
        and path.is_file()
        and (_read(path) or b"").startswith(HEADER.encode())
    ]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _unusable(out: Path, error: OSError) -> int:
    print(f"generate: --out {out} cannot be used: {error}", file=sys.stderr)
    return 2
