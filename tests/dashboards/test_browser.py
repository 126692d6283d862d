"""The dashboards in a real headless browser, by Grafana's own packages, over the incident: where the dashboard viewer
is set up, whose folder AGENT_ONCALL_DASHBOARD_VIEW names."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dashboards.generate import dashboard_files
from tests.dashboards.boards import THRESHOLDS, panels
from tests.dashboards.conftest import Incident

VIEWER = os.environ.get("AGENT_ONCALL_DASHBOARD_VIEW", "")
FILES = dashboard_files(THRESHOLDS)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not VIEWER, reason="AGENT_ONCALL_DASHBOARD_VIEW names no dashboard viewer"),
]


def seen(name: str, incident: Incident, folder: Path, theme: str) -> tuple[int, dict[str, Any]]:
    """The viewer's exit code and report of a dashboard, at the end of the incident."""
    board = folder / name
    board.write_text(FILES[name], encoding="utf-8")
    times = ["--from", f"{incident.start * 1000:.0f}", "--to", f"{incident.end * 1000:.0f}"]
    chosen = ["--var", "agent=support-agent"] if name in ("agent.json", "rollout.json") else []
    command = [
        f"{VIEWER}/view",
        str(board),
        "--prom",
        incident.prometheus.url,
        "--out",
        str(folder / "shot.png"),
        *times,
        *chosen,
    ]
    done = subprocess.run(
        [*command, "--theme", theme, "--timeout", "300"], capture_output=True, text=True, check=False, cwd=VIEWER
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_renders_without_an_error(name: str, theme: str, incident: Incident, tmp_path: Path) -> None:
    code, report = seen(name, incident, tmp_path, theme)

    assert (report["queryErrors"], report["unknownTypes"], report["pageErrors"], code) == ([], [], [], 0)
    assert (tmp_path / "shot.png").stat().st_size > 50_000


def test_what_is_empty_in_the_overview_is_empty_for_a_reason(incident: Incident, tmp_path: Path) -> None:
    _, report = seen("overview.json", incident, tmp_path, "dark")

    # no token lacks a price; nothing is known of a week in four hours
    explained = {"Cost unknown", "Confidence: shift against the week", "Goal alignment: shift against the week"}
    assert set(report["noData"]) <= explained


def test_the_links_of_the_burning_agent_open_its_traces(incident: Incident, tmp_path: Path) -> None:
    _, report = seen("overview.json", incident, tmp_path, "dark")

    board = json.loads(FILES["overview.json"])
    agents = next(panel["title"] for panel in panels(board) if panel["title"].startswith("Agents"))
    opened = [link["href"] for link in report["links"] if link["panel"] == agents and "Looping" in link["title"]]
    assert any("support-agent" in url and url.startswith("/explore") for url in opened)
