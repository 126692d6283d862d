"""The rules that METRICS' table and its notes lay down, through the exporter's own door."""

import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from exporter.config import Settings, load
from exporter.contract import PURPOSES
from exporter.journal import Journal
from exporter.pipeline import Pipeline
from exporter.pricing import Pricing

SECOND = 10**9
START = 1_790_000_000
PRICING = Pricing()
TRACE = bytes(15) + b"\x01"


class Agent:
    """An agent and the exporter it sends to. Every span is a request of its own, sent when it ends."""

    def __init__(self, settings: Settings | None = None, journal: Journal | None = None) -> None:
        self.now = float(START)
        self.journal = journal
        self.exporter = Pipeline(settings or Settings(), clock=lambda: self.now, pricing=PRICING, journal=journal)
        self.ids: Iterator[int] = count(1)

    def id(self) -> bytes:
        return next(self.ids).to_bytes(8, "big")

    def span(
        self,
        name: str,
        parent: bytes = b"",
        *,
        trace: bytes = TRACE,
        id: bytes | None = None,
        seconds: float = 1,
        error: str = "",
        remote: bool = False,
        resource: dict[str, Any] | None = None,
        scope: str = "my.agent",
        **attributes: Any,
    ) -> bytes:
        request = ExportTraceServiceRequest()
        of_resource = request.resource_spans.add()
        _put(of_resource.resource, {"service.name": "shop", **(resource or {})})
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name = scope
        span = of_scope.spans.add(
            trace_id=trace,
            span_id=id or self.id(),
            parent_span_id=parent,
            name=name,
            flags=0x300 if remote else 0x100,
            start_time_unix_nano=int((self.now - seconds) * SECOND),
            end_time_unix_nano=int(self.now * SECOND),
        )
        _put(span, {key.replace("__", "."): value for key, value in attributes.items()})
        if error:
            span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=error))
        self.exporter.take_traces(request.SerializeToString())
        self.now += 0.1
        return bytes(span.span_id)

    def call(self, parent: bytes, **attributes: Any) -> bytes:
        told = {"iteration__input_tokens": 100, "iteration__output_tokens": 10, "iteration__stop_reason": "tool_use"}
        return self.span("agent.iteration", parent, **{**told, **attributes})

    def tool(self, parent: bytes, **attributes: Any) -> bytes:
        return self.span("tool.execute", parent, **{"tool__name": "search", **attributes})

    def task(self, id: bytes | None = None, **attributes: Any) -> bytes:
        return self.span("agent.task", id=id, **{"task__type": "order", "task__status": "completed", **attributes})

    def score(self, name: str, value: float, trace: bytes = TRACE, span: bytes = b"") -> None:
        request = ExportLogsServiceRequest()
        record = (
            request.resource_logs.add()
            .scope_logs.add()
            .log_records.add(trace_id=trace, span_id=span, event_name="gen_ai.evaluation.result")
        )
        _put(record, {"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": value})
        self.exporter.take_logs(request.SerializeToString())

    def killed(self, directory: Path) -> None:
        """The exporter is killed and started again on its journal."""
        assert self.journal is not None
        self.journal.close()
        self.journal = Journal.open(directory)
        self.exporter = Pipeline(Settings(), clock=lambda: self.now, pricing=PRICING, journal=self.journal)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.exporter.advance()

    def value(self, name: str, *labels: str) -> float:
        self.exporter.advance()
        return self.exporter.measures.value(name, *labels)

    def sum(self, name: str, label: str, value: str) -> float:
        return self.exporter.measures.sums(name, label).get(value, 0.0)

    def ended(self, outcome: str, reason: str = "", task_type: str = "order") -> float:
        return self.value("agent_tasks_total", "shop", task_type, "stable", outcome, reason)


def _put(holder: Any, attributes: dict[str, Any]) -> None:
    for key, value in attributes.items():
        pair = holder.attributes.add(key=key)
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        elif isinstance(value, float):
            pair.value.double_value = value
        else:
            pair.value.string_value = value


def settings(**values: Any) -> Settings:
    return load(None, values)


def test_a_task_counts_from_its_first_call_and_before_it_ends() -> None:
    agent = Agent()
    agent.call(agent.id())
    assert agent.value("agent_tasks_started_total", "shop", "stable") == 1
    assert agent.value("agent_tasks_in_flight", "shop") == 1
    assert agent.value("agent_tokens_total", "shop", "unknown", "stable", "input", "progress") == 100
    assert agent.sum("agent_tasks_total", "agent", "shop") == 0


def test_a_task_that_falls_silent_is_given_up_with_its_cost_and_iterations_but_no_duration() -> None:
    agent = Agent()
    parent = agent.id()
    agent.call(parent)
    agent.call(parent)
    agent.wait(1790)
    assert agent.value("agent_tasks_in_flight", "shop") == 1
    agent.wait(20)
    assert agent.ended("abandoned", "never_finished", "unknown") == 1
    assert agent.value("agent_tasks_in_flight", "shop") == 0
    assert agent.value("agent_task_iterations", "shop", "unknown", "stable") == 1
    assert agent.value("agent_task_duration_seconds", "shop", "unknown", "stable") == 0


def test_what_comes_after_the_giving_up_is_money_but_no_new_task() -> None:
    agent = Agent()
    parent = agent.id()
    agent.call(parent)
    agent.wait(1900)
    agent.call(parent)
    agent.task(parent)
    assert agent.value("agent_tasks_resumed_total", "shop") == 2
    assert agent.value("agent_tokens_total", "shop", "unknown", "stable", "input", "progress") == 200
    assert agent.sum("agent_tasks_started_total", "agent", "shop") == 1
    assert agent.sum("agent_tasks_total", "agent", "shop") == 1


def test_giving_up_is_settable_for_one_agent() -> None:
    agent = Agent(settings(agents={"shop": {"give_up_seconds": 60}}))
    agent.call(agent.id())
    agent.wait(61)
    assert agent.ended("abandoned", "never_finished", "unknown") == 1


def test_the_call_after_a_failed_call_is_a_retry_and_the_one_after_a_failed_tool_a_recovery() -> None:
    agent = Agent()
    root = agent.id()
    agent.span("agent.iteration", root, error="InternalServerError: 500")
    agent.call(root)
    agent.tool(root, tool__result="error")
    agent.call(root)
    agent.call(root)
    tokens = {p: agent.value("agent_tokens_total", "shop", "unknown", "stable", "input", p) for p in PURPOSES}
    assert tokens == {"progress": 100, "retry": 100, "recovery": 100}


def test_in_the_base_schema_the_iteration_after_the_one_with_the_failed_tool_is_the_recovery() -> None:
    agent = Agent()
    root = agent.id()
    for failed in (True, False, False):
        iteration = agent.id()
        agent.tool(iteration, tool__result="error" if failed else "ok")
        agent.call(root, id=iteration)
    tokens = {p: agent.value("agent_tokens_total", "shop", "unknown", "stable", "input", p) for p in PURPOSES}
    assert tokens == {"progress": 200, "retry": 0, "recovery": 100}


def test_tools_that_fail_several_times_in_one_iteration_are_no_loop() -> None:
    agent = Agent()
    root = agent.id()
    for tools in (3, 1):
        iteration = agent.id()
        for _ in range(tools):
            agent.tool(iteration, tool__result="error")
        agent.call(root, id=iteration)
    assert agent.value("agent_tasks_looping", "shop", "failing_tool") == 0
    agent.tool(agent.id(), tool__result="error")
    assert agent.value("agent_tasks_looping", "shop", "failing_tool") == 1


def test_a_tool_that_fails_in_three_iterations_in_a_row_is_a_loop_until_it_works() -> None:
    agent = Agent()
    root = agent.id()
    for _ in range(3):
        agent.call(root)
        agent.tool(root, tool__result="error")
    assert agent.value("agent_tasks_looping", "shop", "failing_tool") == 1
    agent.tool(root)
    assert agent.value("agent_tasks_looping", "shop", "failing_tool") == 0
    assert agent.value("agent_tasks_looped_total", "shop", "failing_tool") == 1


def test_the_same_call_three_times_in_a_row_is_a_loop_but_not_for_a_tool_that_polls() -> None:
    for polling, looping in (([], 1), (["search"], 0)):
        agent = Agent(settings(agents={"*": {"polling_tools": polling}}))
        root = agent.id()
        for _ in range(3):
            agent.call(root)
            agent.tool(root, tool__args_hash="a1")
        assert agent.value("agent_tasks_looping", "shop", "repeat") == looping


def test_where_no_call_is_told_the_same_tool_call_three_times_in_a_row_is_a_loop_until_others_follow() -> None:
    agent = Agent()
    root = agent.id()

    def search(query: str) -> None:
        told: dict[str, Any] = {
            "gen_ai__operation__name": "execute_tool",
            "gen_ai__tool__name": "search",
            "gen_ai__tool__call__arguments": query,
        }
        agent.span("execute_tool search", root, **told)

    for _ in range(3):
        search("the same")
    assert agent.value("agent_tasks_looping", "shop", "repeat") == 1
    for number in range(2):
        search(f"another {number}")
    assert agent.value("agent_tasks_looping", "shop", "repeat") == 0


def test_more_than_25_iterations_are_a_loop_unless_they_are_this_agents_way() -> None:
    agent = Agent()
    root = agent.id()
    for _ in range(26):
        agent.call(root)
    assert agent.value("agent_tasks_looping", "shop", "iterations") == 1
    assert agent.value("agent_task_in_flight_iterations_max", "shop") == 26

    busy = Agent()
    for number in range(2, 27):
        trace, root = number.to_bytes(16, "big"), busy.id()
        for _ in range(20):
            busy.call(root, trace=trace)
        busy.task(root, trace=trace)
    root = busy.id()
    for _ in range(26):
        busy.call(root)
    assert busy.value("agent_tasks_looping", "shop", "iterations") == 0


def test_a_script_with_many_tasks_below_one_span_is_no_runaway() -> None:
    agent = Agent()
    script = agent.id()
    for _ in range(40):
        task = agent.id()
        agent.call(task)
        agent.call(task)
        agent.span("agent.task", script, id=task)
    assert agent.value("agent_tasks_looping", "shop", "iterations") == 0
    agent.wait(70)
    assert agent.sum("agent_tasks_total", "agent", "shop") == 40


@pytest.mark.parametrize(
    ("attributes", "error", "outcome", "reason"),
    [
        ({}, "", "success", ""),
        ({"task__success": False}, "", "failure", ""),
        ({"task__outcome": "failure"}, "", "failure", ""),
        ({"task__status": "max_iter_exceeded"}, "", "abandoned", "max_iterations"),
        ({"task__status": "cancelled"}, "", "abandoned", "user_cancel"),
        ({"task__status": "timeout"}, "", "abandoned", "timeout"),
        ({}, "RateLimitError: 429", "error", "rate_limit"),
        ({}, "InternalServerError: Error code: 500", "error", "provider"),
        ({}, "ValueError: a bug", "error", "internal"),
        ({}, "TimeoutError: deadline exceeded", "abandoned", "timeout"),
        ({}, "KeyboardInterrupt", "abandoned", "user_cancel"),
        ({}, "Max turns exceeded", "abandoned", "max_iterations"),
    ],
)
def test_how_a_task_ends(attributes: dict[str, Any], error: str, outcome: str, reason: str) -> None:
    agent = Agent()
    root = agent.id()
    agent.call(root)
    agent.task(root, error=error, **attributes)
    assert agent.ended(outcome, reason) == 1


def test_an_answer_in_the_last_allowed_turn_is_a_success_whatever_the_status_says() -> None:
    agent = Agent()
    root = agent.id()
    agent.call(root, iteration__final=True)
    agent.task(root, task__status="max_iter_exceeded")
    assert agent.ended("success") == 1


def test_an_agent_that_had_to_answer_after_its_limit_is_abandoned() -> None:
    agent = Agent()
    root = agent.id()
    for _ in range(2):
        agent.span("generate", root, openinference__span__kind="LLM", llm__token_count__prompt=5)
    agent.span("a.run", id=root, openinference__span__kind="AGENT", smolagents__max_steps=1)
    assert agent.ended("abandoned", "max_iterations", "a") == 1


def test_a_users_rule_decides_what_success_is_for_its_task_type() -> None:
    rule = {"order": [{"attribute": "order.total", "at_least": 10}]}
    for total, outcome in ((12, "success"), (3, "failure")):
        agent = Agent(settings(success=rule))
        root = agent.id()
        agent.call(root)
        agent.task(root, order__total=total)
        assert agent.ended(outcome) == 1


def test_a_users_rule_decides_against_the_task_itself() -> None:
    agent = Agent(settings(success={"*": [{"attribute": "order.paid", "equals": True}]}))
    root = agent.id()
    agent.call(root)
    agent.task(root, task__status="success", order__paid=False)
    assert agent.ended("failure") == 1


def test_a_task_over_its_deadline_that_did_not_reach_its_goal_is_abandoned() -> None:
    agent = Agent(settings(agents={"shop": {"task_deadline_seconds": 30}}))
    root = agent.id()
    agent.call(root)
    agent.task(root, seconds=31, task__success=False)
    assert agent.ended("abandoned", "timeout") == 1


def test_a_refusal_is_counted_and_its_task_missed_its_goal() -> None:
    agent = Agent()
    root = agent.id()
    agent.call(root, iteration__stop_reason="refusal")
    agent.task(root)
    assert agent.value("agent_refusals_total", "shop", "unknown", "stable") == 1
    assert agent.ended("failure") == 1


def test_sums_of_a_task_are_not_counted_beside_its_calls_but_instead_of_calls_that_never_come() -> None:
    told: dict[str, Any] = {
        "task__total_input_tokens": 100,
        "task__total_output_tokens": 10,
        "task__total_iterations": 1,
    }
    counted = Agent()
    root = counted.id()
    counted.call(root)
    counted.task(root, **told)
    untold = Agent()
    untold.task(**told)
    untold.wait(11)
    for agent in (counted, untold):
        assert agent.value("agent_tokens_total", "shop", "unknown", "stable", "input", "progress") == 100


def test_what_a_task_says_it_cost_beyond_its_calls_is_added_once_and_never_taken_away() -> None:
    agent = Agent()
    for number, cost in ((2, 0.5), (3, 0.0001)):
        root = agent.id()
        agent.call(
            root, trace=number.to_bytes(16, "big"), iteration__model="gpt-4o-mini", iteration__input_tokens=10_000
        )
        agent.task(root, trace=number.to_bytes(16, "big"), task__cost_usd=cost)
    priced = PRICING.cost("gpt-4o-mini", "", 10_000, 10, 0, 0)
    assert priced is not None
    assert agent.sum("agent_spend_usd_total", "agent", "shop") == pytest.approx(0.5 + priced)


def test_a_task_that_says_what_its_calls_cost_in_all_adds_nothing_though_it_rounds_otherwise() -> None:
    agent = Agent()
    root = agent.id()
    agent.call(root, iteration__model="gpt-4o-mini", iteration__input_tokens=10_000)
    priced = PRICING.cost("gpt-4o-mini", "", 10_000, 10, 0, 0)
    assert priced is not None
    agent.task(root, task__cost_usd=math.nextafter(priced, 1))
    assert agent.sum("agent_spend_usd_total", "model", "unknown") == 0


def test_without_a_model_the_agents_own_ended_tasks_tell_what_a_token_costs() -> None:
    agent = Agent()
    root = agent.id()
    agent.call(root)
    assert agent.value("agent_unpriced_tokens_total", "shop", "unknown") == 110
    agent.task(root, task__cost_usd=1.1)
    agent.call(agent.id(), trace=(2).to_bytes(16, "big"))
    assert agent.sum("agent_spend_usd_total", "agent", "shop") == pytest.approx(2.2)


def test_a_cost_over_the_cap_is_not_believed() -> None:
    agent = Agent()
    root = agent.id()
    agent.call(root)
    agent.task(root, task__cost_usd=1e300)
    assert agent.sum("agent_spend_usd_total", "agent", "shop") == 0
    assert agent.sum("agent_exporter_values_rejected_total", "why", "task.cost_usd:_over_cost_cap_usd") == 1


@pytest.mark.parametrize("nonsense", [-5, float("nan"), True, 1e300])
def test_a_token_count_that_no_one_can_mean_is_unknown_not_zero(nonsense: Any) -> None:
    agent = Agent()
    agent.span("agent.iteration", agent.id(), iteration__input_tokens=nonsense, iteration__stop_reason="end_turn")
    assert agent.value("agent_unmetered_calls_total", "shop", "unknown") == 1
    assert agent.sum("agent_tokens_total", "agent", "shop") == 0
    assert sum(agent.exporter.measures.sums("agent_exporter_values_rejected_total", "why").values()) == 1


def test_a_score_finds_its_task_before_and_long_after_its_end() -> None:
    agent = Agent()
    root = agent.id()
    agent.score("goal_alignment", 0.4)
    agent.call(root)
    agent.task(root)
    agent.wait(3600)
    agent.score("goal_alignment", 0.9, span=root)
    assert agent.value("agent_task_goal_alignment", "shop", "order", "stable") == 2


def test_a_score_that_finds_no_task_is_said_to_be_unmatched() -> None:
    agent = Agent()
    agent.score("goal_alignment", 0.4, trace=(9).to_bytes(16, "big"))
    agent.wait(601)
    assert agent.value("agent_exporter_scores_unmatched_total") == 1


def test_a_task_keeps_the_variant_of_its_first_span() -> None:
    agent = Agent()
    root = agent.id()
    agent.call(root, oncall__variant="canary")
    agent.call(root, oncall__variant="stable")
    agent.task(root)
    assert agent.value("agent_tasks_total", "shop", "order", "canary", "success", "") == 1
    assert agent.value("agent_tokens_total", "shop", "unknown", "canary", "input", "progress") == 200
    assert agent.value("agent_exporter_late_labels_total") == 1


def test_rollout_series_go_two_days_after_the_rollout() -> None:
    agent = Agent()
    root = agent.id()
    told = {"oncall__rollout": "r1", "oncall__stage": "5", "oncall__shard": 3, "oncall__variant": "canary"}
    agent.call(root, **told)
    agent.task(root, **told)
    labels = ("shop", "r1", "5", "canary", "3")
    assert agent.value("agent_rollout_started_total", *labels) == 1
    assert agent.value("agent_rollout_tasks_total", *labels, "order", "success") == 1
    agent.wait(49 * 3600)
    assert b"agent_rollout_started_total{" not in agent.exporter.measures.exposition(openmetrics=False)


@pytest.mark.parametrize(("policy", "tasks"), [("auto", 1), ("always", 2), ("never", 1)])
def test_a_call_outside_any_agent_span_is_a_task_only_where_it_is_said(policy: str, tasks: int) -> None:
    agent = Agent(settings(bare_calls_are_tasks=policy))
    root = agent.id()
    agent.call(root)
    agent.task(root)
    judge: dict[str, Any] = {
        "gen_ai__operation__name": "chat",
        "gen_ai__usage__input_tokens": 7,
        "gen_ai__request__model": "m",
    }
    agent.span("chat m", trace=(2).to_bytes(16, "big"), **judge)
    assert agent.sum("agent_tasks_started_total", "agent", "shop") == tasks
    assert agent.value("agent_tokens_total", "shop", "m", "stable", "input", "progress") == 7


def test_a_call_whose_clock_is_ahead_of_its_roots_is_still_its_tasks() -> None:
    agent = Agent()
    root = agent.id()
    agent.call(root)
    agent.now += 3
    agent.call(root)
    agent.now -= 3
    agent.task(root)
    agent.wait(2000)
    assert agent.sum("agent_tasks_total", "agent", "shop") == 1
    assert agent.sum("agent_tasks_started_total", "agent", "shop") == 1


def test_a_task_that_ends_before_it_starts_is_one_task_without_a_duration() -> None:
    agent = Agent()
    root = agent.id()
    agent.call(root)
    agent.task(root, seconds=-5)
    agent.wait(2000)
    assert agent.sum("agent_tasks_total", "agent", "shop") == 1
    assert agent.value("agent_task_duration_seconds", "shop", "order", "stable") == 0


def test_what_a_time_out_decided_is_still_so_after_a_kill(tmp_path: Path) -> None:
    agent = Agent(journal=Journal.open(tmp_path))
    agent.call(agent.id())
    agent.wait(1801)
    assert agent.ended("abandoned", "never_finished", "unknown") == 1
    agent.killed(tmp_path)
    assert agent.ended("abandoned", "never_finished", "unknown") == 1
    assert agent.value("agent_tasks_in_flight", "shop") == 0


def test_two_tasks_below_one_request_handler_are_two_tasks() -> None:
    agent = Agent()
    handler = agent.id()
    for _ in range(2):
        task = agent.id()
        agent.call(task)
        agent.span("agent.task", handler, id=task)
    agent.span("POST /chat", id=handler, seconds=5)
    assert agent.sum("agent_tasks_total", "agent", "shop") == 2


def test_a_parent_elsewhere_that_does_not_come_is_waited_for_and_no_longer() -> None:
    agent = Agent()
    task = agent.id()
    agent.call(task)
    agent.span("agent.task", agent.id(), id=task, remote=True)
    assert agent.sum("agent_tasks_total", "agent", "shop") == 0
    agent.wait(12)
    assert agent.sum("agent_tasks_total", "agent", "shop") == 1


def test_a_sub_agent_is_part_of_its_agents_task() -> None:
    agent = Agent()
    outer, inner, tool = agent.id(), agent.id(), agent.id()
    agent.call(outer)
    agent.call(inner)
    agent.span("agent.task", tool, id=inner)
    agent.wait(300)
    agent.tool(outer, id=tool)
    agent.task(outer)
    assert agent.sum("agent_tasks_total", "agent", "shop") == 1
    assert agent.sum("agent_tasks_started_total", "agent", "shop") == 1


def test_one_call_that_two_instrumentations_report_is_one_call() -> None:
    agent = Agent()
    root, call = agent.id(), agent.id()
    chat: dict[str, Any] = {
        "gen_ai__operation__name": "chat",
        "gen_ai__usage__input_tokens": 100,
        "gen_ai__request__model": "m",
    }
    agent.span("chat m", call, scope="client", seconds=0.5, **chat)
    agent.span("chat m", root, id=call, scope="framework", **chat)
    agent.span("invoke_agent x", id=root, gen_ai__operation__name="invoke_agent")
    assert agent.value("agent_tokens_total", "shop", "m", "stable", "input", "progress") == 100
    assert agent.sum("agent_iterations_total", "agent", "shop") == 1


def test_the_agent_is_told_by_the_span_else_by_its_service_which_may_be_renamed() -> None:
    agent = Agent(settings(agent_names={"shop": "Shop-Prod"}))
    agent.call(agent.id())
    agent.call(agent.id(), trace=(2).to_bytes(16, "big"), oncall__agent="other-agent")
    assert agent.value("agent_tasks_started_total", "Shop-Prod", "stable") == 1
    assert agent.value("agent_tasks_started_total", "other-agent", "stable") == 1


def test_tools_beyond_the_limit_are_counted_as_other() -> None:
    agent = Agent(settings(max_values={"tool": 2}))
    root = agent.id()
    for number in range(5):
        agent.tool(root, tool__name=f"tool{number}")
    assert agent.value("agent_tool_calls_total", "shop", "other", "stable", "ok") == 3
    assert agent.value("agent_exporter_series_limited_total", "tool") == 3


def test_a_backlog_is_told_as_lag_and_a_wrong_clock_is_not() -> None:
    agent = Agent()
    for hours, lag in ((1, 3600), (25, 0)):
        behind = Agent()
        behind.now -= hours * 3600
        sent = behind.now
        request = ExportTraceServiceRequest()
        of_resource = request.resource_spans.add()
        _put(of_resource.resource, {"service.name": "shop"})
        of_resource.scope_spans.add().spans.add(
            trace_id=TRACE,
            span_id=behind.id(),
            parent_span_id=behind.id(),
            name="tool.execute",
            start_time_unix_nano=int(sent * SECOND),
            end_time_unix_nano=int(sent * SECOND),
        )
        behind.now = agent.now
        behind.exporter.take_traces(request.SerializeToString())
        assert behind.value("agent_exporter_lag_seconds", "shop") == pytest.approx(lag)


def test_a_span_with_an_id_of_zeros_is_rejected_and_said_so() -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=bytes(16), span_id=b"12345678", name="agent.task")
    agent = Agent()
    answer = agent.exporter.take_traces(request.SerializeToString())
    assert answer.rejected == 1
    assert "zeros" in answer.message
