"""The unit tests of the rules, each by its own name: promtool/*.yml, which `promtool test rules` runs as well."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parent / "promtool"
RULES = Path(__file__).parents[2] / "provisioning" / "prometheus" / "rules"
ALERTS = {
    rule["alert"]
    for path in sorted(RULES.glob("*.yml"))
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def cases() -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        rule_files = [str((FOLDER / name).resolve()) for name in document["rule_files"]]
        for test in document["tests"]:
            alone = {**document, "rule_files": rule_files, "tests": [test]}
            found.append(pytest.param(alone, id=f"{path.stem}: {test['name']}"))
    return found


@pytest.mark.parametrize("case", cases())
def test_rule(case: dict[str, Any], promtool: Path, tmp_path: Path) -> None:
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(case), encoding="utf-8")

    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_has_a_case_where_it_fires_and_one_where_it_does_not(alert: str) -> None:
    checks = [
        check
        for case in cases()
        for check in case.values[0]["tests"][0].get("alert_rule_test", ())
        if check["alertname"] == alert
    ]

    fires = [check for check in checks if check["exp_alerts"]]
    silent = [check for check in checks if not check["exp_alerts"]]
    assert fires
    assert silent or alert == "Watchdog"


def test_prometheus_takes_the_rule_files(promtool: Path) -> None:
    done = subprocess.run(
        [promtool, "check", "rules", *RULES.glob("*.yml")], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration(promtool: Path) -> None:
    done = subprocess.run(
        [promtool, "check", "config", RULES.parent / "prometheus.yml"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
