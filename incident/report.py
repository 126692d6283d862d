"""The report on an alert of an agent: Markdown, of what each server knows. What is not known is said, not guessed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from alert_rules import links
from alert_rules.rules import Alert, Site
from check.server import NoAnswer, Server
from controller.store import Store
from incident import actions, alertmanager, figures, timeline, traces
from incident.markdown import code, link, plain, table
from incident.past import Past
from incident.section import Section
from incident.window import Window, lasted, told

_MOST_EVENTS = 200
_NO_LINKS = (
    "No Grafana and no search of traces was named (`--grafana-url`, `--traces-url`): there are no links to them."
)


class UnknownAgent(Exception):
    """Nothing of this agent is in the window; the text names the agents that are."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the report comes from; None for a server that is not to be asked. `trace_url` is a trace's address with
    `{trace}` in it; "" is Grafana's Explore. Where the site has no Grafana, what it would show has no link."""

    prometheus: Server | None
    alertmanager: Server | None
    store: Store
    site: Site
    trace_url: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The text, and what could not be asked for it."""

    text: str
    missing: tuple[str, ...]


def write(alert: Alert, agent: str, window: Window, sources: Sources, known_alerts: Sequence[str]) -> Report:
    """The report. `known_alerts` are told of even where they are about no agent. Raises UnknownAgent."""
    log = actions.Log.read(sources.store, agent, window)
    asked, problem = _reach(sources.prometheus, agent, window)

    def measured(make: Callable[[Past], Section]) -> Section:
        if asked is None:
            return problem
        try:
            return make(asked)
        except NoAnswer as error:
            return _unasked(error)

    address = _search(sources.site, agent, window)
    search = Section([f"{link('All traces of the agent', address)}." if address else _NO_LINKS])
    sections = {
        "Timeline": [measured(lambda past: _timeline(past, alert, window, log, known_alerts))],
        "Cost": [measured(lambda past: figures.cost(past, window))],
        "Tasks": [measured(figures.tasks)],
        "Tools and errors": [measured(figures.tools)],
        "Variants": [measured(figures.variants)],
        "Actions taken": [actions.section(log, sources.store, agent), measured(actions.of_controller)],
        "Traces": [measured(lambda past: _traces(past, sources, window)), search],
        "Alertmanager, now": [alertmanager.section(sources.alertmanager, alert.name, agent)],
    }
    parts = [part for some in sections.values() for part in some]
    missing = tuple(dict.fromkeys(part.missing for part in parts if part.missing))
    lines = _head(alert, agent, window, sources.site)
    lines += dict.fromkeys(f"- {part.headline}" for part in parts if part.headline)
    lines += [f"- Could not be asked: {plain(what)}" for what in missing]
    for title, some in sections.items():
        lines += ["", f"## {title}"]
        for part in some:
            lines += ["", *part.lines]
    return Report("\n".join(lines) + "\n", missing)


def _reach(server: Server | None, agent: str, window: Window) -> tuple[Past | None, Section]:
    """What Prometheus holds, or what to say in its stead."""
    if server is None:
        headline = "No Prometheus was asked: neither what fired nor what it cost is known."
        return None, Section(["No Prometheus was asked: of this nothing is known."], headline=headline)
    past = Past(server, agent, window)
    try:
        agents = past.agents()
    except NoAnswer as error:
        return None, _unasked(error)
    if agent not in agents:
        between = f"between {told(window.since)} and {told(window.until)} UTC"
        there = f"the agents there were: {', '.join(agents)}" if agents else "nor of any other agent"
        raise UnknownAgent(f"--agent {agent}: Prometheus has nothing of it {between}; {there}")
    return past, Section()


def _unasked(error: NoAnswer) -> Section:
    said = f"Prometheus could not be asked: of this nothing is known. ({plain(str(error))})"
    return Section([said], missing=f"Prometheus: {error}")


def _head(alert: Alert, agent: str, window: Window, site: Site) -> list[str]:
    start, end = _milliseconds(window)
    where = [link("runbook", f"{site.runbooks.rstrip('/')}/{alert.runbook()}")]
    if site.grafana:
        board = f"{site.grafana.rstrip('/')}/d/agent-oncall-overview?var-agent={quote(agent, safe='')}"
        where.append(link("dashboard", f"{board}&from={start}&to={end}"))
    what = f"{alert.severity}, cause {code(alert.cause)}"
    what += f", action {code(str(alert.action))}" if alert.action else ""
    return [
        f"# {alert.name}: {plain(agent)}",
        "",
        f"{told(window.since)} to {told(window.until)} UTC. {what}; {', '.join(where)}.",
        "",
    ]


def _timeline(past: Past, alert: Alert, window: Window, log: actions.Log, known_alerts: Sequence[str]) -> Section:
    found = timeline.episodes(past.states("ALERTS"), window, past.state_step, known_alerts)
    events = [event for episode in found for event in episode.events()]
    events += timeline.trips(past.counter("agent_breaker_trips_total"), window.since)
    # The audit log tells of stages with who and why.
    if not any(entry.action.startswith("rollout") for _, entry in log.entries):
        events += timeline.stages(past.counter("agent_rollout_stage_percent"), window)
    events += timeline.changes(log.entries)
    section = Section(headline=_fired(alert, window, found))
    if events:
        rows = [(told(event.at), event.what) for event in sorted(events)]
        section.say(*table(("UTC", "what"), rows[:_MOST_EVENTS]))
        if len(rows) > _MOST_EVENTS:
            section.say(f"And {len(rows) - _MOST_EVENTS} more.")
    else:
        section.say("No alert was active, no breaker tripped, nothing was changed.")
    section.say(f"Alerts are told to {past.state_step:.0f} s, breakers and stages to {past.counter_step:.0f} s.")
    return section


def _fired(alert: Alert, window: Window, found: Sequence[timeline.Episode]) -> str:
    """How often and how long the alert fired, in a sentence."""
    fired = [(e.fired, e.ended) for e in found if e.alert == alert.name and e.fired is not None]
    if not fired:
        others = sorted({episode.alert for episode in found if episode.fired is not None})
        rest = f"what fired: {', '.join(map(code, others))}" if others else "nor did another alert"
        return f"{code(alert.name)} did not fire in this time; {rest}."
    seconds = sum((window.until if ended is None else ended) - began for began, ended in fired)
    times = f" {len(fired)} times, first" if len(fired) > 1 else ""
    still = "; it still did at the end" if any(ended is None for _, ended in fired) else ""
    return f"{code(alert.name)} fired{times} at {told(fired[0][0])}, for {lasted(seconds)}{still}."


def _traces(past: Past, sources: Sources, window: Window) -> Section:
    picked = traces.pick(past.exemplars(*traces.SERIES))
    if not picked:
        return Section(["Prometheus has no exemplar of this time (`agent-oncall check` says whether it stores them)."])
    start, end = _milliseconds(window)

    def linked(trace: str) -> str:
        if sources.trace_url:
            return link(code(trace), sources.trace_url.replace("{trace}", trace))
        if sources.site.grafana:
            return link(code(trace), links.explore(sources.site.grafana, trace, start, end))
        return code(trace)

    rows = [(linked(trace.id), told(trace.at), trace.why) for trace in picked]
    return Section(table(("trace", "UTC", "what"), rows))


def _search(site: Site, agent: str, window: Window) -> str:
    """Where all traces of the agent are; "" where nothing shows them."""
    if site.traces:
        return site.traces.replace(links.AGENT, quote(agent, safe=""))
    return links.explore(site.grafana, links.spans_of(agent), *_milliseconds(window)) if site.grafana else ""


def _milliseconds(window: Window) -> tuple[str, str]:
    return f"{window.since * 1000:.0f}", f"{window.until * 1000:.0f}"
