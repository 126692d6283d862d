"""A whole dashboard: its variables, its annotations, its links to the others, and rows of panels."""

from collections.abc import Sequence
from typing import Any

from grafanalib import core as gl

from alert_rules.rules import Site
from dashboards.explore import link
from dashboards.panels import rows

TAG = "agent-oncall"
PROMETHEUS = {"type": "prometheus", "uid": "${prometheus_datasource}"}
HERE = Site()
"""Where runbooks are by default."""
JAEGER_URL = "http://127.0.0.1:16686"

# Where one dashboard leads to another: its data sources and time range stay as they are.
_KEEP = "${__url_time_range}&${prometheus_datasource:queryparam}&${tempo_datasource:queryparam}"


def board(
    title: str,
    uid: str,
    description: str,
    *titled_rows: tuple[str, Sequence[gl.Panel]],
    variables: Sequence[gl.Template],
    site: Site,
    time_from: str = "now-6h",
    refresh: str = "30s",
) -> gl.Dashboard:
    """A dashboard with these rows. `uid` is its address for ever; `variables` come after those of the data sources."""
    return gl.Dashboard(
        title=title,
        uid=uid,
        description=description,
        tags=[TAG],
        timezone="browser",
        refresh=refresh,
        time=gl.Time(time_from, "now"),
        graphTooltip=gl.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
        templating=gl.Templating([*_sources(), *variables]),
        annotations=gl.Annotations(_annotations(any(variable.name == "agent" for variable in variables))),
        links=[
            gl.DashboardLink(type="dashboards", tags=[TAG], includeVars=True, keepTime=True),
            gl.DashboardLink(
                type="link", title="Runbooks", uri=site.runbooks, icon="doc", keepTime=False, targetBlank=True
            ),
        ],
        panels=rows(*titled_rows),
    ).auto_panel_ids()


# -- variables ---------------------------------------------------------------------------------------------------------


def _sources() -> list[gl.Template]:
    return [
        gl.Template("prometheus_datasource", "prometheus", type="datasource", label="Prometheus data source"),
        gl.Template("tempo_datasource", "tempo", type="datasource", label="Tempo data source"),
    ]


def choice(name: str, query: str, *, label: str, several: bool = True, sort: int = gl.SORT_ALPHA_ASC) -> gl.Template:
    """A variable by a query of Prometheus: any of its values, or all of them; or just one, at first the first."""
    return gl.Template(
        name,
        query,
        dataSource=PROMETHEUS,
        label=label,
        multi=several,
        includeAll=several,
        # Not ".+": a link would make a space of the plus; and an alert on no agent at all is one on all of them.
        allValue=".*" if several else None,
        sort=sort,
    )


def agent(*, several: bool = True) -> gl.Template:
    """The variable `agent`."""
    return choice("agent", "label_values(agent_tasks_started_total, agent)", label="Agent", several=several)


def task_type() -> gl.Template:
    """The variable `task_type`."""
    return choice("task_type", 'label_values(agent_tasks_total{agent=~"$agent"}, task_type)', label="Task type")


def variant() -> gl.Template:
    """The variable `variant`: stable, canary, or both."""
    return choice("variant", 'label_values(agent_tasks_started_total{agent=~"$agent"}, variant)', label="Variant")


def tool() -> gl.Template:
    """The variable `tool`."""
    return choice("tool", 'label_values(agent_tool_calls_total{agent=~"$agent"}, tool)', label="Tool")


def jaeger_url() -> gl.Template:
    """The variable `jaeger_url`: where Jaeger's page is, for the links to it."""
    return gl.Template("jaeger_url", JAEGER_URL, type="textbox", label="Jaeger", default=JAEGER_URL)


# -- annotations -------------------------------------------------------------------------------------------------------


def _annotations(by_agent: bool) -> list[dict[str, Any]]:
    of = 'agent=~"$agent"' if by_agent else 'agent=~".*"'
    acted = f"agent_controller_actions_total{{{of}}}"
    percent = f"agent_rollout_stage_percent{{{of}}}"
    return [
        {
            "builtIn": 1,
            "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "enable": True,
            "hide": True,
            "iconColor": "rgba(0, 211, 255, 1)",
            "name": "Annotations & Alerts",
            "type": "dashboard",
        },
        _annotation(
            "Alerts",
            f'sum by (alertname, agent, severity) (ALERTS{{alertstate="firing",severity=~"P1|P2",{of}}})',
            "red",
            "{{alertname}} {{agent}}",
            "severity",
        ),
        _annotation(
            "Rollout stages",
            # a rollout that begins has no stage before
            f"max by (agent, rollout) (changes({percent}[$__rate_interval]) > 0 or ({percent} unless ({percent} "
            "offset 5m)))",
            "blue",
            "{{agent}}: stage of {{rollout}} changed",
            "rollout",
        ),
        _annotation(
            "Actions and rollbacks",
            # an action's first time has no zero before it
            f"sum by (agent, action, trigger) (increase({acted}[$__rate_interval]) > 0"
            f" or ({acted} unless ({acted} offset 5m)))",
            "purple",
            "{{agent}}: {{action}} by {{trigger}}",
            "action",
        ),
    ]


def _annotation(name: str, expr: str, color: str, title: str, tag: str) -> dict[str, Any]:
    return {
        "datasource": PROMETHEUS,
        "enable": True,
        "expr": expr,
        "iconColor": color,
        "name": name,
        "step": "60s",
        "tagKeys": tag,
        "titleFormat": title,
        "useValueForTime": False,
    }


# -- links -------------------------------------------------------------------------------------------------------------


def runbook(alert: str, site: Site) -> gl.DataLink:
    """The link to an alert's runbook."""
    return link(f"Runbook: {alert}", f"{site.runbooks.rstrip('/')}/{alert}.md")


def to_agent(name: str = "${__data.fields.Agent}") -> gl.DataLink:
    """The link to one agent's dashboard; by default the agent of the table's row."""
    return link(f"All about {name}", f"/d/agent-oncall-agent?var-agent={name}&{_KEEP}", new_tab=False)
