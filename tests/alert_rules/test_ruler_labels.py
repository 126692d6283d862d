"""The rules hold where a ruler puts a label of its own on all that it records: Thanos' does, and raw series lack it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alert_rules.test_promtool import FILES, RULES
from tests.alert_rules.unit_tests import problems_of

_LABEL = ("ruler_cluster", "eu1")


def with_the_label(series: str) -> str:
    """A recorded series (there is a colon in its name) with the label, a raw one as it is."""
    name, _, labels = series.partition("{")
    if ":" not in name:
        return series
    own = '{}="{}"'.format(*_LABEL)
    return f"{name}{{{','.join(filter(None, (labels.removesuffix('}'), own)))}}}"


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    for path in RULES.glob("*.yml"):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in document["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    rule["labels"] = {**rule.get("labels", {}), _LABEL[0]: _LABEL[1]}
        (folder / path.name).write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_same_alerts_fire(path: Path, rules: Path, promtool: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = copy.deepcopy(yaml.safe_load(path.read_text(encoding="utf-8")))
    document["rule_files"] = [str(rules / Path(name).name) for name in document["rule_files"]]
    for case in document["tests"]:
        case.pop("promql_expr_test", None)
        case["input_series"] = [{**given, "series": with_the_label(given["series"])} for given in case["input_series"]]
    assert problems_of(promtool, document, tmp_path) == ""
