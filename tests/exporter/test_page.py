import base64
import hashlib
import re
from collections.abc import Mapping

from exporter import page
from exporter.pipeline import AgentSummary, Summary

HOSTILE = "<script>alert('&\"')</script>"


def rendered(
    agents: list[AgentSummary] | None = None,
    *,
    ignored: dict[str, int] | None = None,
    journal: str = "in memory",
    requests: Mapping[tuple[str, str, str], int] | None = None,
) -> str:
    facts = page.Facts(
        version="1.2.3",
        started_at=1000,
        now=1000 + 3 * 3600,
        state="ready",
        addresses={"OTLP/HTTP": "127.0.0.1:4318"},
        requests=requests or {},
    )
    return page.render(Summary(agents or [], {"base": 1200}, ignored or {}, {}, journal), facts)


def text(html: str) -> str:
    """What a person reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html.partition("</style>")[2]))


def test_an_agent_is_shown_with_its_tasks_and_its_spend() -> None:
    shown = text(rendered([AgentSummary("shop", 12, 2, 41.239, 1234), AgentSummary("search", 3, 0, 0.001, 9)]))
    assert "shop 12 2 $41.24 1,234" in shown
    assert "search 3 0 &lt;$0.01 9" in shown
    assert "15 tasks in flight 2 of them looping $41.24 spend, last hour" in shown


def test_what_was_recognised_and_ignored_and_answered_is_shown() -> None:
    shown = text(
        rendered(ignored={"ignored: no dialect knows the span": 3}, requests={("metrics", "http", "200"): 7}),
    )
    assert "base 1,200" in shown
    assert "no dialect knows the span 3" in shown
    assert "metrics, http, 200 (dropped: nothing is made of them) 7" in shown


def test_a_looping_agent_comes_first() -> None:
    agents = [AgentSummary("costly", 9, 0, 99.0, 9), AgentSummary("looping", 1, 1, 0.0, 0)]
    shown = text(rendered(agents))
    assert shown.index("looping 1 1") < shown.index("costly 9 0")


def test_before_the_first_span_it_says_where_to_send_them() -> None:
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318" in text(rendered())


def test_it_says_whether_there_is_a_journal() -> None:
    assert "lost at a restart" in text(rendered())
    assert "Journal in /var/lib/agent-oncall" in text(rendered(journal="/var/lib/agent-oncall"))


def test_what_came_from_outside_is_escaped() -> None:
    html = rendered(
        [AgentSummary(HOSTILE, 1, 1, 1.0, 1)], ignored={HOSTILE: 1}, journal=HOSTILE, requests={(HOSTILE, "", ""): 1}
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 4


def test_a_thousand_agents_make_no_endless_page() -> None:
    shown = text(rendered([AgentSummary(f"agent-{n}", 1, 0, 1.0, 1) for n in range(1000)]))
    assert shown.count("agent-1") < 60
    assert "and 950 more: see /metrics" in shown


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    style = re.search(r"<style>(.*?)</style>", rendered(), flags=re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = page.HEADERS["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "style=" not in rendered([AgentSummary("a", 1, 1, 1.0, 1)])
