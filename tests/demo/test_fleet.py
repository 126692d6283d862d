from collections import Counter
from collections.abc import Callable

import pytest

from demo.fleet import Fleet
from demo.scenarios import (
    RESEARCH,
    SUPPORT,
    Runaway,
    Scenario,
    bad_canary,
    incident,
    launch,
    normal,
    outage,
    quiet,
)
from demo.spans import OPTIONAL, Span

HOUR = 3600.0
START = 1_700_000_000.0


def played(scenario: Scenario, seconds: float, **options: bool) -> list[Span]:
    return Fleet(scenario, seed=3, start=START, **options).spans(START + seconds)


def test_spans_come_in_the_order_they_end() -> None:
    spans = played(normal(), HOUR)
    assert [span.end for span in spans] == sorted(span.end for span in spans)


def test_small_steps_and_one_large_step_give_the_same_spans() -> None:
    scenario = incident(after=100, runaway=Runaway(tasks=5))
    fleet = Fleet(scenario, seed=3, start=START)
    stepped = [span for second in range(601) for span in fleet.spans(START + second)]
    assert stepped == played(scenario, 600)


def test_a_child_names_its_parent_and_lies_within_it() -> None:
    spans = {span.span_id: span for span in played(normal(), HOUR)}
    levels = {"agent.iteration": "agent.task", "tool.execute": "agent.iteration"}
    for span in spans.values():
        parent = spans.get(span.parent_id)
        if parent is not None:
            assert parent.name == levels[span.name]
            assert parent.trace_id == span.trace_id
            assert parent.start <= span.start <= span.end <= parent.end


def test_a_task_tells_the_sums_of_its_iterations() -> None:
    spans = played(normal(), HOUR)
    tokens: Counter[int] = Counter()
    for span in spans:
        if span.name == "agent.iteration":
            tokens[span.trace_id] += int(span.attributes["iteration.input_tokens"])
    for task in spans:
        if task.name == "agent.task":
            assert task.attributes["task.total_input_tokens"] == tokens[task.trace_id]


def test_tasks_of_half_a_minute_are_normal() -> None:
    durations = sorted(s.end - s.start for s in played(normal((SUPPORT,)), 5 * HOUR) if s.name == "agent.task")
    assert 15 < durations[len(durations) // 2] < 60
    assert durations[int(len(durations) * 0.99)] < 300


def test_the_incident_costs_what_it_cost() -> None:
    quiet = Scenario("quiet", (SUPPORT,), traffic=lambda _: 0.0, runaway_at=0)
    fleet = Fleet(quiet, start=START)
    spans = fleet.spans(START + HOUR)
    totals = fleet.totals["support-agent"]
    assert totals.started == 200
    assert totals.iterations == 200 * 340
    assert totals.input_tokens + totals.output_tokens == 200 * 340 * 8000
    assert totals.cost_usd == pytest.approx(1400, rel=0.001)
    assert max(span.end for span in spans) - START == pytest.approx(45 * 60, rel=0.05)


def test_a_runaway_is_ok_or_still_running_in_every_span() -> None:
    quiet = Scenario("quiet", (SUPPORT,), traffic=lambda _: 0.0, runaway_at=0)
    spans = played(quiet, HOUR)
    assert not [span for span in spans if span.error]
    assert {span.name for span in spans} == {"agent.iteration", "tool.execute"}
    assert {span.attributes["tool.result"] for span in spans if span.name == "tool.execute"} == {"ok"}


def test_repaired_tasks_end_with_their_next_loop() -> None:
    fleet = Fleet(normal((SUPPORT,)), seed=3, start=START)
    fleet.break_tool(START + 10, Runaway(tasks=7))
    fleet.spans(START + 100)
    in_flight = fleet.totals["support-agent"].started - fleet.totals["support-agent"].ended
    fleet.repair()
    ended = [s for s in fleet.spans(START + 130) if s.attributes.get("task.total_input_tokens", 0) > 50_000]  # type: ignore[operator]
    assert in_flight >= 7
    assert len(ended) == 7


def test_a_launch_brings_ten_times_the_tasks_at_the_same_cost_each() -> None:
    tasks = [span for span in played(launch(after=HOUR), 2 * HOUR) if span.name == "agent.task"]
    before = [task for task in tasks if task.start < START + HOUR]
    after = [task for task in tasks if task.start >= START + HOUR]
    assert 8 < len(after) / len(before) < 12
    cost: Callable[[list[Span]], float] = lambda ts: sum(float(t.attributes["task.cost_usd"]) for t in ts) / len(ts)  # noqa: E731
    assert 0.7 < cost(after) / cost(before) < 1.4


def test_bare_spans_carry_nothing_optional_and_no_error() -> None:
    spans = played(normal((RESEARCH,)), HOUR, bare=True)
    assert spans
    assert not [span for span in spans if span.error or OPTIONAL & set(span.attributes)]
    assert all("task.cost_usd" in span.attributes for span in spans if span.name == "agent.task")


def test_compressed_time_keeps_the_origin_and_shrinks_latencies() -> None:
    span = played(normal(), 600)[-1]
    fast = span.compressed(START, 10)
    assert fast.end - START == pytest.approx((span.end - START) / 10)
    latency = next(key for key in span.attributes if key.endswith("latency_ms")) if span.name != "agent.task" else None
    if latency:
        assert float(fast.attributes[latency]) == pytest.approx(float(span.attributes[latency]) / 10)


def test_in_an_outage_every_task_of_the_model_fails_after_one_more_try_and_other_models_go_on() -> None:
    spans = played(outage(after=HOUR), 2 * HOUR)
    began = [span for span in spans if span.start > START + HOUR and span.name == "agent.task"]
    assert {span.attributes["task.status"] for span in began if span.agent == SUPPORT.name} == {"error"}
    assert "completed" in {span.attributes["task.status"] for span in began if span.agent == RESEARCH.name}
    calls = [s for s in spans if s.start > START + HOUR and s.agent == SUPPORT.name and s.name == "agent.iteration"]
    failed = [call for call in calls if call.error]
    assert {call.attributes["iteration.purpose"] for call in failed} == {"progress", "retry"}
    assert {call.attributes["iteration.stop_reason"] for call in failed} == {"error"}


def test_a_bad_canary_gets_a_tenth_of_one_agents_tasks_and_misses_its_goal_more_often() -> None:
    tasks = [span for span in played(bad_canary(), 5 * HOUR) if span.name == "agent.task"]
    marked = [task for task in tasks if task.agent == SUPPORT.name]
    assert not [task for task in tasks if task.agent != SUPPORT.name and "oncall.variant" in task.attributes]
    canary = [task for task in marked if task.attributes["oncall.variant"] == "canary"]
    stable = [task for task in marked if task.attributes["oncall.variant"] == "stable"]
    assert len(canary) + len(stable) == len(marked)
    assert 0.07 < len(canary) / len(marked) < 0.13
    missed = [sum(not task.attributes["task.success"] for task in some) / len(some) for some in (canary, stable)]
    assert missed[0] > 1.5 * missed[1]


def test_every_span_of_a_task_has_the_variant_of_its_task() -> None:
    variants: dict[int, set[object]] = {}
    for span in played(bad_canary(), HOUR):
        if span.agent == SUPPORT.name:
            variants.setdefault(span.trace_id, set()).add(span.attributes.get("oncall.variant"))
    assert {len(found) for found in variants.values()} == {1}


def test_on_a_quiet_night_minutes_pass_without_a_task() -> None:
    starts = {int(span.start // 60) for span in played(quiet(), 5 * HOUR) if span.name == "agent.task"}
    assert 20 < len(starts) < 250
