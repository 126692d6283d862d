"""The tasks in flight: the exporter's only state.

`apply(event, now)` is deterministic: what came before decides whether a span is a duplicate, whether a call is
progress, a retry or a recovery, whether a task has begun, ended or been given up. Timers fire as at their own time,
in order, whenever `advance` comes round to them, so that it makes no difference how often it is called.

Times named `now`, `at`, `arrival` are unix seconds by the exporter's own clock; a sender's clock is used for the length
and the order of spans only.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable
from enum import IntEnum
from operator import attrgetter

import msgspec

from exporter import outcomes, twins
from exporter.config import Settings
from exporter.contract import UNKNOWN, VARIANTS
from exporter.dialects import base
from exporter.dialects.common import CANCELLED
from exporter.events import (
    AGENT,
    CALL,
    RESTART,
    SCORE,
    TOOL,
    AgentSpan,
    AnyEvent,
    Event,
    Iteration,
    Score,
    ToolCall,
)
from exporter.history import History
from exporter.ledger import Ledger
from exporter.loops import Loop
from exporter.pricing import Pricing
from exporter.traces import (
    MAX_DEPTH,
    Ended,
    Facts,
    Group,
    Past,
    Task,
    Trace,
    Unit,
    Work,
    all_of,
    revived,
    sort_out,
    work_of,
)

# An agent span below a parent of the same process that has not ended: most often a request handler, which ends soon.
_AGENT_GRACE_SECONDS = 60.0
# A trace that is over is kept as it is for so long, for late spans; then only what is needed to know it again.
_SETTLED_SECONDS = 60.0
# A trace without anything of an agent's in it is forgotten after so much silence.
_IDLE_SECONDS = 600.0
# A score waits so long for the first span of its task.
_SCORE_SECONDS = 600.0
_MOST_WAITING_SCORES = 10_000
_MOST_SCORES_PER_TRACE = 100
_MOST_ENDED_PER_TRACE = 200
# So many spans that began after their trace's root ended are kept for another task; more are nobody's.
_MOST_LEFT = 1000
_NEVER = 1 << 64
# A share of a sum by which it differs when its parts are added in another order.
_ROUNDING = 1e-9
_end_ns = attrgetter("end_ns")
_MOST_TIMERS = 100_000  # before those of forgotten traces are cleared away
_OF_TRACE = frozenset({"silence", "start", "alone", "grace"})


class Verdict(IntEnum):
    """What became of an event; `VERDICTS` has the words."""

    CALL = 0
    TOOL = 1
    TASK = 2
    SCORE = 3
    LATE = 4
    RESUMED = 5
    UNANSWERED = 6
    PASSAGE = 7
    HELD = 8
    TWIN = 9
    DUPLICATE = 10
    FAULT = 11
    RESTART = 12


# Of a span the first word is the result of `agent_exporter_spans_total`, the rest the reason behind it.
VERDICTS = (
    "counted as an iteration",
    "counted as a tool call",
    "counted as a task, or as part of one",
    "a score",
    "counted, its task had ended",
    "counted, its task had been given up",
    "ignored: a call that was never answered",
    "ignored: holds others together",
    "ignored for now: waits for the span that reports the same call",
    "duplicate: another span reports the same call",
    "duplicate: this span was counted before",
    "rejected: a fault of the exporter",
    "a restart",
)
_CALL, _TOOL, _TASK, _SCORE, _LATE, _RESUMED, _UNANSWERED, _PASSAGE, _HELD, _TWIN, _DUPLICATE, _FAULT, _RESTART = map(
    int, Verdict
)


class _State(msgspec.Struct, array_like=True):
    """Everything but the traces, as a checkpoint keeps it."""

    now: float
    timers: list[tuple[float, int, str, bytes, bytes]]
    ticket: int
    elsewhere: twins.Elsewhere
    waiting_scores: list[tuple[float, Score]]
    history: History
    rollouts: dict[str, float]


class Running(msgspec.Struct):
    """An agent's tasks in flight, summed up: iterations, seconds and spend (USD) are those of the worst."""

    tasks: int = 0
    looping: Counter[str] = msgspec.field(default_factory=Counter)
    iterations: int = 0
    seconds: float = 0.0
    spend: float = 0.0

    def add(self, other: "Running") -> None:
        self.tasks += other.tasks
        self.looping.update(other.looping)
        self.iterations = max(self.iterations, other.iterations)
        self.seconds = max(self.seconds, other.seconds)
        self.spend = max(self.spend, other.spend)


class Tasks:
    def __init__(
        self, settings: Settings, ledger: Ledger, pricing: Pricing, rejected: Counter[str], *, journaled: bool = False
    ) -> None:
        """`rejected` takes the values that no one can mean, by key and why; `journaled` has changes noted for the next
        checkpoint."""
        self._settings = settings
        self._limits = settings.limits
        self._most_spans = settings.max_spans_per_task
        self._most_in_flight = settings.max_spans_in_flight
        self._some_poll = any(settings.limits(agent).polling_tools for agent in ("*", *settings.agents))
        self._ledger = ledger
        self._pricing = pricing
        self._rejected = rejected
        self._journaled = journaled
        self._traces: dict[bytes, Trace] = {}
        self._past: dict[bytes, Past] = {}  # the one that ended longest ago first
        self._spans = 0  # that are remembered,
        self._past_spans = 0  # and of these, in traces that are over
        self._ended = 0
        self._timers: list[tuple[float, int, str, bytes, bytes]] = []
        self._ticket = 0
        self._most_timers = _MOST_TIMERS
        self._elsewhere = twins.Elsewhere()
        self._waiting_scores: list[tuple[float, Score]] = []
        self._history = History()
        self._rollouts: dict[str, float] = {}  # when each was last heard of
        self._changed: set[bytes] = set()
        self._forgotten: set[bytes] = set()
        self.now = 0.0

    # -- in ------------------------------------------------------------------------------------------------------------

    def apply(self, events: list[AnyEvent], now: float, fault: Callable[[Exception], None]) -> list[int]:
        """Take the events of one request in, in the order of `in_order`; returns a `Verdict` for each.

        `fault` is told of an exception, which is a fault of ours: the event's verdict is FAULT, and the rest goes on.
        """
        if not (events and events[0].kind == RESTART):
            self.advance(now)
        verdicts = []
        for event in events:
            try:
                kind = event.kind
                if kind < SCORE:
                    verdicts.append(self._span(event, kind))  # type: ignore[arg-type]
                elif kind == SCORE:
                    verdicts.append(self._score(event))  # type: ignore[arg-type]
                else:
                    self._restart(now)
                    verdicts.append(_RESTART)
            except Exception as error:
                fault(error)
                verdicts.append(_FAULT)
        return verdicts

    def advance(self, now: float) -> bool:
        """Let the clock reach `now`: every timer before it fires, as at its own time. Returns whether one did."""
        timers = self._timers
        fired = bool(timers) and timers[0][0] <= now
        while timers and timers[0][0] <= now:
            at, _ticket, what, key, span_id = heapq.heappop(timers)
            self.now = max(self.now, at)
            self._fire(what, key, span_id)
        self.now = max(self.now, now)
        oldest = self.now - self._remember_seconds()
        while self._past:
            trace_id, past = next(iter(self._past.items()))
            if past.last_arrival > oldest:
                break
            self._forget(trace_id)
        return fired

    def end_of_time(self) -> float:
        """A moment after every time-out of what is in flight now; for replays."""
        agents = [self._settings.limits("*"), *(self._settings.limits(agent) for agent in self._settings.agents)]
        return self.now + max(limits.give_up_seconds for limits in agents) + 4 * _IDLE_SECONDS

    def _span(self, event: Event, kind: int) -> int:
        trace_id = event.trace_id
        trace = self._traces.get(trace_id)
        if trace is None:
            past = self._past.get(trace_id)
            trace = self._begin(event) if past is None else self._revive(trace_id, past)
        span_id = event.span_id
        if span_id in trace.spans or span_id in trace.seen:
            return _DUPLICATE
        trace.last_arrival = self.now
        if self._journaled:
            self._changed.add(trace_id)
        self._spans += 1
        if self._spans - self._past_spans > self._most_in_flight:
            self._make_room(trace_id)
        spans = trace.spans
        if len(spans) >= self._most_spans:
            self._shorten(trace)
        spans[span_id] = event
        if trace.children is not None:
            trace.children.setdefault(event.parent_id, []).append(span_id)
        if event.start_ns > trace.last_start_ns:
            trace.last_start_ns = event.start_ns
        if event.facts:
            trace.work.note(event.facts)
        if kind == CALL:
            if event.client and not event.parent_id:  # type: ignore[attr-defined]
                return self._lone_call(trace, event)  # type: ignore[arg-type]
            return self._call(trace, event)  # type: ignore[arg-type]
        if kind == TOOL:
            return self._tool_call(trace, event)  # type: ignore[arg-type]
        if kind == AGENT:
            return self._agent_span(trace, event)  # type: ignore[arg-type]
        if span_id in trace.called:
            trace.mark_called(event)
        if event.error and event.dialect and event.parent_id:
            trace.failed[event.parent_id] = event.error
        if not event.parent_id or event.remote:
            self._top(trace, event)
        return _PASSAGE

    def _begin(self, event: Event) -> Trace:
        if len(self._traces) >= self._settings.max_traces:
            self._make_room(event.trace_id)
        trace = self._traces[event.trace_id] = Trace(self.now, event.agent)
        self._forgotten.discard(event.trace_id)
        self._timer(min(_IDLE_SECONDS, self._give_up_seconds(trace)), "silence", event.trace_id)
        if self._waiting_scores:
            for _until, score in self._waiting_scores:
                if score.trace_id == event.trace_id:
                    trace.scores.append(score)
            self._waiting_scores = [w for w in self._waiting_scores if w[1].trace_id != event.trace_id]
        return trace

    def _revive(self, trace_id: bytes, past: Past) -> Trace:
        del self._past[trace_id]
        self._past_spans -= past.size()
        trace = self._traces[trace_id] = revived(past, self.now)
        self._timer(_SETTLED_SECONDS, "silence", trace_id)
        return trace

    # -- calls and tools -----------------------------------------------------------------------------------------------

    def _lone_call(self, trace: Trace, event: Iteration) -> int:
        """An SDK's own report, in a trace of its own: its twin may have come, may yet come, or there is none."""
        if self._elsewhere.has_come(event):
            event.twin, trace.whole = True, False
            return _TWIN
        if self._elsewhere.hold(event, self.now):
            event.twin, trace.whole = True, False
            self._timer(twins.HOLD_SECONDS, "hold", event.instance.encode())
            return _HELD
        return self._call(trace, event)

    def _call(self, trace: Trace, event: Iteration) -> int:
        parent_id = event.parent_id
        parent_known = parent_id in trace.spans
        late = self._is_over(trace, event) if trace.seen else False
        if (
            event.scope != trace.call_scope
            or event.response_id
            or parent_known
            or trace.summed
            or event.span_id in trace.called
        ) and twins.counted_before(trace, event):
            event.twin = True
            if event.span_id in trace.called:
                trace.mark_called(event)
            verdict = _TWIN
        elif not event.answered and (not event.error or event.error == CANCELLED):
            if not late:
                self._task_of(trace, event)
            verdict = _UNANSWERED
        else:
            twins.remember(trace, event)
            task = None if late else self._task_of(trace, event)
            cost, model = self._price(event)
            if cost:
                event.spend = cost
            purpose = event.purpose or (task.purpose(event) if task is not None else "progress")
            self._ledger.call(event, model, self._variant(trace, task, event), purpose, cost)
            if task is not None:
                self._go_round(task, event)
            verdict = _CALL if not (late or trace.given_up) else self._afterwards(trace, event)
        trace.work.call(event)
        if self._elsewhere.recent:
            self._elsewhere.note(event, self.now)
        if late or parent_known or not parent_id or event.remote:
            self._settle_in(trace, event, late)
        return verdict

    def _go_round(self, task: Task, event: Iteration) -> None:
        """The task took another turn of its loop."""
        task.iterations += 1
        task.spend += event.spend
        task.went_on(event)
        loop = task.loop
        loop.iteration()
        if loop.why or task.iterations > task.loop_from:
            self._look_for_loop(task, event)

    def _tool_call(self, trace: Trace, event: ToolCall) -> int:
        if trace.failed and not event.error:
            told = trace.failed.pop(event.span_id, "")
            if told:
                event.error, event.result = "tool", told
        late = self._is_over(trace, event) if trace.seen else False
        task = None if late else self._task_of(trace, event)
        if not event.tool and task is not None:
            event.tool = task.asked
        self._ledger.tool(event, self._variant(trace, task, event))
        if task is not None:
            failed = event.result != "ok"
            if failed:
                task.tool_failed = True
                task.tool_parent = event.parent_id
            arguments = event.arguments
            if self._some_poll and event.tool in self._limits(event.agent).polling_tools:
                arguments = b""
            loop = task.loop
            if loop.tool_call(event.tool, failed, arguments, in_iteration=event.dialect == base.NAME) or loop.why:
                self._look_for_loop(task, event)
        trace.work.tool_call(event)
        if late or not event.parent_id or event.remote or event.parent_id in trace.spans:
            self._settle_in(trace, event, late)
        return _TOOL if not (late or trace.given_up) else self._afterwards(trace, event)

    def _is_over(self, trace: Trace, event: Event) -> bool:
        """Whether the span is known to stand below a task that ended."""
        if not event.parent_id:
            return False
        missing, _below_agent = trace.missing_above(event)
        return missing in trace.seen

    def _settle_in(self, trace: Trace, event: Event, late: bool) -> None:
        """A call or a tool call was taken in: perhaps all that it is part of is here."""
        if late:
            trace.let_go((event.span_id,))
        elif not event.parent_id or event.remote:
            self._top(trace, event)
        elif event.parent_id in trace.spans:
            missing, below_agent = trace.missing_above(event)
            if not missing and not below_agent:  # a plain root, which came before
                self._look_at(trace, event.trace_id, self._settings.parent_grace_seconds, b"")

    def _afterwards(self, trace: Trace, event: Event) -> int:
        """The verdict on what comes after its task."""
        if trace.given_up:
            self._ledger.resumed(event.agent)
            return _RESUMED
        return _LATE

    def _variant(self, trace: Trace, task: Task | None, event: Event) -> str:
        """The task's variant: that of its first span. A span that tells another variant or agent is noted."""
        told = event.variant
        if task is not None and not told and event.agent == task.agent:
            return task.variant
        first = task or (trace.ended[-1] if trace.ended else None)
        if first is None:
            return "canary" if told == "canary" else "stable"
        if event.agent != first.agent or (told and told != first.variant and told in VARIANTS):
            self._ledger.late_labels()
        return first.variant

    def _price(self, event: Iteration) -> tuple[float | None, str]:
        """(USD or None where no price is known, the model's label)."""
        model, answered_by = event.model, event.answered_by
        if not model:
            model = answered_by or self._default_model(event.agent)
        inputs = event.input
        if inputs is None:
            return None, model or UNKNOWN
        if not model:
            rate = self._history.usd_per_token(event.agent)
            return (None if rate is None else rate * event.tokens), UNKNOWN
        cost = None
        if answered_by and answered_by != model:
            cost = self._pricing.cost(
                answered_by, event.provider, inputs, event.output, event.cache_read, event.cache_write
            )
        if cost is None:
            cost = self._pricing.cost(model, event.provider, inputs, event.output, event.cache_read, event.cache_write)
        return cost, model

    def _default_model(self, agent: str) -> str:
        return self._limits(agent).default_model if self._settings.agents else ""

    def _look_for_loop(self, task: Task, event: Event) -> None:
        limits = self._limits(task.agent)
        most = float(limits.loop_iterations)
        if task.iterations > most:
            most = max(most, limits.loop_iterations_factor * self._history.iterations_p99(task.agent))
        loop = task.loop
        loop.why = loop.reason(task.iterations, limits.loop_failing_iterations, limits.loop_repeat_iterations, most)
        if loop.why and loop.why not in loop.seen:
            loop.seen.append(loop.why)
            self._ledger.looped(task, loop.why, event.trace_id.hex())

    # -- tasks begin ---------------------------------------------------------------------------------------------------

    def _task_of(self, trace: Trace, event: Event) -> Task | None:
        """The task in flight that a call or a tool call belongs to; it begins here if it has not."""
        task = trace.open
        if task is not None:
            if not task.started:
                self._start(task)
            return task
        if trace.given_up or (trace.ended and trace.is_late(event)):
            return None  # it is the ended task's, until an agent span of its own tells otherwise
        may_stand_alone = self._stand_alone(event.agent)
        if not event.parent_id and not may_stand_alone:
            return None  # a lone call, from a service that has agent spans
        task = self._new_task(trace, event)
        if may_stand_alone:
            self._start(task)
        else:
            # Perhaps a lone call below a request handler: a second one, or a moment, decides.
            self._timer(self._settings.parent_grace_seconds, "start", event.trace_id)
        return task

    def _stand_alone(self, agent: str) -> bool:
        """Whether calls outside any agent span are tasks of their own."""
        policy = self._settings.bare_calls_are_tasks
        return policy == "always" or (policy == "auto" and not self._history.sends_agent_spans(agent))

    def _new_task(self, trace: Trace, event: Event) -> Task:
        length = max(0, event.end_ns - event.start_ns) / 1e9
        variant = "canary" if event.variant == "canary" else "stable"
        began = self.now - min(length, 86_400.0)
        trace.open = Task(event.agent, variant, event.rollout, began, self._limits(event.agent).loop_iterations)
        trace.agent = event.agent
        give_up = self._give_up_seconds(trace)
        if give_up < _IDLE_SECONDS or trace.ended:
            self._timer(give_up, "silence", event.trace_id)
        return trace.open

    def _start(self, task: Task) -> None:
        task.started = True
        self._ledger.started(task)
        if task.rollout:
            name = task.rollout[0]
            if name not in self._rollouts:
                self._timer(3600 * self._settings.rollout_hours, "rollout", name.encode())
            self._rollouts[name] = self.now

    # -- tasks end -----------------------------------------------------------------------------------------------------

    def _agent_span(self, trace: Trace, event: AgentSpan) -> int:
        self._history.sent_agent_span(event.agent)
        if trace.given_up:
            self._ledger.resumed(event.agent)
            return _RESUMED
        if trace.seen and self._is_over(trace, event):
            trace.let_go((event.span_id,))
            return _LATE
        task = trace.open or self._new_task(trace, event)
        if not task.started:
            self._start(task)
        self._variant(trace, task, event)
        if not event.parent_id:
            if _has_sums(event) and not any(span.kind in (CALL, TOOL) for span in trace.spans.values()):
                # Nothing was counted below it, and it tells sums: its calls may be on their way by another road.
                trace.whole = False
                self._timer(self._settings.parent_grace_seconds, "alone", event.trace_id, event.span_id)
            else:
                self._end_root(trace, event)
            return _TASK
        trace.whole = False  # the task's own span is not the only agent's in it
        missing, below_agent = trace.missing_above(event)
        if below_agent:
            return _TASK
        if not event.nested:
            # What ended inside an agent span runs no more, even while a parent of that span is awaited: a script that
            # runs a thousand tasks below one span is no runaway.
            task.iterations = max(0, task.iterations - trace.close(event))
            if not task.iterations:
                task.loop = Loop(seen=task.loop.seen)
        if not missing:  # a plain root, which came before
            self._look_at(trace, event.trace_id, 0.0, b"")
        elif event.remote:
            self._top(trace, event)
        elif not event.nested:
            self._look_at(trace, event.trace_id, _AGENT_GRACE_SECONDS, event.span_id, agent=True)
        return _TASK

    def _top(self, trace: Trace, event: Event) -> None:
        """The span may be the top of all below it: at once, or when a parent in another process does not come."""
        if not event.parent_id:
            self._resolve(trace, event.trace_id, list(sort_out(trace).values()), event)
            self._go_on(trace, event.trace_id)
        elif event.parent_id not in trace.spans:
            self._look_at(trace, event.trace_id, self._settings.parent_grace_seconds, event.parent_id)

    def _resolve(self, trace: Trace, trace_id: bytes, groups: list[Group], root: Event) -> None:
        """`root` is the top of these groups: each topmost agent span in them is a task, else all is one request."""
        units = [unit for group in groups for unit in group.units.values()]
        rest_ids = [span_id for group in groups for span_id in group.rest_ids]
        for unit in units:
            self._end_unit(trace, unit)
        if not units:
            rest = groups[0].rest if len(groups) == 1 else work_of(trace.spans[span_id] for span_id in rest_ids)
            if not rest:
                return
            self._end_bare(trace, root, rest)
        trace.let_go(rest_ids)

    def _end_root(self, trace: Trace, event: AgentSpan) -> None:
        self._end_unit(trace, all_of(trace, event))
        if len(trace.spans) > _MOST_LEFT:
            trace.let_go(list(trace.spans))
        self._go_on(trace, event.trace_id)

    def _end_bare(self, trace: Trace, root: Event, work: Work) -> None:
        task = trace.open
        if task is None or not task.started:
            if trace.given_up or trace.ended or not self._stand_alone(trace.agent):
                trace.open = None
                return
            task = task or self._new_task(trace, root)
            self._start(task)
        goal = self._goal_reached(work, root.facts, UNKNOWN)
        outcome = outcomes.of_root(root, work, goal)
        self._end(trace, root, task, UNKNOWN, outcome, work)

    def _end_unit(self, trace: Trace, unit: Unit) -> None:
        span = unit.span
        task = trace.open or self._new_task(trace, span)
        if not task.started:
            self._start(task)
        task_type = span.task_type or span.name or unit.inner_name or UNKNOWN
        self._own_sums(trace, task, unit)
        goal = self._goal_reached(unit.work, span.facts, task_type)
        self._end(trace, span, task, task_type, outcomes.of_agent(unit, goal), unit.work)
        trace.let_go(unit.spans)

    def _own_sums(self, trace: Trace, task: Task, unit: Unit) -> None:
        """What only the task itself told: its token sums where nothing was counted below, and money beyond that."""
        span, work = unit.span, unit.work
        told = span.cost_usd
        if told is not None and told > self._settings.cost_cap_usd:
            self._rejected["task.cost_usd: over cost_cap_usd"] += 1
            told = None
        if not work.iterations:
            if _has_sums(span):
                self._count_sums(trace, task, unit, told)
            work.iterations = span.iterations or 0
        if told is not None:
            if told - work.spend > _ROUNDING * told:
                model = span.model or self._limits(task.agent).default_model or UNKNOWN
                self._ledger.spend(task, model, told - work.spend)
                work.spend = told
            if told and work.tokens:
                self._history.cost(task.agent, told, work.tokens)

    def _count_sums(self, trace: Trace, task: Task, unit: Unit, told: float | None) -> None:
        span, work = unit.span, unit.work
        model = span.model or self._limits(task.agent).default_model
        counts = (span.input or 0, span.output, span.cache_read, span.cache_write)
        cost = self._pricing.cost(model, span.provider, *counts) if model else None
        if not model and (rate := self._history.usd_per_token(task.agent)) is not None:
            cost = rate * sum(counts)
        if cost is None and told is not None:
            cost = 0.0  # what it cost is told, and added by the caller
        self._ledger.sums(task, model or UNKNOWN, counts, cost)
        work.tokens += sum(counts)
        work.spend += cost or 0.0
        trace.summed = True

    def _goal_reached(self, work: Work, facts: Facts | None, task_type: str) -> bool | None:
        """What the user's rule for the task type says of the whole task's span attributes; None without a rule."""
        conditions = self._settings.success.get(task_type) or self._settings.success.get("*")
        if not conditions:
            return None
        return outcomes.reached(conditions, {**work.facts, **(facts or {})})

    def _end(
        self,
        trace: Trace,
        top: Event,
        task: Task,
        task_type: str,
        outcome: outcomes.Outcome,
        work: Work,
        *,
        finished: bool = True,
    ) -> None:
        start_ns, end_ns, trace_id = top.start_ns, top.end_ns, top.trace_id.hex()
        seconds = (end_ns - start_ns) / 1e9 if finished and end_ns >= start_ns else None
        deadline = self._limits(task.agent).task_deadline_seconds
        if deadline is not None and seconds is not None and seconds > deadline and outcome[0] != "success":
            outcome = ("abandoned", "timeout")
        self._ledger.ended(task, task_type, *outcome, seconds, work.iterations, work.spend, trace_id)
        if task.rollout:
            self._rollouts[task.rollout[0]] = self.now
        if outcome[0] in ("success", "failure"):
            self._history.took(task.agent, work.iterations)
        confidence = top.confidence if isinstance(top, AgentSpan) else None
        if confidence is None:
            confidence = work.confidence
        if confidence is not None:
            self._ledger.score(task.agent, task_type, task.variant, "confidence", confidence, trace_id)
        ended = Ended(top.span_id, task.agent, task_type, task.variant, start_ns, end_ns)
        if len(trace.ended) >= _MOST_ENDED_PER_TRACE:
            self._ended -= len(trace.ended) - _MOST_ENDED_PER_TRACE // 2
            trace.ended = trace.ended[-_MOST_ENDED_PER_TRACE // 2 :]
        trace.ended.append(ended)
        self._ended += 1
        trace.open = None
        for score in trace.scores:
            self._give(score, trace.ended_task(score.span_id) or ended)
        trace.scores.clear()

    def _go_on(self, trace: Trace, trace_id: bytes) -> None:
        """After a task of the trace ended: what is left in the trace is of another one, or nothing is."""
        if trace.open is None and trace.spans and trace.ended:
            groups = sort_out(trace).values()
            unit = next((unit for group in groups for unit in group.units.values()), None)
            last = max(ended.end_ns for ended in trace.ended)
            rest = [group.rest for group in groups if group.rest and group.rest.first_ns >= last]
            if unit is not None:
                self._start(self._new_task(trace, unit.span))
            elif rest:
                before = trace.ended[-1]
                most = self._limits(before.agent).loop_iterations
                trace.open = Task(before.agent, before.variant, None, self.now, most)
                trace.open.iterations = sum(work.iterations for work in rest)
                trace.open.spend = sum(work.spend for work in rest)
                self._timer(self._settings.parent_grace_seconds, "start", trace_id)
        if trace.open is None:
            self._timer(_SETTLED_SECONDS, "silence", trace_id)

    # -- scores --------------------------------------------------------------------------------------------------------

    def _score(self, score: Score) -> int:
        trace = self._traces.get(score.trace_id)
        past = self._past.get(score.trace_id) if trace is None else None
        if past is not None:
            ended = next((e for e in past.ended if e.top == score.span_id), past.ended[-1] if past.ended else None)
        elif trace is not None:
            ended = trace.ended_task(score.span_id)
        elif len(self._waiting_scores) < _MOST_WAITING_SCORES:
            self._waiting_scores.append((self.now + _SCORE_SECONDS, score))
            self._timer(_SCORE_SECONDS, "scores", b"")
            return _SCORE
        else:
            ended = None
        if ended is not None:
            self._give(score, ended)
        elif trace is not None and len(trace.scores) < _MOST_SCORES_PER_TRACE:
            trace.scores.append(score)
            if self._journaled:
                self._changed.add(score.trace_id)
        else:
            self._ledger.unmatched_score()
        return _SCORE

    def _give(self, score: Score, task: Ended) -> None:
        if score.only is None or task.agent in score.only:
            trace_id = score.trace_id.hex()
            self._ledger.score(task.agent, task.task_type, task.variant, score.name, score.value, trace_id)
        else:
            self._ledger.unmatched_score()

    # -- time ----------------------------------------------------------------------------------------------------------

    def _timer(self, seconds: float, what: str, key: bytes, span_id: bytes = b"") -> None:
        self._ticket += 1
        if len(self._timers) > self._most_timers:
            # Traces that were let go leave timers behind.
            self._timers[:] = [t for t in self._timers if t[2] not in _OF_TRACE or t[3] in self._traces]
            heapq.heapify(self._timers)
            self._most_timers = 2 * len(self._timers) + _MOST_TIMERS
        heapq.heappush(self._timers, (self.now + seconds, self._ticket, what, key, span_id))

    def _fire(self, what: str, key: bytes, span_id: bytes) -> None:
        match what:
            case "hold":
                self._release(key.decode())
            case "scores":
                for until, _score in self._waiting_scores:
                    if until <= self.now:
                        self._ledger.unmatched_score()
                self._waiting_scores = [w for w in self._waiting_scores if w[0] > self.now]
            case "rollout":
                self._rollout_over(key.decode())
            case _:
                trace = self._traces.get(key)
                if trace is not None:
                    if self._journaled:
                        self._changed.add(key)
                    self._trace_timer(what, trace, key, span_id)

    def _trace_timer(self, what: str, trace: Trace, trace_id: bytes, span_id: bytes) -> None:
        match what:
            case "silence":
                self._silence(trace, trace_id)
            case "start":
                if trace.open is not None and not trace.open.started:
                    self._start(trace.open)
            case "alone":
                event = trace.spans.get(span_id)
                if isinstance(event, AgentSpan):
                    self._end_root(trace, event)
            case "grace":
                self._grace_over(trace, trace_id, int.from_bytes(span_id, "big"))

    def _release(self, instance: str) -> None:
        for event in self._elsewhere.due(instance, self.now):
            trace = self._traces.get(event.trace_id)
            if trace is not None:
                if self._journaled:
                    self._changed.add(event.trace_id)
                event.twin = False
                trace.spans[event.span_id] = event
                self._call(trace, event)

    def _look_at(self, trace: Trace, trace_id: bytes, seconds: float, span_id: bytes, *, agent: bool = False) -> None:
        """When so many seconds are over, see whether an agent span (`agent`), or what stands below the missing parent
        or the plain root with this id, is a task. To the whole second, so that a trace is sorted out once for many."""
        slot = math.ceil(self.now + seconds)
        waiting = trace.grace.get(slot)
        if waiting is None:
            waiting = trace.grace[slot] = []
            self._timer(slot - self.now, "grace", trace_id, slot.to_bytes(8, "big"))
        if not waiting or waiting[-1] != (agent, span_id):
            waiting.append((agent, span_id))

    def _grace_over(self, trace: Trace, trace_id: bytes, slot: int) -> None:
        """Parents that were waited for have not come: what is below is a task, unless it proves to be inside one."""
        groups = sort_out(trace)
        inside = _Inside(groups)
        for agent, span_id in dict.fromkeys(trace.grace.pop(slot, ())):
            if agent:
                event = trace.spans.get(span_id)
                missing, below_agent = trace.missing_above(event) if event is not None else (b"", True)
                unit = groups[missing].units.get(span_id) if missing and not below_agent else None
                if unit is not None and not inside.holds(unit):
                    self._end_unit(trace, unit)
            elif span_id not in trace.spans:
                group = groups.pop(span_id, None)
                if group is not None and group.top is not None and not inside.holds_any(group, span_id):
                    self._resolve(trace, trace_id, [group], group.top)
        self._go_on(trace, trace_id)

    def _silence(self, trace: Trace, trace_id: bytes) -> None:
        """Nothing came for a while: a task in flight is given up, a trace that is over is let go."""
        if trace.open is not None or (not trace.ended and any(span.kind for span in trace.spans.values())):
            wait = self._give_up_seconds(trace)
        else:
            wait = _SETTLED_SECONDS if trace.ended else _IDLE_SECONDS
        left = trace.last_arrival + wait - self.now
        if left > 0:
            self._timer(left, "silence", trace_id)
            return
        self._give_up(trace, trace_id)
        if trace.ended:
            self._settle(trace, trace_id)
        else:
            self._forget(trace_id)

    def _give_up(self, trace: Trace, trace_id: bytes) -> None:
        """Agent spans that ended under a parent which never came are tasks that ended; the rest never finished."""
        groups = sort_out(trace).values()
        units = [unit for group in groups for unit in group.units.values()]
        steps = [unit for unit in units if unit.span.nested]
        rest_ids = [k for g in groups for k in g.rest_ids] + [k for unit in steps for k in unit.spans]
        rest = work_of(trace.spans[span_id] for span_id in rest_ids)
        # The last chain to end: a step of an agent that was never heard of.
        step = max((unit.span for unit in steps), key=lambda span: span.end_ns, default=None)
        for unit in units:
            if not unit.span.nested:
                self._end_unit(trace, unit)
        task = trace.open
        if task is None and (rest or step is not None) and not trace.ended:
            task = trace.open = Task(trace.agent, "stable", None, self.now, 0)
        if task is None:
            return
        if not task.started and (self._stand_alone(task.agent) or rest.tools or rest.calls > 1 or step is not None):
            self._start(task)
        if not task.started:
            trace.open = None  # a lone call
            return
        outcome = ("abandoned", "never_finished")
        if step is not None and step.error and step.end_ns >= rest.last_ns:
            outcome = outcomes.of_agent(Unit(step, rest), None)  # it died of the step that failed
        elif rest.calls and not rest.call_answered and rest.call_end_ns >= rest.last_ns:
            outcome = outcomes.USER_CANCEL  # its last call ended without an answer: it was interrupted there
        top = Event(
            trace_id, b"", b"", False, rest.first_ns, rest.last_ns, task.agent, "", "", "", "", "", None, None
        )  # fmt: skip
        task_type = (step.task_type if step is not None else "") or UNKNOWN
        self._end(trace, top, task, task_type, outcome, rest, finished=False)
        trace.given_up = True

    def _rollout_over(self, name: str) -> None:
        left = self._rollouts.get(name, 0.0) + 3600 * self._settings.rollout_hours - self.now
        if left > 0:
            self._timer(left, "rollout", name.encode())
        else:
            self._rollouts.pop(name, None)
            self._ledger.forget_rollout(name)

    def _restart(self, now: float) -> None:
        """The silence until now was the exporter's own: nobody is given up for it, and every grace time goes on."""
        gap = max(0.0, now - self.now)
        self._timers = [(at + gap, *rest) for at, *rest in self._timers]  # type: ignore[misc]
        self._elsewhere.postpone(gap)
        self._waiting_scores = [(until + gap, score) for until, score in self._waiting_scores]
        for trace_id, trace in self._traces.items():
            trace.last_arrival += gap
            if self._journaled:
                self._changed.add(trace_id)
        self.now = max(self.now, now)

    # -- memory --------------------------------------------------------------------------------------------------------

    def _shorten(self, trace: Trace) -> None:
        """Of a very long trace keep the ids of the latest spans, and nothing else but its agents."""
        most = self._most_spans
        before = trace.size()
        agents = sum(span.kind == AGENT for span in trace.spans.values())
        trace.let_go([k for k, span in trace.spans.items() if span.kind != AGENT or agents > most // 2])
        for span_id in list(trace.seen)[:-most]:
            del trace.seen[span_id]
        trace.called.clear()
        trace.failed.clear()
        self._spans += trace.size() - before

    def _give_up_seconds(self, trace: Trace) -> float:
        return self._settings.limits(trace.open.agent if trace.open else trace.agent).give_up_seconds

    def _remember_seconds(self) -> float:
        return 3600 * max(self._settings.seen_hours, self._settings.remembered_hours)

    def _settle(self, trace: Trace, trace_id: bytes) -> None:
        """The trace is over: keep its spans' ids and its tasks' labels."""
        del self._traces[trace_id]
        if self._journaled:
            self._changed.add(trace_id)
        past = self._past[trace_id] = trace.past()
        self._spans += past.size() - trace.size()
        self._past_spans += past.size()
        for _ in trace.scores:
            self._ledger.unmatched_score()
        while self._past and (self._spans > self._settings.seen_spans or self._ended > self._settings.remembered_tasks):
            self._forget(next(iter(self._past)))

    def _make_room(self, for_trace: bytes) -> None:
        """There is no room for another: of the oldest trace, what is in flight is given up, and it is let go."""
        trace_id = next((oldest for oldest in self._traces if oldest != for_trace), None)
        if trace_id is None:
            return
        trace = self._traces[trace_id]
        self._give_up(trace, trace_id)
        if trace.ended:
            self._settle(trace, trace_id)
        else:
            self._forget(trace_id)

    def _forget(self, trace_id: bytes) -> None:
        gone = self._traces.pop(trace_id, None) or self._past.pop(trace_id)
        self._spans -= gone.size()
        if isinstance(gone, Past):
            self._past_spans -= gone.size()
        self._ended -= len(gone.ended)
        if isinstance(gone, Trace):
            for _ in gone.scores:
                self._ledger.unmatched_score()
        if self._journaled:
            self._changed.discard(trace_id)
            self._forgotten.add(trace_id)

    # -- out -----------------------------------------------------------------------------------------------------------

    def running(self) -> dict[str, Running]:
        """The tasks in flight by agent."""
        agents: dict[str, Running] = {}
        for trace in self._traces.values():
            task = trace.open
            if task is None or not task.started:
                continue
            found = agents.get(task.agent)
            if found is None:
                found = agents[task.agent] = Running()
            found.tasks += 1
            if task.loop.why:
                found.looping[task.loop.why] += 1
            found.iterations = max(found.iterations, task.iterations)
            found.seconds = max(found.seconds, self.now - task.began)
            found.spend = max(found.spend, task.spend)
        return agents

    def __len__(self) -> int:
        """Traces in memory, those that are over included."""
        return len(self._traces) + len(self._past)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def checkpoint(self) -> tuple[bytes, Iterable[tuple[bytes, float, bytes]], Iterable[bytes]]:
        """(all but the traces; key, last arrival and blob of those that changed; the keys of those forgotten)."""
        encode = msgspec.msgpack.encode
        state = _State(
            self.now,
            self._timers,
            self._ticket,
            self._elsewhere,
            self._waiting_scores,
            self._history,
            self._rollouts,
        )
        changed = []
        for trace_id in self._changed:
            trace = self._traces.get(trace_id)
            if trace is not None:
                changed.append((trace_id, trace.last_arrival, b"t" + encode(trace)))
            elif (past := self._past.get(trace_id)) is not None:
                changed.append((trace_id, past.last_arrival, b"p" + encode(past)))
        return encode(state), changed, list(self._forgotten)

    def checkpointed(self) -> None:
        """The last checkpoint is on disk: the next one holds what changes from now on."""
        self._changed.clear()
        self._forgotten.clear()

    def restore(self, state: bytes, traces: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over a checkpoint; raises msgspec.DecodeError for one that another version wrote."""
        found = msgspec.msgpack.decode(state, type=_State)
        trace_of, past_of = msgspec.msgpack.Decoder(Trace), msgspec.msgpack.Decoder(Past)
        past = {}
        for trace_id, blob in traces:
            if blob[:1] == b"t":
                self._traces[trace_id] = trace_of.decode(blob[1:])
            else:
                past[trace_id] = past_of.decode(blob[1:])
        self._past = dict(sorted(past.items(), key=lambda item: item[1].last_arrival))
        self.now = found.now
        self._timers = found.timers
        heapq.heapify(self._timers)
        self._ticket = found.ticket
        self._elsewhere = found.elsewhere
        self._waiting_scores = found.waiting_scores
        self._history = found.history
        self._rollouts = found.rollouts
        everything: list[Trace | Past] = [*self._traces.values(), *self._past.values()]
        self._spans = sum(trace.size() for trace in everything)
        self._past_spans = sum(past.size() for past in self._past.values())
        self._ended = sum(len(trace.ended) for trace in everything)


def _has_sums(span: AgentSpan) -> bool:
    return bool(span.input or span.output or span.cache_read or span.cache_write)


class _Inside:
    """Whether work that began before an agent's shows that another agent above it runs on: calls outside of any agent
    span, or steps of a chain elsewhere."""

    def __init__(self, groups: dict[bytes, Group]) -> None:
        self._rest_ns = min((g.rest.first_ns for g in groups.values() if g.rest), default=_NEVER)
        self._steps_ns: dict[bytes, int] = {}  # by parent
        for group in groups.values():
            for unit in group.units.values():
                if unit.span.nested:
                    parent_id = unit.span.parent_id
                    self._steps_ns[parent_id] = min(self._steps_ns.get(parent_id, _NEVER), unit.span.start_ns)
        self._first = sorted((ns, parent_id) for parent_id, ns in self._steps_ns.items())[:2]

    def holds_any(self, group: Group, parent_id: bytes) -> bool:
        return any(self.holds(unit) for unit in group.units.values() if unit.span.parent_id == parent_id)

    def holds(self, unit: Unit) -> bool:
        start_ns = unit.span.start_ns
        return self._rest_ns < start_ns or any(
            ns < start_ns and parent_id != unit.span.parent_id for ns, parent_id in self._first
        )


def in_order(spans: list[Event]) -> list[Event]:
    """The spans of one request by end time, but a child before its parent: clocks that tick in milliseconds, and calls
    that are cut off with their task, let a child end at the same time or a little later."""
    spans.sort(key=_end_ns)
    came: set[bytes] = set()
    for span in spans:
        if span.parent_id in came:
            return _children_first(spans)
        came.add(span.span_id)
    return spans


def _children_first(spans: list[Event]) -> list[Event]:
    ends = [(span.end_ns, -span.start_ns, 0) for span in spans]
    by_id = {span.span_id: at for at, span in enumerate(spans)}
    for at, span in enumerate(spans):
        child, steps = at, 0
        while steps < MAX_DEPTH:
            above = by_id.get(span.parent_id)
            if above is None or ends[above] > ends[child]:
                break
            ends[above] = (ends[child][0], ends[child][1], ends[child][2] + 1)
            child, span, steps = above, spans[above], steps + 1
    return [spans[at] for at in sorted(range(len(spans)), key=ends.__getitem__)]
