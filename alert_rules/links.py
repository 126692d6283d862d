"""Where an alert's links lead: addresses with the templates that Prometheus fills in for each alert."""

import json
from urllib.parse import quote

AGENT = "{agent}"
"""Stands for the agent's name in an address that the user gives."""

_FILLED_IN = "{{ . | urlquery }}"

# The uid of the data source that `generate` provisions.
_TEMPO = {"type": "tempo", "uid": "tempo"}


def traces(search: str, grafana: str) -> str:
    """The template of the link to an alert's traces: empty for an alert on no agent.

    `search` is the address of a trace search with `{agent}` in it; "" is Grafana's Explore at the address `grafana`.
    """
    explored = explore(grafana, spans_of(AGENT)).replace(quote(AGENT, safe=""), _FILLED_IN)
    address = search.replace(AGENT, _FILLED_IN) if search else explored
    return "{{ with $labels.agent }}" + address + "{{ end }}"


def spans_of(agent: str) -> str:
    """The TraceQL of an agent's spans."""
    return f'{{resource.service.name="{agent}" || span.oncall.agent="{agent}"}}'


def explore(grafana: str, traceql: str, start: str = "now-3h", end: str = "now") -> str:
    """The address of a TraceQL search, or of a trace by its id, in Grafana's Tempo.

    `start` and `end` are as Grafana tells time: relative, or milliseconds since the epoch.
    """
    query = {"refId": "A", "datasource": _TEMPO, "queryType": "traceql", "query": traceql}
    pane = {"datasource": _TEMPO["uid"], "queries": [query], "range": {"from": start, "to": end}}
    panes = quote(json.dumps({"traces": pane}, separators=(",", ":")), safe="")
    return f"{grafana.rstrip('/')}/explore?schemaVersion=1&orgId=1&panes={panes}"
