"""Routes and inhibitions are evaluated as Alertmanager evaluates them."""

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from check.routes import branches, inhibits, matchers, may_inhibit
from stack.servers import AMTOOL, get

NAMES, VALUES = ("agent", "severity", "team"), ("a", "b", "P1", "")
RECEIVERS = [f"r{n}" for n in range(6)]


def some_route(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A route with up to three routes below it, three deep."""
    route: dict[str, Any] = {"receiver": rng.choice(RECEIVERS)}
    if depth:
        if rng.random() < 0.3:
            del route["receiver"]
        route["matchers"] = [some_matcher(rng) for _ in range(rng.randint(0, 2))]
        route["continue"] = rng.random() < 0.4
    if depth < 3:
        route["routes"] = [some_route(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return route


def some_matcher(rng: random.Random) -> str:
    operator = rng.choice(("=", "!=", "=~", "!~"))
    value = rng.choice((*VALUES, "a|b", "P.", ".+", ".*")) if "~" in operator else rng.choice(VALUES)
    return f'{rng.choice(NAMES)}{operator}"{value}"'


@pytest.mark.parametrize("seed", range(25))
def test_an_alert_ends_where_amtool_says(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    route = some_route(rng)
    labels = {name: value for name in NAMES if (value := rng.choice(VALUES))} or {"agent": "a"}
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump({"route": route, "receivers": [{"name": name} for name in RECEIVERS]}))
    amtool = get([AMTOOL])[AMTOOL]

    done = subprocess.run(
        [amtool, "config", "routes", "test", f"--config.file={file}", *(f"{k}={v}" for k, v in labels.items())],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ",".join(branch.receiver for branch in branches(route, labels)) == done.stdout.strip()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('action!=""', [("action", "!=", "")]),
        ("severity = P1", [("severity", "=", "P1")]),
        ('alertname =~ "Agent.+|Watchdog"', [("alertname", "=~", "Agent.+|Watchdog")]),
        ('"a name"="a \\"b\\""', [("a name", "=", 'a "b"')]),
        ('{a="1", b!~"2|3"}', [("a", "=", "1"), ("b", "!~", "2|3")]),
        ("b!~2|3", [("b", "!~", "2|3")]),
    ],
)
def test_a_matcher_is_read_however_it_is_written(text: str, meant: list[tuple[str, str, str]]) -> None:
    assert [(m.name, m.operator, m.value) for m in matchers({"matchers": [text]})] == meant


def test_the_older_way_to_write_matchers_is_understood() -> None:
    found = matchers({"match": {"a": "1"}, "match_re": {"b": "2|3"}})

    assert [(m.name, m.operator, m.value) for m in found] == [("a", "=", "1"), ("b", "=~", "2|3")]


@pytest.mark.parametrize("text", ["severity", "=P1", 'a="b', 'a="b" c="d"'])
def test_what_is_no_matcher_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read the matcher"):
        matchers({"matchers": [text]})


def test_a_route_inherits_its_grouping_and_not_its_silent_hours() -> None:
    below = {"receiver": "below", "matchers": ["a=1"]}
    route = {
        "receiver": "r",
        "group_by": ["x"],
        "group_wait": "5s",
        "mute_time_intervals": ["night"],
        "routes": [below],
    }

    [branch] = branches(route, {"a": "1"})

    assert (branch.receiver, branch.group_by, branch.group_wait, branch.muted) == ("below", ("x",), "5s", False)


def test_an_inhibition_asks_for_equal_labels() -> None:
    rule = {"source_matchers": ["s=1"], "target_matchers": ["t=1"], "equal": ["agent"]}
    same, other = {"s": "1", "agent": "a"}, {"s": "1", "agent": "b"}
    target = {"t": "1", "agent": "a"}

    assert inhibits(rule, same, target)
    assert not inhibits(rule, other, target)


def test_what_is_source_and_target_at_once_is_not_inhibited_by_another_such() -> None:
    rule = {"source_matchers": ["s=1"], "target_matchers": ["s=1"]}

    assert not inhibits(rule, {"s": "1"}, {"s": "1"})
    assert not inhibits(rule, {"s": "1", "agent": "a"}, {"s": "1", "agent": "b"})


@pytest.mark.parametrize(
    ("rule", "may"),
    [
        ({"source_matchers": ["s=1"], "target_matchers": ["t=1"]}, True),
        ({"source_matchers": ["s=1"], "target_matchers": ["t=2"]}, False),
        ({"source_matchers": ["agent=b"], "target_matchers": ["t=1"], "equal": ["agent"]}, False),
        ({"source_matchers": ["t=1"], "target_matchers": ["t=1"], "equal": ["agent"]}, False),
        ({"source_matchers": ["t=1"], "target_matchers": ["agent=a"], "equal": ["agent"]}, False),
        ({"source_matchers": ["t=1"], "target_matchers": ["agent=a"]}, True),
    ],
)
def test_whether_some_source_could_inhibit_is_told(rule: dict[str, Any], may: bool) -> None:
    assert may_inhibit(rule, {"t": "1", "agent": "a"}) is may
