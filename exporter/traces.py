"""What is remembered of a trace: plain data that a checkpoint can write down as it is.

The spans of a trace arrive children first, from several processes, some never. So work is gathered where it can be
proved to belong: under an agent span that arrived (a `Unit`), or under the id of the parent that is still missing
(a `Family`). When that parent arrives, its family moves on to where the parent itself belongs.
"""

from typing import TypeAlias

import msgspec

from exporter.events import AgentSpan, Event, Iteration, ToolCall
from exporter.loops import Loop

PASSAGE, CALL, TOOL, AGENT = range(4)

# How far up a trace is walked: deeper nesting is nobody's, and a circle of parents ends here.
MAX_DEPTH = 500


class Node(msgspec.Struct, array_like=True, gc=False):
    """A span that arrived, as far as the shape of its trace needs it."""

    parent_id: bytes
    kind: int
    counted: bool = False  # a call that was counted
    ended: bool = False  # the top of a task that ended: what comes later below it is late


class Work(msgspec.Struct, array_like=True, gc=False):
    """What was counted for a part of a trace. Sums add up; of the last call and the last tool, the later one stays."""

    iterations: int = 0
    spend: float = 0.0
    tokens: int = 0
    calls: int = 0  # answered or not, failed or not
    tools: int = 0
    first_ns: int = 0
    last_ns: int = 0
    call_end_ns: int = -1
    call_answered: bool = True
    call_error: str = ""
    call_refused: bool = False
    call_final: bool = False
    call_asked: bool = False  # it asked for a tool
    tool_end_ns: int = -1
    tool_error: str = ""
    answered_end_ns: int = -1  # the end of the last call that was answered
    confidence: float | None = None  # the least sure of the tool calls
    facts: dict[str, str | int | float | bool] | None = None

    def __bool__(self) -> bool:
        return bool(self.calls or self.tools)

    def cover(self, start_ns: int, end_ns: int) -> None:
        self.first_ns = min(self.first_ns, start_ns) if self.first_ns else start_ns
        self.last_ns = max(self.last_ns, end_ns)

    def last_call(self, event: Iteration) -> None:
        """The call is the last one so far, if none that ended later came before."""
        if event.answered and not event.error:
            self.answered_end_ns = max(self.answered_end_ns, event.end_ns)
        if event.end_ns >= self.call_end_ns:
            self.call_end_ns = event.end_ns
            self.call_answered = event.answered or bool(event.error)
            self.call_error = event.error
            self.call_refused = event.refused
            self.call_final = event.final
            self.call_asked = event.stop_reason == "tool_use"

    def learn(self, facts: dict[str, str | int | float | bool] | None) -> None:
        if facts:
            self.facts = {**(self.facts or {}), **facts}

    def least_sure(self, confidence: float | None) -> None:
        if confidence is not None and (self.confidence is None or confidence < self.confidence):
            self.confidence = confidence

    def add(self, other: "Work") -> None:
        self.iterations += other.iterations
        self.spend += other.spend
        self.tokens += other.tokens
        self.calls += other.calls
        self.tools += other.tools
        if other.first_ns:
            self.cover(other.first_ns, other.last_ns)
        if other.call_end_ns >= self.call_end_ns:
            self.call_end_ns = other.call_end_ns
            self.call_answered = other.call_answered
            self.call_error = other.call_error
            self.call_refused = other.call_refused
            self.call_final = other.call_final
            self.call_asked = other.call_asked
        if other.tool_end_ns >= self.tool_end_ns:
            self.tool_end_ns = other.tool_end_ns
            self.tool_error = other.tool_error
        self.answered_end_ns = max(self.answered_end_ns, other.answered_end_ns)
        self.least_sure(other.confidence)
        self.learn(other.facts)


class Unit(msgspec.Struct, array_like=True, gc=False):
    """An agent span that arrived, with all the work below it; a task, unless another agent turns out to be above it."""

    span: AgentSpan
    work: Work
    inner_name: str = ""  # of its first agent child
    inner_error: str = ""  # of an agent child that failed, and when that one ended
    inner_error_ns: int = -1
    behind_tool: bool = False  # a tool stands between it and whatever is above: its failure is the tool's

    def absorb(self, inner: "Unit") -> None:
        self.work.add(inner.work)
        self.work.learn(inner.span.facts)
        if not self.inner_name:
            self.inner_name = inner.span.name or inner.inner_name
        if not inner.behind_tool:
            for error, at in ((inner.span.error, inner.span.end_ns), (inner.inner_error, inner.inner_error_ns)):
                if error and at >= self.inner_error_ns:
                    self.inner_error, self.inner_error_ns = error, at


class Family(msgspec.Struct, array_like=True, gc=False):
    """What waits below one missing parent, or below a root that no agent owns."""

    bare: Work
    units: list[bytes]  # span ids, into Trace.units
    calls: int = 0  # counted ones, with no tool between: if the parent is a call itself, these told of it already
    failed: str = ""  # a child span says that its parent, a tool call, failed: error or invalid
    root: Event | Iteration | ToolCall | AgentSpan | None = None  # the span below a remote parent that all of this is below

    def __bool__(self) -> bool:
        return bool(self.bare) or bool(self.units)


class Call(msgspec.Struct, array_like=True, gc=False):
    """A counted call, for recognising its second report by another instrumentation."""

    start_ns: int
    end_ns: int
    scope: str
    has_response_id: bool


class Task(msgspec.Struct, array_like=True):
    """The task of a trace that runs."""

    agent: str
    variant: str
    rollout: tuple[str, str, str] | None
    began: float  # unix seconds, by the exporter's clock
    started: bool = False  # counted as started
    iterations: int = 0  # outside agents that ended
    spend: float = 0.0
    call_failed: bool = False
    tool_failed: bool = False
    asked: str = ""  # the tool that the last call asked for, where it told
    loop: Loop = msgspec.field(default_factory=Loop)

    @property
    def purpose(self) -> str:
        """Of the call that ends next: METRICS' `retry`, `recovery` or `progress`."""
        return "retry" if self.call_failed else "recovery" if self.tool_failed else "progress"


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


Place: TypeAlias = bytes | Unit | None


class Trace(msgspec.Struct, array_like=True):
    """A trace whose spans may still come. `seen` holds the ids of spans whose nodes were let go."""

    last_arrival: float
    agent: str
    nodes: dict[bytes, Node] = {}
    seen: bytes = b""
    families: dict[bytes, Family] = {}
    units: dict[bytes, Unit] = {}
    open: Task | None = None
    ended: list[Ended] = []
    calls: dict[bytes, list[Call]] = {}  # counted calls by parent
    response_ids: set[str] = set()
    scores: list[tuple[str, float, bytes]] = []  # that came before their task ended
    given_up: bool = False
    summed: bool = False  # a task's own sums were counted: calls that come below it later are in them

    def saw(self, span_id: bytes) -> bool:
        if span_id in self.nodes:
            return True
        at = self.seen.find(span_id) if self.seen else -1
        while at >= 0 and at % 8:
            at = self.seen.find(span_id, at + 1)
        return at >= 0

    def size(self) -> int:
        """Spans remembered."""
        return len(self.nodes) + len(self.seen) // 8

    def family(self, anchor: bytes) -> Family:
        found = self.families.get(anchor)
        if found is None:
            found = self.families[anchor] = Family(Work(), [])
        return found

    def enter(self, event: Event, kind: int) -> Family | None:
        """Put a span in its place. What waited for it moves on to where the span belongs, unless it is an agent's: that
        is the caller's to take over. Returns what waited."""
        self.nodes[event.span_id] = Node(event.parent_id, kind)
        waiting = self.families.pop(event.span_id, None)
        if waiting is None or kind == AGENT:
            return waiting
        if kind == TOOL:
            for unit in self.units_of(waiting):
                unit.behind_tool = True
        place = self.place(event)
        if place is None:  # below a task that ended: late, and counted already
            for span_id in waiting.units:
                self.units.pop(span_id, None)
        elif isinstance(place, Unit):
            place.work.add(waiting.bare)
            for unit in self.take_units(waiting):
                place.absorb(unit)
        elif waiting:
            family = self.family(place)
            family.bare.add(waiting.bare)
            family.units += waiting.units
            if kind != TOOL:
                family.calls += waiting.calls
        return waiting

    def place(self, event: Event) -> Place:
        """Where the work of a span belongs: the id of the parent that is missing above it, or of the root; an agent
        span's unit; or None, below a task that ended."""
        at = event.parent_id
        if not at:
            return event.span_id
        for _ in range(MAX_DEPTH):
            node = self.nodes.get(at)
            if node is None:
                return at
            if node.ended:
                return None
            if node.kind == AGENT:
                unit = self.units.get(at)
                if unit is not None:
                    return unit
            if not node.parent_id:
                return at
            at = node.parent_id
        return at

    def in_a_tool(self, event: Event) -> bool:
        """Whether a tool call, as far as is known, stands between the span and whatever is missing above it."""
        node = self.nodes.get(event.parent_id)
        for _ in range(MAX_DEPTH):
            if node is None or node.kind == TOOL:
                return node is not None
            node = self.nodes.get(node.parent_id)
        return False

    def work_at(self, place: Place) -> Work | None:
        if place is None:
            return None
        return place.work if isinstance(place, Unit) else self.family(place).bare

    def units_of(self, family: Family) -> list[Unit]:
        return [unit for span_id in family.units if (unit := self.units.get(span_id)) is not None]

    def take_units(self, family: Family) -> list[Unit]:
        units = self.units_of(family)
        for unit in units:
            del self.units[unit.span.span_id]
        family.units = []
        return units

    def is_late(self, event: Event) -> bool:
        """Whether the span began while a task of this trace ran that has ended since."""
        return any(ended.start_ns <= event.start_ns < ended.end_ns for ended in self.ended)

    def ended_task(self, span_id: bytes) -> Ended | None:
        """The ended task that a span is in; the trace's latest, where the span is not known and none is in flight."""
        at = span_id
        for _ in range(MAX_DEPTH):
            for ended in self.ended:
                if ended.top == at:
                    return ended
            node = self.nodes.get(at)
            if node is None:
                break
            at = node.parent_id
        return self.ended[-1] if self.ended and self.open is None else None

    def let_go(self, most: int) -> None:
        """Of a very long trace keep the latest `most` spans' ids, and the nodes of nothing but its agents."""
        kept = {k: n for k, n in self.nodes.items() if n.kind == AGENT or n.ended}
        if len(kept) > most // 2:
            kept = {}
        self.seen = (self.seen + b"".join(k for k in self.nodes if k not in kept))[-8 * most :]
        self.nodes = kept
        self.calls = {}

    def past(self) -> Past:
        return Past(self.last_arrival, self.seen + b"".join(self.nodes), self.ended, self.given_up, self.summed)


def revived(past: Past, now: float) -> Trace:
    """A trace that was over, and of which another span came."""
    trace = Trace(now, past.ended[-1].agent if past.ended else "", seen=past.seen, ended=past.ended)
    trace.given_up, trace.summed = past.given_up, past.summed
    for ended in past.ended:
        trace.nodes[ended.top] = Node(b"", AGENT, ended=True)
    return trace
