"""Whom Alertmanager tells of the alert now."""

from collections.abc import Iterator, Mapping
from typing import Any

from check.server import NoAnswer, Server
from incident.markdown import code, plain
from incident.past import or_none
from incident.section import Section
from incident.window import moment, told


def section(server: Server | None, alert: str, agent: str) -> Section:
    """The alert's state, receivers and silences. `server` is None where none is to be asked."""
    if server is None:
        return Section(["No Alertmanager was asked."])
    matchers = [("filter", f'alertname="{alert}"'), ("filter", f"agent=~{or_none(agent)}")]
    try:
        found = server.json("/api/v2/alerts", matchers)
        lines = [line for one in sorted(found, key=lambda one: str(one["fingerprint"])) for line in _told(server, one)]
    except NoAnswer as error:
        lines = [f"Alertmanager could not be asked: whom it told is not known. ({plain(str(error))})"]
        return Section(lines, missing=f"Alertmanager: {error}")
    return Section(lines or [f"It knows of no {code(alert)} of this agent: it is over."])


def _told(server: Server, alert: Mapping[str, Any]) -> Iterator[str]:
    status = alert["status"]
    receivers = ", ".join(code(receiver["name"]) for receiver in alert["receivers"])
    since = told(moment("startsAt", alert["startsAt"], 0))
    summary = plain(alert["annotations"].get("summary", ""))
    yield f"- {code(status['state'])} since {since}, for {receivers}: {summary}"
    for silence in sorted(status["silencedBy"]):
        by = server.json(f"/api/v2/silence/{silence}")
        until = told(moment("endsAt", by["endsAt"], 0))
        yield f"  - silenced by {plain(by['createdBy'])} until {until}: {plain(by['comment'])}"
    if status["inhibitedBy"]:
        yield "  - inhibited: another alert speaks for it"
