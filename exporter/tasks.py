"""The tasks in flight: the exporter's only state.

`apply(event, now)` is deterministic: what came before decides whether a span is a duplicate, whether a call is
progress, a retry or a recovery, whether a task has begun, ended or been given up. Timers fire as at their own time,
in order, whenever `advance` comes round to them, so that it makes no difference how often it is called.

Times named `now`, `at`, `arrival` are unix seconds by the exporter's own clock; a sender's clock is used for the length
and the order of spans only.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from exporter import outcomes, twins
from exporter.config import Settings
from exporter.contract import UNKNOWN
from exporter.dialects.common import CANCELLED
from exporter.events import AgentSpan, AnyEvent, Event, Iteration, Restart, Score, ToolCall
from exporter.history import History
from exporter.ledger import Ledger
from exporter.loops import Loop
from exporter.pricing import Pricing
from exporter.traces import (
    AGENT,
    CALL,
    MAX_DEPTH,
    PASSAGE,
    TOOL,
    Ended,
    Past,
    Place,
    Task,
    Trace,
    Unit,
    Work,
    revived,
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
_MOST_ENDED_PER_TRACE = 1000
_ROLLOUT_SECONDS = 48 * 3600.0


class Verdict(StrEnum):
    """What became of a span: the results of `agent_exporter_spans_total`, with the reason behind each."""

    CALL = "counted as an iteration"
    TOOL = "counted as a tool call"
    TASK = "counted as a task, or as part of one"
    SCORE = "counted as a score"
    LATE = "counted, its task had ended"
    RESUMED = "counted, its task had been given up"
    UNANSWERED = "ignored: a call that was never answered"
    PASSAGE = "ignored: holds others together"
    HELD = "ignored for now: waits for the span that reports the same call"
    TWIN = "duplicate: another span reports the same call"
    DUPLICATE = "duplicate: this span was counted before"

    def __init__(self, text: str) -> None:
        self.result = text.split()[0].rstrip(",:")


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
        self._ledger = ledger
        self._pricing = pricing
        self._rejected = rejected
        self._journaled = journaled
        self._traces: dict[bytes, Trace] = {}
        self._past: dict[bytes, Past] = {}  # the one that ended longest ago first
        self._spans = 0  # that are remembered
        self._ended = 0
        self._timers: list[tuple[float, int, str, bytes, bytes]] = []
        self._ticket = 0
        self._elsewhere = twins.Elsewhere()
        self._waiting_scores: list[tuple[float, Score]] = []
        self._history = History()
        self._rollouts: dict[str, float] = {}  # when each was last heard of
        self._changed: set[bytes] = set()
        self._forgotten: set[bytes] = set()
        self.now = 0.0

    # -- in ------------------------------------------------------------------------------------------------------------

    def apply(self, event: AnyEvent, now: float) -> Verdict:
        """Take one event in. Events of one request come in the order of `in_order`."""
        if isinstance(event, Restart):
            self._restart(now)
            return Verdict.PASSAGE
        if self._timers and self._timers[0][0] <= now:
            self.advance(now)
        elif now > self.now:
            self.now = now
        return self._score(event) if isinstance(event, Score) else self._span(event)

    def advance(self, now: float) -> None:
        """Let the clock reach `now`: every timer before it fires, as at its own time."""
        timers = self._timers
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

    def end_of_time(self) -> float:
        """A moment after every time-out of what is in flight now; for replays."""
        agents = [self._settings.limits("*"), *(self._settings.limits(agent) for agent in self._settings.agents)]
        return self.now + max(limits.give_up_seconds for limits in agents) + 4 * _IDLE_SECONDS

    def _span(self, event: Event) -> Verdict:
        trace = self._traces.get(event.trace_id)
        if trace is None:
            past = self._past.get(event.trace_id)
            trace = self._begin(event) if past is None else self._revive(event.trace_id, past)
        if trace.saw(event.span_id):
            return Verdict.DUPLICATE
        trace.last_arrival = self.now
        if self._journaled:
            self._changed.add(event.trace_id)
        self._spans += 1
        if len(trace.nodes) >= self._settings.max_spans_per_task:
            before = trace.size()
            trace.let_go(self._settings.max_spans_per_task)
            self._spans += trace.size() - before
        if isinstance(event, Iteration):
            return self._iteration(trace, event)
        if isinstance(event, ToolCall):
            return self._tool_call(trace, event)
        if isinstance(event, AgentSpan):
            return self._agent_span(trace, event)
        trace.enter(event, PASSAGE)
        if event.error and event.dialect and event.parent_id:
            trace.family(event.parent_id).failed = event.error
        self._top(trace, event)
        return Verdict.PASSAGE

    def _begin(self, event: Event) -> Trace:
        if len(self._traces) >= self._settings.max_traces:
            self._make_room()
        trace = self._traces[event.trace_id] = Trace(self.now, event.agent)
        self._forgotten.discard(event.trace_id)
        self._timer(min(_IDLE_SECONDS, self._give_up_seconds(trace)), "silence", event.trace_id)
        if self._waiting_scores:
            for _until, score in self._waiting_scores:
                if score.trace_id == event.trace_id:
                    trace.scores.append((score.name, score.value, score.span_id))
            self._waiting_scores = [w for w in self._waiting_scores if w[1].trace_id != event.trace_id]
        return trace

    def _revive(self, trace_id: bytes, past: Past) -> Trace:
        del self._past[trace_id]
        trace = self._traces[trace_id] = revived(past, self.now)
        self._spans += trace.size() - past.size()
        self._timer(_SETTLED_SECONDS, "silence", trace_id)
        return trace

    def _top(self, trace: Trace, event: Event) -> None:
        """The span may be the top of all that waits below it: at once, or when a parent elsewhere does not come."""
        if not event.parent_id:
            self._resolve(trace, event, event.span_id)
        elif event.remote and event.parent_id not in trace.nodes:
            family = trace.families.get(event.parent_id)
            if family:
                if family.root is None or type(event) is Event:
                    family.root = event
                self._timer(self._settings.parent_grace_seconds, "root", event.trace_id, event.parent_id)

    # -- calls and tools -----------------------------------------------------------------------------------------------

    def _iteration(self, trace: Trace, event: Iteration) -> Verdict:
        if event.client and not event.parent_id:
            # An SDK's own report, in a trace of its own: its twin may have come, may yet come, or there is none.
            if self._elsewhere.has_come(event):
                trace.enter(event, CALL)
                return Verdict.TWIN
            if self._elsewhere.hold(event, self.now):
                trace.enter(event, CALL)
                self._timer(twins.HOLD_SECONDS, "hold", event.instance.encode())
                return Verdict.HELD
        verdict = self._call(trace, event)
        self._elsewhere.note(event, self.now)
        self._top(trace, event)
        return verdict

    def _call(self, trace: Trace, event: Iteration) -> Verdict:
        below = trace.enter(event, CALL)
        place = trace.place(event)
        work = trace.work_at(place)
        if twins.counted_before(trace, event, below):
            if work is not None and (event.answered or event.error):
                work.last_call(event)
            return Verdict.TWIN
        task = self._task_of(trace, event, place)
        if work is not None:
            work.calls += 1
            work.cover(event.start_ns, event.end_ns)
            work.last_call(event)
            work.learn(event.facts)
        if not event.answered and (not event.error or event.error == CANCELLED):
            return Verdict.UNANSWERED
        twins.remember(trace, event)
        if isinstance(place, bytes) and not trace.in_a_tool(event):
            trace.family(place).calls += 1
        cost, model, tokens = self._price(event)
        purpose = event.purpose or (task.purpose if task is not None else "progress")
        self._ledger.call(event, model, self._variant(trace, task, event), purpose, cost, event.trace_id.hex())
        if work is not None:
            work.iterations += 1
            work.spend += cost or 0.0
            work.tokens += tokens
        if task is not None:
            task.iterations += 1
            task.spend += cost or 0.0
            task.call_failed = bool(event.error)
            task.asked = event.asked
            if event.answered:
                task.tool_failed = False
            task.loop.iteration()
            self._look_for_loop(task, event)
        return self._counted(trace, event, place, Verdict.CALL)

    def _tool_call(self, trace: Trace, event: ToolCall) -> Verdict:
        below = trace.enter(event, TOOL)
        if below is not None and below.failed and not event.error:
            event.error, event.result = "tool", below.failed
        place = trace.place(event)
        task = self._task_of(trace, event, place)
        if not event.tool and task is not None:
            event.tool = task.asked
        self._ledger.tool(event, self._variant(trace, task, event), event.trace_id.hex())
        work = trace.work_at(place)
        if work is not None:
            work.tools += 1
            work.cover(event.start_ns, event.end_ns)
            if event.end_ns >= work.tool_end_ns:
                work.tool_end_ns = event.end_ns
                work.tool_error = event.error
            work.least_sure(event.confidence)
            work.learn(event.facts)
        if task is not None:
            failed = event.result != "ok"
            task.tool_failed = task.tool_failed or failed
            polls = event.tool in self._settings.limits(event.agent).polling_tools
            task.loop.tool_call(event.tool, failed, b"" if polls else event.arguments)
            self._look_for_loop(task, event)
        self._top(trace, event)
        return self._counted(trace, event, place, Verdict.TOOL)

    def _counted(self, trace: Trace, event: Event, place: Place, verdict: Verdict) -> Verdict:
        if trace.given_up:
            self._ledger.resumed(event.agent)
            return Verdict.RESUMED
        return Verdict.LATE if place is None else verdict

    def _variant(self, trace: Trace, task: Task | None, event: Event) -> str:
        """The task's variant: that of its first span. A span that tells another variant or agent is noted."""
        told = event.variant if event.variant in ("stable", "canary") else ""
        first = task or (trace.ended[-1] if trace.ended else None)
        if first is None:
            return told or "stable"
        if (told and told != first.variant) or event.agent != first.agent:
            self._ledger.late_labels()
        return first.variant

    def _price(self, event: Iteration) -> tuple[float | None, str, int]:
        """(USD or None where no price is known, the model's label, all tokens)."""
        model = event.model or event.answered_by or self._settings.limits(event.agent).default_model
        if event.input is None:
            return None, model or UNKNOWN, 0
        counts = (event.input, event.output, event.cache_read, event.cache_write)
        tokens = sum(counts)
        if not model:
            rate = self._history.usd_per_token(event.agent)
            return (None if rate is None else rate * tokens), UNKNOWN, tokens
        cost = self._pricing.cost(event.answered_by, event.provider, *counts) if event.answered_by else None
        if cost is None and model != event.answered_by:
            cost = self._pricing.cost(model, event.provider, *counts)
        return cost, model, tokens

    def _look_for_loop(self, task: Task, event: Event) -> None:
        limits = self._settings.limits(task.agent)
        most = float(limits.loop_iterations)
        if task.iterations > most:
            most = max(most, limits.loop_iterations_factor * self._history.iterations_p99(task.agent))
        loop = task.loop
        loop.why = loop.reason(task.iterations, limits.loop_failing_iterations, limits.loop_repeat_iterations, most)
        if loop.why and loop.why not in loop.seen:
            loop.seen.append(loop.why)
            self._ledger.looped(task, loop.why, event.trace_id.hex())

    # -- tasks begin ---------------------------------------------------------------------------------------------------

    def _task_of(self, trace: Trace, event: Event, place: Place) -> Task | None:
        """The task in flight that a call or a tool call belongs to; it begins here if it has not."""
        if trace.given_up or place is None:
            return None
        task = trace.open
        if task is None:
            if trace.is_late(event):
                return None  # it is the ended task's, until an agent span of its own tells otherwise
            may_stand_alone = self._stand_alone(event.agent)
            if not event.parent_id and not may_stand_alone:
                return None  # a lone call, from a service that has agent spans
            task = self._new_task(trace, event)
            if not may_stand_alone:
                # Perhaps a lone call below a request handler: a second one, or a moment, decides.
                self._timer(self._settings.parent_grace_seconds, "start", event.trace_id)
                return task
        if not task.started:
            self._start(task)
        return task

    def _stand_alone(self, agent: str) -> bool:
        """Whether calls outside any agent span are tasks of their own."""
        policy = self._settings.bare_calls_are_tasks
        return policy == "always" or (policy == "auto" and not self._history.sends_agent_spans(agent))

    def _new_task(self, trace: Trace, event: Event) -> Task:
        length = max(0, event.end_ns - event.start_ns) / 1e9
        variant = "canary" if event.variant == "canary" else "stable"
        trace.open = Task(event.agent, variant, event.rollout, self.now - min(length, 86_400.0))
        trace.agent = event.agent
        self._timer(self._give_up_seconds(trace), "silence", event.trace_id)
        return trace.open

    def _start(self, task: Task) -> None:
        task.started = True
        self._ledger.started(task)
        if task.rollout:
            name = task.rollout[0]
            if name not in self._rollouts:
                self._timer(_ROLLOUT_SECONDS, "rollout", name.encode())
            self._rollouts[name] = self.now

    # -- tasks end -----------------------------------------------------------------------------------------------------

    def _agent_span(self, trace: Trace, event: AgentSpan) -> Verdict:
        below = trace.enter(event, AGENT)
        self._history.sent_agent_span(event.agent)
        unit = Unit(event, Work())
        if below is not None:
            unit.work.add(below.bare)
            for inner in trace.take_units(below):
                unit.absorb(inner)
        if trace.given_up:
            self._ledger.resumed(event.agent)
            return Verdict.RESUMED
        place = trace.place(event)
        if place is None:
            return Verdict.LATE
        if isinstance(place, Unit):
            place.absorb(unit)
            return Verdict.TASK
        task = trace.open or self._new_task(trace, event)
        if not task.started:
            self._start(task)
        self._variant(trace, task, event)
        trace.units[event.span_id] = unit
        if not event.parent_id:
            if unit.work or not _has_sums(event):
                self._end_root(trace, event, unit)
            else:
                # Nothing was counted below it, and it tells sums: its calls may be on their way by another road.
                trace.family(event.span_id).units.append(event.span_id)
                self._timer(self._settings.parent_grace_seconds, "alone", event.trace_id, event.span_id)
            return Verdict.TASK
        trace.family(place).units.append(event.span_id)
        if not event.nested:
            self._runs_on_without(trace, task)
        if place in trace.nodes:  # a plain root, which came before
            self._resolve(trace, event, place)
        elif event.remote:
            self._top(trace, event)
        elif not event.nested:
            self._timer(_AGENT_GRACE_SECONDS, "agent", event.trace_id, event.span_id)
        return Verdict.TASK

    @staticmethod
    def _runs_on_without(trace: Trace, task: Task) -> None:
        """What ended inside an agent span runs no more, even while a parent of that span is awaited: a script that runs
        a thousand tasks below one span is no runaway."""
        task.iterations = sum(
            family.bare.iterations + sum(u.work.iterations for u in trace.units_of(family) if u.span.nested)
            for family in trace.families.values()
        )
        if not task.iterations:
            task.loop = Loop(seen=task.loop.seen)

    def _end_root(self, trace: Trace, event: AgentSpan, unit: Unit) -> None:
        """An agent span without a parent: whatever waits in this trace and began before its end is below it."""
        for family in list(trace.families.values()):
            if family.bare and family.bare.first_ns > event.end_ns:
                continue
            unit.work.add(family.bare)
            family.bare = Work()
            for inner in trace.take_units(family):
                if inner is not unit:
                    unit.absorb(inner)
                    trace.nodes[inner.span.span_id].ended = True
        self._end_unit(trace, unit)
        self._go_on(trace, event.trace_id)

    def _resolve(self, trace: Trace, root: Event, anchor: bytes) -> None:
        """`root` is the top of what waits at `anchor`: each agent span below it is a task, else all is a request."""
        family = trace.families.pop(anchor, None)
        if not family:
            return
        units = trace.units_of(family)
        for unit in units:
            self._end_unit(trace, unit)
        if family.bare and not units:
            self._end_bare(trace, root, family.bare)
        self._go_on(trace, root.trace_id)

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
        trace.units.pop(span.span_id, None)
        task = trace.open or self._new_task(trace, span)
        if not task.started:
            self._start(task)
        task_type = span.task_type or span.name or unit.inner_name or UNKNOWN
        self._own_sums(trace, task, unit)
        goal = self._goal_reached(unit.work, span.facts, task_type)
        self._end(trace, span, task, task_type, outcomes.of_agent(unit, goal), unit.work)

    def _own_sums(self, trace: Trace, task: Task, unit: Unit) -> None:
        """What only the task itself told: its token sums where nothing was counted below, and money beyond that."""
        span, work, trace_id = unit.span, unit.work, unit.span.trace_id.hex()
        model = span.model or self._settings.limits(task.agent).default_model
        told = span.cost_usd
        if told is not None and told > self._settings.cost_cap_usd:
            self._rejected["task.cost_usd: over cost_cap_usd"] += 1
            told = None
        counts = (span.input or 0, span.output, span.cache_read, span.cache_write)
        if not work.iterations and any(counts):
            cost = self._pricing.cost(model, span.provider, *counts) if model else None
            if not model and (rate := self._history.usd_per_token(task.agent)) is not None:
                cost = rate * sum(counts)
            if cost is None and told is not None:
                cost = 0.0  # what it cost is told, and added below
            self._ledger.sums(task, model or UNKNOWN, counts, cost, trace_id)
            work.tokens += sum(counts)
            work.spend += cost or 0.0
            trace.summed = True
        if not work.iterations and span.iterations:
            work.iterations = span.iterations
        if told is not None:
            if told > work.spend:
                self._ledger.spend(task, model or UNKNOWN, told - work.spend, trace_id)
                work.spend = told
            if told and work.tokens:
                self._history.cost(task.agent, told, work.tokens)

    def _goal_reached(
        self, work: Work, facts: dict[str, str | int | float | bool] | None, task_type: str
    ) -> bool | None:
        """What the user's rule for the task type says of the whole task's span attributes; None without a rule."""
        conditions = self._settings.success.get(task_type) or self._settings.success.get("*")
        if not conditions:
            return None
        return outcomes.reached(conditions, {**(work.facts or {}), **(facts or {})})

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
        deadline = self._settings.limits(task.agent).task_deadline_seconds
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
        node = trace.nodes.get(top.span_id)
        if node is not None:
            node.ended = True
        ended = Ended(top.span_id, task.agent, task_type, task.variant, start_ns, end_ns)
        if len(trace.ended) >= _MOST_ENDED_PER_TRACE:
            trace.ended = trace.ended[_MOST_ENDED_PER_TRACE // 2 :]
        trace.ended = [*trace.ended, ended]
        self._ended += 1
        trace.open = None
        for name, value, span_id in trace.scores:
            of = trace.ended_task(span_id) or ended
            self._ledger.score(of.agent, of.task_type, of.variant, name, value, trace_id)
        trace.scores = []

    def _go_on(self, trace: Trace, trace_id: bytes) -> None:
        """After a task of the trace ended: what is left in the trace is of another one, or nothing is."""
        if trace.open is None and trace.ended:
            last = max(ended.end_ns for ended in trace.ended)
            left = [f for f in trace.families.values() if f.units or (f.bare and f.bare.first_ns >= last)]
            units = [unit for family in left for unit in trace.units_of(family)]
            if units:
                self._start(self._new_task(trace, units[0].span))
            elif any(family.bare for family in left):
                before = trace.ended[-1]
                trace.open = Task(before.agent, before.variant, None, self.now)
                trace.open.iterations = sum(family.bare.iterations for family in left)
                trace.open.spend = sum(family.bare.spend for family in left)
                self._timer(self._settings.parent_grace_seconds, "start", trace_id)
        if trace.open is None:
            self._timer(_SETTLED_SECONDS, "silence", trace_id)

    # -- scores --------------------------------------------------------------------------------------------------------

    def _score(self, score: Score) -> Verdict:
        trace = self._traces.get(score.trace_id)
        past = self._past.get(score.trace_id) if trace is None else None
        if past is not None:
            ended = next((e for e in past.ended if e.top == score.span_id), past.ended[-1] if past.ended else None)
        elif trace is not None:
            ended = trace.ended_task(score.span_id)
        elif len(self._waiting_scores) < _MOST_WAITING_SCORES:
            self._waiting_scores.append((self.now + _SCORE_SECONDS, score))
            self._timer(_SCORE_SECONDS, "scores", b"")
            return Verdict.SCORE
        else:
            ended = None
        if ended is not None:
            trace_id = score.trace_id.hex()
            self._ledger.score(ended.agent, ended.task_type, ended.variant, score.name, score.value, trace_id)
        elif trace is not None and len(trace.scores) < _MOST_SCORES_PER_TRACE:
            trace.scores.append((score.name, score.value, score.span_id))
            if self._journaled:
                self._changed.add(score.trace_id)
        else:
            self._ledger.unmatched_score()
        return Verdict.SCORE

    # -- time ----------------------------------------------------------------------------------------------------------

    def _timer(self, seconds: float, what: str, key: bytes, span_id: bytes = b"") -> None:
        self._ticket += 1
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
            case "agent":
                unit = trace.units.get(span_id)
                if unit is not None:
                    self._parent_never_came(trace, trace_id, unit)
            case "alone":
                unit = trace.units.get(span_id)
                if unit is not None:
                    self._end_root(trace, unit.span, unit)
            case "root":
                family = trace.families.get(span_id)
                if family and family.root is not None and span_id not in trace.nodes:
                    units = trace.units_of(family)
                    if not units or not any(self._is_inside(trace, unit) for unit in units):
                        self._resolve(trace, family.root, span_id)

    def _release(self, instance: str) -> None:
        for event in self._elsewhere.due(instance, self.now):
            trace = self._traces.get(event.trace_id)
            if trace is not None:
                self._call(trace, event)
                self._top(trace, event)

    @staticmethod
    def _is_inside(trace: Trace, unit: Unit) -> bool:
        """Whether work that began before this agent's shows that another agent above it runs on."""
        return any(f.bare and f.bare.first_ns < unit.span.start_ns for f in trace.families.values())

    def _parent_never_came(self, trace: Trace, trace_id: bytes, unit: Unit) -> None:
        """The parent of an agent span, in the same process, is still missing: a task, unless it proves to be inside one."""
        place = trace.place(unit.span)
        if not isinstance(place, bytes) or self._is_inside(trace, unit):
            return
        family = trace.family(place)
        if any(other.span.nested for other in trace.units_of(family)):
            return
        family.units.remove(unit.span.span_id)
        self._end_unit(trace, unit)
        self._go_on(trace, trace_id)

    def _silence(self, trace: Trace, trace_id: bytes) -> None:
        """Nothing came for a while: a task in flight is given up, a trace that is over is let go."""
        if trace.open is None and not any(trace.families.values()):
            wait = _SETTLED_SECONDS if trace.ended else _IDLE_SECONDS
        else:
            wait = self._give_up_seconds(trace)
        left = trace.last_arrival + wait - self.now
        if left > 0:
            self._timer(left, "silence", trace_id)
            return
        if trace.open is not None or any(trace.families.values()):
            self._give_up(trace, trace_id)
        if trace.ended:
            self._settle(trace, trace_id)
        else:
            self._forget(trace_id)

    def _give_up(self, trace: Trace, trace_id: bytes) -> None:
        """Agent spans that ended under a parent which never came are tasks that ended; the rest never finished."""
        rest = Work()
        step: AgentSpan | None = None  # the last chain to end: a step of an agent that was never heard of
        for family in list(trace.families.values()):
            rest.add(family.bare)
            for unit in trace.units_of(family):
                if unit.span.nested:
                    del trace.units[unit.span.span_id]
                    rest.add(unit.work)
                    if step is None or unit.span.end_ns > step.end_ns:
                        step = unit.span
                else:
                    self._end_unit(trace, unit)
        trace.families = {}
        task = trace.open
        if task is None and (rest or step) and not trace.ended:
            task = trace.open = Task(trace.agent, "stable", None, self.now)
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
        left = self._rollouts.get(name, 0.0) + _ROLLOUT_SECONDS - self.now
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

    def _give_up_seconds(self, trace: Trace) -> float:
        return self._settings.limits(trace.open.agent if trace.open else trace.agent).give_up_seconds

    def _remember_seconds(self) -> float:
        return 3600 * max(self._settings.seen_hours, self._settings.remembered_hours)

    def _settle(self, trace: Trace, trace_id: bytes) -> None:
        """The trace is over: keep its spans' ids and its tasks' labels."""
        del self._traces[trace_id]
        past = self._past[trace_id] = trace.past()
        self._spans += past.size() - trace.size()
        for _ in trace.scores:
            self._ledger.unmatched_score()
        while self._past and (self._spans > self._settings.seen_spans or self._ended > self._settings.remembered_tasks):
            self._forget(next(iter(self._past)))

    def _make_room(self) -> None:
        """There is no room for another trace: of the oldest, what is in flight is given up, and it is let go."""
        trace_id = next(iter(self._traces))
        trace = self._traces[trace_id]
        if trace.open is not None or any(trace.families.values()):
            self._give_up(trace, trace_id)
        if trace.ended:
            self._settle(trace, trace_id)
        else:
            self._forget(trace_id)

    def _forget(self, trace_id: bytes) -> None:
        gone = self._traces.pop(trace_id, None) or self._past.pop(trace_id)
        self._spans -= gone.size()
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
        self._ended = sum(len(trace.ended) for trace in everything)


def _has_sums(span: AgentSpan) -> bool:
    return bool(span.input or span.output or span.cache_read or span.cache_write)


def in_order(events: list[AnyEvent]) -> list[AnyEvent]:
    """The events of one request by end time, but a child before its parent: clocks that tick in milliseconds, and calls
    that are cut off with their task, let a child end at the same time or a little later."""
    ends = [_end(event) for event in events]
    by_id = {event.span_id: at for at, event in enumerate(events) if isinstance(event, Event)}
    for at, first in enumerate(events):
        event, child, steps = first, at, 0
        while isinstance(event, Event) and steps < MAX_DEPTH:
            above = by_id.get(event.parent_id)
            if above is None or ends[above] > ends[child]:
                break
            ends[above] = (ends[child][0], ends[child][1], ends[child][2] + 1)
            child, event, steps = above, events[above], steps + 1
    return [events[at] for at in sorted(range(len(events)), key=ends.__getitem__)]


def _end(event: AnyEvent) -> tuple[int, int, int]:
    return (event.end_ns, -event.start_ns, 0) if isinstance(event, Event) else (1 << 64, 0, 0)
