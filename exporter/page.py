"""The landing page: what the exporter has seen, for a person who wonders whether it works.

One self-contained page without scripts. Everything that came from outside is escaped.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from exporter.pipeline import AgentSummary, Summary

_MOST_ROWS = 50


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server knows beside the pipeline's summary. Times are unix seconds."""

    version: str
    started_at: float
    now: float
    state: str
    addresses: Mapping[str, str]
    requests: Mapping[tuple[str, str, str], int]


_STYLE = """
:root { color-scheme: light dark;
  --ground: light-dark(#f6f7f9, #14161a); --card: light-dark(#fff, #1d2026); --line: light-dark(#e2e5ea, #2e323a);
  --text: light-dark(#1b1f26, #e6e8ec); --faint: light-dark(#5f6875, #99a1ad); --link: light-dark(#1558b0, #8ab4f8);
  --alarm: light-dark(#b3261e, #ff8a80); --good: light-dark(#1e7b3a, #7ddc96); }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.25rem 1rem 2rem; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; align-items: baseline; margin-bottom: 1rem; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: .95rem; margin: 0 0 .5rem; }
h2 span { font-weight: 400; }
a { color: var(--link); }
nav { display: flex; gap: 1rem; margin-left: auto; }
.faint { color: var(--faint); }
.alarm { color: var(--alarm); font-weight: 600; }
.good { color: var(--good); }
.tiles, .cards { display: grid; gap: .75rem; }
.tiles { grid-template-columns: repeat(2, 1fr); margin-bottom: .75rem; }
@media (min-width: 36rem) { .tiles { grid-template-columns: repeat(4, 1fr); } }
.cards { grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
section { min-width: 0; overflow-x: auto; }
.wide { margin-bottom: .75rem; }
table { width: 100%; border-collapse: collapse; }
th { font-weight: 500; color: var(--faint); font-size: .85rem; }
th, td { text-align: right; padding: .25rem 0 .25rem .9rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: anywhere; }
tr + tr td { border-top: 1px solid var(--line); }
p { margin: .25rem 0; }
code { font-size: .9em; overflow-wrap: anywhere; }
footer { margin-top: 1rem; font-size: .85rem; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def render(summary: Summary, facts: Facts) -> str:
    """The page as HTML; send it with HEADERS."""
    agents = sorted(summary.agents, key=lambda a: (-a.looping, -a.spend_last_hour_usd, -a.in_flight, a.agent))
    looping = sum(agent.looping for agent in agents)
    tiles = [
        _tile("agents", f"{len(agents):,}"),
        _tile("tasks in flight", f"{sum(agent.in_flight for agent in agents):,}"),
        _tile("of them looping", f"{looping:,}", alarm=looping > 0),
        _tile("spend, last hour", _usd(sum(agent.spend_last_hour_usd for agent in agents))),
    ]
    cards = [
        _card("Recognised", "spans, by dialect", "no spans recognised yet", summary.dialects),
        _card("Ignored", "spans, by reason", "nothing ignored", _by_reason(summary.ignored)),
        _card("Rejected values", "left out, by reason", "nothing rejected", summary.rejected_values),
        _card("Requests", "answered since the start", "no requests yet", _by_request(facts.requests)),
    ]
    state = "good" if facts.state == "ready" else "alarm"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>agent-oncall exporter</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>agent-oncall exporter</h1>
<span class="{state}">{escape(facts.state)}</span>
<span class="faint">up {_duration(facts.now - facts.started_at)}, version {escape(facts.version)}</span>
<nav><a href="/metrics">/metrics</a><a href="/healthz">/healthz</a><a href="/readyz">/readyz</a></nav>
</header>
<div class="tiles">{"".join(tiles)}</div>
{_agents(agents, facts)}
<div class="cards">{"".join(cards)}</div>
<footer class="faint">
<p>{_listeners(facts.addresses)}</p>
<p>{_journal(summary.journal)}</p>
<p>Refreshes every 10 s. Spend and counts are this exporter's own; over several exporters, ask Prometheus.</p>
</footer>
</main>
</body>
</html>
"""


def _tile(label: str, value: str, *, alarm: bool = False) -> str:
    css = ' class="alarm"' if alarm else ""
    return f'<div class="tile"><b{css}>{value}</b><span class="faint">{label}</span></div>'


def _agents(agents: list[AgentSummary], facts: Facts) -> str:
    if not agents:
        http = facts.addresses.get("OTLP/HTTP", "127.0.0.1:4318")
        return (
            '<section class="wide"><h2>No agent seen yet</h2><p>Point one here: <code>OTEL_EXPORTER_OTLP_ENDPOINT='
            f"http://{escape(http)} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf</code></p>"
            "</section>\n"
        )
    rows = "".join(
        f"<tr><td>{escape(agent.agent)}</td><td>{agent.in_flight:,}</td>"
        f"<td{' class=alarm' if agent.looping else ''}>{agent.looping:,}</td>"
        f"<td>{_usd(agent.spend_last_hour_usd)}</td><td>{agent.tasks_ended:,}</td></tr>"
        for agent in agents[:_MOST_ROWS]
    )
    return (
        '<section class="wide"><h2>Agents</h2><table><tr><th>agent</th><th>in flight</th><th>looping</th>'
        f"<th>spend, 1 h</th><th>ended</th></tr>{rows}</table>{_more(len(agents))}</section>\n"
    )


def _card(title: str, unit: str, empty: str, counts: Mapping[str, int]) -> str:
    head = f'<section><h2>{title} <span class="faint">{unit}</span></h2>'
    if not counts:
        return f'{head}<p class="faint">{empty}</p></section>'
    most_first: Iterable[tuple[str, int]] = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_ROWS]
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{count:,}</td></tr>" for name, count in most_first)
    return f"{head}<table>{rows}</table>{_more(len(counts))}</section>"


def _more(count: int) -> str:
    return f'<p class="faint">and {count - _MOST_ROWS:,} more: see /metrics</p>' if count > _MOST_ROWS else ""


def _by_reason(ignored: Mapping[str, int]) -> dict[str, int]:
    return {why.removeprefix("ignored: "): count for why, count in ignored.items()}


def _by_request(requests: Mapping[tuple[str, str, str], int]) -> dict[str, int]:
    dropped = ("metrics", "profiles")
    return {
        f"{signal}, {transport}, {code}{' (dropped: nothing is made of them)' if signal in dropped else ''}": count
        for (signal, transport, code), count in requests.items()
    }


def _listeners(addresses: Mapping[str, str]) -> str:
    return ", ".join(f"{escape(name)} on <code>{escape(address)}</code>" for name, address in addresses.items())


def _journal(journal: str) -> str:
    if journal == "in memory":
        return "No journal: what was counted is lost at a restart (<code>--journal DIR</code> keeps it)."
    return f"Journal in <code>{escape(journal)}</code>."


def _usd(amount: float) -> str:
    return "&lt;$0.01" if 0 < amount < 0.01 else f"${amount:,.2f}"


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{max(0, int(seconds))} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} d"
