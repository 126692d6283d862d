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
    address = search.replace(AGENT, _FILLED_IN) if search else grafana.rstrip("/") + _explore()
    return "{{ with $labels.agent }}" + address + "{{ end }}"


def _explore() -> str:
    """A TraceQL search for an agent's spans of the last three hours, in Grafana's Tempo."""
    traceql = f'{{resource.service.name="{AGENT}" || span.oncall.agent="{AGENT}"}}'
    query = {"refId": "A", "datasource": _TEMPO, "queryType": "traceql", "query": traceql}
    pane = {"datasource": _TEMPO["uid"], "queries": [query], "range": {"from": "now-3h", "to": "now"}}
    panes = quote(json.dumps({"traces": pane}, separators=(",", ":")), safe="")
    return f"/explore?schemaVersion=1&orgId=1&panes={panes.replace(quote(AGENT, safe=''), _FILLED_IN)}"
