"""The rules as PrometheusRule resources: as the operator's resource definition and its webhook demand."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alert_rules.generate import groups, prometheus_rules, rule_files
from alert_rules.rules import Site
from alert_rules.thresholds import load

THRESHOLDS = load()
RESOURCES = prometheus_rules(THRESHOLDS, Site(), namespace="monitoring", labels={"release": "prometheus"})

# Field → its type in the definition (monitoring.coreos.com/v1, of the operator's 0.82), with what is required.
GROUP_FIELDS = {"name": str, "interval": str, "limit": int, "rules": list}
RULE_FIELDS = {"record": str, "alert": str, "expr": str, "for": str, "keep_firing_for": str}
TEXTS = {"labels", "annotations"}
DURATION = re.compile(r"(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)")
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def resources() -> list[Any]:
    return [pytest.param(yaml.safe_load(text), id=name) for name, text in RESOURCES.items()]


def rules_of(resource: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for group in resource["spec"]["groups"] for rule in group["rules"]]


def test_there_is_a_resource_for_every_group() -> None:
    names = [group["name"] for text in RESOURCES.values() for group in yaml.safe_load(text)["spec"]["groups"]]

    assert names == [group.name for group in groups(THRESHOLDS)]


@pytest.mark.parametrize("resource", resources())
def test_a_resource_names_itself_as_kubernetes_allows(resource: dict[str, Any]) -> None:
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert DNS_NAME.fullmatch(resource["metadata"]["name"])
    assert resource["metadata"]["namespace"] == "monitoring"
    assert resource["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize("resource", resources())
def test_a_resource_has_only_fields_of_the_definition_and_of_their_type(resource: dict[str, Any]) -> None:
    for group in resource["spec"]["groups"]:
        assert {name: type(value) for name, value in group.items()}.items() <= GROUP_FIELDS.items()
        for rule in group["rules"]:
            plain = {name: type(value) for name, value in rule.items() if name not in TEXTS}
            assert plain.items() <= RULE_FIELDS.items()
            assert all(type(value) is str for field in TEXTS for value in rule.get(field, {}).values())


@pytest.mark.parametrize("resource", resources())
def test_every_rule_has_an_expression_and_one_name(resource: dict[str, Any]) -> None:
    assert all(rule["expr"] and ("record" in rule) != ("alert" in rule) for rule in rules_of(resource))


@pytest.mark.parametrize("resource", resources())
def test_durations_are_of_the_definitions_pattern(resource: dict[str, Any]) -> None:
    durations = [group["interval"] for group in resource["spec"]["groups"] if "interval" in group]
    durations += [rule[name] for rule in rules_of(resource) for name in ("for", "keep_firing_for") if name in rule]

    assert [duration for duration in durations if not (duration and DURATION.fullmatch(duration))] == []


@pytest.mark.parametrize("resource", resources())
def test_a_resource_fits_the_half_config_map_that_the_operator_allows(resource: dict[str, Any]) -> None:
    assert len(yaml.safe_dump(resource["spec"])) < 512 * 1024 / 4, "overrides for many agents must find room"


def test_prometheus_takes_their_groups(promtool: Path, tmp_path: Path) -> None:
    files = []
    for name, text in RESOURCES.items():
        files.append(tmp_path / name)
        files[-1].write_text(yaml.safe_dump({"groups": yaml.safe_load(text)["spec"]["groups"]}), encoding="utf-8")

    done = subprocess.run([promtool, "check", "rules", *files], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_they_say_what_the_rule_files_say() -> None:
    plain = [yaml.safe_load(text)["groups"] for text in rule_files(THRESHOLDS, Site()).values()]

    assert [yaml.safe_load(text)["spec"]["groups"] for text in RESOURCES.values()] == plain


@pytest.mark.parametrize("group", groups(THRESHOLDS), ids=lambda group: group.name)
def test_a_group_has_no_more_rules_than_mimir_takes_unless_told_otherwise(group: Any) -> None:
    assert len(group.rules) <= 20, "Mimir's -ruler.max-rules-per-rule-group is 20"


def test_each_rule_file_is_a_namespace_of_its_own_to_mimirtool() -> None:
    documents = {name: list(yaml.safe_load_all(text)) for name, text in rule_files(THRESHOLDS, Site()).items()}

    # Without a `namespace` in it, mimirtool takes the file's name; it refuses fields that it does not know.
    assert all(len(found) == 1 and found[0].keys() == {"groups"} for found in documents.values())
