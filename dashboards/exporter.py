"""Is the measuring itself well: exporters, rules, alerting, the state file and who follows it."""

from grafanalib import core as gl

from alert_rules.generate import groups
from alert_rules.promql import duration_seconds
from alert_rules.rules import Recording, Site
from alert_rules.thresholds import Thresholds
from dashboards import alerts, board
from dashboards.agent import BREAKER
from dashboards.panels import (
    Column,
    Query,
    above,
    bar_gauge,
    by_name,
    colours,
    lit,
    stat,
    state_timeline,
    steps,
    table,
    timeseries,
)
from dashboards.promql import happened
from exporter.contract import SCRAPE_JOB

UID = "agent-oncall-exporter"
JOB = f'job="{SCRAPE_JOB}",instance=~"$instance"'
ANY = 'alertname=~".+"'

_NO_EXPORTER = f"No exporter is scraped: is there a job {SCRAPE_JOB} in Prometheus?"
_NO_LIBRARY = "No process with the agent_oncall library is scraped"


def exporter(thresholds: Thresholds, site: Site = board.HERE) -> gl.Dashboard:
    """The exporters that the variable `instance` chooses, and what comes after them."""
    return board.board(
        "agent-oncall exporter and alert health",
        UID,
        "Is the measuring well: exporters, rules, alerting, the state file and who follows it.",
        ("Does alerting work", _alerting(thresholds, site)),
        ("Exporters", _exporters(thresholds, site)),
        ("State file, breakers, controller", _state(site)),
        variables=[board.choice("instance", "label_values(agent_exporter_build_info, instance)", label="Exporter")],
        site=site,
    )


def _alerting(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    return [
        stat(
            "Watchdog",
            "An alert that always fires, so that its silence is noticed. Normal is that it fires.",
            Query('max(ALERTS{alertname="Watchdog",alertstate="firing"})', now=True),
            unit="none",
            width=4,
            states={1.0: ("fires, as it must", "green")},
            names=False,
            thresholds=steps(("red", None)),
            links=[board.runbook("Watchdog", site)],
            no_data="SILENT: no rule is evaluated",
        ),
        stat(
            "Exporters up",
            "Exporters that answered their last scrape, and those that did not. Normal is none down: then agents run "
            "unwatched.",
            Query(f'sum(up{{job="{SCRAPE_JOB}"}})', "up", now=True),
            Query(f'count(up{{job="{SCRAPE_JOB}"}} == 0) or vector(0)', "down", now=True),
            unit="short",
            width=4,
            overrides=[by_name("down", thresholds=lit(("red", 1)))],
            background=True,
            links=[board.runbook("AgentExporterDown", site)],
            no_data=_NO_EXPORTER,
        ),
        alerts.tile(ANY, width=4),
        timeseries(
            "Alerts that fire, over time",
            "One for each alert and agent, the Watchdog left out. Normal is empty; a comb is an alert that flaps.",
            Query('sum by (alertname) (ALERTS{alertstate="firing",severity=~"P."})', "{{alertname}}"),
            unit="short",
            width=12,
            height=5,
            stacked=True,
            stepped=True,
            no_data="Nothing fired in this time",
        ),
        bar_gauge(
            "Rule groups: time since the last evaluation",
            "In multiples of each group's interval, by the latest sample that it recorded within the hour. Normal is "
            "up to 1; a group without a bar has recorded nothing: no agent yet, or its rules are not loaded.",
            *(
                Query(f"(time() - max({_last(record, seconds)})) / {seconds:g}", group, now=True)
                for group, (record, seconds) in _recording(thresholds).items()
            ),
            unit="suffix: ×",
            width=10,
            height=12,
            decimals=1,
            most=4,
            thresholds=steps(("green", None), ("orange", 1.5), ("red", 3)),
            no_data="No rule records anything: are the rules loaded?",
        ),
        alerts.listed(ANY, site, width=14, height=12),
    ]


def _exporters(thresholds: Thresholds, site: Site) -> list[gl.Panel]:
    hold = thresholds.value("lag_hold_seconds")
    spans = f"agent_exporter_spans_total{{{JOB}}}"
    return [
        table(
            "Exporter by exporter",
            "Each exporter now. Normal is spans coming in, few requests in flight, and a journal that stays within "
            "its checkpoint (64 MB).",
            {"instance": "Exporter"},
            Column(
                "Up",
                f"max by (instance) (up{{{JOB}}})",
                "none",
                words={0.0: ("down", "red"), 1.0: ("up", "green")},
                width=60,
            ),
            Column(
                "Running for", f"time() - max by (instance) (agent_exporter_start_time_seconds{{{JOB}}})", "dtdurations"
            ),
            Column("Spans/s", f"sum by (instance) (rate({spans}[5m]))", "none", decimals=1, width=80),
            Column(
                "In flight",
                f"max by (instance) (agent_exporter_requests_in_flight{{{JOB}}})",
                "short",
                width=85,
            ),
            Column("Traces", f"max by (instance) (agent_exporter_traces_in_memory{{{JOB}}})", "short", width=80),
            Column("Journal", f"max by (instance) (agent_exporter_journal_bytes{{{JOB}}})", "bytes", width=90),
            sort="Spans/s",
            width=14,
            height=6,
            no_data=_NO_EXPORTER,
        ),
        table(
            "Versions",
            "Exporters by version. Normal is one version.",
            {"version": "Version"},
            Column("Exporters", f"count by (version) (agent_exporter_build_info{{{JOB}}})", "short", width=90),
            sort="Exporters",
            width=4,
            height=6,
            no_data=_NO_EXPORTER,
        ),
        table(
            "Names that no longer have room",
            "Values folded into `other` in the range, by label: figures are right in sum, but not told apart. Normal "
            "is an empty table.",
            {"label": "Label"},
            Column(
                "Values",
                happened(f"agent_exporter_series_limited_total{{{JOB}}}", "label"),
                "short",
                above(("orange", 1)),
                decimals=0,
                width=90,
            ),
            sort="Values",
            width=6,
            height=6,
            links=[board.runbook("AgentSeriesLimited", site)],
            no_data="Every name has room",
        ),
        timeseries(
            "Spans by what became of them",
            "Spans a second. Normal is counted; ignored are those that are no agent's (HTTP, databases), duplicates "
            "come from batches sent again, rejected are malformed or not the sender's.",
            Query(f"sum by (result) (rate({spans}[$__rate_interval]))", "{{result}}"),
            unit="none",
            stacked=True,
            overrides=colours({"counted": "green", "ignored": "blue", "duplicate": "yellow", "rejected": "red"}),
            links=[board.runbook("AgentExporterSilent", site)],
            no_data=_NO_EXPORTER,
        ),
        timeseries(
            "Lag by agent",
            "Arrival less the span's end, the most of the last minute; the line is where cost and loop alerts wait "
            "for the backlog to drain. Normal is a few seconds. Of many agents, the 8 highest.",
            Query(
                f"max by (agent) (agent_exporter_lag_seconds{{{JOB}}}) and on (agent) "
                f"topk(8, max_over_time(agent_exporter_lag_seconds{{{JOB}}}[$__range] @ end()))",
                "{{agent}}",
            ),
            unit="s",
            thresholds=steps(("transparent", None), ("red", hold)),
            no_data=_NO_EXPORTER,
        ),
        timeseries(
            "Requests by answer",
            "Export requests a second by code (0 and 200 are OK). Normal is OK alone; others say why the sender has "
            "to send again.",
            Query(
                f"sum by (signal, transport, code) (rate(agent_exporter_requests_total{{{JOB}}}[$__rate_interval]))",
                "{{signal}} {{transport}} {{code}}",
            ),
            unit="reqps",
            stacked=True,
            no_data="No request arrived in this time",
        ),
        table(
            "Values left out, and why",
            "Attribute values of the range that no one can mean: negative tokens, a cost beyond the cap, a clock "
            "hours off. Normal is an empty table.",
            {"why": "Why"},
            Column(
                "Values",
                happened(f"agent_exporter_values_rejected_total{{{JOB}}}", "why"),
                "short",
                above(("orange", 1)),
                decimals=0,
                width=90,
            ),
            sort="Values",
            width=8,
            height=6,
            no_data="Every value could be meant",
        ),
        table(
            "LLM spans that no dialect knows",
            "Spans of the range with LLM attributes from scopes that are not understood: what they cost is missing. "
            "Normal is an empty table.",
            {"scope": "Scope"},
            Column(
                "Spans",
                happened(f"agent_exporter_unknown_scope_total{{{JOB}}}", "scope"),
                "short",
                above(("orange", 1)),
                decimals=0,
                width=90,
            ),
            sort="Spans",
            width=8,
            height=6,
            no_data="Every LLM span is understood",
        ),
        stat(
            "What did not match",
            "In the range: scores whose task was not found, and spans that told another variant or agent than their "
            "task's first. Normal is 0.",
            Query(
                f"sum(increase(agent_exporter_scores_unmatched_total{{{JOB}}}[$__range]))",
                "scores without a task",
                now=True,
            ),
            Query(f"sum(increase(agent_exporter_late_labels_total{{{JOB}}}[$__range]))", "late labels", now=True),
            unit="short",
            width=8,
            height=6,
            decimals=0,
            thresholds=above(("orange", 1)),
            no_data=_NO_EXPORTER,
        ),
        timeseries(
            "Memory: traces remembered",
            "Traces that each exporter remembers, ended ones included for 24 hours. Normal is a day's tasks; the "
            "limit is 200,000.",
            Query(f"max by (instance) (agent_exporter_traces_in_memory{{{JOB}}})", "{{instance}}"),
            unit="short",
            width=12,
            height=6,
            no_data=_NO_EXPORTER,
        ),
        timeseries(
            "Disk: journal",
            "Size of each exporter's journal; 0 without one. Normal is a saw: a checkpoint empties it.",
            Query(f"max by (instance) (agent_exporter_journal_bytes{{{JOB}}})", "{{instance}}"),
            unit="bytes",
            width=12,
            height=6,
            no_data=_NO_EXPORTER,
        ),
    ]


def _state(site: Site) -> list[gl.Panel]:
    return [
        stat(
            "State file",
            "Processes that cannot read the state file, and how many changes the slowest is behind. Normal is 0 and "
            "0: else a rollback or a breaker is in force in a part of the fleet only.",
            Query("count(agent_state_read_ok == 0) or vector(0)", "cannot read it", now=True),
            Query("max(agent_state_generation) - min(agent_state_generation)", "changes behind", now=True),
            unit="short",
            width=6,
            height=6,
            thresholds=above(("red", 1)),
            links=[board.runbook("AgentStateUnreadable", site), board.runbook("AgentGenerationSkew", site)],
            no_data=_NO_LIBRARY,
        ),
        state_timeline(
            "Breakers",
            "Each agent's circuit breaker: closed lets every task run, half-open a few, open none. Normal is closed.",
            Query("max by (agent) (agent_breaker_state)", "{{agent}}"),
            states=BREAKER,
            width=9,
            height=6,
            no_data=_NO_LIBRARY,
        ),
        table(
            "Breaker trips",
            "Times that a breaker opened in the range, by what opened it. Normal is an empty table.",
            {"agent": "Agent", "why": "Why"},
            Column(
                "Times",
                happened("agent_breaker_trips_total", "agent, why"),
                "short",
                above(("red", 1)),
                decimals=0,
                width=80,
            ),
            sort="Times",
            width=9,
            height=6,
            row_links=[board.to_agent()],
            no_data="No breaker opened",
        ),
        table(
            "Controller: done",
            "Actions of the range by agent and trigger. Normal is an empty table.",
            {"agent": "Agent", "action": "Action", "trigger": "Trigger"},
            Column(
                "Times",
                happened("agent_controller_actions_total", "agent, action, trigger"),
                "short",
                decimals=0,
                width=80,
            ),
            sort="Times",
            width=10,
            height=6,
            row_links=[board.to_agent()],
            no_data="Nothing was done",
        ),
        table(
            "Controller: held back",
            "Actions that alerts asked for and that were not taken: off, dry run, to be confirmed, no agreement. "
            "Normal is an empty table.",
            {"agent": "Agent", "action": "Action", "why": "Why"},
            Column(
                "Times",
                happened("agent_controller_held_back_total", "agent, action, why"),
                "short",
                decimals=0,
                width=80,
            ),
            sort="Times",
            width=7,
            height=6,
            no_data="Nothing was held back",
        ),
        table(
            "Controller: could not",
            "What it should have done in the range and could not. Normal is an empty table.",
            {"action": "Action", "why": "Why"},
            Column(
                "Times",
                happened("agent_controller_failures_total", "action, why"),
                "short",
                above(("red", 1)),
                decimals=0,
                width=80,
            ),
            sort="Times",
            width=7,
            height=6,
            no_data="Nothing failed",
        ),
    ]


# -- expressions -------------------------------------------------------------------------------------------------------


def _last(record: str, seconds: float) -> str:
    """When the series was recorded last. An instant looks back 5 minutes, which the slower groups may need more of."""
    return f"timestamp({record})" if seconds < 300 else f"max_over_time(timestamp({record})[1h:5m])"


def _recording(thresholds: Thresholds) -> dict[str, tuple[str, float]]:
    """Of each group that records something: a series that tells when, and the seconds between its evaluations."""
    recorded = [(group, rule) for group in groups(thresholds) for rule in group.rules if isinstance(rule, Recording)]
    found: dict[str, tuple[str, float]] = {}
    for group in groups(thresholds):
        others = [rule for other, rule in recorded if other.name != group.name]
        recordings = [rule for other, rule in recorded if other.name == group.name]
        # What another group records as well would tell of that one.
        own = next((rule for rule in recordings if not any(_may_match(rule, other) for other in others)), None)
        if own:
            labels = ",".join(f'{label}="{value}"' for label, value in own.labels.items())
            found[group.name] = (
                f"{own.record}{{{labels}}}" if labels else own.record,
                duration_seconds(group.interval or "1m"),
            )
    return found


def _may_match(one: Recording, other: Recording) -> bool:
    """Whether a selector of the one may find the other's series."""
    return one.record == other.record and all(
        other.labels.get(key, value) == value for key, value in one.labels.items()
    )
