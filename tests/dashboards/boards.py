"""The dashboards as they are generated, for the tests to look at."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from alert_rules.thresholds import load
from dashboards.generate import dashboard_files

THRESHOLDS = load()
BOARDS: dict[str, dict[str, Any]] = {
    name.removesuffix(".json"): json.loads(text) for name, text in dashboard_files(THRESHOLDS).items()
}
_WITHOUT_DATA = ("row", "text")


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, those in folded rows too."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def with_data() -> list[Any]:
    """Every panel that shows data, as a test's parameter."""
    return [
        pytest.param(panel, id=f"{name}: {panel['title']}")
        for name, board in BOARDS.items()
        for panel in panels(board)
        if panel["type"] not in _WITHOUT_DATA
    ]


def queries() -> list[Any]:
    """Every PromQL query of panels and annotations, as a test's parameter."""
    found = []
    for name, board in BOARDS.items():
        for panel in panels(board):
            for target in panel.get("targets", ()):
                if "expr" in target:
                    found.append(pytest.param(target["expr"], id=f"{name}: {panel['title']} {target['refId']}"))
        for annotation in board["annotations"]["list"]:
            if "expr" in annotation:
                found.append(pytest.param(annotation["expr"], id=f"{name}: annotation {annotation['name']}"))
    return found


def titled(board: str, title: str) -> dict[str, Any]:
    """A dashboard's panel of this title."""
    return next(panel for panel in panels(BOARDS[board]) if panel["title"] == title)


def strings(node: Any) -> Iterator[str]:
    """Every text anywhere in the JSON."""
    if isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for item in node:
            yield from strings(item)
    elif isinstance(node, str):
        yield node
