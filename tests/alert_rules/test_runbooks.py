"""Every alert has a runbook, and every runbook says what the person on call needs."""

import re
from pathlib import Path

import pytest

from alert_rules.generate import alerts
from alert_rules.rules import Alert

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


def test_there_is_a_runbook_for_every_alert_and_no_other() -> None:
    assert {path.name for path in RUNBOOKS.glob("*.md")} == {alert.runbook() for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_a_runbook_has_every_section_and_none_is_empty(alert: Alert) -> None:
    text = (RUNBOOKS / alert.runbook()).read_text(encoding="utf-8")

    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    assert parts[::2] == SECTIONS
    assert all(part.strip() for part in parts[1::2])


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_links_to_files_that_are_there(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))

    assert [link for link in links if not (path.parent / link).exists()] == []
