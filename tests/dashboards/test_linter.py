"""The dashboards before Grafana's own schema and linter, where the dashboard viewer is set up: its folder is named by
AGENT_ONCALL_DASHBOARD_VIEW."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VIEWER = os.environ.get("AGENT_ONCALL_DASHBOARD_VIEW", "")
# Its PromQL parser gives a query 20 ms and takes what it has by then: a busy machine reads as a syntax error.
TRIES = 5


@pytest.mark.slow
@pytest.mark.skipif(not VIEWER, reason="AGENT_ONCALL_DASHBOARD_VIEW names no dashboard viewer")
@pytest.mark.parametrize(
    "dashboard", sorted((ROOT / "provisioning" / "grafana" / "dashboards").glob("*.json")), ids=lambda path: path.stem
)
def test_grafanas_linter_finds_nothing_but_what_is_excluded_with_a_reason(dashboard: Path) -> None:
    excluded = yaml.safe_load((ROOT / "dashboards" / "lint.yml").read_text(encoding="utf-8"))
    options = [word for rule in excluded for word in ("--exclude", rule)]

    for _ in range(TRIES):
        done = subprocess.run([f"{VIEWER}/check", dashboard, *options], capture_output=True, text=True, check=False)
        if "target-promql-rule" not in done.stdout:
            break

    assert done.returncode == 0, done.stdout + done.stderr
