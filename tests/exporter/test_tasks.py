"""What becomes of spans, and of the tasks they tell of, where test_rules_of_the_contract.py does not say it."""

import json
from pathlib import Path
from typing import Any

import pytest

from exporter.journal import Journal
from exporter.pipeline import Malformed
from tests.exporter.otlp import (
    MODEL,
    PRICING,
    Exporter,
    agent,
    chat,
    evaluation,
    iteration,
    span,
    task,
    tool,
    trace_id,
    traces,
    traces_json,
)

SDK = "com.anthropic.sdk.messages"


# -- once ------------------------------------------------------------------------------------------------------------


def test_a_batch_that_is_sent_again_is_counted_once() -> None:
    exporter = Exporter()
    for _ in range(2):
        exporter.send(chat(2, 1), tool(3, 1), agent(1))
    assert exporter.tokens() == {"input": 100, "output": 10}
    assert exporter.value("agent_exporter_spans_total", "duplicate") == 3


def test_a_batch_that_is_sent_again_an_hour_after_its_task_is_counted_once() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1), agent(1))
    exporter.wait(3600)
    exporter.send(chat(2, 1), agent(1))
    assert (exporter.calls(), exporter.tasks()) == (1, 1)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_batch_that_is_sent_again_after_a_restart_is_counted_once(tmp_path: Path, checkpoint: bool) -> None:
    journal = Journal.open(tmp_path)
    exporter = Exporter(journal)
    exporter.send(chat(2, 1), agent(1))
    if checkpoint:
        exporter.pipeline.checkpoint()
    journal.close()
    exporter.start(journal := Journal.open(tmp_path))
    exporter.send(chat(2, 1), agent(1))
    assert (exporter.calls(), exporter.tasks(), exporter.tokens()["input"]) == (1, 1, 100)
    journal.close()


def test_a_task_in_flight_goes_on_after_a_restart(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    exporter = Exporter(journal)
    exporter.send(iteration(2, 1))
    journal.close()
    exporter.start(journal := Journal.open(tmp_path))
    assert exporter.value("agent_tasks_in_flight", "shop") == 1
    exporter.send(task(1))
    assert exporter.value("agent_tasks_started_total", "shop", "stable") == exporter.tasks() == 1
    journal.close()


# -- one call, one count -----------------------------------------------------------------------------------------------


def test_a_clients_span_below_a_loops_own_is_the_call_and_knows_the_model() -> None:
    exporter = Exporter()
    exporter.send(chat(3, 2), scope=SDK)
    exporter.send(iteration(2, 1), task(1))
    assert exporter.by("agent_iterations_total", "model") == {MODEL: 1}
    assert exporter.tokens() == {"input": 100, "output": 10}


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_of_two_siblings_by_two_instrumentations_one_inside_the_other_one_is_counted(first: str) -> None:
    exporter = Exporter()
    requests = [(chat(2, 1, at=(0.1, 0.9)), SDK), (chat(3, 1, at=(0, 1)), "opentelemetry.instrumentation.anthropic")]
    for made, scope in requests if first == "inner" else requests[::-1]:
        exporter.send(made, scope=scope)
    exporter.send(agent(1))
    assert exporter.calls() == 1


def test_two_calls_of_one_instrumentation_at_the_same_time_are_two() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1, at=(0.1, 0.9)), chat(3, 1, at=(0, 1)), agent(1))
    assert exporter.calls() == 2


def test_a_response_that_is_reported_twice_is_one_call() -> None:
    exporter = Exporter()
    answered = {"gen_ai.response.id": "msg_1"}
    exporter.send(chat(2, 1, answered))
    exporter.send(chat(3, 1, answered), scope="another", resource={"service.name": "shop"})
    assert exporter.calls() == 1


def test_an_sdks_report_in_a_trace_of_its_own_waits_for_the_span_that_contains_it() -> None:
    exporter = Exporter()
    exporter.send(chat(9, trace=2, at=(0.2, 0.8)), scope=SDK)
    assert exporter.calls() == 0
    exporter.send(chat(2, 1, at=(0.1, 0.9)), agent(1))
    exporter.wait(60)
    assert (exporter.calls(), exporter.tasks()) == (1, 1)


def test_an_sdks_report_that_comes_after_the_span_that_contains_it_is_dropped() -> None:
    exporter = Exporter()
    exporter.send(chat(8, trace=3, at=(-20, -19)), scope=SDK)  # from now on this process is known to report twice
    exporter.wait(20)
    exporter.send(chat(2, 1, at=(0.1, 0.9)), agent(1))
    exporter.send(chat(9, trace=2, at=(0.2, 0.8)), scope=SDK)
    exporter.wait(60)
    assert exporter.calls() == 2


def test_an_sdks_report_without_a_twin_is_counted_a_little_later() -> None:
    exporter = Exporter()
    exporter.send(chat(9, trace=2), scope=SDK)
    exporter.wait(11)
    assert (exporter.calls(), exporter.tokens()["input"]) == (1, 100)


def test_another_process_calling_at_the_same_time_is_no_twin() -> None:
    exporter = Exporter()
    exporter.send(chat(9, trace=2, at=(0.2, 0.8)), scope=SDK, resource={"service.instance.id": "a"})
    exporter.send(chat(2, 1, at=(0.1, 0.9)), agent(1), resource={"service.instance.id": "b"})
    exporter.wait(11)
    assert exporter.calls() == 2


# -- which spans are a task --------------------------------------------------------------------------------------------


def test_calls_below_a_plain_request_are_one_task_for_a_service_without_agent_spans() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1), chat(3, 1, at=(1, 2)), span("POST /ask", 1, at=(0, 3), kind=2))
    assert (exporter.tasks(), exporter.outcomes()) == (1, {("success", ""): 1})


def test_an_agent_below_a_request_handler_ends_with_the_handler_and_lasts_as_long_as_it_did_itself() -> None:
    exporter = Exporter()
    exporter.send(chat(3, 2), agent(2, 1, at=(0, 10)))
    exporter.send(span("POST /ask", 1, at=(0, 20), kind=2))
    assert 'agent_task_duration_seconds_sum{agent="shop",task_type="helper",variant="stable"} 10.0' in exporter.page()


def test_a_hand_off_to_a_second_agent_is_the_same_task_and_named_after_the_first() -> None:
    exporter = Exporter()
    kind = "openinference.span.kind"
    exporter.send(
        chat(3, 2),
        span("front", 2, 1, {kind: "AGENT", "agent.name": "front"}, at=(0, 1)),
        chat(5, 4, at=(1, 2)),
        span("back", 4, 1, {kind: "AGENT", "agent.name": "back"}, at=(1, 2)),
        span("Agent workflow", 1, 0, {kind: "AGENT"}, at=(0, 2)),
    )
    assert exporter.by("agent_tasks_total", "task_type") == {"front": 1}


def test_a_call_that_comes_after_its_task_ended_is_counted_and_begins_no_other() -> None:
    exporter = Exporter()
    exporter.send(agent(1, at=(0, 2)))
    exporter.send(chat(2, 1, at=(0, 1)))
    exporter.wait(4000)
    assert (exporter.calls(), exporter.tasks()) == (1, 1)
    assert exporter.by("agent_tasks_started_total", "agent") == {"shop": 1}


def test_work_that_begins_after_the_root_ended_is_the_same_traces_next_task() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1), agent(1))
    exporter.wait(5)
    exporter.send(chat(4, 3, at=(4, 5)), agent(3, at=(4, 5)))
    assert exporter.tasks() == 2


def test_a_conversation_of_several_traces_is_several_tasks() -> None:
    exporter = Exporter()
    for number in (1, 2, 3):
        talk = {"gen_ai.conversation.id": "c1"}
        exporter.send(chat(2, 1, talk, trace=number), agent(1, 0, talk, trace=number))
    assert exporter.tasks() == 3


# -- how a task ends ---------------------------------------------------------------------------------------------------


def test_a_call_that_ends_without_an_answer_was_cancelled_by_the_user() -> None:
    exporter = Exporter()
    unanswered = {"gen_ai.operation.name": "chat", "gen_ai.request.model": MODEL}
    exporter.send(chat(2, 1), span("chat", 3, 1, unanswered, at=(1, 2)), agent(1, at=(0, 2)))
    assert exporter.outcomes() == {("abandoned", "user_cancel"): 1}
    assert exporter.calls() == 1


@pytest.mark.parametrize(
    ("message", "reason"),
    [("Error code: 429", "rate_limit"), ("Request timed out.", "timeout"), ("Connection error.", "provider")],
)
def test_a_task_that_dies_of_its_call_says_why_the_call_failed(message: str, reason: str) -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1, error=message), agent(1, error=""))
    assert exporter.outcomes() == {("error", reason): 1}


def test_a_task_that_dies_of_a_failed_tool_is_a_tool_error() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1, at=(0, 1)), tool(3, 1, at=(1, 2), error="no such file"), agent(1, at=(0, 2), error="bug"))
    assert exporter.outcomes() == {("error", "tool"): 1}


def test_a_failed_call_that_was_tried_again_fails_no_task() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1, at=(0, 1), error="500"), chat(3, 1, at=(1, 2)), agent(1, at=(0, 2)))
    assert exporter.outcomes() == {("success", ""): 1}
    assert exporter.by("agent_tokens_total", "purpose")["retry"] == 110


def test_a_task_over_its_own_deadline_is_abandoned() -> None:
    exporter = Exporter(agents={"shop": {"task_deadline_seconds": 5}})
    exporter.send(iteration(2, 1), task(1, 0, {"task.success": False}, at=(0, 6)))
    assert exporter.outcomes() == {("abandoned", "timeout"): 1}


def test_a_task_that_a_breaker_cut_is_abandoned_though_the_cut_went_through_the_frameworks_span() -> None:
    exporter = Exporter()
    cut = {"task.status": "budget_exceeded", "task.success": False}
    exporter.send(chat(3, 2), agent(2, 1, error="the breaker is open"), task(1, 0, cut))
    assert exporter.outcomes() == {("abandoned", "max_iterations"): 1}


def test_a_task_that_is_said_to_have_failed_in_its_words_is_an_error() -> None:
    exporter = Exporter()
    exporter.send(iteration(2, 1), task(1, 0, {"task.outcome": "error", "task.reason": "rate_limit"}))
    assert exporter.outcomes() == {("error", "rate_limit"): 1}


def test_a_rule_for_any_task_type_holds_where_its_own_has_none() -> None:
    rules = {"*": [{"attribute": "answer.ok", "equals": True}]}
    exporter = Exporter(success=rules)
    exporter.send(chat(2, 1), agent(1, 0, {"answer.ok": False}))
    assert exporter.outcomes() == {("failure", ""): 1}


def test_a_rule_may_ask_for_an_attribute_of_any_span_of_the_task() -> None:
    exporter = Exporter(success={"*": [{"attribute": "order.id", "exists": True}]})
    exporter.send(chat(2, 1), tool(3, 1, {"order.id": "7"}), agent(1))
    assert exporter.outcomes() == {("success", ""): 1}


# -- money -------------------------------------------------------------------------------------------------------------


def test_a_call_costs_what_its_model_costs() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1))
    assert exporter.by("agent_spend_usd_total", "model")[MODEL] == PRICING.cost(MODEL, "", 100, 10, 0, 0)


def test_a_model_without_a_price_is_unpriced_and_not_free() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1, {"gen_ai.request.model": "house-model-7"}))
    assert exporter.value("agent_unpriced_tokens_total", "shop", "house-model-7") == 110
    assert not exporter.by("agent_spend_usd_total", "model")


def test_a_price_file_of_the_users_prices_it(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yml"
    prices.write_text("models: {house-model-7: {input: 1000000, output: 0}}\n")
    prices.chmod(0o600)
    from exporter.pipeline import Pipeline
    from exporter.pricing import Pricing

    exporter = Exporter()
    exporter.pipeline = Pipeline(exporter.settings, clock=lambda: exporter.now, pricing=Pricing(prices))
    exporter.send(chat(2, 1, {"gen_ai.request.model": "house-model-7"}))
    assert exporter.by("agent_spend_usd_total", "model") == {"house-model-7": pytest.approx(100)}


def test_the_configs_default_model_prices_calls_that_name_none() -> None:
    exporter = Exporter(agents={"shop": {"default_model": MODEL}})
    exporter.send(iteration(2, 1))
    assert exporter.by("agent_tokens_total", "model") == {MODEL: 110}
    assert exporter.by("agent_spend_usd_total", "model")[MODEL] > 0


def test_an_answer_without_a_token_count_is_unmetered() -> None:
    exporter = Exporter()
    answered = {"gen_ai.operation.name": "chat", "gen_ai.request.model": MODEL, "gen_ai.response.id": "r"}
    exporter.send(span("chat", 2, 1, answered))
    assert exporter.value("agent_unmetered_calls_total", "shop", MODEL) == 1


def test_the_worst_running_task_is_told_by_iterations_age_and_spend() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1, at=(0, 1)), chat(3, 1, at=(1, 2)), chat(2, 1, trace=2, at=(0, 1)))
    exporter.wait(100)
    assert exporter.value("agent_task_in_flight_iterations_max", "shop") == 2
    assert 100 <= exporter.value("agent_task_in_flight_seconds_max", "shop") <= 102
    spend = PRICING.cost(MODEL, "", 200, 20, 0, 0)
    assert exporter.value("agent_task_in_flight_spend_usd_max", "shop") == pytest.approx(spend)


# -- scores and confidence ---------------------------------------------------------------------------------------------


def _goal(value: float) -> dict[str, Any]:
    return {"gen_ai.evaluation.name": "goal_alignment", "gen_ai.evaluation.score.value": value}


def test_a_score_names_the_one_of_two_tasks_that_it_judges() -> None:
    exporter = Exporter()
    exporter.send(
        iteration(3, 2),
        task(2, 1, {"task.type": "first"}),
        iteration(5, 4, at=(1, 2)),
        task(4, 1, {"task.type": "second"}, at=(1, 2)),
        span("POST /ask", 1, at=(0, 3)),
    )
    exporter.pipeline.take_logs(evaluation(_goal(0.7), span_id=2))
    assert exporter.value("agent_task_goal_alignment", "shop", "first", "stable") == 1


def test_a_score_may_be_a_log_record_with_its_event_name_as_an_attribute() -> None:
    exporter = Exporter()
    exporter.send(iteration(2, 1), task(1))
    told = {"event.name": "gen_ai.evaluation.result", **_goal(0.7)}
    exporter.pipeline.take_logs(evaluation(told, event_name=""))
    assert exporter.value("agent_task_goal_alignment", "shop", "order", "stable") == 1


def test_a_score_may_be_an_event_on_a_span_of_its_task() -> None:
    exporter = Exporter()
    exporter.send(iteration(2, 1), task(1, events=[("gen_ai.evaluation.result", 1, _goal(0.7))]))
    assert exporter.value("agent_task_goal_alignment", "shop", "order", "stable") == 1


def test_a_score_beyond_0_to_1_is_no_score() -> None:
    exporter = Exporter()
    exporter.send(iteration(2, 1), task(1))
    exporter.pipeline.take_logs(evaluation(_goal(7.0)))
    assert exporter.value("agent_task_goal_alignment", "shop", "order", "stable") == 0
    assert sum(exporter.by("agent_exporter_values_rejected_total", "why").values()) == 1


def test_other_log_records_are_let_pass() -> None:
    exporter = Exporter()
    exporter.pipeline.take_logs(evaluation({"body": "hello"}, event_name="app.started"))
    assert exporter.value("agent_exporter_scores_unmatched_total") == 0


def test_a_task_is_as_sure_as_the_least_sure_of_its_tool_calls() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1), tool(3, 1, {"tool.confidence": 0.9}), tool(4, 1, {"tool.confidence": 0.35}), agent(1))
    assert 'agent_task_confidence_sum{agent="shop",task_type="helper",variant="stable"} 0.35' in exporter.page()


# -- labels ------------------------------------------------------------------------------------------------------------


def test_the_variant_may_stand_on_the_resource() -> None:
    exporter = Exporter()
    exporter.send(iteration(2, 1), task(1), resource={"oncall.variant": "canary"})
    assert exporter.by("agent_tasks_total", "variant") == {"canary": 1}


def test_a_variant_that_is_neither_stable_nor_canary_is_stable() -> None:
    exporter = Exporter()
    exporter.send(iteration(2, 1, {"oncall.variant": "arm-b"}), task(1))
    assert exporter.by("agent_tasks_total", "variant") == {"stable": 1}


def test_label_sets_that_are_fixed_are_there_with_0_as_soon_as_the_agent_is_seen() -> None:
    exporter = Exporter()
    exporter.send(iteration(2, 1))
    page = exporter.page()
    assert 'agent_tasks_started_total{agent="shop",variant="canary"} 0.0' in page
    assert 'agent_tasks_looped_total{agent="shop",why="repeat"} 0.0' in page


def test_a_failed_tasks_trace_is_its_exemplar() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1), agent(1, error="a bug"))
    ended = [line for line in exporter.page(openmetrics=True).splitlines() if line.startswith("agent_tasks_total{")]
    assert any(f'trace_id="{trace_id(1).hex()}"' in line for line in ended)


def test_no_prompt_and_no_span_name_gets_onto_the_page() -> None:
    exporter = Exporter()
    said = {"gen_ai.input.messages": "tell nobody", "traceloop.span.kind": "task", "input.value": "tell nobody"}
    exporter.send(
        chat(2, 1, said), span("tell nobody.task", 3, 1, said), agent(1, 0, said, error="ValueError: tell nobody")
    )
    assert "tell" not in exporter.page(openmetrics=True)


def test_a_span_that_looks_like_an_llm_call_of_a_scope_nobody_knows_is_told() -> None:
    exporter = Exporter()
    exporter.send(span("llm", 2, 1, {"gen_ai.request.model": MODEL}), scope="acme.llm")
    assert exporter.value("agent_exporter_unknown_scope_total", "acme.llm") == 1


# -- odd input ---------------------------------------------------------------------------------------------------------


def test_a_task_that_ends_before_it_starts_is_counted_without_a_duration() -> None:
    exporter = Exporter()
    exporter.send(iteration(2, 1), task(1, at=(1, 0)))
    assert exporter.tasks() == 1
    assert exporter.value("agent_task_duration_seconds", "shop", "order", "stable") == 0


def test_a_token_may_speak_for_its_agents_only() -> None:
    exporter = Exporter()
    both = traces(iteration(2, 1), iteration(2, 1, {"oncall.agent": "bank"}, trace=2))
    answer = exporter.pipeline.take_traces(both, may_speak_for=frozenset({"shop"}))
    assert answer.rejected == 1
    assert exporter.by("agent_tokens_total", "agent") == {"shop": 110}


def test_a_judges_token_may_speak_for_its_agents_only() -> None:
    exporter = Exporter()
    exporter.send(iteration(2, 1), task(1))
    answer = exporter.pipeline.take_logs(evaluation(_goal(0.7)), may_speak_for=frozenset({"shop"}))
    assert answer.rejected == 1
    assert exporter.value("agent_task_goal_alignment", "shop", "order", "stable") == 0


def test_json_counts_the_same_as_protobuf() -> None:
    spans = [
        chat(2, 1, {"gen_ai.response.finish_reasons": ["stop"], "gen_ai.response.time_to_first_chunk": 0.5}),
        tool(3, 1, {"tool.confidence": 0.5}, error="no"),
        task(1, 0, {"task.success": True}),
    ]
    by_protobuf, by_json = Exporter(), Exporter()
    by_protobuf.send(*spans)
    by_json.pipeline.take_traces(traces_json(*spans), json=True)
    assert by_json.page() == by_protobuf.page()


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"resourceSpans": 1}', b'{"resourceSpans": [{"scopeSpans": [1]}]}'])
def test_json_that_is_no_request_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        Exporter().pipeline.take_traces(body, json=True)


def test_fields_of_json_that_are_not_known_are_let_pass() -> None:
    request = json.loads(traces_json(iteration(2, 1)))
    request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["invented"] = {"a": 1}
    exporter = Exporter()
    exporter.pipeline.take_traces(json.dumps(request).encode(), json=True)
    assert exporter.calls() == 1


def test_what_was_seen_is_summed_up_for_people() -> None:
    exporter = Exporter()
    exporter.send(chat(2, 1), span("GET /", 3, 1))
    summary = exporter.pipeline.summary()
    assert [(a.agent, a.in_flight, a.tasks_ended) for a in summary.agents] == [("shop", 1, 0)]
    assert summary.dialects == {"otel-genai": 1}
    assert summary.ignored == {"ignored: no dialect knows the span": 1}
