"""Links out of the dashboards: to traces in Explore and Jaeger, to runbooks, to each other."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.dashboards.boards import BOARDS, panels, strings

ROOT_RELATIVE_DASHBOARD = re.compile(r"^/d/([\w-]+)\?")


def urls(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("url"), str) and node["url"]:
            yield node["url"]
        for value in node.values():
            yield from urls(value)
    elif isinstance(node, list):
        for item in node:
            yield from urls(item)
    elif isinstance(node, str):
        yield from re.findall(r"\]\(([^)]+)\)", node)


def with_agents(text: str, *agents: str) -> str:
    """The text with the variable `agent` filled in as Grafana does by its formats; without one, one agent as it is."""
    formats = {
        ":regex": "(" + "|".join(re.escape(agent) for agent in agents) + ")",
        ":pipe": "|".join(agents),
        "": agents[0],
    }
    return re.sub(r"\$\{agent(:\w+)?\}", lambda match: formats[match[1] or ""], text)


ALL = sorted({url for board in BOARDS.values() for url in urls(board)})
TO_EXPLORE = [url for url in ALL if url.startswith("/explore")]
TO_JAEGER = [url for url in ALL if url.startswith("${jaeger_url}")]
TO_DASHBOARDS = [url for url in ALL if url.startswith("/d/")]


@pytest.mark.parametrize("url", TO_EXPLORE)
def test_a_link_to_explore_is_a_valid_pane_after_grafana_decoded_it_once(url: str) -> None:
    query = urlsplit(unquote(url)).query
    parts = parse_qs(query)

    (pane,) = json.loads(parts["panes"][0]).values()
    assert parts["schemaVersion"] == ["1"]
    assert pane["datasource"] == "${tempo_datasource}"
    assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
    assert pane["queries"][0]["queryType"] == "traceql"
    assert pane["queries"][0]["query"].startswith(("{", "("))


@pytest.mark.parametrize("url", TO_EXPLORE)
def test_a_link_to_explore_stays_valid_for_agents_with_dots_in_their_names(url: str) -> None:
    filled = with_agents(url, "com.acme.support", "billing")

    (pane,) = json.loads(parse_qs(urlsplit(unquote(filled)).query)["panes"][0]).values()
    assert "\\" not in pane["queries"][0]["query"]


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_no_search_for_traces_has_an_escape_that_traceql_does_not_know(board: dict[str, Any]) -> None:
    searches = [
        with_agents(target["query"], "com.acme.support", "billing")
        for panel in panels(board)
        for target in panel.get("targets", ())
        if target.get("queryType") == "traceql"
    ]

    assert [search for search in searches if "\\" in search] == []


@pytest.mark.parametrize("url", TO_JAEGER)
def test_a_link_to_jaeger_is_a_search_in_the_dashboards_time_range(url: str) -> None:
    parts = parse_qs(urlsplit(url).query)

    assert parts["start"] == ["${__from}000"]
    assert parts["end"] == ["${__to}000"]
    assert parts["service"]
    json.loads(parts.get("tags", ["{}"])[0])


@pytest.mark.parametrize("url", TO_EXPLORE + TO_JAEGER)
def test_variables_stand_in_a_link_unencoded_since_grafana_fills_them_in_before_it_decodes(url: str) -> None:
    assert "%24" not in url


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_what_stands_for_all_agents_survives_a_link(board: dict[str, Any]) -> None:
    everything = [variable.get("allValue") for variable in board["templating"]["list"]]

    assert not [value for value in everything if value and re.search(r"[&+#%]", value)]


def test_there_are_links_of_both_kinds() -> None:
    assert TO_EXPLORE
    assert TO_JAEGER


@pytest.mark.parametrize("url", TO_DASHBOARDS)
def test_a_link_to_a_dashboard_leads_to_one_that_exists(url: str) -> None:
    match = ROOT_RELATIVE_DASHBOARD.match(url)

    assert match
    assert match[1] in {board["uid"] for board in BOARDS.values()}


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_every_variable_in_a_link_or_query_is_defined(board: dict[str, Any]) -> None:
    defined = {variable["name"] for variable in board["templating"]["list"]}
    used = {
        name
        for panel in panels(board)
        for text in strings(panel)
        for name in re.findall(r"\$\{?([a-z]\w*)", text)
        if not name.startswith("__")
    }

    assert used <= defined
