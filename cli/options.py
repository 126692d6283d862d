"""Options that several commands have, and how their values are checked."""

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from alert_rules import links
from alert_rules.rules import Site


def add_rule_options(parser: argparse._ActionsContainer) -> None:
    """The options that decide what the rules say."""
    parser.add_argument(
        "--thresholds", type=Path, metavar="FILE", help="YAML: agent → limit → number, over the defaults"
    )
    add_site_options(parser)


def add_site_options(parser: argparse._ActionsContainer, *, without_grafana: bool = False) -> None:
    """Where links lead. `without_grafana`: its address may be "", where there is none."""
    site = Site()
    parser.add_argument(
        "--runbook-url", default=site.runbooks, type=_base_url, metavar="URL", help="where docs/runbooks is served"
    )
    parser.add_argument(
        "--grafana-url",
        default=site.grafana,
        type=_base_url_or_none if without_grafana else _base_url,
        metavar="URL",
        help="Grafana, as the alerts' links name it" + ("; '' for none" if without_grafana else ""),
    )
    parser.add_argument(
        "--traces-url",
        default=site.traces,
        type=_trace_search,
        metavar="URL",
        help="a trace search with {agent} in it, such as https://jaeger.example/search?service={agent}; "
        "Tempo in Grafana's Explore unless given",
    )


def site(options: argparse.Namespace) -> Site:
    """The site that `add_site_options` asked for."""
    return Site(runbooks=options.runbook_url, grafana=options.grafana_url, traces=options.traces_url)


def add_server_options(parser: argparse._ActionsContainer) -> None:
    """The servers that are asked unless told otherwise."""
    parser.add_argument(
        "--prometheus",
        default="http://127.0.0.1:9090",
        type=url_or_none,
        metavar="URL",
        help="default: %(default)s; Mimir and Thanos with the path before /api/v1; '' for none",
    )
    parser.add_argument(
        "--alertmanager",
        default="http://127.0.0.1:9093",
        type=url_or_none,
        metavar="URL",
        help="default: %(default)s; '' for none",
    )


def add_access_options(parser: argparse._ActionsContainer, *servers: str) -> None:
    """What these servers, by their options' names, ask for before they answer."""
    for name in servers:
        parser.add_argument(
            f"--{name}-token-file", type=Path, metavar="FILE", help=f"holds the bearer token that {name} asks for"
        )
    parser.add_argument(
        "--tenant", default="", metavar="NAME", help="Mimir's tenant, told to Prometheus and Alertmanager"
    )


def token(options: argparse.Namespace, server: str) -> str:
    """The token that `add_access_options` asked a file for, "" without one. Raises OSError."""
    file: Path | None = getattr(options, f"{server}_token_file")
    return file.read_text(encoding="utf-8").strip() if file else ""


def url(text: str) -> str:
    """A web address, for argparse. Raises ArgumentTypeError, which argparse shows with the option's name."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    # Braces would be a template to Prometheus, and are in no address.
    if not usable or any(character.isspace() or character in '{}"<>' for character in text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a web address such as https://host:9093")
    return text


def url_or_none(text: str) -> str:
    """A web address, or "" for none."""
    return url(text) if text else ""


def _base_url(text: str) -> str:
    """A web address that links go on from: a path put behind a query or a fragment would be part of it."""
    if "?" in url(text) or "#" in text:
        raise argparse.ArgumentTypeError(f"{text!r} has a query or a fragment: paths are put behind it, leave them out")
    return text


def _base_url_or_none(text: str) -> str:
    return _base_url(text) if text else ""


def _trace_search(text: str) -> str:
    if not text:
        return text
    if links.AGENT not in text:
        raise argparse.ArgumentTypeError(f"{text!r} must have {links.AGENT} where the agent's name goes")
    url(text.replace(links.AGENT, "agent"))
    return text
