"""What fires: the tile, the table and the graph that several dashboards have."""

from grafanalib import core as gl

from alert_rules.rules import Site
from dashboards.explore import link
from dashboards.panels import Column, Query, by_name, lit, stat, table

_SEVERITIES = {"P1": ("P1", "red"), "P2": ("P2", "orange"), "P3": ("P3", "blue")}


def tile(selector: str, *, width: int = 3) -> gl.Stat:
    """How many alerts fire, of those that `selector` matches."""
    return stat(
        "Alerts",
        "Alerts that fire now: P1 pages, P2 goes to Slack; P3 is listed only. Normal is 0.",
        Query(_count("P1", selector), "P1", now=True),
        Query(_count("P2", selector), "P2", now=True),
        unit="short",
        width=width,
        overrides=[by_name("P1", thresholds=lit(("red", 1)))],
        thresholds=lit(("orange", 1)),
        background=True,
    )


def listed(selector: str, site: Site, *, width: int = 10, height: int = 6) -> gl.Table:
    """Which alerts fire, of those that `selector` matches, and since when."""
    runbook = f"{site.runbooks.rstrip('/')}/${{__data.fields.Alert}}.md"
    return table(
        "Firing alerts",
        "What fires now, and since when. Normal is an empty table. A click on the alert opens its runbook.",
        {"alertname": "Alert", "agent": "Agent", "severity": "Severity"},
        Column(
            "For",
            # the one that fires longest, of those with the same name; one that is pending is none of them
            "time() - min by (alertname, agent, severity) (ALERTS_FOR_STATE and max without (alertstate) "
            f'(ALERTS{{alertstate="firing",severity=~"P.",{selector}}}))',
            "dtdurations",
            width=130,
        ),
        first="Severity",
        sort="For",
        width=width,
        height=height,
        row_links=[link("Runbook", runbook)],
        row_widths={"Severity": 75, "Agent": 150},
        words_of={"Severity": _SEVERITIES},
        no_data="Nothing fires",
    )


def _count(severities: str, selector: str) -> str:
    return f'count(ALERTS{{alertstate="firing",severity=~"{severities}",{selector}}}) or vector(0)'
