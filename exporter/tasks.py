"""The tasks in flight: the exporter's only state.

`apply(event, now)` is deterministic: what came before decides whether a span is a duplicate, whether a call is progress,
a retry or a recovery, whether a task has begun, ended or been given up. Timers fire at their own time, in order, whenever
`advance` comes round to them, so that it makes no difference how often it is called.

Times named `now`, `at`, `arrival` are unix seconds by the exporter's own clock; a sender's clock is used for the length
and the order of spans only.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from exporter import outcomes
from exporter.config import Settings
from exporter.contract import UNKNOWN
from exporter.dialects.common import CANCELLED
from exporter.events import AgentSpan, AnyEvent, Event, Iteration, Restart, Score, ToolCall
from exporter.ledger import Ledger
from exporter.loops import Loop
from exporter.pricing import Pricing
from exporter.traces import AGENT, CALL, PASSAGE, TOOL, Call, Ended, Family, Node, Task, Trace, Unit, Work

# How far up a trace is walked: deeper nesting is nobody's, and a circle of parents ends here.
_MAX_DEPTH = 500
# An agent span below a parent of the same process that has not ended: most often a request handler, which ends soon.
_AGENT_GRACE_SECONDS = 60.0
# A call that an SDK reports of itself, in a trace of its own, waits so long for the span that contains it: two rounds of
# the OpenTelemetry SDKs' batch processors (5 s).
_HOLD_SECONDS = 10.0
# Spans of the last so many seconds are looked through for such a call's twin.
_TWIN_SECONDS = 30.0
# A trace without anything of an agent's in it is forgotten after so much silence.
_IDLE_SECONDS = 600.0
# A score waits so long for the first span of its task.
_SCORE_SECONDS = 600.0
_MAX_WAITING_SCORES = 10_000
_ROLLOUT_SECONDS = 48 * 3600.0
# An agent's own P99 is believed from so many ended tasks on, and follows the latest few thousand.
_NORM_LEAST = 20
_NORM_MOST = 4000
_SIBLINGS = 8


class Verdict(StrEnum):
    """What became of a span: the four results of `agent_exporter_spans_total`, with the reason behind each."""

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

    @property
    def result(self) -> str:
        return self.value.split()[0].rstrip(",:")


class _Held(msgspec.Struct, array_like=True):
    event: Iteration
    until: float


class _Norm(msgspec.Struct, array_like=True):
    """How many iterations this agent's tasks take: tasks by iterations."""

    tasks: dict[int, int] = {}
    total: int = 0

    def add(self, iterations: int) -> None:
        iterations = min(iterations, 1000)
        self.tasks[iterations] = self.tasks.get(iterations, 0) + 1
        self.total += 1
        if self.total > _NORM_MOST:
            self.tasks = {k: half for k, v in self.tasks.items() if (half := v // 2)}
            self.total = sum(self.tasks.values())

    def p99(self) -> float:
        if self.total < _NORM_LEAST:
            return 0.0
        above = self.total * 0.01
        for iterations in sorted(self.tasks, reverse=True):
            above -= self.tasks[iterations]
            if above < 0:
                return float(iterations)
        return 0.0


class _Own(msgspec.Struct, array_like=True):
    """What an agent's own ended tasks said they cost: the price of tokens that name no model."""

    usd: float = 0.0
    tokens: float = 0.0

    def add(self, usd: float, tokens: int) -> None:
        self.usd += usd
        self.tokens += tokens
        if self.tokens > 1e9:
            self.usd /= 2
            self.tokens /= 2


class _State(msgspec.Struct, array_like=True):
    """Everything but the traces, as a checkpoint keeps it."""

    now: float
    timers: list[tuple[float, int, str, bytes, bytes]]
    ticket: int
    held: dict[str, list[_Held]]
    recent: dict[str, list[tuple[float, int, int, str, str]]]
    waiting_scores: list[tuple[float, Score]]
    agent_senders: list[str]
    norms: dict[str, _Norm]
    own: dict[str, _Own]
    rollouts: dict[str, float]
    remembered: list[bytes]


class Running(msgspec.Struct):
    """An agent's tasks in flight, summed up."""

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
        self._settings = settings
        self._ledger = ledger
        self._pricing = pricing
        self._rejected = rejected  # values that no one can mean, by key and why
        self._journaled = journaled  # whether changes are to be noted for the next checkpoint
        self._traces: dict[bytes, Trace] = {}
        self._remembered: dict[bytes, None] = {}  # traces with ended tasks and none open, the longest ago first
        self._spans = 0
        self._ended_tasks = 0
        self._timers: list[tuple[float, int, str, bytes, bytes]] = []
        self._ticket = 0
        self._held: dict[str, list[_Held]] = {}
        self._recent: dict[str, list[tuple[float, int, int, str, str]]] = {}
        self._waiting_scores: list[tuple[float, Score]] = []
        self._agent_senders: set[str] = set()
        self._norms: dict[str, _Norm] = {}
        self._own: dict[str, _Own] = {}
        self._rollouts: dict[str, float] = {}
        self._dirty: set[bytes] = set()
        self._forgotten: set[bytes] = set()
        self.now = 0.0

    # -- in ------------------------------------------------------------------------------------------------------------

    def apply(self, event: AnyEvent, now: float) -> Verdict:
        """Take one event in. Events of one request come by end time, children first (`in_order`)."""
        self.advance(now)
        if isinstance(event, Event):
            return self._span(event)
        if isinstance(event, Score):
            return self._score(event)
        self._restart(event)
        return Verdict.PASSAGE

    def advance(self, now: float) -> None:
        """Let the clock reach `now`: every timer before it fires, as at its own time."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            at, _ticket, what, trace_id, span_id = heapq.heappop(timers)
            self.now = max(self.now, at)
            self._fire(what, trace_id, span_id)
        self.now = max(self.now, now)

    def end_of_time(self) -> float:
        """A moment after every time-out of what is in flight now; for replays."""
        longest = max(
            [a.give_up_seconds for a in self._settings.agents.values()] + [self._settings.limits("*").give_up_seconds]
        )
        return self.now + longest + 4 * _IDLE_SECONDS

    def _span(self, event: Event) -> Verdict:
        trace = self._traces.get(event.trace_id)
        if trace is None:
            trace = self._new_trace(event)
        elif trace.saw(event.span_id):
            return Verdict.DUPLICATE
        trace.last_arrival = self.now
        if self._journaled:
            self._dirty.add(event.trace_id)
        if isinstance(event, Iteration):
            return self._iteration(trace, event)
        if isinstance(event, ToolCall):
            return self._tool_call(trace, event)
        if isinstance(event, AgentSpan):
            return self._agent_span(trace, event)
        self._enter(trace, event, PASSAGE)
        if event.error and event.dialect and event.parent_id:
            trace.family(event.parent_id).failed = event.error
        self._root(trace, event)
        return Verdict.PASSAGE

    def _new_trace(self, event: Event) -> Trace:
        if len(self._traces) >= self._settings.max_traces:
            self._make_room()
        trace = Trace(self.now, event.agent)
        self._traces[event.trace_id] = trace
        self._forgotten.discard(event.trace_id)
        self._timer(self.now + _IDLE_SECONDS, "silence", event.trace_id)
        if self._waiting_scores:
            waiting = [score for _until, score in self._waiting_scores if score.trace_id == event.trace_id]
            if waiting:
                trace.scores += [(score.name, score.value, score.span_id) for score in waiting]
                self._waiting_scores = [w for w in self._waiting_scores if w[1].trace_id != event.trace_id]
        return trace

    # -- the shape of a trace ------------------------------------------------------------------------------------------

    def _enter(self, trace: Trace, event: Event, kind: int) -> Family | None:
        """Put the span into its trace; what waited for it moves on to where the span itself belongs. Returns that."""
        if len(trace.nodes) >= self._settings.max_spans_per_task:
            self._let_go(trace)
        trace.nodes[event.span_id] = Node(event.parent_id, kind)
        self._spans += 1
        waiting = trace.families.pop(event.span_id, None)
        if waiting is None or kind == AGENT:
            return waiting
        if kind == TOOL:
            for span_id in waiting.units:
                trace.units[span_id].behind_tool = True
        place = self._place(trace, event.parent_id) if event.parent_id else event.span_id
        if place is None:
            # Below a task that ended: late, and counted already.
            for span_id in waiting.units:
                trace.units.pop(span_id, None)
        elif isinstance(place, Unit):
            place.work.add(waiting.bare)
            for span_id in waiting.units:
                place.absorb(trace.units.pop(span_id))
        else:
            family = trace.family(place)
            family.bare.add(waiting.bare)
            family.units += waiting.units
        return waiting

    def _place(self, trace: Trace, parent_id: bytes) -> bytes | Unit | None:
        """Where work below `parent_id` belongs: a missing parent's id, an agent span's unit, or None: a task that ended."""
        at = parent_id
        for _ in range(_MAX_DEPTH):
            node = trace.nodes.get(at)
            if node is None:
                return at
            if node.ended:
                return None
            if node.kind == AGENT:
                unit = trace.units.get(at)
                if unit is not None:
                    return unit
            if not node.parent_id:
                return at
            at = node.parent_id
        return at

    def _let_go(self, trace: Trace) -> None:
        """Keep the ids of a very long trace's spans, and the nodes of nothing but its agents."""
        kept = {k: n for k, n in trace.nodes.items() if n.kind == AGENT or n.ended}
        if len(kept) > len(trace.nodes) // 2:
            kept = {}
        most = 8 * self._settings.max_spans_per_task
        old = trace.size()
        trace.seen = (trace.seen + b"".join(k for k in trace.nodes if k not in kept))[-most:]
        trace.nodes = kept
        self._spans += trace.size() - old

    def _root(self, trace: Trace, event: Event) -> None:
        """The span may be the top of all that waits below it: at once, or when a parent elsewhere does not come."""
        if not event.parent_id:
            self._resolve_family(trace, event, event.span_id)
        elif event.remote and event.parent_id not in trace.nodes:
            family = trace.families.get(event.parent_id)
            if family:
                if type(event) is Event or family.root is None:
                    family.root = event
                self._timer(self.now + self._settings.parent_grace_seconds, "root", event.trace_id, event.parent_id)

    # -- calls and tools -----------------------------------------------------------------------------------------------

    def _iteration(self, trace: Trace, event: Iteration) -> Verdict:
        if event.client and not event.parent_id:
            verdict = self._twin_of_held(event)
            if verdict is not None:
                self._enter(trace, event, CALL)
                return verdict
        return self._counted_call(trace, event)

    def _counted_call(self, trace: Trace, event: Iteration) -> Verdict:
        below = self._enter(trace, event, CALL)
        place = self._place(trace, event.parent_id) if event.parent_id else event.span_id
        if self._is_twin(trace, event, below):
            if event.answered or event.error:
                work = self._work(trace, place)
                if work is not None:
                    self._last_call(work, event)
            self._after_call(trace, event)
            return Verdict.TWIN
        counts = event.answered or bool(event.error and event.error != CANCELLED)
        late = place is None
        task = None if late else self._open(trace, event, place)
        work = self._work(trace, place)
        if work is not None:
            work.calls += 1
            work.span(event.start_ns, event.end_ns)
            self._last_call(work, event)
            self._facts(work, event)
        if not counts:
            self._after_call(trace, event)
            return Verdict.UNANSWERED
        trace.nodes[event.span_id].counted = True
        self._remember_call(trace, event)
        variant = self._variant(trace, task, event)
        purpose = event.purpose or self._purpose(task)
        cost, model, tokens = self._price(event)
        trace_hex = event.trace_id.hex()
        self._ledger.call(event, model, variant, purpose, cost, trace_hex)
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
        self._after_call(trace, event)
        if trace.given_up:
            return self._resumed(event)
        return Verdict.LATE if late else Verdict.CALL

    def _after_call(self, trace: Trace, event: Iteration) -> None:
        self._note_recent(event)
        self._root(trace, event)

    def _is_twin(self, trace: Trace, event: Iteration, below: Family | None) -> bool:
        """Whether this call was counted already, as another instrumentation reported it."""
        if event.response_id and event.response_id in trace.response_ids:
            return True
        if trace.summed:
            return True
        if below is not None and below.bare.iterations:
            return True  # an LLM call below an LLM call is the same call, told from nearer
        above = trace.nodes.get(event.parent_id)
        if above is not None and above.kind == CALL and above.counted:
            return True
        for other in trace.calls.get(event.parent_id, ()):
            if (
                other.scope != event.scope
                and not (other.has_response_id and event.response_id)
                and (
                    (other.start_ns <= event.start_ns and event.end_ns <= other.end_ns)
                    or (event.start_ns <= other.start_ns and other.end_ns <= event.end_ns)
                )
            ):
                return True
        return False

    @staticmethod
    def _remember_call(trace: Trace, event: Iteration) -> None:
        if event.response_id and len(trace.response_ids) < 10_000:
            trace.response_ids.add(event.response_id)
        if event.parent_id and len(trace.calls) < 10_000:
            siblings = trace.calls.setdefault(event.parent_id, [])
            siblings.append(Call(event.start_ns, event.end_ns, event.scope, bool(event.response_id)))
            if len(siblings) > _SIBLINGS:
                del siblings[0]

    @staticmethod
    def _last_call(work: Work, event: Iteration) -> None:
        if event.answered and not event.error:
            work.answered_end_ns = max(work.answered_end_ns, event.end_ns)
        if event.end_ns >= work.call_end_ns:
            work.call_end_ns = event.end_ns
            work.call_answered = event.answered or bool(event.error)
            work.call_error = event.error
            work.call_refused = event.refused
            work.call_final = event.final
            work.call_asked = event.stop_reason == "tool_use"

    def _tool_call(self, trace: Trace, event: ToolCall) -> Verdict:
        waiting = trace.families.get(event.span_id)
        if waiting is not None and waiting.failed and not event.error:
            event.error, event.result = "tool", waiting.failed
        self._enter(trace, event, TOOL)
        place = self._place(trace, event.parent_id) if event.parent_id else event.span_id
        late = place is None
        task = None if late else self._open(trace, event, place)
        if not event.tool and task is not None:
            event.tool = task.asked
        variant = self._variant(trace, task, event)
        self._ledger.tool(event, variant, event.trace_id.hex())
        work = self._work(trace, place)
        if work is not None:
            work.tools += 1
            work.span(event.start_ns, event.end_ns)
            if event.end_ns >= work.tool_end_ns:
                work.tool_end_ns = event.end_ns
                work.tool_error = event.error
            if event.confidence is not None and (work.confidence is None or event.confidence < work.confidence):
                work.confidence = event.confidence
            self._facts(work, event)
        if task is not None:
            failed = event.result != "ok"
            task.tool_failed = task.tool_failed or failed
            polls = event.tool in self._settings.limits(event.agent).polling_tools
            task.loop.tool_call(event.tool, failed, b"" if polls else event.arguments)
            self._look_for_loop(task, event)
        self._root(trace, event)
        if trace.given_up:
            return self._resumed(event)
        return Verdict.LATE if late else Verdict.TOOL

    @staticmethod
    def _work(trace: Trace, place: bytes | Unit | None) -> Work | None:
        if place is None:
            return None
        return place.work if isinstance(place, Unit) else trace.family(place).bare

    @staticmethod
    def _facts(work: Work, event: Event) -> None:
        if event.facts:
            work.facts = {**(work.facts or {}), **event.facts}

    def _resumed(self, event: Event) -> Verdict:
        self._ledger.resumed(event.agent)
        return Verdict.RESUMED

    @staticmethod
    def _purpose(task: Task | None) -> str:
        if task is None:
            return "progress"
        return "retry" if task.call_failed else "recovery" if task.tool_failed else "progress"

    def _variant(self, trace: Trace, task: Task | None, event: Event) -> str:
        """The task's variant: that of its first span. A span that tells another variant or agent is noted."""
        told = event.variant if event.variant in ("stable", "canary") else ""
        if task is None:
            last = next(reversed(trace.ended.values())) if trace.ended else None
            first_variant, first_agent = (last.variant, last.agent) if last else (told or "stable", event.agent)
        else:
            first_variant, first_agent = task.variant, task.agent
        if (told and told != first_variant) or event.agent != first_agent:
            self._ledger.late_labels()
        return first_variant

    def _price(self, event: Iteration) -> tuple[float | None, str, int]:
        """(USD or None where no price is known, the model's label, all tokens)."""
        inputs = event.input
        model = event.model or event.answered_by or self._settings.limits(event.agent).default_model
        if inputs is None:
            return None, model or UNKNOWN, 0
        total = inputs + event.output + event.cache_read + event.cache_write
        if not model:
            own = self._own.get(event.agent)
            if own is None or not own.tokens:
                return (None if total else 0.0), UNKNOWN, total
            return total * own.usd / own.tokens, UNKNOWN, total
        counts = (inputs, event.output, event.cache_read, event.cache_write)
        cost = None
        if event.answered_by:
            cost = self._pricing.cost(event.answered_by, event.provider, *counts)
        if cost is None and model != event.answered_by:
            cost = self._pricing.cost(model, event.provider, *counts)
        return cost, model, total

    # -- twins of calls that an SDK reports of itself --------------------------------------------------------------------

    def _twin_of_held(self, event: Iteration) -> Verdict | None:
        """A parentless call of an SDK's own: its twin may have come, may yet come, or there is none."""
        recent = self._recent.get(event.instance)
        if recent is not None:
            found = min(
                (r for r in recent if r[1] <= event.start_ns and event.end_ns <= r[2] and self._same_model(r, event)),
                key=lambda r: r[2] - r[1],
                default=None,
            )
            if found is not None:
                recent.remove(found)  # one containing span stands for one call
                return Verdict.TWIN
        held = self._held.setdefault(event.instance, [])
        if len(held) >= 1000:
            return None
        held.append(_Held(event, self.now + _HOLD_SECONDS))
        self._timer(self.now + _HOLD_SECONDS, "hold", event.instance.encode())
        return Verdict.HELD

    @staticmethod
    def _same_model(recent: tuple[float, int, int, str, str], event: Iteration) -> bool:
        return (
            not recent[3]
            or recent[3] in (event.model, event.answered_by)
            or recent[4] in (event.model, event.answered_by)
        )

    def _note_recent(self, event: Iteration) -> None:
        """Remember a call as a possible twin of one that an SDK reports of itself, or let it take one that waits."""
        if event.client:
            return
        held = self._held.get(event.instance)
        if held:
            inside = [
                h
                for h in held
                if event.start_ns <= h.event.start_ns
                and h.event.end_ns <= event.end_ns
                and self._same_model((0.0, 0, 0, event.model, event.answered_by), h.event)
            ]
            if inside:
                held.remove(max(inside, key=lambda h: h.event.end_ns - h.event.start_ns))
                return
        recent = self._recent.setdefault(event.instance, [])
        recent.append((self.now, event.start_ns, event.end_ns, event.model, event.answered_by))
        if len(recent) > 500 or recent[0][0] < self.now - 2 * _TWIN_SECONDS:
            self._recent[event.instance] = [r for r in recent if r[0] >= self.now - _TWIN_SECONDS][-400:]
        if len(self._recent) > 2000:
            self._recent = {k: v for k, v in self._recent.items() if v and v[-1][0] >= self.now - _TWIN_SECONDS}
            if len(self._recent) > 2000:
                self._recent.clear()

    def _release(self, instance: str) -> None:
        held = self._held.get(instance, [])
        due = [h for h in held if h.until <= self.now]
        self._held[instance] = [h for h in held if h.until > self.now]
        if not self._held[instance]:
            del self._held[instance]
        for h in due:
            trace = self._traces.get(h.event.trace_id)
            if trace is not None:
                trace.nodes.pop(h.event.span_id, None)
                self._spans -= 1
                self._counted_call(trace, h.event)

    # -- tasks begin ---------------------------------------------------------------------------------------------------

    def _open(self, trace: Trace, event: Event, place: bytes | Unit | None) -> Task | None:
        """The task in flight that this work belongs to; it begins here if it has not."""
        if trace.given_up:
            return None
        task = trace.open
        if task is None:
            if any(ended.start_ns <= event.start_ns < ended.end_ns for ended in trace.ended.values()):
                return None  # began before a task of this trace ended: its own late work, until its agent span tells
            bare = isinstance(event, (Iteration, ToolCall))
            if bare and self._outside(event, place):
                return None
            task = self._new_task(trace, event)
            if bare and self._may_be_outside(event):
                self._timer(self.now + self._settings.parent_grace_seconds, "start", event.trace_id)
                return task
        if not task.started:
            self._start(task)
        return task

    def _new_task(self, trace: Trace, event: Event) -> Task:
        length = max(0, event.end_ns - event.start_ns) / 1e9
        variant = event.variant if event.variant == "canary" else "stable"
        task = Task(event.agent, variant, event.rollout, self.now - min(length, 86_400.0))
        trace.open = task
        trace.agent = event.agent
        self._remembered.pop(event.trace_id, None)
        # The silence timer was set for a trace without tasks; a task's own time-out may be earlier.
        give_up = self._settings.limits(task.agent).give_up_seconds
        if give_up < _IDLE_SECONDS:
            self._timer(self.now + give_up, "silence", event.trace_id)
        return task

    def _start(self, task: Task) -> None:
        task.started = True
        self._ledger.started(task)
        if task.rollout:
            name = task.rollout[0]
            if name not in self._rollouts:
                self._timer(self.now + _ROLLOUT_SECONDS, "rollout", name.encode())
            self._rollouts[name] = self.now

    def _outside(self, event: Event, place: bytes | Unit | None) -> bool:
        """A lone call known to stand outside any agent: the root of its trace, from a service that has agent spans."""
        return not event.parent_id and place == event.span_id and not self._bare_is_task(event.agent)

    def _may_be_outside(self, event: Event) -> bool:
        """Whether to wait a moment before this call is taken for the beginning of a task."""
        return bool(event.parent_id) and not self._bare_is_task(event.agent)

    def _bare_is_task(self, agent: str) -> bool:
        policy = self._settings.bare_calls_are_tasks
        return policy == "always" or (policy == "auto" and agent not in self._agent_senders)

    def _look_for_loop(self, task: Task, event: Event) -> None:
        limits = self._settings.limits(task.agent)
        norm = self._norms.get(task.agent)
        most = (
            max(float(limits.loop_iterations), limits.loop_iterations_factor * norm.p99() if norm else 0.0)
            if (task.iterations > limits.loop_iterations)
            else float(limits.loop_iterations)
        )
        loop = task.loop
        loop.why = loop.reason(task.iterations, limits.loop_failing_iterations, limits.loop_repeat_iterations, most)
        if loop.why and loop.why not in loop.seen:
            loop.seen.append(loop.why)
            self._ledger.looped(task, loop.why, event.trace_id.hex())

    # -- tasks end -----------------------------------------------------------------------------------------------------

    def _agent_span(self, trace: Trace, event: AgentSpan) -> Verdict:
        waiting = self._enter(trace, event, AGENT)
        if len(self._agent_senders) < 100_000:
            self._agent_senders.add(event.agent)
        unit = Unit(event, Work())
        if waiting is not None:
            unit.work.add(waiting.bare)
            for span_id in waiting.units:
                inner = trace.units.pop(span_id, None)
                if inner is not None:
                    unit.absorb(inner)
        place = self._place(trace, event.parent_id) if event.parent_id else event.span_id
        if trace.given_up:
            return self._resumed(event)
        if place is None:
            trace.nodes[event.span_id].ended = False
            return Verdict.LATE
        if isinstance(place, Unit):
            place.absorb(unit)
            return Verdict.TASK
        task = trace.open or self._new_task(trace, event)
        if not task.started:
            self._start(task)
        self._variant(trace, task, event)
        trace.units[event.span_id] = unit
        # What ended inside an agent span is no longer running, even while a parent of that span is awaited.
        running = sum(family.bare.iterations for family in trace.families.values())
        task.iterations = running
        if not running:
            task.loop = Loop(seen=task.loop.seen)
        if not event.parent_id:
            self._end_root(trace, event, unit)
            return Verdict.TASK
        trace.family(place).units.append(event.span_id)
        if place in trace.nodes:  # a plain root that was resolved before
            self._resolve_family(trace, event, place)
        elif event.remote:
            self._root(trace, event)
        elif not event.nested:
            self._timer(self.now + _AGENT_GRACE_SECONDS, "agent", event.trace_id, event.span_id)
        return Verdict.TASK

    def _end_root(self, trace: Trace, event: AgentSpan, unit: Unit) -> None:
        """An agent span without a parent: whatever waits in this trace is below it."""
        inside = [k for k, f in trace.families.items() if not f.bare.first_ns or f.bare.first_ns <= event.end_ns]
        for key in inside:
            family = trace.families.pop(key)
            unit.work.add(family.bare)
            for span_id in family.units:
                inner = trace.units.pop(span_id, None)
                if inner is not None and inner is not unit:
                    unit.absorb(inner)
        self._end_unit(trace, event.trace_id, unit)
        self._go_on(trace, event.trace_id)

    def _resolve_family(self, trace: Trace, root: Event, anchor: bytes) -> None:
        """`root` turned out to be the top: each agent span below it is a task, else the rest is a request of its own."""
        family = trace.families.pop(anchor, None)
        if not family:
            return
        units = [unit for span_id in family.units if (unit := trace.units.get(span_id)) is not None]
        for unit in units:
            self._end_unit(trace, root.trace_id, unit)
        if family.bare and not units:
            self._end_bare(trace, root, family.bare)
        self._go_on(trace, root.trace_id)

    def _end_bare(self, trace: Trace, root: Event, work: Work) -> None:
        task = trace.open
        if task is None or not task.started:
            if trace.given_up or not self._bare_is_task(trace.agent) or trace.ended:
                trace.open = None
                return
            task = task or self._new_task(trace, root)
            self._start(task)
        if not trace.nodes[root.span_id].ended:
            trace.nodes[root.span_id].ended = True
        goal = self._goal(work, None, UNKNOWN)
        outcome, reason = outcomes.of_root(root, work, goal)
        own = isinstance(root, (Iteration, ToolCall))
        start, end = (work.first_ns, work.last_ns) if own else (root.start_ns, root.end_ns)
        self._end(trace, root.trace_id, root.span_id, task, UNKNOWN, (outcome, reason), start, end, work)

    def _end_unit(self, trace: Trace, trace_id: bytes, unit: Unit) -> None:
        span = unit.span
        trace.units.pop(span.span_id, None)
        trace.nodes[span.span_id].ended = True
        task = trace.open
        if task is None:
            task = self._new_task(trace, span)
        if not task.started:
            self._start(task)
        task_type = span.task_type or span.name or unit.inner_name or UNKNOWN
        self._own_sums(trace, task, unit)
        goal = self._goal(unit.work, span, task_type)
        outcome = outcomes.of_agent(unit, goal)
        self._end(trace, trace_id, span.span_id, task, task_type, outcome, span.start_ns, span.end_ns, unit.work, span)

    def _own_sums(self, trace: Trace, task: Task, unit: Unit) -> None:
        """What only the task itself told: its token sums where nothing was counted below, and money beyond that."""
        span, work, trace_hex = unit.span, unit.work, unit.span.trace_id.hex()
        model = span.model or self._settings.limits(task.agent).default_model
        told = span.cost_usd
        if told is not None and told > self._settings.cost_cap_usd:
            self._rejected["task.cost_usd: over cost_cap_usd"] += 1
            told = None
        if span.input is not None and not work.iterations and (span.input or span.output or span.cache_read):
            counts = (span.input, span.output, span.cache_read, span.cache_write)
            cost = self._pricing.cost(model, span.provider, *counts) if model else None
            own = self._own.get(task.agent)
            if not model and own is not None and own.tokens:
                cost = sum(counts) * own.usd / own.tokens
            if cost is None and told is not None:
                cost = 0.0  # what it cost is told, and added below
            self._ledger.sums(task, model or UNKNOWN, counts, cost, trace_hex)
            work.tokens += sum(counts)
            work.spend += cost or 0.0
            work.iterations = span.iterations or 0
            trace.summed = True
        if told is not None:
            if told > work.spend:
                self._ledger.spend(task, model or UNKNOWN, told - work.spend, trace_hex)
                work.spend = told
            if told and work.tokens:
                if len(self._own) < 10_000 or task.agent in self._own:
                    self._own.setdefault(task.agent, _Own()).add(told, work.tokens)

    def _goal(self, work: Work, span: AgentSpan | None, task_type: str) -> bool | None:
        conditions = self._settings.success.get(task_type) or self._settings.success.get("*")
        if not conditions:
            return None
        facts = {**(work.facts or {}), **((span.facts if span else None) or {})}
        return outcomes.reached(conditions, facts)

    def _end(
        self, trace: Trace, trace_id: bytes, top: bytes, task: Task, task_type: str, outcome: outcomes.Outcome,
        start_ns: int, end_ns: int, work: Work, span: AgentSpan | None = None, given_up: bool = False,
    ) -> None:  # fmt: skip
        limits = self._settings.limits(task.agent)
        seconds = None if given_up or end_ns < start_ns else (end_ns - start_ns) / 1e9
        deadline = limits.task_deadline_seconds
        if deadline is not None and seconds is not None and seconds > deadline and outcome[0] != "success":
            outcome = ("abandoned", "timeout")
        trace_hex = trace_id.hex()
        self._ledger.ended(task, task_type, *outcome, seconds, work.iterations, work.spend, trace_hex)
        if task.rollout:
            self._rollouts[task.rollout[0]] = self.now
        if outcome[0] in ("success", "failure") and (len(self._norms) < 10_000 or task.agent in self._norms):
            self._norms.setdefault(task.agent, _Norm()).add(work.iterations)
        confidence = span.confidence if span is not None and span.confidence is not None else work.confidence
        if confidence is not None:
            self._ledger.score(task.agent, task_type, task.variant, "confidence", confidence, trace_hex)
        ended = Ended(task.agent, task_type, task.variant, start_ns, end_ns)
        if len(trace.ended) < self._settings.max_spans_per_task:
            trace.ended[top] = ended
            self._ended_tasks += 1
        for name, value, span_id in trace.scores:
            of = self._scored(trace, span_id) or ended
            self._ledger.score(of.agent, of.task_type, of.variant, name, value, trace_hex)
        trace.scores = []
        trace.open = None

    def _go_on(self, trace: Trace, trace_id: bytes) -> None:
        """After a task of the trace ended: what is left of the trace is another one, or nothing."""
        last = max((ended.end_ns for ended in trace.ended.values()), default=0)
        left = [f for f in trace.families.values() if f.units or (f.bare and f.bare.first_ns >= last)]
        if trace.open is None and left:
            unit = next((trace.units[k] for f in left for k in f.units if k in trace.units), None)
            if unit is not None:
                self._start(self._new_task(trace, unit.span))
            elif trace.ended:
                first = next(reversed(trace.ended.values()))
                task = Task(first.agent, first.variant, None, self.now)
                task.iterations = sum(f.bare.iterations for f in left)
                task.spend = sum(f.bare.spend for f in left)
                trace.open = task
                self._timer(self.now + self._settings.parent_grace_seconds, "start", trace_id)
        if trace.open is None and trace.ended:
            self._remembered[trace_id] = None
            self._timer(self.now + self._remember_seconds(), "forget", trace_id)
            self._limit_memory()

    # -- scores --------------------------------------------------------------------------------------------------------

    def _score(self, score: Score) -> Verdict:
        trace = self._traces.get(score.trace_id)
        if trace is None:
            if len(self._waiting_scores) >= _MAX_WAITING_SCORES:
                self._ledger.unmatched_score()
            else:
                self._waiting_scores.append((self.now + _SCORE_SECONDS, score))
                self._timer(self.now + _SCORE_SECONDS, "scores", b"")
            return Verdict.SCORE
        if self._journaled:
            self._dirty.add(score.trace_id)
        ended = self._scored(trace, score.span_id)
        if ended is not None:
            self._ledger.score(
                ended.agent, ended.task_type, ended.variant, score.name, score.value, score.trace_id.hex()
            )
        elif len(trace.scores) < 100:
            trace.scores.append((score.name, score.value, score.span_id))
        return Verdict.SCORE

    @staticmethod
    def _scored(trace: Trace, span_id: bytes) -> Ended | None:
        """The ended task that a score's span is in; the trace's latest, where its span does not tell."""
        at = span_id
        for _ in range(_MAX_DEPTH):
            if at in trace.ended:
                return trace.ended[at]
            node = trace.nodes.get(at)
            if node is None:
                break
            at = node.parent_id
        if trace.open is not None or not trace.ended:
            return None
        return next(reversed(trace.ended.values()))

    # -- time ----------------------------------------------------------------------------------------------------------

    def _timer(self, at: float, what: str, trace_id: bytes, span_id: bytes = b"") -> None:
        self._ticket += 1
        heapq.heappush(self._timers, (at, self._ticket, what, trace_id, span_id))

    def _fire(self, what: str, trace_id: bytes, span_id: bytes) -> None:
        if what == "hold":
            self._release(trace_id.decode())
            return
        if what == "scores":
            late = [w for w in self._waiting_scores if w[0] <= self.now]
            self._waiting_scores = [w for w in self._waiting_scores if w[0] > self.now]
            for _ in late:
                self._ledger.unmatched_score()
            return
        if what == "rollout":
            self._rollout_timer(trace_id.decode())
            return
        trace = self._traces.get(trace_id)
        if trace is None:
            return
        if self._journaled:
            self._dirty.add(trace_id)
        if what == "silence":
            self._silence(trace, trace_id)
        elif what == "forget":
            due = trace.last_arrival + self._remember_seconds()
            if trace.open is None:
                if due <= self.now:
                    self._forget(trace_id)
                else:
                    self._timer(due, "forget", trace_id)
        elif what == "start":
            if trace.open is not None and not trace.open.started:
                self._start(trace.open)
        elif what == "agent":
            unit = trace.units.get(span_id)
            if unit is not None:
                self._parent_never_came(trace, trace_id, unit)
        elif what == "root" and span_id not in trace.nodes:
            self._remote_root(trace, trace_id, span_id)

    def _parent_never_came(self, trace: Trace, trace_id: bytes, unit: Unit) -> None:
        """An agent span whose parent is still missing: a task, unless other work shows that an agent above it runs on."""
        span = unit.span
        place = self._place(trace, span.parent_id)
        if not isinstance(place, bytes):
            return
        for key, family in trace.families.items():
            if family.bare and family.bare.first_ns < span.start_ns:
                return
            if any(trace.units[u].span.nested for u in family.units if u in trace.units) and key == place:
                return
        family = trace.families.get(place)
        if family is not None:
            family.units = [u for u in family.units if u != span.span_id]
            if not family.units and not family.bare:
                del trace.families[place]
        self._end_unit(trace, trace_id, unit)
        self._go_on(trace, trace_id)

    def _remote_root(self, trace: Trace, trace_id: bytes, parent_id: bytes) -> None:
        """The parent is in another process and has not come: what waits for it is a request that began here."""
        family = trace.families.get(parent_id)
        if family and family.root is not None:
            self._resolve_family(trace, family.root, parent_id)

    def _silence(self, trace: Trace, trace_id: bytes) -> None:
        """Nothing came for long: a task in flight is given up; a trace without tasks is forgotten."""
        if trace.open is None and not any(trace.families.values()):
            if not trace.ended:
                due = trace.last_arrival + _IDLE_SECONDS
                if due <= self.now:
                    self._forget(trace_id)
                else:
                    self._timer(due, "silence", trace_id)
            return
        due = trace.last_arrival + self._settings.limits(trace.agent).give_up_seconds
        if due > self.now:
            self._timer(due, "silence", trace_id)
            return
        self._give_up(trace, trace_id)

    def _give_up(self, trace: Trace, trace_id: bytes) -> None:
        """Agent spans that ended under a parent which never came are tasks that ended; the rest never finished."""
        rest = Work()
        failed: Unit | None = None
        for family in list(trace.families.values()):
            for span_id in family.units:
                unit = trace.units.get(span_id)
                if unit is None:
                    continue
                if unit.span.nested:
                    rest.add(unit.work)
                    if unit.span.error and (failed is None or unit.span.end_ns > failed.span.end_ns):
                        failed = unit
                    trace.units.pop(span_id)
                else:
                    self._end_unit(trace, trace_id, unit)
            rest.add(family.bare)
        trace.families = {}
        task = trace.open
        if task is None and rest and not trace.ended:
            trace.open = task = Task(trace.agent, "stable", None, self.now)
        if task is not None and (rest or not trace.ended):
            if not task.started:
                if self._bare_is_task(task.agent) or rest.tools or rest.calls > 1:
                    self._start(task)
                else:
                    trace.open = task = None
        if task is not None and task.started and trace.open is task:
            outcome = ("abandoned", "never_finished")
            last = failed is not None and failed.span.end_ns >= rest.last_ns
            if last and failed is not None:
                # The last that was heard is that a step of it failed: the task died of that.
                outcome = outcomes.of_agent(Unit(failed.span, rest), None)
            elif rest.calls and not rest.call_answered and rest.call_end_ns >= rest.last_ns:
                outcome = outcomes.USER_CANCEL  # its last call ended without an answer: it was interrupted there
            task_type = (failed.span.task_type if failed else "") or UNKNOWN
            top = next(iter(trace.nodes), b"")
            self._end(trace, trace_id, top, task, task_type, outcome, rest.first_ns, rest.last_ns, rest, given_up=True)
            trace.given_up = True
        trace.open = None
        self._compact(trace)
        if trace.ended:
            self._remembered[trace_id] = None
            self._timer(self.now + self._remember_seconds(), "forget", trace_id)
            self._limit_memory()
        else:
            self._forget(trace_id)

    def _rollout_timer(self, name: str) -> None:
        last = self._rollouts.get(name, 0.0)
        if last + _ROLLOUT_SECONDS <= self.now:
            self._rollouts.pop(name, None)
            self._ledger.forget_rollout(name)
        else:
            self._timer(last + _ROLLOUT_SECONDS, "rollout", name.encode())

    def _restart(self, _event: Restart) -> None:
        """The silence until now was the exporter's own: nobody is given up for it."""
        for trace in self._traces.values():
            if trace.open is not None:
                trace.last_arrival = self.now

    # -- memory --------------------------------------------------------------------------------------------------------

    def _remember_seconds(self) -> float:
        return 3600 * max(self._settings.seen_hours, self._settings.remembered_hours)

    def _compact(self, trace: Trace) -> None:
        """Of a trace that is over, keep its spans' ids and its tasks' labels."""
        tops = {k: n for k, n in trace.nodes.items() if n.ended}
        trace.seen += b"".join(k for k in trace.nodes if k not in tops)
        trace.nodes = tops
        trace.calls = {}

    def _limit_memory(self) -> None:
        while self._remembered and (
            self._spans > self._settings.seen_spans or self._ended_tasks > self._settings.remembered_tasks
        ):
            self._forget(next(iter(self._remembered)))

    def _make_room(self) -> None:
        """A trace more than may be remembered: the oldest that is over goes, else the oldest of all is given up."""
        if self._remembered:
            self._forget(next(iter(self._remembered)))
            return
        trace_id = next(iter(self._traces))
        self._give_up(self._traces[trace_id], trace_id)
        self._forget(trace_id)

    def _forget(self, trace_id: bytes) -> None:
        trace = self._traces.pop(trace_id, None)
        self._remembered.pop(trace_id, None)
        self._dirty.discard(trace_id)
        if trace is not None:
            if self._journaled:
                self._forgotten.add(trace_id)
            self._spans -= trace.size()
            self._ended_tasks -= len(trace.ended)
            for _ in trace.scores:
                self._ledger.unmatched_score()

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
        """Traces in memory."""
        return len(self._traces)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def checkpoint(self) -> tuple[bytes, Iterable[tuple[bytes, float, bytes]], Iterable[bytes]]:
        """(everything but the traces, the traces that changed since the last checkpoint, the ids of those forgotten)."""
        state = _State(
            self.now,
            self._timers,
            self._ticket,
            self._held,
            self._recent,
            self._waiting_scores,
            sorted(self._agent_senders),
            self._norms,
            self._own,
            self._rollouts,
            list(self._remembered),
        )
        encode = msgspec.msgpack.encode
        changed = [
            (trace_id, trace.last_arrival, encode(trace))
            for trace_id in self._dirty
            if (trace := self._traces.get(trace_id)) is not None
        ]
        return encode(state), changed, list(self._forgotten)

    def checkpointed(self) -> None:
        """The last checkpoint is on disk: the next one holds what changes from now on."""
        self._dirty.clear()
        self._forgotten.clear()

    def restore(self, state: bytes, traces: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over a checkpoint; raises msgspec.DecodeError for one that another version wrote."""
        found = msgspec.msgpack.decode(state, type=_State)
        decoder = msgspec.msgpack.Decoder(Trace)
        self._traces = {trace_id: decoder.decode(blob) for trace_id, blob in traces}
        self.now = found.now
        self._timers = [(at, ticket, what, a, b) for at, ticket, what, a, b in found.timers]
        heapq.heapify(self._timers)
        self._ticket = found.ticket
        self._held = found.held
        self._recent = found.recent
        self._waiting_scores = found.waiting_scores
        self._agent_senders = set(found.agent_senders)
        self._norms = found.norms
        self._own = found.own
        self._rollouts = found.rollouts
        self._remembered = {t: None for t in found.remembered if t in self._traces}
        self._spans = sum(trace.size() for trace in self._traces.values())
        self._ended_tasks = sum(len(trace.ended) for trace in self._traces.values())


def in_order(events: list[AnyEvent]) -> list[AnyEvent]:
    """The events of one request by end time, but a child before its parent: clocks that tick in milliseconds, and calls
    that are cut off with their task, let a child end at the same time or a little later."""
    ends = [_end(event) for event in events]
    by_id = {event.span_id: at for at, event in enumerate(events) if isinstance(event, Event)}
    moved = False
    for at, event in enumerate(events):
        child, steps = at, 0
        while isinstance(event, Event) and steps < _MAX_DEPTH:
            above = by_id.get(event.parent_id)
            if above is None or ends[above] > ends[child]:
                break
            ends[above] = (ends[child][0], ends[child][1], ends[child][2] + 1)
            moved = True
            child, event, steps = above, events[above], steps + 1
    if not moved and all(ends[i] <= ends[i + 1] for i in range(len(ends) - 1)):
        return events
    return [events[at] for at in sorted(range(len(events)), key=ends.__getitem__)]


def _end(event: AnyEvent) -> tuple[int, int, int]:
    return (event.end_ns, -event.start_ns, 0) if isinstance(event, Event) else (1 << 64, 0, 0)
