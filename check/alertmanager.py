"""Do an Alertmanager's routes lead where the table says, and does the heartbeat arrive?"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from alert_rules.promql import duration_seconds
from alert_rules.routing import INHIBIT_RULES
from alert_rules.rules import Alert, Severity
from check import notifications
from check.findings import Finding, listed
from check.labels import ANY_AGENT, affected, labels_of
from check.notifications import integrations
from check.routes import Branch, branches, inhibits, matchers, may_inhibit
from check.server import NoAnswer, Server

OLDEST = (0, 25)

_LONGEST_WAIT_SECONDS = 60
_MERGE = "merge what `agent-oncall generate --format alertmanager-fragment` writes (docs/existing-alertmanager.md)"

# Who is to be told: severity → the receiver's name in what is generated, and the integration that makes another serve.
_WANTED = {Severity.PAGE: ("pagerduty", "pagerduty_configs"), Severity.CHAT: ("slack", "slack_configs")}


def check(
    server: Server, alerts: Sequence[Alert], *, agents: Sequence[str] = (), acting: bool = True
) -> Iterator[Finding]:
    """Everything about this Alertmanager. `agents` are those seen; unless `acting`, no controller is in use."""
    try:
        status = server.json("/api/v2/status")
    except NoAnswer as error:
        yield Finding(f"Alertmanager: {error}", "is it running, and is this its address? (--alertmanager)")
        return
    version = status.get("versionInfo", {}).get("version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        yield Finding(f"Alertmanager {version} is too old", f"update it to {OLDEST[0]}.{OLDEST[1]} or a later one")
    else:
        yield Finding(f"Alertmanager {version} answers at {server.url}")
    try:
        config = yaml.safe_load(status["config"]["original"])
        yield from routes(config, alerts, agents=agents, acting=acting)
        yield from inhibitions(config, alerts, agents=agents, acting=acting)
        labels = [labels_of(alert, agent) for agent in (ANY_AGENT, *agents) for alert in alerts]
        ours = {branch.receiver for one in labels for branch in branches(config["route"], one)}
        yield from notifications.check(server, config["receivers"], ours)
    except (KeyError, ValueError, re.error, yaml.YAMLError) as error:
        yield Finding(f"Alertmanager's configuration cannot be read: {error}", "does amtool check-config take it?")
    yield from _heartbeat(server)


def routes(
    config: Mapping[str, Any], alerts: Sequence[Alert], *, agents: Sequence[str] = (), acting: bool = True
) -> Iterator[Finding]:
    """Evaluates the routes for every alert of a made-up agent and of those seen, and compares with the table."""
    receivers = {receiver["name"]: receiver for receiver in config["receivers"]}
    wrong: dict[tuple[str, str], dict[str, list[str]]] = {}
    for agent in (ANY_AGENT, *agents):
        for alert in alerts:
            taken = branches(config["route"], labels_of(alert, agent))
            for what, todo in _wrong(alert, taken, receivers, acting):
                wrong.setdefault((what, todo), {}).setdefault(agent, []).append(alert.name)
    for (what, todo), names in wrong.items():
        for alerts_told in affected(names):
            yield Finding(f"{alerts_told}: {what}", todo)
    if not wrong:
        of = f", of {len(agents)} agents seen as of any other" if agents else ""
        yield Finding(f"routes: all {len(alerts)} alerts lead where the table says{of}")


def _wrong(
    alert: Alert, taken: Sequence[Branch], receivers: Mapping[str, Mapping[str, Any]], acting: bool
) -> Iterator[tuple[str, str]]:
    """What is wrong with where the alert ends, and what to do."""
    told = {branch.receiver: receivers.get(branch.receiver, {}) for branch in taken}
    shown = listed(told) or "nobody"
    if wanted := _WANTED.get(alert.severity):
        name, integration = wanted
        serving = [one for one, config in told.items() if _is_called(one, name) or config.get(integration)]
        if not serving:
            yield f"{alert.severity} goes to {shown}, not to {name}", _MERGE
        elif not any(integrations(told[one]) for one in serving):
            yield f"the receiver {listed(serving)} tells nobody", f"give it {integration}"
        for branch in taken:
            if alert.severity is Severity.PAGE and branch.receiver in serving:
                if set(branch.group_by) != {"agent", "cause"}:
                    by = listed(branch.group_by) or "nothing"
                    yield (
                        f"pages are grouped by {by}: not one incident per agent and cause",
                        ("set group_by: [agent, cause] on the route to it"),
                    )
                if branch.muted:
                    yield "pages are silent at some times of the day", "take the time intervals off the route"
                if duration_seconds(branch.group_wait) > _LONGEST_WAIT_SECONDS:
                    yield f"a page waits {branch.group_wait} for others", "set group_wait: 0s on the route to it"
    if alert.severity is Severity.DASHBOARD and not alert.action:
        loud = [one for one, config in told.items() if integrations(config)]
        if loud:
            yield f"P3 goes to {listed(loud)}, where it is for the dashboard alone", _MERGE
    if alert.action and acting:
        yield from _action(taken, receivers, shown)


def _action(
    taken: Sequence[Branch], receivers: Mapping[str, Mapping[str, Any]], shown: str
) -> Iterator[tuple[str, str]]:
    controllers = [branch for branch in taken if _is_called(branch.receiver, "controller")]
    if not controllers:
        yield (
            f"its action goes to {shown}, and to no controller: nothing acts by itself",
            ("merge the route to the controller, or say --without controller where nothing is to act by itself"),
        )
    for branch in controllers:
        if not receivers.get(branch.receiver, {}).get("webhook_configs"):
            yield (
                f"the receiver {branch.receiver} tells nobody",
                "give it webhook_configs with the controller's address",
            )
        if branch.muted:
            yield "nothing acts at some times of the day", "take the time intervals off the route to the controller"
        if branch.group_by != ("agent",) or duration_seconds(branch.group_wait):
            yield (
                "the controller is not told at once, agent by agent",
                ("set group_by: [agent] and group_wait: 0s on the route to it"),
            )


def _is_called(receiver: str, name: str) -> bool:
    """Whether it is the generated receiver, in a whole configuration or in a fragment."""
    return receiver in (name, f"agent-oncall-{name}")


def inhibitions(
    config: Mapping[str, Any], alerts: Sequence[Alert], *, agents: Sequence[str] = (), acting: bool = True
) -> Iterator[Finding]:
    """The generated inhibitions are there, and no other one can hide a page or what carries an action."""
    there = config.get("inhibit_rules") or []
    ours = [_normal(inhibition) for inhibition in INHIBIT_RULES]
    hiding = [
        what
        for inhibition in there
        if _normal(inhibition) not in ours
        for what in _hidden(inhibition, alerts, agents, acting)
    ]
    for what in hiding:
        yield Finding(
            what,
            "take that inhibit rule out, or add the target matchers 'severity != \"P1\"' and 'action = \"\"' to it",
        )
    loaded = [_normal(inhibition) for inhibition in there]
    missing = sum(inhibition not in loaded for inhibition in ours)
    if missing:
        yield Finding(f"{missing} of {len(INHIBIT_RULES)} inhibit rules are missing: one incident tells twice", _MERGE)
    elif not hiding:
        yield Finding(f"inhibitions: all {len(INHIBIT_RULES)} are there, and none else hides a page or an action")


def _hidden(
    inhibition: Mapping[str, Any], alerts: Sequence[Alert], agents: Sequence[str], acting: bool
) -> Iterator[str]:
    """What the inhibition can hide that must be heard."""
    told: set[str] = set()
    for agent in (ANY_AGENT, *agents):
        labels = [labels_of(alert, agent) for alert in alerts]
        urgent = [one for one in labels if one["severity"] == Severity.PAGE or (acting and "action" in one)]
        targets = [one for one in urgent if one["alertname"] not in told and may_inhibit(inhibition, one)]
        if not targets:
            continue
        told.update(target["alertname"] for target in targets)
        sources = [s["alertname"] for s in labels if any(inhibits(inhibition, s, target) for target in targets)]
        if "Watchdog" in sources:
            when = "for ever, since Watchdog always fires"
        elif sources:
            when = f"while {listed(sources)} fires"
        else:
            when = f"while an alert fires with {listed(map(str, matchers(inhibition, 'source_'))) or 'any labels'}"
        whose = "" if agent == ANY_AGENT else f" of {agent}"
        pages = any(one["severity"] == Severity.PAGE for one in targets)
        heard = "nobody would be paged" if pages else "the controller would not hear of actions"
        yield f"{listed(target['alertname'] for target in targets)}{whose} can be inhibited {when}: {heard}"


def _normal(inhibition: Mapping[str, Any]) -> tuple[frozenset[Any], ...]:
    source, target = (matchers(inhibition, prefix) for prefix in ("source_", "target_"))
    return frozenset(source), frozenset(target), frozenset(inhibition.get("equal") or ())


def _heartbeat(server: Server) -> Iterator[Finding]:
    query = [("filter", 'alertname="Watchdog"'), ("filter", 'cause="watchdog"'), ("active", "true")]
    try:
        found = server.json("/api/v2/alerts", query)
    except NoAnswer as error:
        yield Finding(f"Alertmanager: {error}", "ask again; if it stays so, its log may say why")
        return
    if not found:
        yield Finding(
            "no Watchdog: nothing arrives from Prometheus",
            "is the group agent-health loaded, and does Prometheus name this Alertmanager under alerting?",
        )
    elif found[0]["status"]["state"] != "active":
        yield Finding("Watchdog is silenced or inhibited", "end what mutes it: its silence is to be the alarm")
    else:
        yield Finding(f"heartbeat: Watchdog arrives, and goes to {listed(r['name'] for r in found[0]['receivers'])}")
