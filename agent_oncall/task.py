"""A task, its iterations and its tool calls, as the agent's code sees them.

They time themselves, make the spans of the base schema, and ask the breakers before each iteration. Numbers come from
model clients of all kinds: what is none is left out, never raised.
"""

import asyncio
import logging
import math
import os
from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span

from agent_oncall import tracing
from agent_oncall.breaker import Account, BreakerOpen, BudgetExceeded, Cut, TaskBreaker
from agent_oncall.experiments import Record, utc
from agent_oncall.schema import Arm, Variant

if TYPE_CHECKING:
    from agent_oncall.runtime import Config, Runtime

_log = logging.getLogger("agent_oncall")

Purpose: TypeAlias = Literal["progress", "retry", "recovery"]

_KEY = otel_context.create_key("agent-oncall-task")
_FINAL = frozenset({"end_turn", "stop", "stop_sequence"})
_CANCELLED = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)
_TOLD = {
    "off": "is switched off",
    "fleet": "has its breaker open",
    "process_spend": "spends more in this process than its tasks explain",
    "failing_tool": "calls a tool that fails again and again",
    "repeat": "repeats one tool call",
    "iterations": "used up its iterations",
    "cost": "costs far more than tasks of its type do",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a task runs on: its config, the variant it is of, the attributes of its spans, its arm per experiment."""

    config: "Config"
    variant: Variant
    stamps: tracing.Attributes
    arms: Mapping[str, Arm]


def current_task() -> "Task | None":
    """The task in whose `with` block this runs, also in async code and in threads that carry the context."""
    return _running()[0]


def _running() -> "tuple[Task | None, Context | None]":
    """The current task, and the context to go back to where the current one is of a task that has ended: generators
    that end in another order than they began, or in another context, leave theirs behind."""
    found, back = otel_context.get_value(_KEY), None
    while isinstance(found, Task):
        if not found._ended:
            return found, back
        back = tracing.outside(found._token)
        found = otel_context.get_value(_KEY, back)
    return None, back


def _leave_ended() -> None:
    _, back = _running()
    if back is not None:
        otel_context.attach(back)


class _Block:
    """`with` and `async with` by one pair of methods."""

    __slots__ = ()

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, where)


class Task(_Block):
    """One request to the agent; made by Runtime.task(). In the block:

    config      what to run on, for the whole task: model, provider, prompt_text, temperature, max_iter, tool_schema
    variant     `stable`, `canary` or `backup`
    arms        `a` or `b` for each experiment that runs
    attributes  the `oncall.*` attributes of its spans
    """

    def __init__(
        self, runtime: "Runtime", user_id: str | None, task_type: str, task_id: str | None, input_len: int | None
    ) -> None:
        self.user_id = _text(user_id) or None
        self.task_type = _text(task_type)
        # Not of the module `random`: who seeds that in each worker would get the same ids from all.
        self.id = _text(task_id) or os.urandom(16).hex()
        self.iterations = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost_usd = 0.0
        """So far, as far as costs are known."""
        self._runtime = runtime
        self._input_len = input_len
        self._breaker = TaskBreaker(runtime.limits)
        self._begun = False
        self._ended = False
        self._handed_over = False
        self._account: Account | None = None
        self._span: Span = INVALID_SPAN
        self._token: Token[Context] | None = None
        self._began = 0.0
        self._priced = False
        self._final = False
        self._purpose: Purpose = "progress"
        self._noted: list[str] = []
        self._cut = ""
        self._finished: dict[str, object] = {}

    config: "Config"
    variant: Variant
    arms: Mapping[str, Arm]
    attributes: tracing.Attributes

    def __getattr__(self, name: str) -> object:
        # Asked only for what is not there: plain attributes cost nothing on each iteration.
        if name in ("config", "variant", "arms", "attributes"):
            raise RuntimeError("the task has not begun: use it in a `with` block")
        raise AttributeError(name)

    def __enter__(self) -> Self:
        if self._handed_over:
            self._handed_over = False
            self._token = tracing.enter(self._span, {**tracing.stamped(self.attributes), _KEY: self})
            return self
        if self._begun:
            raise RuntimeError("the task has begun before: make one for each request")
        runtime = self._runtime
        self._began = runtime.clock()
        why = runtime.refusal(self.user_id)
        if why is None:
            self._account = runtime.process.begin(self.task_type, self._began)
            if self._account is None:
                why = "process_spend"
        if why is not None:
            runtime.metrics.refused.add(1, {"agent": runtime.agent, "why": why})
            raise BreakerOpen(why, f"agent {runtime.agent} {_TOLD[why]}; use the fallback")
        self._begun = True
        choice = runtime.choose(self.user_id)
        self.config, self.variant, self.arms = choice.config, choice.variant, choice.arms
        self.attributes = choice.stamps
        attributes: dict[str, str | bool | int | float] = {
            "task.id": self.id,
            "agent.max_iter": choice.config.max_iter,
            **choice.stamps,
        }
        if self.task_type:
            attributes["task.type"] = self.task_type
        if self._input_len is not None:
            attributes["task.input_len"] = self._input_len
        _leave_ended()
        self._span = tracing.start(runtime.tracer, tracing.TASK, attributes)
        self._token = tracing.enter(self._span, {**tracing.stamped(choice.stamps), _KEY: self})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            tracing.leave(self._token)
            if self._handed_over and error is None:
                return
            self._ended = True
            _leave_ended()
            self._end(error)
        except Exception:
            _log.warning("agent %s: a task's end was not noted", self._runtime.agent, exc_info=True)

    def hand_over(self) -> None:
        """The block ends and the task does not: it goes on in the next block, maybe in another context."""
        self._handed_over = True

    def iteration(self, *, purpose: Purpose | None = None, reserve_usd: float | None = None) -> "Iteration":
        """One turn of the loop, for `with` or `async with`: the LLM call and the tool calls it asks for.

        BudgetExceeded or BreakerOpen where it begins, if it must not. `reserve_usd` is what it costs at most; unless
        given, what the dearest iteration before it did. `purpose` is worked out unless given.
        """
        return Iteration(self, purpose, reserve_usd)

    def tool(self, name: str, arguments: object = None) -> "ToolCall":
        """One tool call, for `with` or `async with`, in the iteration that asked for it.

        Of the arguments only a hash is kept: calls that repeat are told by it.
        """
        return ToolCall(self, name, arguments)

    def finish(
        self,
        *,
        success: bool | None = None,
        confidence: float | None = None,
        cost_usd: float | Decimal | None = None,
        status: str | None = None,
    ) -> None:
        """How it went, before the block ends. `success`: whether the user's goal was reached. `cost_usd` is the whole
        task's, where iterations did not tell theirs. `status` as in the base schema, `completed` unless given."""
        self._finished = {"success": success, "confidence": _number(confidence), "status": status}
        usd = _number(cost_usd)
        if usd is not None and usd > self.cost_usd and self._account is not None:
            more, self.cost_usd, self._priced = usd - self.cost_usd, usd, True
            self._runtime.process.settle(self._account, self._runtime.clock(), 0.0, more)

    # -- for iterations and tool calls -----------------------------------------------------------------------------

    def may_go_on(self) -> None:
        """Raises what ends the task here, if anything does."""
        runtime = self._runtime
        why = runtime.refusal(self.user_id)
        if why is not None:
            self._cut = self._cut or why
            raise BreakerOpen(why, f"agent {runtime.agent} {_TOLD[why]}; end the task")
        if self._cut:
            raise BudgetExceeded(self._cut, f"task {self.id} {_TOLD[self._cut]}; end it")
        found = self._breaker.why(
            self.iterations, self.config.max_iter, self.cost_usd, runtime.process.history.most(self.task_type)
        )
        if found is None or found in self._noted:
            return
        self._noted.append(found)
        runtime.note_trip(found, self._span)
        if runtime.act:
            self._cut = found
        if self._account is not None and runtime.process.cut(self._account, runtime.clock()):
            runtime.note_trip("process_spend", self._span)
        if runtime.act:
            raise BudgetExceeded(found, f"task {self.id} {_TOLD[found]}; end it")

    def reserve(self, usd: float | None, now: float) -> float:
        """Reserves an iteration's cost with the process; BudgetExceeded where nothing is left."""
        runtime = self._runtime
        if self._account is None:
            return 0.0
        most = None if usd is None else _number(usd)
        reserved, may, opened = runtime.process.reserve(self._account, now, most)
        if opened:
            runtime.note_trip("process_spend", self._span)
        if not may:
            self._cut = "process_spend"
            raise BudgetExceeded("process_spend", f"agent {runtime.agent} {_TOLD['process_spend']}; end the task")
        return reserved

    def begin_turn(self) -> tuple[int, Purpose]:
        self.iterations += 1
        self._breaker.turn += 1
        purpose, self._purpose = self._purpose, "progress"
        return self.iterations, purpose

    def end_turn(self, tokens: tuple[int, int], reserved: float, usd: float | None, *, final: bool) -> None:
        self.input_tokens += tokens[0]
        self.output_tokens += tokens[1]
        self._final = final
        if usd is not None:
            self.cost_usd += usd
            self._priced = True
        if self._account is not None and self._runtime.process.settle(
            self._account, self._runtime.clock(), reserved, usd or 0.0
        ):
            self._runtime.note_trip("process_spend", self._span)

    def call_failed(self) -> None:
        self._purpose = "retry"

    def tool_ended(self, tool: str, arguments: str, error: str) -> None:
        self._breaker.tool_call(tool, arguments, error)
        if error and self._purpose == "progress":
            self._purpose = "recovery"

    @property
    def counts_turns(self) -> bool:
        return self._breaker.turn > 0

    def _end(self, error: BaseException | None) -> None:
        runtime, told = self._runtime, self._finished
        seconds = runtime.clock() - self._began
        status, failed = _text(told.get("status")) or "completed", ""
        success = told.get("success")
        if self._cut or isinstance(error, Cut):
            status = "max_iter_exceeded" if self._cut == "iterations" else "budget_exceeded"
            success = False
        elif isinstance(error, _CANCELLED):
            status, success = "cancelled", False
        elif error is not None:
            status, success, failed = "error", False, type(error).__name__
        elif not told and not self._final and self.iterations >= self.config.max_iter:
            status, success = "max_iter_exceeded", False
        attributes: dict[str, str | bool | int | float] = {
            "task.status": status,
            "task.total_iterations": self.iterations,
            "task.total_input_tokens": self.input_tokens,
            "task.total_output_tokens": self.output_tokens,
        }
        if self._priced:
            attributes["task.cost_usd"] = self.cost_usd
        if isinstance(success, bool):
            attributes["task.success"] = success
        confidence = told.get("confidence")
        if isinstance(confidence, float):
            attributes["task.confidence"] = confidence
        tracing.end(self._span, attributes, failed)
        if self._account is not None:
            well = status == "completed" and success is not False
            runtime.process.end(self._account, runtime.clock(), well=well)
        if self.arms and runtime.records is not None and self.user_id is not None:
            timestamp = utc(runtime.now())
            for experiment, arm in self.arms.items():
                runtime.records.put(
                    Record(
                        experiment,
                        self.user_id,
                        arm,
                        self.id,
                        timestamp,
                        success if isinstance(success, bool) else None,
                        self.cost_usd if self._priced else None,
                        self.iterations,
                        round(seconds * 1e3, 3),
                    )
                )


class Iteration(_Block):
    """One turn of the loop; made by Task.iteration(). In the block, call answered() once the model has."""

    __slots__ = (
        "_answered",
        "_attributes",
        "_began",
        "_final",
        "_purpose",
        "_reserve_usd",
        "_reserved",
        "_runtime",
        "_span",
        "_task",
        "_token",
        "_tokens",
        "_usd",
        "number",
    )

    def __init__(self, task: Task, purpose: Purpose | None, reserve_usd: float | None) -> None:
        self.number = 0
        self._task = task
        self._runtime = task._runtime
        self._purpose = purpose
        self._reserve_usd = reserve_usd
        self._reserved = 0.0
        self._span: Span = INVALID_SPAN
        self._token: Token[Context] | None = None
        self._began = 0.0
        self._answered = False
        self._usd: float | None = None
        self._tokens = (0, 0)
        self._final = False
        self._attributes: dict[str, str | bool | int | float] = {}

    def __enter__(self) -> Self:
        task, runtime = self._task, self._runtime
        task.may_go_on()
        self._began = runtime.clock()
        self._reserved = task.reserve(self._reserve_usd, self._began)
        self.number, purpose = task.begin_turn()
        if not runtime.instrumented:
            attributes = {
                "iteration.number": self.number,
                "iteration.model": task.config.model,
                "iteration.provider": task.config.provider,
                "iteration.purpose": self._purpose or purpose,
                **task.attributes,
            }
            self._span = tracing.start(runtime.tracer, tracing.ITERATION, attributes)
            self._token = tracing.enter(self._span)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            tracing.leave(self._token)
            # What fails after the answer is a tool or the agent's own code: the call worked.
            failed = error is not None and not self._answered and not isinstance(error, Cut)
            self._task.end_turn(self._tokens, self._reserved, self._usd, final=self._final)
            if failed:
                self._task.call_failed()
            if "iteration.latency_ms" not in self._attributes:
                self._attributes["iteration.latency_ms"] = (self._runtime.clock() - self._began) * 1e3
            tracing.end(self._span, self._attributes, type(error).__name__ if failed else "")
        except Exception:
            _log.warning("agent %s: an iteration's end was not noted", self._runtime.agent, exc_info=True)

    def first_token(self) -> None:
        """The first token of a streamed answer is here."""
        self._attributes.setdefault("iteration.ttft_ms", (self._runtime.clock() - self._began) * 1e3)

    def answered(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_usd: float | Decimal | None = None,
        model: str | None = None,
        stop_reason: str | None = None,
        final: bool | None = None,
        cache_read_tokens: int | None = None,
        cache_write_tokens: int | None = None,
    ) -> None:
        """The model answered. `input_tokens` are those that no cache knew; `cost_usd` comes from the Runtime's prices
        unless given; `model` is the one that the response names; `final` that no tool was asked for."""
        runtime, found = self._runtime, self._attributes
        self._answered = True
        found["iteration.latency_ms"] = (runtime.clock() - self._began) * 1e3
        inputs, outputs = _count(input_tokens), _count(output_tokens)
        if inputs is not None:
            found["iteration.input_tokens"] = inputs
        if outputs is not None:
            found["iteration.output_tokens"] = outputs
        if cache_read_tokens is not None and (count := _count(cache_read_tokens)) is not None:
            found["iteration.cache_read_tokens"] = count
        if cache_write_tokens is not None and (count := _count(cache_write_tokens)) is not None:
            found["iteration.cache_write_tokens"] = count
        self._tokens = inputs or 0, outputs or 0
        self._usd = _number(cost_usd)
        if self._usd is None:
            self._usd = runtime.price(self._task.config.model, *self._tokens)
        stopped = _text(stop_reason)
        self._final = final if isinstance(final, bool) else stopped in _FINAL
        found["iteration.final"] = self._final
        if stopped:
            found["iteration.stop_reason"] = stopped
        if answered := _text(model):
            runtime.answered_by(self._task.config.model, answered)


class ToolCall(_Block):
    """One tool call; made by Task.tool(). An exception that leaves the block is a failed call, unless `failed()` or
    `invalid()` says more."""

    def __init__(self, task: Task, name: str, arguments: object) -> None:
        self._task = task
        self._runtime = task._runtime
        self._name = _text(name)
        self._arguments = tracing.hash_arguments(arguments)
        self._span: Span = INVALID_SPAN
        self._token: Token[Context] | None = None
        self._began = 0.0
        self._result = "ok"
        self._error = ""
        self._confidence: float | None = None

    def __enter__(self) -> Self:
        task, runtime = self._task, self._runtime
        if not task.counts_turns:
            task.may_go_on()
        self._began = runtime.clock()
        if not runtime.instrumented:
            attributes: dict[str, str | bool | int | float] = {"tool.name": self._name, **task.attributes}
            if self._arguments:
                attributes["tool.args_hash"] = self._arguments
            self._span = tracing.start(runtime.tracer, tracing.TOOL, attributes)
            self._token = tracing.enter(self._span)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            tracing.leave(self._token)
            if error is not None and self._result == "ok" and not isinstance(error, (Cut, *_CANCELLED)):
                self.failed(error)
            self._task.tool_ended(self._name, self._arguments, self._error)
            attributes: dict[str, str | bool | int | float] = {
                "tool.latency_ms": (self._runtime.clock() - self._began) * 1e3,
                "tool.result": self._result,
            }
            if self._confidence is not None:
                attributes["tool.confidence"] = self._confidence
            kind_of_error = self._error.partition(":")[0] if self._result == "error" else ""
            tracing.end(self._span, attributes, kind_of_error)
        except Exception:
            _log.warning("agent %s: a tool call's end was not noted", self._runtime.agent, exc_info=True)

    def failed(self, error: BaseException | str) -> None:
        """It ran and failed, malformed answers included. Of the error only its kind leaves the process."""
        self._result = "error"
        kind = type(error).__name__ if isinstance(error, BaseException) else "tool_error"
        self._error = f"{kind}: {_text(error)}"

    def invalid(self, what: str = "") -> None:
        """It was called wrongly: an argument missing or of the wrong type, or no such tool."""
        self._result, self._error = "invalid", f"invalid: {_text(what)}"

    def confidence(self, score: float) -> None:
        """The agent's own score before it committed to this action, 0 to 1."""
        self._confidence = _number(score)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1_000_000_000 else None


def _number(value: object) -> float | None:
    if type(value) is float:
        return value if 0 <= value < math.inf else None
    if value is None or isinstance(value, (bool, str, bytes, bytearray)):
        return None
    try:
        found = float(value)  # type: ignore[arg-type]  # Decimal, Fraction, NumPy's, ...
    except Exception:  # no number, or too large
        return None
    return found if 0 <= found < math.inf else None


def _text(value: object) -> str:
    """Nothing for None, and for what has no text."""
    if type(value) is str:
        return value
    try:
        return "" if value is None else str(value)
    except Exception:  # whoever wrote its __str__
        return ""
