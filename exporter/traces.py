"""What is remembered of a trace: plain data that a checkpoint can write down as it is.

The spans of a trace arrive children first, from several processes, some never. So work is gathered where it can be
proved to belong: under an agent span that arrived (a `Unit`), or under the id of the parent that is still missing
(a `Family`). When that parent arrives, its family moves on to it.
"""

import msgspec

from exporter.events import AgentSpan, Event
from exporter.loops import Loop

PASSAGE, CALL, TOOL, AGENT = range(4)


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

    def span(self, start_ns: int, end_ns: int) -> None:
        self.first_ns = min(self.first_ns, start_ns) if self.first_ns else start_ns
        self.last_ns = max(self.last_ns, end_ns)

    def add(self, other: "Work") -> None:
        self.iterations += other.iterations
        self.spend += other.spend
        self.tokens += other.tokens
        self.calls += other.calls
        self.tools += other.tools
        if other.first_ns:
            self.span(other.first_ns, other.last_ns)
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
        if other.confidence is not None and (self.confidence is None or other.confidence < self.confidence):
            self.confidence = other.confidence
        if other.facts:
            self.facts = {**(self.facts or {}), **other.facts}


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
        own_name = inner.span.name or inner.inner_name
        if not self.inner_name:
            self.inner_name = own_name
        if not inner.behind_tool:
            for error, at in ((inner.span.error, inner.span.end_ns), (inner.inner_error, inner.inner_error_ns)):
                if error and at >= self.inner_error_ns:
                    self.inner_error, self.inner_error_ns = error, at


class Family(msgspec.Struct, array_like=True, gc=False):
    """What waits below one missing parent, or below a root that no agent owns."""

    bare: Work
    units: list[bytes]  # span ids, into Trace.units
    failed: str = ""  # a child span says that its parent, a tool call, failed: error or invalid
    root: Event | None = None  # the span below a remote parent that all of this is below

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
    iterations: int = 0  # outside agent spans that ended
    spend: float = 0.0
    call_failed: bool = False
    tool_failed: bool = False
    asked: str = ""  # the tool that the last call asked for, where it told
    loop: Loop = msgspec.field(default_factory=Loop)


class Ended(msgspec.Struct, array_like=True, gc=False):
    """A task that ended: what a late score needs of it."""

    agent: str
    task_type: str
    variant: str
    start_ns: int
    end_ns: int


class Trace(msgspec.Struct, array_like=True):
    """All that is known of one trace. `seen` holds the ids of spans whose nodes were let go, eight bytes each."""

    last_arrival: float
    agent: str
    nodes: dict[bytes, Node] = {}
    seen: bytes = b""
    families: dict[bytes, Family] = {}
    units: dict[bytes, Unit] = {}
    open: Task | None = None
    ended: dict[bytes, Ended] = {}
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

    def family(self, anchor: bytes) -> Family:
        found = self.families.get(anchor)
        if found is None:
            found = self.families[anchor] = Family(Work(), [])
        return found

    def size(self) -> int:
        return len(self.nodes) + len(self.seen) // 8
