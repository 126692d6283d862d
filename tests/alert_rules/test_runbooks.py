"""Every alert has a runbook, and every runbook says what the person on call needs (links: test_docs)."""

import argparse
import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from alert_rules.generate import alerts, groups
from alert_rules.rules import Alert
from alert_rules.thresholds import Limit, load
from dashboards.generate import dashboard_files
from tests.alert_rules.test_phases import RECORDED_SELDOM, instant_selectors
from tests.promql import known_series, result_labels
from tests.test_docs import commands

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
SECTIONS = [
    "What it means",
    "How it is computed",
    "First query",
    "Where to click",
    "What to do",
    "When to leave it alone",
    "How to tune it",
]
ROUTES = {"P1": "pages through PagerDuty", "P2": "to Slack", "P3": "on the dashboard", "none": "always firing"}
# As it is, it bounds nothing.
UNTOLD = {"hour_budget_usd"}
THRESHOLDS = load()
KNOWN = known_series(groups(THRESHOLDS))
BOOKS = sorted(RUNBOOKS.glob("*.md"))

by_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name} {alert.severity}")
by_book = pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """Heading → text, in the runbook's order."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def queries() -> list[Any]:
    """What a fence holds, as it is pasted."""
    return [
        pytest.param(block, id=f"{path.stem}: {block.strip()}")
        for path in BOOKS
        for block in blocks(read(path), "promql")
    ]


@cache
def panel_titles() -> set[str]:
    found: set[str] = set()
    for text in dashboard_files(THRESHOLDS).values():
        for panel in yaml.safe_load(text)["panels"]:
            found |= {panel["title"], *(inner["title"] for inner in panel.get("panels", ()))}
    return found


def test_there_is_a_runbook_for_every_alert_and_no_other() -> None:
    assert {path.name for path in BOOKS} == {alert.runbook() for alert in alerts()}


@by_book
def test_a_runbook_has_every_section_and_none_is_empty(path: Path) -> None:
    found = sections(read(path))

    assert list(found) == SECTIONS
    assert [heading for heading, text in found.items() if not text.strip()] == []


@by_alert
def test_a_runbook_begins_with_the_alerts_name_severity_route_action_and_requirement(alert: Alert) -> None:
    title, _, head = read(RUNBOOKS / alert.runbook()).partition("\n\n")
    head = head.partition("\n\n")[0]

    assert title == f"# {alert.name}"
    assert str(alert.severity) in head or alert.severity == "none"
    assert ROUTES[alert.severity] in head
    assert re.findall(r"action `(\w+)`", head) == ([str(alert.action)] if alert.action else [])
    numbers = re.findall(r"\b[AM]\d+\b", alert.requirement)
    assert re.findall(r"\b[AM]\d+\b", head) == numbers


@by_book
def test_a_runbook_has_queries_that_open_it_each_with_a_sentence_on_what_it_shows(path: Path) -> None:
    *told, after = re.split(r"^```promql\n.*?^```$", sections(read(path))["First query"], flags=re.M | re.S)

    assert told
    assert [text for text in told if not text.strip()] == []
    assert after.strip() == ""


@pytest.mark.parametrize("query", queries())
def test_a_query_reads_only_series_and_labels_that_exist(query: str) -> None:
    result_labels(promql_parser.parse(query), KNOWN)


@pytest.mark.parametrize("query", queries())
def test_a_query_reads_over_a_range_what_is_recorded_seldom(query: str) -> None:
    """At an instant it finds what the last five minutes hold: of a quarter of an hour, nothing for ten minutes."""
    assert set(instant_selectors(promql_parser.parse(query))) & RECORDED_SELDOM == set()


@pytest.mark.parametrize("command", commands(BOOKS))
def test_a_command_is_complete(command: str) -> None:
    """In a block or in the text: at night nobody looks up what it asks for besides."""
    words = shlex.split(command)[1:]
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f"cli.{words[0]}").add(parser.add_subparsers(required=True))

    options = parser.parse_args(words)
    assert callable(options.run)


@by_alert
def test_what_is_to_be_done_about_an_agent_is_a_command_to_paste(alert: Alert) -> None:
    found = blocks(sections(read(RUNBOOKS / alert.runbook()))["What to do"], "sh")

    assert found
    if alert.action:
        words = {"breaker": "breaker open", "rollout": "rollout back"}.get(alert.action, f"rollback {alert.action}")
        assert any(line.startswith(f"agent-oncall {words} --agent AGENT") for line in found[0].splitlines())


@by_book
def test_what_there_is_to_click_is_on_a_dashboard(path: Path) -> None:
    named = re.findall(r"\*([^*]+)\*", sections(read(path))["Where to click"])

    assert {" ".join(name.split()) for name in named} - panel_titles() == set()


@by_book
def test_what_there_is_to_tune_is_a_limit(path: Path) -> None:
    text = sections(read(path))["How to tune it"]
    named = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", text)) - {"max_values"}

    assert named - THRESHOLDS.limits.keys() == set()


@by_alert
def test_every_limit_in_an_alert_is_named_where_it_is_tuned(alert: Alert) -> None:
    used = set(re.findall(r'agent:limit\{name="(\w+)"', alert.expr))

    text = sections(read(RUNBOOKS / alert.runbook()))["How to tune it"]
    assert {name for name in used if f"`{name}`" not in text} == set()


@by_book
def test_an_example_of_tuning_is_taken(path: Path, tmp_path: Path) -> None:
    for block in blocks(sections(read(path))["How to tune it"], "yaml"):
        file = tmp_path / "mine.yml"
        file.write_text(block, encoding="utf-8")

        assert load(file).agents.keys() == {"AGENT"}


def said(limit: Limit) -> set[str]:
    """The ways in which a limit's default is told: as it is, in percent, what is left of it, in minutes."""
    value = limit.value
    numbers = [value, 100 * value, 100 * (1 - value), 100 * (value - 1), value / 60]
    return {f"{round(number, 6):g}" for number in numbers if number > 0}


@by_book
def test_a_runbook_tells_the_defaults_that_are_in_force(path: Path) -> None:
    found = sections(read(path))
    told = found["How it is computed"] + found["What it means"]
    # "As X" tells the rest there
    told += "".join(
        sections(read(path.parent / link))["How it is computed"] for link in re.findall(r"\((\w+\.md)\)", told)
    )
    numbers = set(re.findall(r"\d+(?:\.\d+)?", told.replace(",", "")))
    named = re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", found["How to tune it"])

    limits = [THRESHOLDS.limits[name] for name in named if name in THRESHOLDS.limits and name not in UNTOLD]
    assert {limit.name: limit.value for limit in limits if not said(limit) & numbers} == {}
