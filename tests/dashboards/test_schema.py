"""Every panel against Grafana's own schema.

grafana-13.2.2.schema.json is made from the types of the package @grafana/schema 13.2.2 (Apache-2.0), panel options and
field options by panel type, no unknown keys allowed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.dashboards.boards import BOARDS, panels

SCHEMA = json.loads((Path(__file__).parent / "grafana-13.2.2.schema.json").read_text(encoding="utf-8"))
DEFINITIONS: dict[str, Any] = SCHEMA["definitions"]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return resolved(DEFINITIONS[reference.rsplit("/", 1)[1]]) if reference else schema


BY_TYPE = {
    resolved(branch["properties"]["type"])["const"]: branch
    for branch in map(resolved, resolved({"$ref": "#/definitions/StrictPanel"})["anyOf"])
}


def mistakes(schema: dict[str, Any], value: Any) -> list[str]:
    validator = jsonschema.Draft7Validator({**schema, "definitions": DEFINITIONS})
    return [f"{'/'.join(map(str, error.path))}: {error.message[:300]}" for error in validator.iter_errors(value)]


def of_type() -> Iterator[Any]:
    for name, board in BOARDS.items():
        for panel in panels(board):
            yield pytest.param(panel, id=f"{name}: {panel['title']}")


@pytest.mark.parametrize("panel", list(of_type()))
def test_a_panel_is_what_grafana_13_stores(panel: dict[str, Any]) -> None:
    if panel["type"] == "row":
        assert mistakes(resolved({"$ref": "#/definitions/StrictRow"}), {**panel, "panels": []}) == []
    else:
        assert mistakes(BY_TYPE[panel["type"]], panel) == []


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_a_dashboard_is_what_grafana_13_stores(board: dict[str, Any]) -> None:
    assert mistakes(resolved({"$ref": "#/definitions/StrictDashboard"}), {**board, "panels": []}) == []


def test_a_key_of_an_older_grafana_is_found() -> None:
    (panel,) = [panel for panel in panels(BOARDS["overview"]) if panel["title"] == "Error rate"]

    assert mistakes(BY_TYPE["stat"], {**panel, "sparkline": {"show": True}}) != []
