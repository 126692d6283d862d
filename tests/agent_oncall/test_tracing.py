"""The spans an agent's tasks leave: the base schema, whole, and stamped down to the last."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from agent_oncall import Task
from agent_oncall.bucket import shard
from tests.agent_oncall import states
from tests.agent_oncall.conftest import World


def test_a_task_carries_all_attributes_of_the_base_schema(world: World) -> None:
    world.say(states.state(1, canary_below=100_000))
    runtime = world.runtime(prices={states.CANARY.model: (2.5, 10)})
    with runtime.task("u1", task_type="refund", task_id="t-1", input_len=120) as task:
        for final in (False, True):
            with task.iteration() as iteration:
                world.wait(0.2)
                iteration.first_token()
                world.wait(1.8)
                iteration.answered(
                    input_tokens=1000,
                    output_tokens=100,
                    cache_read_tokens=500,
                    model=states.CANARY.model,
                    stop_reason="end_turn" if final else "tool_use",
                )
                if not final:
                    with task.tool("lookup", {"order": 7}) as call:
                        world.wait(0.5)
                        call.confidence(0.8)
        task.finish(success=True, confidence=0.9)

    stamps = {
        "oncall.agent": "support",
        "oncall.variant": "canary",
        "oncall.rollout": "r12",
        "oncall.stage": "5",
        "oncall.shard": shard("u1"),
    }
    assert world.span("agent.task") == stamps | {
        "task.id": "t-1",
        "task.type": "refund",
        "task.input_len": 120,
        "agent.max_iter": 12,
        "task.total_iterations": 2,
        "task.total_input_tokens": 2000,
        "task.total_output_tokens": 200,
        "task.cost_usd": pytest.approx(0.007),
        "task.status": "completed",
        "task.success": True,
        "task.confidence": 0.9,
    }
    first, last = (dict(span.attributes or {}) for span in world.spans("agent.iteration"))
    assert first == stamps | {
        "iteration.number": 1,
        "iteration.latency_ms": pytest.approx(2000),
        "iteration.input_tokens": 1000,
        "iteration.output_tokens": 100,
        "iteration.cache_read_tokens": 500,
        "iteration.stop_reason": "tool_use",
        "iteration.final": False,
        "iteration.model": states.CANARY.model,
        "iteration.provider": "openai",
        "iteration.purpose": "progress",
        "iteration.ttft_ms": pytest.approx(200),
    }
    assert (last["iteration.number"], last["iteration.final"]) == (2, True)
    tool = world.span("tool.execute")
    assert len(tool.pop("tool.args_hash")) == 16  # type: ignore[attr-defined]
    assert tool == stamps | {
        "tool.name": "lookup",
        "tool.latency_ms": pytest.approx(500),
        "tool.result": "ok",
        "tool.confidence": 0.8,
    }


def test_iterations_are_below_their_task_and_tools_below_their_iteration(world: World) -> None:
    with world.runtime().task("u1") as task, task.iteration(), task.tool("lookup"):
        pass

    (root,), (iteration,), (tool,) = map(world.spans, ("agent.task", "agent.iteration", "tool.execute"))
    assert root.parent is None
    assert iteration.parent is not None
    assert tool.parent is not None
    assert (iteration.parent.span_id, tool.parent.span_id) == (root.context.span_id, iteration.context.span_id)


def test_a_retry_and_a_recovery_are_told_from_progress(world: World) -> None:
    with world.runtime().task("u1") as task:
        with pytest.raises(TimeoutError), task.iteration():
            raise TimeoutError
        with task.iteration() as iteration:
            iteration.answered()
            with task.tool("lookup") as call:
                call.failed("no JSON")
        with task.iteration():
            pass
        with task.iteration():
            pass

    purposes = [span.attributes["iteration.purpose"] for span in world.spans("agent.iteration") if span.attributes]
    assert purposes == ["progress", "retry", "recovery", "progress"]


def test_a_failed_call_is_an_error_and_tells_its_kind_alone(world: World) -> None:
    secret = "alice@example.com's order"
    with pytest.raises(ValueError, match="alice"), world.runtime().task("u1") as task, task.iteration():
        raise ValueError(secret)

    for name in ("agent.iteration", "agent.task"):
        (span,) = world.spans(name)
        assert not span.status.is_ok
        assert span.attributes is not None
        assert span.attributes["error.type"] == "ValueError"
        assert secret not in span.to_json()
    assert world.span("agent.task")["task.status"] == "error"


def test_what_a_tool_did_is_told(world: World) -> None:
    with world.runtime().task("u1") as task, task.iteration() as iteration:
        iteration.answered()
        with task.tool("ok"):
            pass
        with task.tool("failed") as call:
            call.failed(f"no JSON: {'secret'}")
        with task.tool("invalid") as call:
            call.invalid("order is missing")
        with pytest.raises(KeyError), task.tool("raises"):
            raise KeyError("secret")

    tools = [dict(span.attributes or {}) for span in world.spans("tool.execute")]
    results = {attributes["tool.name"]: attributes["tool.result"] for attributes in tools}
    assert results == {"ok": "ok", "failed": "error", "invalid": "invalid", "raises": "error"}
    assert "secret" not in "".join(span.to_json() for span in world.spans())
    (iteration_span,) = world.spans("agent.iteration")
    assert iteration_span.status.is_ok or iteration_span.status.is_unset


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_a_task_that_is_cancelled_says_so(world: World, error: type[BaseException]) -> None:
    with pytest.raises(error), world.runtime().task("u1"):
        raise error

    assert world.span("agent.task")["task.status"] == "cancelled"


def test_a_loop_that_used_all_its_turns_without_an_answer_says_so(world: World) -> None:
    with world.runtime().task("u1") as task:
        for _ in range(task.config.max_iter):
            with task.iteration() as iteration:
                iteration.answered(stop_reason="tool_use")

    assert world.span("agent.task")["task.status"] == "max_iter_exceeded"


def test_spans_of_other_instrumentations_are_stamped_too(world: World) -> None:
    world.say(states.state(1, canary_below=100_000))
    tracer = world.tracers.get_tracer("opentelemetry.instrumentation.openai")

    def call_model(_: Task) -> None:
        with tracer.start_as_current_span("chat gpt-4o"), tracer.start_as_current_span("POST"):
            pass

    runtime = world.runtime(instrumented=True)
    with runtime.task("u1") as task, task.iteration(), task.tool("lookup"):
        call_model(task)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(copy_context().run, call_model, task).result()
        # What an instrumentation does that keeps the parent span alone.
        parent = trace.set_span_in_context(trace.get_current_span(), Context())
        tracer.start_span("by hand", context=parent).end()
        expected = dict(task.attributes)
    with tracer.start_as_current_span("outside"):
        pass

    names = [span.name for span in world.spans()]
    assert sorted(names) == ["POST", "POST", "agent.task", "by hand", "chat gpt-4o", "chat gpt-4o", "outside"]
    for span in world.spans():
        found = {key: value for key, value in (span.attributes or {}).items() if key.startswith("oncall.")}
        assert found == ({} if span.name == "outside" else expected)


async def test_each_of_many_async_tasks_stamps_its_own(world: World) -> None:
    world.say(states.state(1, canary_below=50_000))
    tracer = world.tracers.get_tracer("other")
    runtime = world.runtime()

    async def request(name: str) -> None:
        async with runtime.task(name, task_id=name) as task, task.iteration():
            await asyncio.sleep(0)
            with tracer.start_as_current_span(f"chat {name}"):
                await asyncio.sleep(0)

    await asyncio.gather(*(request(f"u{i}") for i in range(20)))

    by_task = {span.attributes["task.id"]: span for span in world.spans("agent.task") if span.attributes}
    for name, root in by_task.items():
        (chat,) = world.spans(f"chat {name}")
        assert root.attributes is not None
        assert chat.attributes is not None
        assert chat.context.trace_id == root.context.trace_id
        assert chat.attributes["oncall.variant"] == root.attributes["oncall.variant"]
        assert chat.attributes["oncall.shard"] == shard(str(name))


def test_a_task_below_a_request_is_in_its_trace(world: World) -> None:
    runtime = world.runtime()
    with world.tracers.get_tracer("http").start_as_current_span("POST /chat") as request, runtime.task("u1"):
        pass

    (root,) = world.spans("agent.task")
    assert root.context.trace_id == request.get_span_context().trace_id


def test_traces_that_are_not_sampled_are_no_matter(world: World) -> None:
    runtime = world.runtime(tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    with runtime.task("u1") as task, task.iteration() as iteration, task.tool("lookup", "a"):
        iteration.answered(input_tokens=1, output_tokens=1)
    assert task.iterations == 1
