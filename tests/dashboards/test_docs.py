"""The example of a second dashboard in docs/dashboards.md."""

import json
import re
from pathlib import Path

import pytest

from tests.dashboards.boards import BOARDS, panels

DOCS = Path(__file__).parents[2] / "docs"


def test_the_example_of_a_second_dashboard_works(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "dashboards.md").read_text(encoding="utf-8"), re.DOTALL)

    exec(example, {})

    board = json.loads(capsys.readouterr().out)
    assert [panel["title"] for panel in board["panels"]] == ["Money", "Spend now", "Refunds by outcome"]


def test_every_picture_is_there() -> None:
    named = re.findall(r"\(img/([\w.-]+)\)", (DOCS / "dashboards.md").read_text(encoding="utf-8"))

    assert named
    assert [name for name in named if not (DOCS / "img" / name).exists()] == []


@pytest.mark.parametrize("runbook", sorted((DOCS / "runbooks").glob("*.md")), ids=lambda path: path.stem)
def test_every_panel_that_a_runbook_names_exists(runbook: Path) -> None:
    (where,) = re.findall(r"## Where to click\n(.*?)\n## ", runbook.read_text(encoding="utf-8"), re.DOTALL)
    named = {" ".join(title.split()) for title in re.findall(r"\*([A-Z][^*]+)\*", where)}

    assert named <= {panel["title"] for board in BOARDS.values() for panel in panels(board)}
