"""Forked workers, threads, and processes that end: as gunicorn's are, that loads the agent before it forks."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from agent_oncall import BreakerOpen, BudgetExceeded, Runtime
from agent_oncall.experiments import records_file
from agent_oncall.schema import Breaker, Experiment
from tests.agent_oncall import states
from tests.agent_oncall.conftest import World

ROOT = Path(__file__).parents[2]


def in_child(work: object) -> int:
    """Forks; the child calls `work` and ends with its result. The child's exit code."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            assert callable(work)
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_worker_sees_changes_of_the_state(world: World) -> None:
    world.say(states.state(1))
    runtime = world.runtime()
    with runtime.task("u1"):
        pass

    def work() -> int:
        world.say(states.state(2, breaker=Breaker("open")))
        try:
            with runtime.task("u1"):
                return 1
        except BreakerOpen:
            return 0

    assert in_child(work) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_every_lock_is_held_leaves_a_worker_that_works(world: World) -> None:
    world.say(states.state(1, tone=Experiment(True, {}, {}, 50_000, {"salt": "x"})))
    runtime = world.runtime(records=world.folder / "records")
    with runtime.task("u0"):
        pass  # the thread that writes records is the parent's

    def work() -> int:
        world.wait()
        with runtime.task("u1") as task, task.iteration() as iteration:
            iteration.answered(cost_usd=1)
        assert runtime.records is not None
        runtime.records.close()
        return 0

    assert runtime.records is not None
    with runtime.process._lock, runtime._reader._looking, runtime.records._starting:
        assert in_child(work) == 0
    runtime.records.close()
    written = records_file(world.folder / "records", "support", "tone").read_text("utf-8")
    assert written.count('"task_id"') == 2


def test_threads_share_a_runtime(world: World) -> None:
    world.say(states.state(1, canary_below=50_000))
    runtime = world.runtime(act=True)
    wrong: list[object] = []

    def work(part: int) -> None:
        try:
            for i in range(100):
                with runtime.task(f"u{part}", task_type="refund") as task:
                    for n in range(3):
                        with task.iteration() as iteration:
                            iteration.answered(cost_usd=0.01, input_tokens=100, output_tokens=10)
                            with task.tool("lookup", [i, n]):
                                pass
                    task.finish(success=True)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert len(world.spans("agent.task")) == 800
    assert runtime.process.history.expected("refund") == pytest.approx(0.03)


def test_iterations_of_one_task_may_run_at_the_same_time(world: World) -> None:
    runtime = world.runtime(act=True)
    with runtime.task("u1") as task:
        for _ in range(3):
            with task.iteration() as one, task.iteration() as two:
                one.answered(cost_usd=0.1)
                two.answered(cost_usd=0.1)

    assert task.iterations == 6
    assert task.cost_usd == pytest.approx(0.6)


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_process_that_ends_writes_its_records_first(world: World) -> None:
    world.say(states.state(1, tone=Experiment(True, {}, {}, 50_000, {"salt": "x"})))
    script = """
        import sys
        from agent_oncall import Config, Runtime
        state, records, last_good = sys.argv[1:]
        defaults = Config(model="gpt-4o-2024-08-06", provider="openai", prompt_text="You help.")
        runtime = Runtime(agent="support", state=state, records=records, last_good=last_good, defaults=defaults)
        for i in range(100):
            with runtime.task(f"u{i}"):
                pass
    """
    done = run(script, world.state_file, world.folder / "ab", world.folder / "copy.json")

    assert done.returncode == 0, done.stderr
    assert records_file(world.folder / "ab", "support", "tone").read_text("utf-8").count("\n") == 100


def test_the_agents_side_needs_the_api_of_opentelemetry_and_nothing_else() -> None:
    script = """
        import sys
        import agent_oncall
        own = {"agent_oncall", "opentelemetry", "typing_extensions", "importlib_metadata"}
        found = {name.partition(".")[0] for name, module in sys.modules.items() if "site-packages" in str(module)}
        print(sorted(found - own), "opentelemetry.sdk" in sys.modules)
    """
    done = run(script)

    assert done.stdout == "[] False\n", done.stderr


def test_a_runtime_that_is_gone_is_gone(world: World) -> None:
    import gc
    import weakref

    runtime = world.runtime(act=True)
    with pytest.raises(BudgetExceeded), runtime.task("u1") as task:  # noqa: PT012
        while True:
            with task.tool("lookup", "a"):
                pass
    gone: weakref.ref[Runtime] = weakref.ref(runtime)
    del runtime, task
    gc.collect()

    assert gone() is None
