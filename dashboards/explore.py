"""Links that open the very traces: a TraceQL search in Grafana's Explore, or a search in Jaeger's own page."""

import json
import re
from urllib.parse import quote

from grafanalib import core as gl

_VARIABLE = re.compile(r"(\$\{[^}]+\})")


def traces(traceql: str, *, start: str = "${__from}", end: str = "${__to}") -> str:
    """The address of Explore with this TraceQL search in the dashboard's Tempo, for the dashboard's time range."""
    datasource = {"type": "tempo", "uid": "${tempo_datasource}"}
    query = {"refId": "A", "datasource": datasource, "queryType": "traceql", "query": traceql, "limit": 20}
    pane = {"datasource": "${tempo_datasource}", "queries": [query], "range": {"from": start, "to": end}}
    text = json.dumps({"traces": pane}, separators=(",", ":"))
    # Grafana decodes a link once before it reads the panes, so these must survive as JSON escapes.
    for character in "&+#%":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"/explore?schemaVersion=1&panes={_encode(text)}&orgId=1"


def jaeger(service: str, *, operation: str = "", tags: dict[str, str] | None = None, least_seconds: float = 0) -> str:
    """The address of Jaeger's search for a service's traces in the dashboard's time range.

    Jaeger compares tags for equality alone; `least_seconds` is a span's shortest duration.
    """
    parameters = {"service": service, "start": "${__from}000", "end": "${__to}000", "limit": "20", "lookback": "custom"}
    if operation:
        parameters["operation"] = operation
    if tags:
        parameters["tags"] = json.dumps(tags, separators=(",", ":"))
    if least_seconds:
        parameters["minDuration"] = f"{least_seconds:g}s"
    return "${jaeger_url}/search?" + "&".join(f"{key}={_encode(value)}" for key, value in parameters.items())


def link(title: str, url: str, *, new_tab: bool = True) -> gl.DataLink:
    """A link of a panel or of a value."""
    return gl.DataLink(title, url, isNewTab=new_tab)


def _encode(text: str) -> str:
    """Percent-encoded, but for the dashboard's variables, which Grafana fills in."""
    return "".join(part if _VARIABLE.fullmatch(part) else quote(part, safe="") for part in _VARIABLE.split(text))
