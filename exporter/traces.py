"""What is remembered of a trace: plain data that a checkpoint can write down as it is.

The spans of a trace arrive children first, from several processes, some never. While a task may still run, its trace
keeps what was read of each span; what belongs to which task is found out once, when one ends.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import msgspec

from exporter.events import AGENT, CALL, TOOL, AgentSpan, Event, Iteration, Score, ToolCall
from exporter.loops import Loop

# How far up a trace is walked: deeper nesting is nobody's, and a circle of parents ends here.
MAX_DEPTH = 100

Facts = dict[str, str | int | float | bool]


@dataclass(slots=True)
class Work:
    """What was counted for a task, or a part of one: sums, and how the last call and the last tool ended."""

    iterations: int = 0
    spend: float = 0.0
    tokens: int = 0
    calls: int = 0  # answered or not, failed or not
    tools: int = 0
    first_ns: int = 0  # the start of the first of them, 0 where there is none
    last_ns: int = 0
    call_end_ns: int = -1
    last_call: Iteration | None = None
    tool_end_ns: int = -1
    tool_error: str = ""
    answered_end_ns: int = -1  # the end of the last call that was answered
    confidence: float | None = None  # of the least sure tool call
    facts: Facts = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.calls or self.tools)

    def call(self, event: Iteration) -> None:
        """Count a call in."""
        end_ns = event.end_ns
        if not event.twin:
            self.calls += 1
            if not self.first_ns or event.start_ns < self.first_ns:
                self.first_ns = event.start_ns
            if end_ns > self.last_ns:
                self.last_ns = end_ns
            if event.counted:
                self.iterations += 1
                self.spend += event.spend
                self.tokens += event.tokens
        elif not event.answered and not event.error:
            return  # what this report does not know, the one that was counted does
        if end_ns > self.answered_end_ns and event.answered and not event.error:
            self.answered_end_ns = end_ns
        if end_ns >= self.call_end_ns:
            self.call_end_ns = end_ns
            self.last_call = event

    def tool_call(self, event: ToolCall) -> None:
        """Count a tool call in."""
        end_ns = event.end_ns
        self.tools += 1
        if not self.first_ns or event.start_ns < self.first_ns:
            self.first_ns = event.start_ns
        if end_ns > self.last_ns:
            self.last_ns = end_ns
        if end_ns >= self.tool_end_ns:
            self.tool_end_ns = end_ns
            self.tool_error = event.error
        if event.confidence is not None and (self.confidence is None or event.confidence < self.confidence):
            self.confidence = event.confidence

    def note(self, facts: Facts) -> None:
        """Take in the facts that a span of any kind told."""
        self.facts = {**self.facts, **facts}

    # Of the last call: what tells how the task ended.

    @property
    def call_answered(self) -> bool:
        """Answered, or failed: in any case over."""
        call = self.last_call
        return call is None or call.answered or bool(call.error)

    @property
    def call_error(self) -> str:
        return self.last_call.error if self.last_call is not None else ""

    @property
    def call_refused(self) -> bool:
        return self.last_call is not None and self.last_call.refused

    @property
    def call_final(self) -> bool:
        return self.last_call is not None and self.last_call.final

    @property
    def call_asked(self) -> bool:
        """It asked for a tool."""
        return self.last_call is not None and self.last_call.stop_reason == "tool_use"


def work_of(events: Iterable[Event]) -> Work:
    """The work that these spans told of, in the order they came."""
    work = Work()
    for event in events:
        if event.kind == CALL:
            work.call(event)  # type: ignore[arg-type]
        elif event.kind == TOOL:
            work.tool_call(event)  # type: ignore[arg-type]
        if event.facts:
            work.note(event.facts)
    return work


class Unit(msgspec.Struct, gc=False):
    """An agent span without another above it, and the work below it: a task."""

    span: AgentSpan
    work: Work
    inner_name: str = ""  # of its first agent child
    inner_error: str = ""  # of the last agent child that failed, and when that one ended
    inner_error_ns: int = -1
    spans: Collection[bytes] = ()  # ids, its own included


class Group(msgspec.Struct, gc=False):
    """What stands below one missing parent, or a root: the tasks in it, by span id, and the work outside of them."""

    units: dict[bytes, Unit] = {}
    rest: Work = msgspec.field(default_factory=Work)
    rest_ids: list[bytes] = []
    top: Event | None = None  # the span just below the missing parent, or the root; a plain one, if there is one


@dataclass(slots=True)
class Task:
    """The task of a trace that runs."""

    agent: str
    variant: str
    rollout: tuple[str, str, str] | None
    began: float  # unix seconds, by the exporter's clock
    loop_from: int  # the agent's limit on iterations
    started: bool = False  # counted as started
    iterations: int = 0  # outside agents that ended
    spend: float = 0.0
    call_failed: bool = False
    tool_failed: bool = False  # a tool call since the last call
    tool_parent: bytes = b""  # and what stands above that tool call
    recovering: bool = False  # the iteration before this one had a failed tool call inside it
    asked: str = ""  # the tool that the last call asked for, where it told
    loop: Loop = field(default_factory=Loop)

    def purpose(self, event: Iteration) -> str:
        """METRICS' `retry`, `recovery` or `progress`. An iteration of the base schema ends after the tool calls that it
        asked for: if one of those failed, the next iteration is the recovery."""
        if self.call_failed:
            return "retry"
        return "recovery" if self.recovering or (self.tool_failed and not self._inside(event)) else "progress"

    def went_on(self, event: Iteration) -> None:
        """The call ended: it is what the next one follows."""
        self.call_failed = event.error != ""
        self.asked = event.asked
        if event.answered:
            self.recovering = self.tool_failed and self._inside(event)
            self.tool_failed = False

    def _inside(self, event: Iteration) -> bool:
        return event.own and self.tool_parent == event.span_id


class Ended(msgspec.Struct, array_like=True, gc=False):
    """A task that ended: what a late score, or a late span, needs of it."""

    top: bytes  # its topmost span
    agent: str
    task_type: str
    variant: str
    start_ns: int
    end_ns: int


class Past(msgspec.Struct, array_like=True, gc=False):
    """A trace that is over. `seen` holds its spans' ids, eight bytes each."""

    last_arrival: float
    seen: bytes
    ended: list[Ended]
    given_up: bool
    summed: bool

    def size(self) -> int:
        return len(self.seen) // 8


@dataclass(slots=True)
class Trace:
    """A trace whose spans may still come."""

    last_arrival: float
    agent: str
    # By id, what has not ended; and the ids of the others, the oldest first.
    spans: dict[bytes, Event | Iteration | ToolCall | AgentSpan] = field(default_factory=dict)
    seen: dict[bytes, None] = field(default_factory=dict)
    work: Work = field(default_factory=Work)  # what `spans` told so far,
    whole: bool = True  # unless this says no: then it has to be summed anew
    last_start_ns: int = 0  # of `spans`
    # The ids of spans below which, with no tool or agent between, a call was counted.
    called: set[bytes] = field(default_factory=set)
    call_scope: str = ""  # the one scope of the calls counted so far; "*": several
    response_ids: set[str] = field(default_factory=set)
    failed: dict[bytes, str] = field(default_factory=dict)  # the results of tool calls that spans below them tell
    children: dict[bytes, list[bytes]] | None = None  # ids by parent, from when they are first asked for
    # What to look at when a grace time is over: see Tasks._look_at.
    grace: dict[int, list[tuple[bool, bytes]]] = field(default_factory=dict)
    open: Task | None = None
    ended: list[Ended] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)  # that came before their task ended
    given_up: bool = False
    summed: bool = False  # a task's own sums were counted: calls that come below it later are in them

    def let_go(self, span_ids: Collection[bytes]) -> None:
        """The task of these spans of the trace is over: only their ids are kept."""
        spans = self.spans
        if len(span_ids) == len(spans):  # all of them: they are this trace's
            self.seen.update(dict.fromkeys(spans))
            spans.clear()
            self.children = None
            self.work, self.whole, self.last_start_ns = Work(), True, 0
            return
        self.whole = False
        for span_id in span_ids:
            if spans.pop(span_id, None) is not None:
                self.seen[span_id] = None
                if self.children is not None:
                    self.children.pop(span_id, None)

    def size(self) -> int:
        """Spans remembered."""
        return len(self.spans) + len(self.seen)

    def missing_above(self, event: Event) -> tuple[bytes, bool]:
        """(the id of what is missing above the span, empty if its root is known; whether an agent is above it)."""
        below_agent = False
        for _ in range(MAX_DEPTH):
            above = self.spans.get(event.parent_id)
            if above is None:
                break
            below_agent = below_agent or above.kind == AGENT
            event = above
        return event.parent_id, below_agent

    def close(self, agent: AgentSpan) -> int:
        """An agent span ended: how many iterations stand below it that did not stand below one that ended before."""
        if self.children is None:
            self.children = {}
            for span_id, event in self.spans.items():
                self.children.setdefault(event.parent_id, []).append(span_id)
        iterations = 0
        agent.closed = True
        below = list(self.children.get(agent.span_id, ()))
        for _ in range(len(self.spans)):  # a circle of parents has no end
            if not below:
                break
            span_id = below.pop()
            found = self.spans.get(span_id)
            if isinstance(found, Iteration):
                iterations += found.counted
            if found is not None and not (isinstance(found, AgentSpan) and found.closed):
                below += self.children.get(span_id, ())
        return iterations

    def leads_to(self, event: Event, span_id: bytes) -> bool:
        """Whether a span is known to stand above another."""
        above: Event | None = event
        for _ in range(MAX_DEPTH):
            if above is None or above.parent_id == span_id:
                return above is not None
            above = self.spans.get(above.parent_id)
        return False

    def mark_called(self, event: Event) -> None:
        """A call was counted at or below the span: what stands above, up to a tool or an agent, tells of the same."""
        at = event.parent_id
        for _ in range(MAX_DEPTH):
            if not at:
                break
            self.called.add(at)
            above = self.spans.get(at)
            if above is None or above.kind in (TOOL, AGENT):
                break
            at = above.parent_id

    def is_late(self, event: Event) -> bool:
        """Whether the span began while a task of this trace ran that has ended since."""
        return any(ended.start_ns <= event.start_ns < ended.end_ns for ended in self.ended)

    def ended_task(self, span_id: bytes) -> Ended | None:
        """The ended task whose top a span is; else the trace's latest, if none is in flight."""
        for ended in self.ended:
            if ended.top == span_id:
                return ended
        return self.ended[-1] if self.ended and self.open is None else None

    def past(self) -> Past:
        seen = b"".join(self.seen) + b"".join(self.spans)
        return Past(self.last_arrival, seen, self.ended, self.given_up, self.summed)


def all_of(trace: Trace, top: AgentSpan) -> Unit:
    """The unit of an agent span without a parent: what of its trace began before its end, and what is known to stand
    below it whenever it began (clocks differ, sub-agents may outlive the span that started them)."""
    end_ns = top.end_ns
    if trace.whole and trace.last_start_ns <= end_ns:
        return Unit(top, trace.work, spans=trace.spans.keys())  # nearly always
    return _unit(
        trace,
        top,
        [
            span_id
            for span_id, event in trace.spans.items()
            if event.start_ns <= end_ns or event is top or trace.leads_to(event, top.span_id)
        ],
    )


def _unit(trace: Trace, top: AgentSpan, span_ids: list[bytes]) -> Unit:
    spans = trace.spans
    events: list[Event] = [spans[span_id] for span_id in span_ids]
    unit = Unit(top, work_of(events), spans=span_ids)
    for event in events:
        if event.kind == AGENT and event is not top and isinstance(event, AgentSpan):
            if not unit.inner_name:
                unit.inner_name = event.name
            if event.error and event.end_ns >= unit.inner_error_ns and not _behind_tool(trace, event):
                unit.inner_error, unit.inner_error_ns = event.error, event.end_ns
    return unit


def sort_out(trace: Trace) -> dict[bytes, Group]:
    """Which spans are of which task, by the id of what is missing above them; b"" where their root is known."""
    spans = trace.spans
    places: dict[bytes, tuple[bytes | None, bytes]] = {}  # span id → (topmost agent above or itself, what is missing)
    for span_id in spans:
        path: list[bytes] = []
        at = span_id
        while at in spans and at not in places and len(path) < MAX_DEPTH:
            path.append(at)
            places[at] = (None, b"")  # closes a circle of parents
            at = spans[at].parent_id
        owner, anchor = places.get(at) or (None, at)
        for step in reversed(path):
            if owner is None and spans[step].kind == AGENT:
                owner = step
            places[step] = (owner, anchor)
    groups: dict[bytes, Group] = {}
    below: dict[bytes, list[bytes]] = {}  # the ids of a topmost agent's spans
    for span_id, event in spans.items():
        owner, anchor = places[span_id]
        group = groups.get(anchor)
        if group is None:
            group = groups[anchor] = Group()
        if event.parent_id == anchor and (group.top is None or event.kind < group.top.kind):
            group.top = event
        if owner is None:
            group.rest_ids.append(span_id)
        else:
            below.setdefault(owner, []).append(span_id)
    for owner, span_ids in below.items():
        top = spans[owner]
        assert isinstance(top, AgentSpan)
        groups[places[owner][1]].units[owner] = _unit(trace, top, span_ids)
    for group in groups.values():
        group.rest = work_of(spans[span_id] for span_id in group.rest_ids)
    return groups


def _behind_tool(trace: Trace, event: Event) -> bool:
    """Whether a tool call stands between an agent and the next agent above: its failure is then the tool's."""
    above = trace.spans.get(event.parent_id)
    for _ in range(MAX_DEPTH):
        if above is None or above.kind in (AGENT, TOOL):
            return above is not None and above.kind == TOOL
        above = trace.spans.get(above.parent_id)
    return False


def revived(past: Past, now: float) -> Trace:
    """A trace that was over, and of which another span came."""
    seen = dict.fromkeys(past.seen[at : at + 8] for at in range(0, len(past.seen), 8))
    trace = Trace(now, past.ended[-1].agent if past.ended else "", seen=seen, ended=past.ended)
    trace.given_up, trace.summed = past.given_up, past.summed
    return trace
