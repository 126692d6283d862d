"""Which exemplars a report shows."""

from typing import Any

from incident.traces import Trace, pick


def series(name: str, *exemplars: tuple[str, float, float], **labels: str) -> dict[str, Any]:
    """A series with exemplars of (trace, value, epoch seconds), as Prometheus' API tells them."""
    return {
        "seriesLabels": {"__name__": name, "agent": "support-agent", **labels},
        "exemplars": [
            {"labels": {"trace_id": trace}, "value": str(value), "timestamp": at} for trace, value, at in exemplars
        ],
    }


def test_the_costliest_tasks_come_first_and_each_trace_once() -> None:
    cost = "agent_task_cost_usd_bucket"
    found = pick([series(cost, ("cheap", 0.1, 3)), series(cost, ("dear", 2.5, 1)), series(cost, ("dear", 2.5, 2))])

    assert found == [Trace("dear", 1, "task of 2.50 USD"), Trace("cheap", 3, "task of 0.1000 USD")]


def test_what_looped_and_what_failed_goes_before_what_was_dear() -> None:
    found = pick(
        [
            series("agent_task_cost_usd_bucket", ("a", 9, 1)),
            series("agent_tasks_total", ("b", 1, 1), outcome="error", reason="tool"),
            series("agent_tasks_looped_total", ("c", 1, 1), why="repeat"),
            series("agent_tool_calls_total", ("d", 1, 1), tool="search", result="invalid"),
        ]
    )

    assert [(trace.id, trace.why) for trace in found] == [
        ("c", "looped: `repeat`"),
        ("b", "task ended in `error`, `tool`"),
        ("a", "task of 9.00 USD"),
        ("d", "call of `search`: `invalid`"),
    ]


def test_of_calls_that_failed_the_latest_are_shown_and_not_all() -> None:
    calls = [(f"t{i}", 1.0, float(i)) for i in range(20)]

    found = pick([series("agent_tool_calls_total", *calls, tool="search", result="error")])

    assert [trace.id for trace in found] == ["t19", "t18", "t17", "t16"]


def test_exemplars_without_a_trace_and_of_other_series_are_left_out() -> None:
    found = pick([series("agent_task_confidence_bucket", ("a", 1, 1)), series("agent_tasks_total", ("", 1, 1))])

    assert found == []
