"""What the runtime costs an agent: CPU time per task, iteration and tool call, beside making the same spans by hand.

Each figure is from the fastest of many rounds in one process, as timeit's: other work on the machine only adds. The
state file has a rollout, an experiment and a closed breaker; the breakers act; costs are known. Spans end in a
processor that drops them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from agent_oncall import Config, Runtime, Stamps
from agent_oncall.prompts import Prompts
from agent_oncall.schema import Agent, AgentConfig, Breaker, Bundle, Enabled, Experiment, State, document
from agent_oncall.tracing import Attributes
from benchmarks import report

_TURNS = 10
_TASKS_A_ROUND = 100

_BUNDLE = Bundle("gpt-4o-2024-08-06", "openai", "support", "1.9.0", 0.2, 100, "v3")
_STATE = State(
    7,
    {
        "support": Agent(
            AgentConfig(
                {"stable": _BUNDLE, "canary": _BUNDLE},
                canary_below=5_000,
                metadata={"rollout": "r12", "salt": "r12-6f3a", "stage": "5"},
            ),
            Breaker(),
            Enabled(),
            {"tone": Experiment(True, {}, {}, 50_000, {"salt": "tone-1"})},
        )
    },
)


def runtime(folder: Path, **changes: TracerProvider | bool) -> Runtime:
    Prompts(folder / "prompts").add("support", "1.9.0", "You help.")
    (folder / "flags.json").write_text(json.dumps(document(_STATE)), encoding="utf-8")
    return Runtime(
        agent="support",
        state=folder / "flags.json",
        last_good=folder / "copy.json",
        prompts=folder / "prompts",
        defaults=Config(model="gpt-4o-2024-08-06", provider="openai", prompt="support", prompt_version="1.9.0"),
        act=True,
        prices={"gpt-4o-2024-08-06": (2.5, 10.0)},
        **changes,  # type: ignore[arg-type]
    )


def tasks(rt: Runtime, turns: int, tools: int) -> None:
    for i in range(_TASKS_A_ROUND):
        with rt.task(f"user-{i}", task_type="refund", input_len=100) as task:
            for turn in range(turns):
                with task.iteration() as iteration:
                    iteration.answered(
                        input_tokens=1000, output_tokens=100, model="gpt-4o-2024-08-06", stop_reason="tool_use"
                    )
                    for _ in range(tools):
                        with task.tool("lookup", {"order": turn}):
                            pass
            task.finish(success=True)


def by_hand(tracer: Tracer, turns: int, tools: int) -> None:
    """The same spans with the same attributes, made by the SDK alone."""
    stamps: Attributes = {
        "oncall.agent": "support",
        "oncall.variant": "stable",
        "oncall.rollout": "r12",
        "oncall.stage": "5",
        "oncall.shard": 3,
    }
    ended: Attributes = {
        "task.status": "completed",
        "task.total_iterations": turns,
        "task.total_input_tokens": 1000,
        "task.total_output_tokens": 100,
        "task.cost_usd": 0.1,
        "task.success": True,
    }
    answered: Attributes = {
        "iteration.latency_ms": 1.0,
        "iteration.input_tokens": 1000,
        "iteration.output_tokens": 100,
        "iteration.final": False,
        "iteration.stop_reason": "tool_use",
    }
    model = {
        "iteration.model": "gpt-4o-2024-08-06",
        "iteration.provider": "openai",
        "iteration.purpose": "progress",
    }
    head: Attributes
    for i in range(_TASKS_A_ROUND):
        head = {"task.id": f"{i:032x}", "task.type": "refund", "task.input_len": 100, "agent.max_iter": 100, **stamps}
        with tracer.start_as_current_span("agent.task", attributes=head) as root:
            for turn in range(turns):
                head = {"iteration.number": turn, **model, **stamps}
                with tracer.start_as_current_span("agent.iteration", attributes=head) as span:
                    for _ in range(tools):
                        head = {"tool.name": "lookup", "tool.args_hash": "0123456789abcdef", **stamps}
                        with tracer.start_as_current_span("tool.execute", attributes=head) as call:
                            call.set_attributes({"tool.latency_ms": 1.0, "tool.result": "ok"})
                    span.set_attributes(answered)
            root.set_attributes(ended)


def microseconds(work: Callable[[int, int], None], rounds: int) -> tuple[float, float, float]:
    """CPU µs of (a task, an iteration in it, a tool call in that)."""
    shapes = ((0, 0), (_TURNS, 0), (_TURNS, 1))
    least = [float("inf")] * len(shapes)
    for _ in range(rounds):
        for i, (turns, tools) in enumerate(shapes):
            began = time.process_time()
            work(turns, tools)
            least[i] = min(least[i], (time.process_time() - began) / _TASKS_A_ROUND * 1e6)
    return least[0], (least[1] - least[0]) / _TURNS, (least[2] - least[1]) / _TURNS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="of 100 tasks for each figure, 40 unless given")
    options = parser.parse_args()
    table = report.Table(["µs of CPU per", "task", "iteration", "tool call"], "<>>>")
    with tempfile.TemporaryDirectory() as folder:
        provider = TracerProvider(shutdown_on_exit=False)
        stamped = TracerProvider(shutdown_on_exit=False)
        stamped.add_span_processor(Stamps())  # type: ignore[arg-type]  # it is one without the SDK's class
        quiet = runtime(Path(folder), tracer_provider=trace.NoOpTracerProvider())  # type: ignore[arg-type]
        traced = runtime(Path(folder), tracer_provider=stamped)
        hand = provider.get_tracer("by hand")
        rows: list[tuple[str, Callable[[int, int], None]]] = [
            ("runtime, no SDK: config, breakers, state", lambda turns, tools: tasks(quiet, turns, tools)),
            ("runtime with spans by the SDK", lambda turns, tools: tasks(traced, turns, tools)),
            ("the same spans by hand", lambda turns, tools: by_hand(hand, turns, tools)),
        ]
        measured = []
        for name, work in rows:
            report.progress(name)
            measured.append(microseconds(work, options.rounds))
            table.add(name, *(f"{value:.1f}" for value in measured[-1]))
        more = (with_spans - hand for with_spans, hand in zip(measured[1], measured[2], strict=True))
        table.add("what the runtime adds to its spans", *(f"{value:.1f}" for value in more))
        table.add("bar", "50", "20", "")
    table.show()


if __name__ == "__main__":
    main()
