"""What the exporter makes of the runtime's spans."""

import time

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from prometheus_client.parser import text_string_to_metric_families

from agent_oncall import BudgetExceeded, Runtime
from agent_oncall.bucket import shard
from exporter.config import Settings
from exporter.pipeline import Pipeline
from tests.agent_oncall import states
from tests.agent_oncall.conftest import World

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def exported(world: World) -> Series:
    """All series of an exporter that was sent the world's spans, a minute later."""
    now = time.time()
    pipeline = Pipeline(Settings(), clock=lambda: now)
    pipeline.take_traces(encode_spans(world.spans()).SerializeToString())
    now += 60
    pipeline.advance()
    families = text_string_to_metric_families(pipeline.measures.exposition(openmetrics=False).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(series: Series, name: str, **labels: str) -> float:
    return sum(value for (found, have), value in series.items() if found == name and labels.items() <= set(have))


def answer(runtime: Runtime, user: str, *, success: bool | None = True) -> None:
    with runtime.task(user, task_type="refund") as task:
        with task.iteration() as iteration:
            iteration.answered(input_tokens=1000, output_tokens=100, model=task.config.model, stop_reason="tool_use")
            with task.tool("lookup", user):
                pass
        with task.iteration() as iteration:
            iteration.answered(input_tokens=1200, output_tokens=200, model=task.config.model, stop_reason="end_turn")
        task.finish(success=success)


def test_tasks_iterations_tools_and_tokens_are_counted_under_the_agents_name(world: World) -> None:
    answer(world.runtime(), "u1")
    answer(world.runtime(), "u2", success=False)
    series = exported(world)

    assert total(series, "agent_tasks_total", agent="support", task_type="refund", outcome="success") == 1
    assert total(series, "agent_tasks_total", agent="support", outcome="failure") == 1
    assert total(series, "agent_iterations_total", agent="support", model="gpt-4o-mini-2024-07-18") == 4
    assert total(series, "agent_tool_calls_total", agent="support", tool="lookup", result="ok") == 2
    assert total(series, "agent_tokens_total", agent="support", direction="input") == 4400
    assert total(series, "agent_spend_usd_total", agent="support") == pytest.approx((4400 * 0.15 + 600 * 0.6) / 1e6)
    assert total(series, "agent_exporter_values_rejected_total") == 0


def test_a_rollouts_series_have_variant_stage_and_shard(world: World) -> None:
    world.say(states.state(1, canary_below=50_000))
    runtime = world.runtime()
    users = [f"u{i}" for i in range(40)]
    variants = {}
    for user in users:
        with runtime.task(user) as task:
            variants[user] = task.variant
        answer(runtime, user)
    series = exported(world)

    for variant in ("stable", "canary"):
        mine = [user for user in users if variants[user] == variant]
        labels = {"agent": "support", "rollout": "r12", "stage": "5", "variant": variant}
        assert total(series, "agent_rollout_started_total", **labels) == 2 * len(mine)
        for place in range(16):
            count = sum(shard(user) == place for user in mine)
            ended = total(series, "agent_rollout_tasks_total", **labels, shard=str(place), outcome="success")
            assert ended >= count


def test_a_task_that_was_cut_is_abandoned(world: World) -> None:
    with pytest.raises(BudgetExceeded), world.runtime(act=True).task("u1") as task:  # noqa: PT012
        while True:
            with task.iteration() as iteration, task.tool("lookup", "a"):
                iteration.answered(input_tokens=10, output_tokens=1)
    series = exported(world)

    assert total(series, "agent_tasks_total", agent="support", outcome="abandoned") == 1
    assert total(series, "agent_iterations_total", agent="support") == 3
    assert total(series, "agent_tasks_looped_total", agent="support", why="repeat") == 1


def test_a_task_that_failed_is_an_error_and_a_cancelled_one_is_not(world: World) -> None:
    for error in (TimeoutError, KeyboardInterrupt):
        with pytest.raises(error), world.runtime().task("u1") as task, task.iteration():
            raise error
    series = exported(world)

    assert total(series, "agent_tasks_total", outcome="error", reason="timeout") == 1
    assert total(series, "agent_tasks_total", outcome="abandoned", reason="user_cancel") == 1
