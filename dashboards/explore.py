"""Links into Grafana's Explore that open the very traces."""

import json
import re
from urllib.parse import quote

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


def _encode(text: str) -> str:
    """Percent-encoded, but for the dashboard's variables, which Grafana fills in."""
    return "".join(part if _VARIABLE.fullmatch(part) else quote(part, safe="") for part in _VARIABLE.split(text))
