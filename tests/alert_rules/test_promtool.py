"""The unit tests of the rules, each by its own name: promtool/*.yml, which `promtool test rules` runs as well."""

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alert_rules.unit_tests import problems, problems_of

FOLDER = Path(__file__).parent / "promtool"
RULES = Path(__file__).parents[2] / "provisioning" / "prometheus" / "rules"
ALERTS = {
    rule["alert"]
    for path in sorted(RULES.glob("*.yml"))
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


FILES = sorted(FOLDER.glob("*.yml"))


def cases() -> list[Any]:
    found = []
    for path in FILES:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        rule_files = [str((FOLDER / name).resolve()) for name in document["rule_files"]]
        for test in document["tests"]:
            alone = {**document, "rule_files": rule_files, "tests": [test]}
            found.append(pytest.param(path, alone, id=f"{path.stem}: {test['name']}"))
    return found


CASES = cases()


@pytest.fixture(scope="module")
def file_problems(promtool: Path) -> Callable[[Path], str]:
    """What is wrong with a file's cases: one process for all of them, which is what they mostly need."""
    return functools.cache(lambda path: problems(promtool, path))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("path", "case"), CASES)
def test_rule(
    path: Path, case: dict[str, Any], file_problems: Callable[[Path], str], promtool: Path, tmp_path: Path
) -> None:
    if file_problems(path):
        assert problems_of(promtool, case, tmp_path) == ""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_promtool_itself_takes_the_file(path: Path, file_problems: Callable[[Path], str]) -> None:
    assert file_problems(path) == ""


def test_the_cases_of_a_file_have_names_of_their_own() -> None:
    names = [case.id for case in CASES]

    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_in_which_order_its_groups_are_evaluated_since_promtool_takes_any(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))

    groups = [Path(name).stem for name in document["rule_files"]]
    assert len(groups) == 1 or document["group_eval_order"] == groups


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_has_a_case_where_it_fires_and_one_where_it_does_not(alert: str) -> None:
    checks = [
        check
        for case in CASES
        for check in case.values[1]["tests"][0].get("alert_rule_test", ())
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
