"""What panels say of made-up series: a real Prometheus answers their queries.

Each test has agents of its own in the one Prometheus. Times are minutes before the moment of the question.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from stack.past import PastPrometheus, labels_of
from tests.dashboards.boards import titled
from tests.stack.ports import free_ports

pytestmark = pytest.mark.e2e

NOW = 1_795_540_020.0
"""No multiple of five minutes: what a query aligns to the clock must not matter."""
DAY = 1440
"""In minutes."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PastPrometheus]:
    (port,) = free_ports(1)
    server = PastPrometheus(tmp_path_factory.mktemp("figures"), port)
    yield server
    server.close()


def write(
    server: PastPrometheus,
    name: str,
    labels: dict[str, str],
    value: Callable[[float], float],
    *,
    since: int,
    until: int = 0,
    every: int = 1,
) -> None:
    """A series from `since` to `until` minutes ago, with a sample each `every` minutes; `value` is of minutes ago."""
    ago = range(since, until - 1, -every)
    server.write([(labels_of(name, labels), ([NOW - 60 * m for m in ago], [value(m) for m in ago]))])


def always(value: float) -> Callable[[float], float]:
    return lambda _: value


def asked(server: PastPrometheus, expr: str, agent: str, **filled_in: str) -> list[tuple[dict[str, str], float]]:
    """The query's answer now, for agents whose names match."""
    values = {"agent": agent, "__range": "6h"} | filled_in
    text = re.sub(r"\$([a-z_]\w*)", lambda match: values.get(match[1], ".*"), expr)
    return [(dict(labels), value) for labels, value in server.instant(text, NOW).items()]


def query_of(panel: dict[str, Any], legend: str) -> str:
    """The query with this legend."""
    (expr,) = [target["expr"] for target in panel["targets"] if target.get("legendFormat") == legend]
    return str(expr)


def column_of(panel: dict[str, Any], head: str) -> str:
    """The query behind a column of a table."""
    (organize,) = [step["options"] for step in panel["transformations"] if step["id"] == "organize"]
    (field,) = [field for field, name in organize["renameByName"].items() if name == head]
    ref = field.removeprefix("Value #") if "#" in field else "A"
    return str(next(target["expr"] for target in panel["targets"] if target["refId"] == ref))


# -- the cost of a day ------------------------------------------------------------------------------------------------


def cost_of_a_day(server: PastPrometheus, agent: str) -> float:
    ((_, usd),) = asked(server, query_of(titled("overview", "Cost of a day"), "{{agent}}"), agent)
    return usd


def spends(server: PastPrometheus, agent: str, usd_a_minute: Callable[[float], float], *, since: int) -> None:
    """What the rules record of it: the mean of five minutes, each minute."""

    def rate(ago: float) -> float:
        window: Sequence[float] = [usd_a_minute(ago + minute) for minute in range(5)]
        return sum(window) / len(window) / 60

    write(server, "agent:spend_usd:rate", {"agent": agent, "window": "5m"}, rate, since=since)


def test_the_cost_of_a_day_has_the_money_of_the_last_45_minutes(prometheus: PastPrometheus) -> None:
    spends(prometheus, "runaway", lambda ago: 1400 / 45 if ago < 45 else 0, since=2 * DAY)

    assert cost_of_a_day(prometheus, "runaway") == pytest.approx(1400, rel=0.12)


def test_the_cost_of_a_day_of_a_new_agent_is_what_it_spent_so_far(prometheus: PastPrometheus) -> None:
    spends(prometheus, "day-new", always(1), since=3 * 60)

    assert cost_of_a_day(prometheus, "day-new") == pytest.approx(180, rel=0.05)


def test_the_cost_of_a_day_of_a_steady_agent_is_24_hours_of_it(prometheus: PastPrometheus) -> None:
    spends(prometheus, "day-steady", always(2), since=3 * DAY)

    assert cost_of_a_day(prometheus, "day-steady") == pytest.approx(2 * DAY, rel=0.005)
