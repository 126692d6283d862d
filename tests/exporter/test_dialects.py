"""What each dialect's peculiarities are read as (DIALECTS.md's rules and traps)."""

from typing import Any

import pytest

from exporter.dialects import DIALECTS, KEYS
from tests.exporter.otlp import MODEL, Exporter, agent, chat, span, task, tool

KIND = "openinference.span.kind"
GENAI = {"gen_ai.operation.name": "chat", "gen_ai.request.model": MODEL}


def sent(*spans: Any, scope: str = "my.agent") -> Exporter:
    exporter = Exporter()
    exporter.send(*spans, scope=scope)
    return exporter


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "attributes"),
    [
        ("my.agent", GENAI | {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10}),
        ("my.agent", GENAI | {"gen_ai.usage.prompt_tokens": 100, "gen_ai.usage.completion_tokens": 10}),
        ("my.agent", {KIND: "LLM", "llm.token_count.prompt": 100, "llm.token_count.completion": 10}),
        ("my.agent", {"llm.request.type": "chat", "llm.usage.prompt_tokens": 100, "llm.usage.completion_tokens": 10}),
        ("com.anthropic.claude_code", {"span.type": "llm_request", "input_tokens": 100, "output_tokens": 10}),
        ("ai", {"ai.operationId": "x.doGenerate", "ai.usage.inputTokens": 100, "ai.usage.outputTokens": 10}),
        ("ai", {"ai.operationId": "x.doStream", "ai.usage.promptTokens": 100, "ai.usage.completionTokens": 10}),
    ],
)  # fmt: skip
def test_every_spelling_of_token_counts_is_read(scope: str, attributes: dict[str, Any]) -> None:
    assert sent(span("call", 2, 1, attributes), scope=scope).tokens() == {"input": 100, "output": 10}


@pytest.mark.parametrize(
    "key",
    [
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cache_read_tokens",
        "gen_ai.usage.details.cache_read_tokens",
    ],
)
def test_input_tokens_include_those_read_from_the_cache(key: str) -> None:
    assert sent(chat(2, 1, {key: 60})).tokens() == {"input": 40, "cache_read": 60, "output": 10}


@pytest.mark.parametrize(
    "key",
    [
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_tokens",
        "gen_ai.usage.details.cache_write_tokens",
    ],
)
def test_input_tokens_include_those_written_to_the_cache(key: str) -> None:
    assert sent(chat(2, 1, {key: 60})).tokens() == {"input": 40, "cache_write": 60, "output": 10}


def test_what_the_span_says_of_its_counts_wins_over_what_is_usual() -> None:
    told = {"gen_ai.usage.cache_read.input_tokens": 60, "gen_ai.token.semantics": "exclusive"}
    assert sent(chat(2, 1, told)).tokens() == {"input": 100, "cache_read": 60, "output": 10}


def test_claude_codes_input_excludes_the_cached_tokens() -> None:
    told = {"span.type": "llm_request", "input_tokens": 100, "cache_read_tokens": 60, "cache_creation_tokens": 30}
    exporter = sent(span("claude_code.llm_request", 2, 1, told), scope="com.anthropic.claude_code")
    assert exporter.tokens() == {"input": 100, "cache_read": 60, "cache_write": 30}


@pytest.mark.parametrize(("provider", "uncached"), [("anthropic", 100), ("openai", 40)])
def test_openlits_input_excludes_the_cached_tokens_for_anthropic_only(provider: str, uncached: int) -> None:
    told = {"gen_ai.system": provider, "gen_ai.usage.cache_read.input_tokens": 60}
    assert sent(chat(2, 1, told), scope="openlit.otel.tracing").tokens()["input"] == uncached


@pytest.mark.parametrize(
    "sums",
    [
        {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10},
        {"gen_ai.aggregated_usage.input_tokens": 100, "gen_ai.aggregated_usage.output_tokens": 10},
    ],
)
def test_an_agents_sums_are_not_counted_beside_its_calls(sums: dict[str, Any]) -> None:
    assert sent(chat(2, 1), agent(1, 0, sums)).tokens() == {"input": 100, "output": 10}


def test_an_agents_sums_are_counted_where_nothing_was_below_it() -> None:
    exporter = sent(agent(1, 0, {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10}))
    exporter.wait(11)
    assert exporter.tokens() == {"input": 100, "output": 10}


# -- what is a call, a tool, a task ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["chat", "text_completion", "generate_content", "generateText", "streamText"])
def test_llm_operations_are_iterations(operation: str) -> None:
    assert sent(chat(2, 1, {"gen_ai.operation.name": operation})).calls() == 1


@pytest.mark.parametrize("operation", ["create_agent", "embeddings", "transfer_to_agent"])
def test_other_operations_are_neither_calls_nor_tasks(operation: str) -> None:
    exporter = sent(span(operation, 1, 0, {"gen_ai.operation.name": operation}))
    exporter.wait(4000)
    assert (exporter.calls(), exporter.tasks()) == (0, 0)


def test_the_other_end_of_an_mcp_call_is_no_second_call_of_the_tool() -> None:
    mcp = {"mcp.method.name": "tools/call", "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    assert sent(span("tools/call search", 4, 3, mcp), tool(3, 1), agent(1)).tools() == {"ok": 1}


def test_langchains_agent_that_is_a_tool_is_a_tool() -> None:
    exporter = sent(span("agent_search", 3, 1, {KIND: "AGENT", "tool.name": "agent_search"}))
    assert exporter.by("agent_tool_calls_total", "tool") == {"agent_search": 1}


def test_a_call_is_an_iteration_if_it_has_usage_or_a_finish_reason_or_a_response_id_or_an_error() -> None:
    exporter = sent(
        span("chat", 2, 1, GENAI | {"gen_ai.response.finish_reasons": ["stop"]}),
        span("chat", 3, 1, GENAI | {"gen_ai.response.id": "r"}),
        span("chat", 4, 1, GENAI, error="500"),
        span("chat", 5, 1, GENAI),
    )
    assert exporter.calls() == 3


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "tool_label"),
    [
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "mcp__weather__lookup"}, "lookup"),
        ({KIND: "TOOL", "tool.name": "lookup"}, "lookup"),
        ({"traceloop.span.kind": "tool", "traceloop.entity.name": "lookup"}, "lookup"),
        ({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "lookup"}, "lookup"),
        ({KIND: "TOOL"}, "unknown"),
    ],
)
def test_a_tools_name_is_an_attribute_and_never_the_spans_name(attributes: dict[str, Any], tool_label: str) -> None:
    exporter = sent(span("what the user said", 2, 1, attributes), scope="ai")
    assert exporter.by("agent_tool_calls_total", "tool") == {tool_label: 1}


@pytest.mark.parametrize(
    ("name", "attributes", "task_type"),
    [
        ("invoke_agent", {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "clerk"}, "clerk"),
        ("invoke_workflow", {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "claims"}, "claims"),
        ("invoke_agent", {"gen_ai.operation.name": "invoke_agent", "task.type": "refund"}, "refund"),
        ("clerk.run", {KIND: "AGENT"}, "clerk"),
        ("LangGraph", {KIND: "CHAIN"}, "unknown"),
        ("Agent workflow", {KIND: "AGENT"}, "unknown"),
        ("What is the weather?", {KIND: "AGENT"}, "unknown"),
        ("w.workflow", {"traceloop.span.kind": "workflow", "traceloop.entity.name": "claims"}, "claims"),
        ("ai.generateText", {"ai.operationId": "ai.generateText", "ai.telemetry.functionId": "clerk"}, "clerk"),
    ],
)
def test_the_task_type_is_told_by_the_agent_or_its_workflow(
    name: str, attributes: dict[str, Any], task_type: str
) -> None:
    exporter = sent(span(name, 1, 0, attributes), scope="ai")
    assert exporter.by("agent_tasks_total", "task_type") == {task_type: 1}


# -- finish reasons ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", ["stop", ["stop"], '["stop"]', "end_turn", "FinishReason.STOP"])
def test_one_word_stands_for_all_spellings_of_a_normal_end(told: object) -> None:
    exporter = sent(chat(2, 1, {"gen_ai.response.finish_reasons": told}))
    assert exporter.by("agent_iterations_total", "stop_reason") == {"end_turn": 1}


@pytest.mark.parametrize("told", ["refusal", ["content_filter"], '["content_filter"]', "FinishReason.SAFETY"])
def test_all_spellings_of_a_refusal_are_one(told: object) -> None:
    exporter = sent(chat(2, 1, {"gen_ai.response.finish_reasons": told}), agent(1))
    assert exporter.by("agent_refusals_total", "model") == {MODEL: 1}
    assert exporter.outcomes() == {("failure", ""): 1}


def test_strands_tells_the_finish_reason_in_an_event() -> None:
    call = chat(2, 1, events=[("gen_ai.choice", 1, {"finish_reason": "tool_use"})])
    exporter = sent(call, scope="strands.telemetry.tracer")
    assert exporter.by("agent_iterations_total", "stop_reason") == {"tool_use": 1}


# -- time to first token -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "call"),
    [
        ("my.agent", chat(2, 1, {"gen_ai.response.time_to_first_chunk": 0.4})),
        ("my.agent", chat(2, 1, {"gen_ai.client.operation.time_to_first_chunk": 0.4})),
        ("openlit.otel", chat(2, 1, {"gen_ai.server.time_to_first_token": 0.4})),
        ("strands.telemetry", chat(2, 1, {"gen_ai.server.time_to_first_token": 400})),
        ("my.agent", chat(2, 1, events=[("gen_ai.content.completion.chunk", 0.4, {})])),
        ("my.agent", span("agent.iteration", 2, 1, {"iteration.ttft_ms": 400, "iteration.input_tokens": 1})),
        ("ai", span("ai", 2, 1, {"ai.operationId": "ai.streamText.doStream", "ai.response.msToFirstChunk": 400.0,
                                 "ai.usage.inputTokens": 1})),
    ],
)  # fmt: skip
def test_the_time_to_the_first_token_is_told_in_seconds_whatever_the_sources_unit(scope: str, call: Any) -> None:
    page = sent(call, scope=scope).page()
    line = next(line for line in page.splitlines() if line.startswith("agent_time_to_first_token_seconds_sum{"))
    assert float(line.split()[-1]) == pytest.approx(0.4, abs=1e-3)


# -- tools that failed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "1 validation error for get_weather: Field required",
        "'city' is a required property",
        "Missing required argument: city",
        "TypeError: get_weather() got an unexpected keyword argument 'town'",
        "Unknown tool name: 'teleport'",
    ],
)
def test_wrong_arguments_and_tools_that_do_not_exist_are_invalid_calls(message: str) -> None:
    assert sent(tool(2, 1, error=message)).tools() == {"invalid": 1}


def test_a_tool_that_ran_and_failed_is_an_error() -> None:
    assert sent(tool(2, 1, error="the file is not there")).tools() == {"error": 1}


def test_pydantic_ai_says_itself_which_calls_it_turned_down() -> None:
    assert sent(tool(2, 1, {"pydantic_ai.tool.retry.cause": "validation_error"}), scope="pydantic-ai").tools() == {
        "invalid": 1
    }


def test_claude_codes_tools_fail_in_a_span_of_their_own_below_the_call() -> None:
    exporter = sent(
        span("claude_code.tool.execution", 4, 3, {"span.type": "tool.execution"}, error="no such file"),
        span("claude_code.tool", 3, 1, {"span.type": "tool", "tool_name": "Read"}),
        scope="com.anthropic.claude_code",
    )
    assert exporter.tools() == {"error": 1}


@pytest.mark.parametrize(
    ("arguments", "result"),
    [('{"kwargs": {"town": "Paris"}}', "invalid"), ('{"kwargs": {"city": "Paris"}}', "error")],
)
def test_llama_index_wraps_the_arguments_that_are_compared_with_the_schema(arguments: str, result: str) -> None:
    schema = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    told = {KIND: "TOOL", "tool.name": "get_weather", "tool.parameters": schema, "input.value": arguments}
    call = span("FunctionTool.acall", 2, 1, told, error="it failed")
    assert sent(call, scope="openinference.instrumentation.llama_index").tools() == {result: 1}


# -- why a task ended --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["UsageLimitExceeded", "langgraph.errors.GraphRecursionError", "LlmCallsLimitExceededError"]
)
def test_frameworks_limits_are_max_iterations(kind: str) -> None:
    limit = ("exception", 1.0, {"exception.type": kind, "exception.message": "over"})
    exporter = sent(chat(2, 1), agent(1, error="", events=[limit]))
    assert exporter.outcomes() == {("abandoned", "max_iterations"): 1}


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "asyncio.exceptions.CancelledError"])
def test_an_interrupt_is_the_users_cancel_even_on_a_span_that_ends_well(kind: str) -> None:
    exporter = sent(chat(2, 1), agent(1, events=[("exception", 1.0, {"exception.type": kind})]))
    assert exporter.outcomes() == {("abandoned", "user_cancel"): 1}


def test_a_failed_agent_below_a_root_that_is_always_ok_fails_the_task() -> None:
    exporter = sent(
        chat(3, 2, error="500"),
        span("clerk", 2, 1, {KIND: "AGENT"}, error="Error code: 500"),
        span("Agent workflow", 1, 0, {KIND: "AGENT"}),
        scope="openinference.instrumentation.openai_agents",
    )
    assert exporter.outcomes() == {("error", "provider"): 1}


def test_a_failed_sub_agent_that_the_model_was_told_of_fails_no_task() -> None:
    exporter = sent(
        chat(3, 2, at=(0, 1), error="500"),
        agent(2, 4, at=(0, 1), error="500"),
        tool(4, 1, at=(0, 1), error="500"),
        chat(5, 1, at=(1, 2)),
        agent(1, at=(0, 2)),
    )
    assert exporter.outcomes() == {("success", ""): 1}


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "value", [[], ["a"], True, -1, 1e300, float("nan"), "x" * 3000], ids=lambda value: repr(value)[:12]
)
def test_no_attribute_of_the_wrong_type_is_a_fault(dialect: Any, value: Any) -> None:
    exporter = Exporter()
    kinds: list[dict[str, Any]] = [{"gen_ai.operation.name": name} for name in ("chat", "execute_tool", "invoke_agent")]
    kinds += [{KIND: name} for name in ("LLM", "TOOL", "AGENT", "CHAIN")]
    kinds += [{"span.type": name} for name in ("interaction", "llm_request", "tool", "tool.execution")]
    kinds += [{"traceloop.span.kind": name} for name in ("workflow", "agent", "task", "tool")]
    kinds += [{"ai.operationId": name} for name in ("ai.generateText", "ai.streamText.doStream", "ai.toolCall")]
    scope = dialect.scopes[0] if dialect.scopes else "x"
    odd = {key: value for key in KEYS if not key.startswith("oncall.")}
    exporter.send(*(span("s", at, 99, odd | kind) for at, kind in enumerate(kinds, 1)), scope=scope)
    assert exporter.value("agent_exporter_spans_total", "rejected") == 0


def test_the_landing_page_can_say_which_dialects_were_spoken() -> None:
    exporter = sent(chat(2, 1), task(1))
    assert exporter.pipeline.summary().dialects == {"otel-genai": 1, "base": 1}


def test_the_agents_own_name_is_no_label_before_its_task_ends() -> None:
    exporter = sent(chat(2, 1, {"gen_ai.agent.name": "clerk"}))
    assert exporter.by("agent_tokens_total", "agent") == {"shop": 110}
