"""What a task runs on, what cuts it, and what never gets into its way."""

import asyncio
import gc
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from functools import wraps
from pathlib import Path

import pytest

from agent_oncall import BreakerOpen, BudgetExceeded, Config, Cut, Limits, Runtime, Task, current_task
from agent_oncall.bucket import bucket
from agent_oncall.schema import Breaker, Enabled
from tests.agent_oncall import states
from tests.agent_oncall.conftest import DEFAULTS, World

PRICES = {states.STABLE.model: (2.5, 10.0)}


def user(below: int = 100_000, at_least: int = 0, salt: str = states.ROLLOUT["salt"]) -> str:
    """A user whose bucket is so."""
    return next(name for i in range(100_000) if at_least <= bucket(salt, name := f"user-{i}") < below)


def turn(task: Task, tool: str = "", arguments: object = None, error: str = "", usd: float | None = None) -> None:
    with task.iteration() as iteration:
        iteration.answered(input_tokens=1000, output_tokens=100, cost_usd=usd, stop_reason="tool_use")
        if tool:
            with task.tool(tool, arguments) as call:
                if error:
                    call.failed(error)


# -- the config ------------------------------------------------------------------------------------------------------


def test_without_a_state_file_the_defaults_run(world: World) -> None:
    with world.runtime().task("u1") as task:
        assert (task.config.model, task.variant) == (DEFAULTS.model, "stable")
        assert task.config.prompt_text == "You help. 1.9.0"


def test_with_nothing_at_all_the_defaults_run() -> None:
    defaults = Config(model="gpt-4o-2024-08-06", provider="openai", prompt_text="You help.")
    runtime = Runtime(agent="support", defaults=defaults)

    with runtime.task("u1") as task, task.iteration() as iteration:
        iteration.answered(input_tokens=1, output_tokens=1)
        assert task.config.prompt_text == "You help."


def test_users_below_the_stage_get_the_canary_and_all_others_stable(world: World) -> None:
    world.say(states.state(1, canary_below=5_000))
    runtime = world.runtime()

    with runtime.task(user(below=5_000)) as task:
        assert (task.variant, task.config.model) == ("canary", states.CANARY.model)
        assert task.config.prompt_text == "You help. 1.10.0"
        assert (task.config.temperature, task.config.max_iter, task.config.tool_schema) == (0.4, 12, "v3")
    with runtime.task(user(at_least=5_000)) as task:
        assert (task.variant, task.config.model) == ("stable", states.STABLE.model)


@pytest.mark.parametrize("nobody", [None, ""])
def test_a_task_without_a_user_is_stable_and_in_no_comparison(world: World, nobody: str | None) -> None:
    world.say(states.state(1, canary_below=100_000))

    with world.runtime().task(nobody) as task:
        assert task.variant == "stable"
        assert "oncall.rollout" not in task.attributes


def test_a_running_task_keeps_its_config_and_the_next_has_the_new_one(world: World) -> None:
    world.say(states.state(1))
    runtime = world.runtime()
    with runtime.task("u1") as task:
        world.say(states.state(2, canary_below=100_000))
        turn(task)
        assert task.config.model == states.STABLE.model
    with runtime.task("u1") as task:
        assert task.config.model == states.CANARY.model


def test_a_backup_in_force_is_stable_to_the_metrics_and_in_no_comparison(world: World) -> None:
    world.say(states.state(1, canary_below=5_000, default="backup"))

    with world.runtime().task(user(below=5_000)) as task:
        assert (task.variant, task.config.provider) == ("backup", "anthropic")
        assert dict(task.attributes) == {"oncall.agent": "support", "oncall.variant": "stable"}


def test_a_canary_whose_prompt_is_missing_is_stable_and_in_no_comparison(world: World, said: Callable[[], str]) -> None:
    (world.prompts / "support" / "1.10.0.txt").unlink()
    world.say(states.state(1, canary_below=100_000))
    runtime = world.runtime()

    for _ in range(2):
        with runtime.task("u1") as task:
            assert (task.variant, task.config.prompt_version) == ("stable", "1.9.0")
            assert "oncall.rollout" not in task.attributes
    assert world.metric("agent_prompt_errors", agent="support") == 2
    assert said().count("prompt support 1.10.0") == 1


def test_a_prompt_that_comes_later_is_found(world: World) -> None:
    text = (world.prompts / "support" / "1.10.0.txt").read_text(encoding="utf-8")
    (world.prompts / "support" / "1.10.0.txt").unlink()
    world.say(states.state(1, canary_below=100_000))
    runtime = world.runtime()
    with runtime.task("u1") as task:
        assert task.variant == "stable"

    (world.prompts / "support" / "1.10.0.txt").write_text(text, encoding="utf-8")
    world.wait(6)

    with runtime.task("u1") as task:
        assert task.variant == "canary"


def test_where_no_prompt_can_be_had_the_defaults_run(world: World) -> None:
    world.say(states.state(1))
    runtime = world.runtime(
        prompts=None, defaults=Config(model="o3", provider="openai", pinned=True, prompt_text="inline")
    )

    with runtime.task("u1") as task:
        assert (task.config.model, task.config.prompt_text) == ("o3", "inline")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": "gpt-4o-latest"}, "alias"),
        ({"model": "gpt-4o"}, "pinned: true"),
        ({"max_iter": 0}, "max_iter"),
    ],
)
def test_defaults_that_can_not_be_meant_are_told_at_once(changes: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        replace(DEFAULTS, **changes)  # type: ignore[arg-type]


def test_a_default_prompt_that_is_not_there_is_told_at_once(world: World) -> None:
    with pytest.raises(ValueError, match=r"support 7\.0: not in"):
        world.runtime(defaults=replace(DEFAULTS, prompt_version="7.0"))
    with pytest.raises(ValueError, match="give prompts="):
        world.runtime(prompts=None)
    with pytest.raises(ValueError, match="names no prompt"):
        world.runtime(defaults=replace(DEFAULTS, prompt="", prompt_version=""))


def test_another_model_that_answers_is_counted_and_told_once(world: World, said: Callable[[], str]) -> None:
    runtime = world.runtime()
    for _ in range(3):
        with runtime.task("u1") as task, task.iteration() as iteration:
            iteration.answered(model="gpt-4.1-2025-04-14")
        with runtime.task("u1") as task, task.iteration() as iteration:
            iteration.answered(model=DEFAULTS.model)

    assert world.metric("agent_model_mismatches", agent="support", model=DEFAULTS.model) == 3
    assert said().count("gpt-4.1-2025-04-14 answered") == 1


def test_a_bare_name_that_comes_to_mean_another_version_is_counted(world: World) -> None:
    runtime = world.runtime(defaults=replace(DEFAULTS, model="gpt-4o", pinned=True))
    for answered in ("gpt-4o-2024-08-06", "gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-11-20"):
        with runtime.task("u1") as task, task.iteration() as iteration:
            iteration.answered(model=answered)

    assert world.metric("agent_model_mismatches", agent="support", model="gpt-4o") == 1


# -- the agent's breaker and switch ----------------------------------------------------------------------------------


def test_an_open_breaker_lets_no_task_begin_and_ends_those_that_run_at_their_next_iteration(world: World) -> None:
    runtime = world.runtime()
    with pytest.raises(BreakerOpen) as cut, runtime.task("u1") as task:  # noqa: PT012
        turn(task)
        world.say(states.state(2, breaker=Breaker("open")))
        with task.tool("lookup"):
            pass  # the iteration under way is not torn apart
        turn(task)
        pytest.fail("the next iteration began")
    assert cut.value.why == "fleet"
    with pytest.raises(BreakerOpen, match="use the fallback"), runtime.task("u2"):
        pytest.fail("a task began")
    assert world.span("agent.task")["task.status"] == "budget_exceeded"
    assert world.metric("agent_tasks_refused", agent="support", why="fleet") == 1
    assert world.metric("agent_breaker_state", agent="support") == 2


def test_an_agent_that_is_off_lets_no_task_begin(world: World) -> None:
    world.say(states.state(1, enabled=Enabled(False)))

    with pytest.raises(BreakerOpen) as cut, world.runtime().task("u1"):
        pytest.fail("a task began")
    assert cut.value.why == "off"


def test_a_half_open_breaker_lets_its_share_of_users_through(world: World) -> None:
    runtime = world.runtime()

    def through(since: str) -> set[str]:
        half = Breaker("half_open", {"since": since, "share": 10})
        world.say(states.state((runtime.generation or 0) + 1, breaker=half))
        found = set()
        for i in range(1000):
            try:
                with runtime.task(f"u{i}"):
                    found.add(f"u{i}")
            except BreakerOpen:
                pass
        return found

    first, second = through("2026-01-01T00:00:00Z"), through("2026-01-02T00:00:00Z")

    assert len(first) == pytest.approx(100, abs=40)
    assert len(first & second) < 40
    assert world.metric("agent_breaker_state", agent="support") == 1
    with pytest.raises(BreakerOpen), runtime.task(None):
        pytest.fail("a task of nobody began")


def test_the_breaker_of_another_agent_is_nothing_to_this_one(world: World) -> None:
    world.say(states.state(1, agent="billing", breaker=Breaker("open")))

    with world.runtime().task("u1") as task:
        turn(task)


def test_what_the_state_file_says_is_done_also_where_the_local_breakers_only_watch(world: World) -> None:
    world.say(states.state(1, breaker=Breaker("open")))

    with pytest.raises(BreakerOpen), world.runtime(act=False).task("u1"):
        pytest.fail("a task began")


# -- the task's own breaker ------------------------------------------------------------------------------------------


def loop(runtime: Runtime, turns: int, tool: str = "lookup", arguments: object = None, error: str = "") -> int:
    """The iterations that a task makes which goes on as long as it may."""
    with runtime.task("u1", task_type="refund") as task:
        for _ in range(turns):
            turn(task, tool, arguments, error)
    return task.iterations


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [({"order": 7}, "", "repeat"), (None, "no JSON at line 7", "failing_tool")],
)
def test_a_loop_is_cut_after_three_iterations(world: World, arguments: object, error: str, why: str) -> None:
    with pytest.raises(BudgetExceeded) as cut:
        loop(world.runtime(act=True), 10, arguments=arguments, error=error)

    assert cut.value.why == why
    attributes = world.span("agent.task")
    assert (attributes["task.total_iterations"], attributes["task.status"]) == (3, "budget_exceeded")
    assert attributes["task.success"] is False
    assert world.metric("agent_breaker_trips", agent="support", why=why) == 1


def test_where_breakers_only_watch_they_say_what_they_would_have_cut(world: World, said: Callable[[], str]) -> None:
    assert loop(world.runtime(), 10, arguments="a") == 10

    assert world.metric("agent_breaker_shadow_trips", agent="support", why="repeat") == 1
    assert world.metric("agent_breaker_trips", agent="support", why="repeat") == 0
    assert said().count("breaker would cut: repeat") == 1
    (span,) = world.spans("agent.task")
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("oncall.would_cut", {"oncall.why": "repeat"})
    ]


def test_a_task_ends_at_max_iter(world: World) -> None:
    with pytest.raises(BudgetExceeded) as cut:
        loop(world.runtime(act=True), 100, tool="")

    assert cut.value.why == "iterations"
    assert world.span("agent.task")["task.total_iterations"] == DEFAULTS.max_iter
    assert world.span("agent.task")["task.status"] == "max_iter_exceeded"


def test_a_task_is_cut_at_a_cost_far_beyond_its_types(world: World) -> None:
    runtime = world.runtime(act=True)
    for _ in range(100):
        with runtime.task("u1", task_type="refund") as task:
            turn(task, usd=0.05)
    with pytest.raises(BudgetExceeded) as cut, runtime.task("u1", task_type="refund") as task:  # noqa: PT012
        for _ in range(12):
            turn(task, usd=0.05)

    assert cut.value.why == "cost"
    assert task.cost_usd == pytest.approx(0.20)


def test_who_swallows_the_cut_is_told_again(world: World) -> None:
    runtime = world.runtime(act=True)
    with runtime.task("u1") as task:
        for _ in range(3):
            turn(task, "lookup", "a")
        for _ in range(5):
            with pytest.raises(BudgetExceeded):
                turn(task, "lookup", "b")
        task.finish(success=True)

    assert world.metric("agent_breaker_trips", agent="support", why="repeat") == 1
    assert world.span("agent.task")["task.status"] == "budget_exceeded"


def test_an_agent_that_tells_of_tool_calls_alone_is_cut_too(world: World) -> None:
    with pytest.raises(BudgetExceeded), world.runtime(act=True).task("u1") as task:  # noqa: PT012
        for _ in range(4):
            with task.tool("lookup", "a"):
                pass


# -- the process' breaker --------------------------------------------------------------------------------------------


def test_users_who_come_back_after_each_cut_open_the_breaker_of_the_process(world: World) -> None:
    runtime = world.runtime(act=True, prices=PRICES)
    world.say(states.state(1))
    spent, whys = 0.0, []
    for i in range(1000):
        try:
            with runtime.task(f"u{i % 5}") as task:
                while True:
                    world.wait(0.2)
                    with task.iteration() as iteration:
                        iteration.answered(input_tokens=7922, output_tokens=78)
                        with task.tool("lookup", "a"):
                            pass
        except Cut as cut:
            spent += task.cost_usd if isinstance(cut, BudgetExceeded) else 0
            whys.append(cut.why)

    assert spent < 0.6
    assert set(whys) == {"repeat", "process_spend"}
    assert world.metric("agent_breaker_state", agent="support") == 2
    assert world.metric("agent_breaker_trips", agent="support", why="process_spend") == 1


def test_a_model_without_a_price_is_told_once(world: World, said: Callable[[], str]) -> None:
    loop(world.runtime(), 3)

    assert said().count(f"no price for model {DEFAULTS.model}") == 1
    assert "task.cost_usd" not in world.span("agent.task")


def test_a_cost_told_at_the_end_counts(world: World) -> None:
    with world.runtime().task("u1") as task:
        turn(task)
        task.finish(success=True, cost_usd=0.7)

    assert world.span("agent.task")["task.cost_usd"] == 0.7


# -- the agent's own ways --------------------------------------------------------------------------------------------


async def test_async_tasks_run_side_by_side_each_its_own(world: World) -> None:
    runtime = world.runtime()

    async def request(name: str) -> tuple[str, int]:
        async with runtime.task(name) as task:
            for _ in range(3):
                async with task.iteration() as iteration:
                    await asyncio.sleep(0)
                    iteration.answered()
                    async with task.tool("lookup", name):
                        await asyncio.sleep(0)
                        assert current_task() is task
            return name, task.iterations

    assert await asyncio.gather(*map(request, "abc")) == [("a", 3), ("b", 3), ("c", 3)]
    assert current_task() is None


def test_a_decorated_function_is_a_task(world: World) -> None:
    @world.runtime().as_task(user=lambda request: request["user"], task_type="refund")
    def handle(request: dict[str, str]) -> str:
        task = current_task()
        assert task is not None
        return f"{task.user_id} {task.task_type}"

    assert handle({"user": "u1"}) == "u1 refund"
    assert len(world.spans("agent.task")) == 1


async def test_a_decorated_async_function_is_a_task(world: World) -> None:
    @world.runtime().as_task(user=lambda name: name)
    async def handle(name: str) -> str | None:
        await asyncio.sleep(0)
        task = current_task()
        return None if task is None else task.user_id

    assert await handle("u1") == "u1"


def test_a_generator_can_not_be_decorated(world: World) -> None:
    with pytest.raises(TypeError, match="is a generator"):

        @world.runtime().as_task(user=lambda: None)
        def handle() -> object:
            yield 1


async def answer(name: str) -> str:
    await asyncio.sleep(0)
    task = current_task()
    assert task is not None
    return f"{name} {task.user_id}"


class Answering:
    async def __call__(self, name: str) -> str:
        return await answer(name)


@wraps(answer)
def wrapped(name: str) -> Awaitable[str]:
    return answer(name)


@pytest.mark.parametrize("function", [wrapped, lambda name: asyncio.ensure_future(answer(name)), Answering()])
async def test_what_a_decorated_function_returns_to_be_awaited_is_part_of_the_task(
    world: World, function: Callable[..., Awaitable[str]]
) -> None:
    handle = world.runtime().as_task(user=lambda name: name)(function)

    awaited = handle("u1")
    assert world.spans("agent.task") == []
    assert current_task() is None
    assert await asyncio.create_task(awaited) == "u1 u1"  # type: ignore[arg-type]
    assert len(world.spans("agent.task")) == 1


def test_a_decorated_function_that_returns_a_generator_is_told_of(world: World, said: Callable[[], str]) -> None:
    @world.runtime().as_task(user=lambda: "u1")
    def handle() -> Iterator[int]:
        return iter_later()

    def iter_later() -> Iterator[int]:
        yield 1

    assert list(handle()) == [1]
    assert "returns a generator, whose work is no part of the task" in said()


def test_a_task_that_has_ended_is_never_the_current_one(world: World) -> None:
    runtime = world.runtime()

    def stream(name: str) -> Iterator[str]:
        with runtime.task(name, task_id=name) as task, task.iteration():
            yield name

    with runtime.task("around") as around:
        first, second = stream("first"), stream("second")
        for each in (first, second):
            next(each)
        first.close()  # type: ignore[attr-defined]
        second.close()  # type: ignore[attr-defined]
        assert current_task() is around
        with world.tracers.get_tracer("http").start_as_current_span("POST"):
            pass
    assert current_task() is None
    (post,) = world.spans("POST")
    root = world.spans("agent.task")[-1]
    assert post.parent is not None
    assert post.parent.span_id == root.context.span_id


async def test_an_abandoned_async_generator_ends_its_task_and_logs_no_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = world.runtime()
    ended = asyncio.Event()

    async def stream() -> AsyncIterator[int]:
        try:
            async with runtime.task("u1") as task, task.iteration():
                yield 1
        finally:
            ended.set()

    async for _ in stream():
        break
    gc.collect()
    await ended.wait()

    assert len(world.spans("agent.task")) == 1
    assert current_task() is None
    assert [record for record in caplog.records if record.levelname == "ERROR" and "state file" not in record.msg] == []
    with runtime.task("u2"):
        pass
    first, second = world.spans("agent.task")
    assert first.context.trace_id != second.context.trace_id


def test_a_decorated_function_raises_what_a_block_would(world: World) -> None:
    world.say(states.state(1, breaker=Breaker("open")))

    @world.runtime().as_task(user=lambda name: name)
    def handle(name: str) -> str:
        return name

    with pytest.raises(BreakerOpen):
        handle("u1")


class Unspeakable(Exception):
    def __str__(self) -> str:
        return 1  # type: ignore[return-value]


def test_whatever_the_agent_tells_raises_nothing(world: World) -> None:
    with world.runtime(act=True).task(Unspeakable(), task_type=[], task_id=Unspeakable()) as task:  # type: ignore[arg-type]
        with task.iteration(reserve_usd=10**400) as iteration:
            iteration.answered(cost_usd=10**400, model=Unspeakable(), stop_reason=Unspeakable())  # type: ignore[arg-type]
            with task.tool(Unspeakable()) as call:  # type: ignore[arg-type]
                call.failed(Unspeakable())
            with task.tool("lookup") as call:
                call.invalid(Unspeakable())  # type: ignore[arg-type]
            with pytest.raises(Unspeakable), task.tool("lookup"):
                raise Unspeakable
        task.finish(cost_usd=10**400, confidence=10**400, status=Unspeakable())  # type: ignore[arg-type]

    assert len(world.spans("tool.execute")) == 3
    assert "task.cost_usd" not in world.span("agent.task")


def test_costs_and_prices_may_be_decimals(world: World) -> None:
    prices = {DEFAULTS.model: (Decimal("2.5"), Decimal(10))}
    with world.runtime(prices=prices).task("u1") as task:
        with task.iteration() as iteration:
            iteration.answered(cost_usd=Decimal("0.24"))
        with task.iteration() as iteration:
            iteration.answered(input_tokens=4000)

    assert world.span("agent.task")["task.cost_usd"] == 0.25


def test_a_decorated_function_runs_also_where_nobody_can_tell_whose_call_it_is(
    world: World, said: Callable[[], str]
) -> None:
    @world.runtime().as_task(user=lambda request: request["user"])
    def handle(request: dict[str, str]) -> str:
        return "done"

    assert handle({}) == "done"
    assert "as_task's `user` failed" in said()


def test_task_ids_differ_between_workers_that_seed_their_randomness(world: World) -> None:
    ids = []
    before = random.getstate()
    for _ in range(2):
        random.seed(1)
        ids.append(world.runtime().task("u1").id)
    random.setstate(before)

    assert ids[0] != ids[1]


class Collecting(dict[str, float]):
    """The collector comes by where the breaker looks something up, as it may at any allocation."""

    def get(self, *_: object) -> float:
        gc.collect()
        return 1.0


def test_a_task_that_the_collector_ends_while_the_breaker_is_at_work_waits_for_nobody(world: World) -> None:
    runtime = world.runtime(limits=Limits(expected_task_usd=Collecting()))
    began = threading.Event()

    def streamed(holds: list[object]) -> Iterator[int]:
        with runtime.task("u1", task_id="abandoned"):
            yield 1

    def work() -> None:
        holds: list[object] = []
        stream = streamed(holds)
        next(stream)
        holds.append(stream)  # a cycle: it goes when the collector comes by
        del holds, stream
        with runtime.task("u2", task_id="next"):
            began.set()

    gc.disable()
    try:
        threading.Thread(target=work, daemon=True).start()
        assert began.wait(10)
    finally:
        gc.enable()
    assert "abandoned" in [(span.attributes or {})["task.id"] for span in world.spans("agent.task")]


def test_numbers_that_are_none_are_left_out_and_raise_nothing(world: World) -> None:
    with world.runtime(act=True).task("u1") as task:
        with task.iteration(reserve_usd=float("nan")) as iteration:
            iteration.answered(
                input_tokens=-1,
                output_tokens="12",  # type: ignore[arg-type]
                cost_usd=float("inf"),
                model=3,  # type: ignore[arg-type]
                stop_reason=["x"],  # type: ignore[arg-type]
            )
            with task.tool("lookup", {1: object(), "b": {2}}):
                pass
        task.finish(success="yes", confidence=float("nan"), cost_usd=-1)  # type: ignore[arg-type]

    attributes = world.span("agent.task")
    assert attributes["task.total_input_tokens"] == 0
    assert "task.success" not in attributes


def test_a_task_that_has_not_begun_or_has_ended_says_so(world: World) -> None:
    task = world.runtime().task("u1")
    with pytest.raises(RuntimeError, match="has not begun"):
        _ = task.config
    with task:
        pass
    with pytest.raises(RuntimeError, match="make one for each request"), task:
        pass


def test_nothing_the_library_does_wrong_reaches_the_agent(
    world: World, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    runtime = world.runtime(act=True)

    def fail(*_: object, **__: object) -> None:
        raise OSError("broken")

    for where in ("agent_oncall.tracing.end", "agent_oncall.runtime.Runtime._choose"):
        monkeypatch.setattr(where, fail)
    monkeypatch.setattr(runtime.process, "settle", fail)
    monkeypatch.setattr(runtime.tracer, "start_span", fail)

    with runtime.task("u1") as task:
        turn(task, "lookup", "a")
        assert task.config.model == DEFAULTS.model
        task.finish(success=True)
    assert "broken" in said()


def test_the_limits_can_be_set(world: World) -> None:
    with pytest.raises(BudgetExceeded):
        loop(world.runtime(act=True, limits=Limits(repeating=5)), 9, arguments="a")
    assert world.span("agent.task")["task.total_iterations"] == 5


def test_a_disk_that_is_gone_is_no_matter(world: World, tmp_path: Path) -> None:
    world.say(states.state(1))
    runtime = world.runtime(
        last_good="/proc/no/such/place/state.json", records="/proc/no/such/place", state=tmp_path / "nowhere" / "f.json"
    )

    with runtime.task("u1") as task:
        turn(task)
