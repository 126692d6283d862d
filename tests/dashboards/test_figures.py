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


# -- the cost of a day -------------------------------------------------------------------------------------------------


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


# -- tools -------------------------------------------------------------------------------------------------------------


def times_usual(server: PastPrometheus, agent: str) -> dict[str, float]:
    """By tool."""
    expr = column_of(titled("overview", "Tools, the one called unusually often first"), "× usual")
    return {labels["tool"]: value for labels, value in asked(server, expr, agent)}


def calls(
    server: PastPrometheus,
    agent: str,
    tool: str,
    a_minute: Callable[[float], float],
    *,
    since: int,
) -> None:
    """Calls of a tool, and what the rules record of the day and of the agent's hours."""
    total = [0.0]
    for ago in range(since, -1, -1):
        total.append(total[-1] + a_minute(ago))
    labels = {"agent": agent, "tool": tool}
    write(server, "agent_tool_calls_total", {**labels, "result": "ok"}, lambda m: total[since - int(m)], since=since)

    def of_hour(ago: int) -> float:
        return total[since - ago] - total[max(0, since - ago - 60)]

    of_day = sum(of_hour(ago) for ago in range(0, min(since, DAY), 5)) / 12
    write(server, "agent_tool:tool_calls:increase", {**labels, "window": "1d"}, always(of_day), since=10, every=5)


def watched(server: PastPrometheus, agent: str, *, since: int) -> None:
    write(server, "agent:tasks_started:increase1h", {"agent": agent}, always(1), since=since, every=15)


def test_a_healthy_tool_of_a_first_day_is_called_about_as_often_as_usual(prometheus: PastPrometheus) -> None:
    watched(prometheus, "tools-new", since=3 * 60)
    calls(prometheus, "tools-new", "search", always(60), since=3 * 60)

    assert times_usual(prometheus, "tools-new")["search"] == pytest.approx(1.2, abs=0.3)


def test_before_an_hour_is_known_no_tool_is_called_more_often_than_usual(prometheus: PastPrometheus) -> None:
    watched(prometheus, "tools-first", since=40)
    calls(prometheus, "tools-first", "search", always(60), since=40)

    assert times_usual(prometheus, "tools-first") == {}


def test_a_tool_in_a_loop_stands_out_on_a_first_day_and_later(prometheus: PastPrometheus) -> None:
    for agent, since in (("tools-loop-new", 4 * 60), ("tools-loop-old", 2 * DAY)):
        watched(prometheus, agent, since=since)
        calls(prometheus, agent, "search", lambda ago: 600 if ago < 20 else 10, since=since)

        assert times_usual(prometheus, agent)["search"] > 10


def test_a_tool_that_was_never_called_before_stands_out(prometheus: PastPrometheus) -> None:
    watched(prometheus, "tools-known", since=2 * DAY)
    calls(prometheus, "tools-known", "new", lambda ago: 60 if ago < 10 else 0, since=2 * DAY)

    assert times_usual(prometheus, "tools-known")["new"] > 10


# -- the cost of a task ------------------------------------------------------------------------------------------------


def test_agents_without_a_baseline_do_not_lower_the_baseline_of_the_others(prometheus: PastPrometheus) -> None:
    for agent, a_second in (("task-old", 0.1), ("task-new", 0.9)):
        for window in ("5m", "30m"):
            write(
                prometheus,
                "agent:tasks_started:rate",
                {"agent": agent, "window": window},
                always(a_second),
                since=10,
            )
    write(
        prometheus,
        "agent:spend_usd:expected",
        {"agent": "task-old", "basis": "traffic"},
        always(0.1 * 0.10),
        since=10,
    )

    ((_, usd),) = asked(prometheus, query_of(titled("overview", "Cost per task"), "7-day baseline"), "task-.*")
    assert usd == pytest.approx(0.10)


# -- alerts ------------------------------------------------------------------------------------------------------------


def alert(server: PastPrometheus, state: str, labels: dict[str, str], *, since: int) -> None:
    """An alert that is pending or firing."""
    write(server, "ALERTS", labels | {"alertstate": state}, always(1), since=since)
    write(server, "ALERTS_FOR_STATE", labels, always(NOW - 60 * since), since=since)


def test_an_alert_is_listed_since_it_began_whatever_of_the_same_name_begins_later(prometheus: PastPrometheus) -> None:
    labels = {"alertname": "AgentModelSlow", "agent": "alerting", "severity": "P2", "cause": "provider"}
    alert(prometheus, "firing", labels | {"model": "first"}, since=20)
    alert(prometheus, "firing", labels | {"model": "second"}, since=5)
    alert(prometheus, "pending", labels | {"model": "third"}, since=1)

    ((shown, seconds),) = asked(prometheus, column_of(titled("overview", "Firing alerts"), "For"), "alerting")
    assert shown["alertname"] == "AgentModelSlow"
    assert seconds == 20 * 60


def test_an_alert_that_is_pending_for_longer_makes_no_other_older(prometheus: PastPrometheus) -> None:
    labels = {"alertname": "AgentModelSlow", "agent": "waiting", "severity": "P2", "cause": "provider"}
    alert(prometheus, "pending", labels | {"model": "first"}, since=20)
    alert(prometheus, "firing", labels | {"model": "second"}, since=5)

    ((_, seconds),) = asked(prometheus, column_of(titled("overview", "Firing alerts"), "For"), "waiting")
    assert seconds == 5 * 60


# -- rare events -------------------------------------------------------------------------------------------------------


def trips(server: PastPrometheus, agent: str) -> float:
    """How many trips of the agent's breaker are shown for the six hours; 0 where none is."""
    expr = column_of(titled("exporter", "Breaker trips"), "Times")
    return sum(value for labels, value in asked(server, expr, ".*") if labels["agent"] == agent)


def counted(server: PastPrometheus, agent: str, value: Callable[[float], float], *, since: int, until: int = 0) -> None:
    write(server, "agent_breaker_trips_total", {"agent": agent, "why": "loop"}, value, since=since, until=until)


def test_events_after_a_restart_are_counted(prometheus: PastPrometheus) -> None:
    counted(prometheus, "restarted", always(5), since=DAY, until=100)
    counted(prometheus, "restarted", lambda ago: 1 if ago > 50 else 2, since=90)

    assert trips(prometheus, "restarted") == pytest.approx(2, abs=0.1)


def test_the_first_event_of_all_is_counted(prometheus: PastPrometheus) -> None:
    counted(prometheus, "first-event", always(1), since=30)

    assert trips(prometheus, "first-event") == 1


def test_the_first_event_is_counted_though_its_process_has_ended(prometheus: PastPrometheus) -> None:
    counted(prometheus, "ended", always(1), since=60, until=30)

    assert trips(prometheus, "ended") == 1


def test_events_before_the_range_are_not_counted(prometheus: PastPrometheus) -> None:
    counted(prometheus, "long-ago", always(7), since=DAY)

    assert trips(prometheus, "long-ago") == 0


# -- running tasks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legend", ["iterations", "age", "spend"])
def test_the_worst_running_task_is_one_of_all_exporters(prometheus: PastPrometheus, legend: str) -> None:
    for shard, worst in (("0", 3), ("1", 40)):
        labels = {"agent": f"sharded-{legend}", "instance": f"exporter-{shard}:9464"}
        for figure in ("iterations", "seconds", "spend_usd"):
            write(prometheus, f"agent_task_in_flight_{figure}_max", labels, always(worst), since=5)

    answers = asked(prometheus, query_of(titled("agent", "The worst running tasks"), legend), f"sharded-{legend}")
    assert [value for _, value in answers] == [40]
