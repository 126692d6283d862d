"""The numbers of the alerts: what a user may change, and what nobody can mean."""

from pathlib import Path

import pytest

from alert_rules.rules import Site
from alert_rules.thresholds import BadThreshold, load


def overrides(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.yml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_default_holds_for_every_agent() -> None:
    assert load().value("error_rate", "support-bot") == 0.2


def test_an_override_holds_for_its_agent_alone(tmp_path: Path) -> None:
    thresholds = load(overrides(tmp_path, "support-bot: {error_rate: 0.4}"))

    assert thresholds.value("error_rate", "support-bot") == 0.4
    assert thresholds.value("error_rate", "other") == 0.2


def test_an_override_for_every_agent_changes_the_default(tmp_path: Path) -> None:
    thresholds = load(overrides(tmp_path, '"*": {error_rate: 0.4}\nother: {error_rate: 0.1}'))

    assert thresholds.value("error_rate", "support-bot") == 0.4
    assert thresholds.value("error_rate", "other") == 0.1


def test_an_override_becomes_a_recorded_series_of_its_own(tmp_path: Path) -> None:
    thresholds = load(overrides(tmp_path, "support-bot: {error_rate: 0.4}"))

    default, own = (rule.document(Site()) for rule in thresholds.group().rules)

    assert default["labels"] == {"agent": "*"}
    assert own == {
        "record": "agent:limit",
        "expr": 'label_replace(vector(0.4), "name", "error_rate", "", "")',
        "labels": {"agent": "support-bot"},
    }


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load(overrides(tmp_path, "")) == load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {error_rate: 1.2}", "mine.yml.a.error_rate: 1.2 is not a ratio between 0 and 1 (0.2 is 20 %)"),
        ("a: {error_rate: -0.1}", "mine.yml.a.error_rate: -0.1 is not a ratio"),
        ("a: {error_rate: 20%}", "mine.yml.a.error_rate: '20%' is not a ratio"),
        ("a: {error_rate: .nan}", "mine.yml.a.error_rate: nan is not a ratio"),
        ("a: {error_rate: true}", "mine.yml.a.error_rate: True is not a ratio"),
        ("a: {cost_anomaly_factor: 0.5}", "mine.yml.a.cost_anomaly_factor: 0.5 is not a factor above 1"),
        ("a: {cost_anomaly_floor_usd: .inf}", "mine.yml.a.cost_anomaly_floor_usd: inf is not an amount in USD"),
        ("a: {eror_rate: 0.3}", "mine.yml.a.eror_rate: no such limit; did you mean error_rate?"),
        ("a b: {error_rate: 0.3}", "mine.yml.a b: no agent can have this name"),
        ("a: 0.3", "mine.yml.a: must map names of limits to numbers, not 0.3"),
        ("[a, b]", "mine.yml: must map agents to limits"),
        ("a: {error_rate: 0.3", "cannot be read as YAML"),
        ("a: {error_rate: 0.3, error_rate: 0.4}", "error_rate is there twice"),
    ],
)
def test_what_nobody_can_mean_is_refused_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadThreshold) as refused:
        load(overrides(tmp_path, text))

    assert message in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadThreshold, match=r"nowhere\.yml"):
        load(tmp_path / "nowhere.yml")
