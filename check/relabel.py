"""Does Prometheus send alerts with the labels that routes read? It may relabel or drop them on their way."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alert_rules.rules import Alert, Severity
from check.findings import Finding
from check.labels import ANY_AGENT, affected, labels_of

Labels = dict[str, str]

_READ_BY_ROUTES = ("alertname", "severity", "cause", "agent", "action")
_REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


def check(config: Mapping[str, Any], alerts: Sequence[Alert], agents: Sequence[str] = ()) -> Iterator[Finding]:
    """Follows each alert that is to be heard through `config`, that of Prometheus, to each Alertmanager."""
    wrong: dict[tuple[str, str], dict[str, list[str]]] = {}
    heard = [alert for alert in alerts if alert.severity is not Severity.DASHBOARD or alert.action]
    try:
        for path in _paths(config):
            for agent in (ANY_AGENT, *agents):
                for alert in heard:
                    if what := _change(path, labels_of(alert, agent)):
                        names = wrong.setdefault(what, {}).setdefault(agent, [])
                        if alert.name not in names:
                            names.append(alert.name)
    except re.error as error:
        yield Finding(f"alert_relabel_configs cannot be followed here: {error}", "write that regex in a simpler way")
        return
    for (place, change), by_agent in wrong.items():
        for told in affected(by_agent):
            yield Finding(
                f"{told}: {place} {change}",
                "routes read these labels: take it out, or let it spare alerts with a cause",
            )
    if not wrong:
        yield Finding("relabelling: alerts are sent with the labels that routes read")


def _paths(config: Mapping[str, Any]) -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
    """What an alert goes through to each Alertmanager: steps, each with its place in the configuration."""
    alerting = config.get("alerting") or {}
    external = (config.get("global") or {}).get("external_labels") or {}
    common = [*_external(external), *_steps(alerting, "alerting")]
    for number, alertmanager in enumerate(alerting.get("alertmanagers") or [{}]):
        yield [*common, *_steps(alertmanager, f"alerting.alertmanagers[{number}]")]


def _external(labels: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # They are set where the alert has none of the name.
    for name, value in labels.items():
        literal = str(value).replace("$", "$$")
        step = {"source_labels": [name], "regex": "", "target_label": name, "replacement": literal}
        yield f"global.external_labels.{name}", step


def _steps(config: Mapping[str, Any], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, step in enumerate(config.get("alert_relabel_configs") or ()):
        yield f"{place}.alert_relabel_configs[{number}]", step


def _change(path: Sequence[tuple[str, Mapping[str, Any]]], labels: Labels) -> tuple[str, str] | None:
    """The place of the first step that does harm, and what it does."""
    before = dict(labels)
    for place, step in path:
        after = relabel(step, before)
        if after is None:
            return place, "drops it"
        for name in _READ_BY_ROUTES:
            if (was := before.get(name, "")) != (now := after.get(name, "")):
                return place, f"makes {name} {now!r}, where it is {was!r}" if now else f"takes {name} away"
        before = after
    return None


def relabel(step: Mapping[str, Any], labels: Mapping[str, str]) -> Labels | None:
    """The labels after one relabelling, None where it drops them (prometheus.io/docs, relabel_config)."""
    found = dict(labels)
    value = step.get("separator", ";").join(labels.get(name, "") for name in step.get("source_labels") or ())
    regex = re.compile(str(step.get("regex", "(.*)")), re.DOTALL)
    target, replacement = step.get("target_label", ""), str(step.get("replacement", "$1"))
    match str(step.get("action", "replace")).lower():
        case "drop":
            return None if regex.fullmatch(value) else found
        case "keep":
            return found if regex.fullmatch(value) else None
        case "dropequal":
            return None if labels.get(target, "") == value else found
        case "keepequal":
            return found if labels.get(target, "") == value else None
        case "replace":
            if match := regex.fullmatch(value):
                found[_expand(target, match)] = _expand(replacement, match)
        case "lowercase":
            found[target] = value.lower()
        case "uppercase":
            found[target] = value.upper()
        case "hashmod":
            # The last 8 bytes of the sum, as Prometheus takes them.
            found[target] = str(int.from_bytes(hashlib.md5(value.encode()).digest()[8:]) % int(step["modulus"]))
        case "labelmap":
            for name in labels:
                if match := regex.fullmatch(name):
                    found[_expand(replacement, match)] = labels[name]
        case "labeldrop":
            found = {name: kept for name, kept in labels.items() if not regex.fullmatch(name)}
        case "labelkeep":
            found = {name: kept for name, kept in labels.items() if regex.fullmatch(name)}
    return {name: kept for name, kept in found.items() if kept}


def _expand(template: str, match: re.Match[str]) -> str:
    """The template with $1, ${1}, $name and ${name} replaced; a group that is not there is empty."""

    def group(reference: re.Match[str]) -> str:
        name = reference[1] or reference[2]
        if name is None:
            return "$"
        try:
            return match[int(name) if name.isdecimal() else name] or ""
        except IndexError:
            return ""

    return _REFERENCE.sub(group, template)
