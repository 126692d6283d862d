"""One call, one count: which LLM call is the second report of one that was counted already (DIALECTS.md, rule 4)."""

import msgspec

from exporter.events import Iteration
from exporter.traces import CALL, Call, Family, Trace

# A call that an SDK reports of itself, in a trace of its own, waits so long for the span that contains it: two rounds
# of the OpenTelemetry SDKs' batch processors (5 s).
HOLD_SECONDS = 10.0
# Calls of the last so many seconds are looked through for such a call's twin.
_TWIN_SECONDS = 30.0
_MOST_SIBLINGS = 8
_MOST_REMEMBERED = 10_000
_MOST_HELD = 1000
_MOST_RECENT = 500
_MOST_INSTANCES = 2000


def counted_before(trace: Trace, event: Iteration, below: Family | None) -> bool:
    """Whether another span of the same trace has told of this call; `below` is what waited for its span."""
    if event.response_id and event.response_id in trace.response_ids:
        return True
    if trace.summed:
        return True
    if below is not None and below.calls:
        return True  # an LLM call below an LLM call is the same call, told from nearer
    above = trace.nodes.get(event.parent_id)
    if above is not None and above.kind == CALL and above.counted:
        return True
    return any(_same(other, event) for other in trace.calls.get(event.parent_id, ()))


def _same(other: Call, event: Iteration) -> bool:
    """A sibling of another scope, one containing the other, where no two response ids tell them apart."""
    return (
        other.scope != event.scope
        and not (other.has_response_id and event.response_id)
        and (
            (other.start_ns <= event.start_ns and event.end_ns <= other.end_ns)
            or (event.start_ns <= other.start_ns and other.end_ns <= event.end_ns)
        )
    )


def remember(trace: Trace, event: Iteration) -> None:
    """The call was counted."""
    trace.nodes[event.span_id].counted = True
    if event.response_id and len(trace.response_ids) < _MOST_REMEMBERED:
        trace.response_ids.add(event.response_id)
    if event.parent_id and len(trace.calls) < _MOST_REMEMBERED:
        siblings = trace.calls.setdefault(event.parent_id, [])
        siblings.append(Call(event.start_ns, event.end_ns, event.scope, bool(event.response_id)))
        if len(siblings) > _MOST_SIBLINGS:
            del siblings[0]


class _Recent(msgspec.Struct, array_like=True, gc=False):
    arrival: float
    start_ns: int
    end_ns: int
    model: str
    answered_by: str

    def contains(self, event: Iteration) -> bool:
        return (
            self.start_ns <= event.start_ns
            and event.end_ns <= self.end_ns
            and (not self.model or bool({self.model, self.answered_by} & {event.model, event.answered_by}))
        )


class _Held(msgspec.Struct, array_like=True):
    event: Iteration
    until: float


class Elsewhere(msgspec.Struct, array_like=True):
    """Twins in other traces: calls that an SDK reports of itself as roots, by sending process (`Event.instance`)."""

    held: dict[str, list[_Held]] = {}
    recent: dict[str, list[_Recent]] = {}

    def has_come(self, event: Iteration) -> bool:
        """Whether a call that contains this one came lately; it then stands for this one and for no other."""
        recent = self.recent.get(event.instance, [])
        containing = [r for r in recent if r.contains(event)]
        if not containing:
            return False
        recent.remove(min(containing, key=lambda r: r.end_ns - r.start_ns))
        return True

    def hold(self, event: Iteration, now: float) -> bool:
        """Keep the call until its twin comes or `HOLD_SECONDS` are over; False where too many wait already."""
        held = self.held.setdefault(event.instance, [])
        if len(held) >= _MOST_HELD or len(self.held) > _MOST_INSTANCES:
            return False
        held.append(_Held(event, now + HOLD_SECONDS))
        return True

    def note(self, event: Iteration, now: float) -> None:
        """Another source told of a call: it is the twin of one that waits, or of one that may yet come."""
        if event.client:
            return
        mine = _Recent(now, event.start_ns, event.end_ns, event.model, event.answered_by)
        held = self.held.get(event.instance)
        if held:
            inside = [h for h in held if mine.contains(h.event)]
            if inside:
                held.remove(max(inside, key=lambda h: h.event.end_ns - h.event.start_ns))
                return
        recent = self.recent.setdefault(event.instance, [])
        recent.append(mine)
        if len(recent) > _MOST_RECENT or recent[0].arrival < now - 2 * _TWIN_SECONDS:
            self.recent[event.instance] = [r for r in recent if r.arrival >= now - _TWIN_SECONDS][-_MOST_RECENT // 2 :]
        if len(self.recent) > _MOST_INSTANCES:
            self.recent = {k: v for k, v in self.recent.items() if v and v[-1].arrival >= now - _TWIN_SECONDS}
            if len(self.recent) > _MOST_INSTANCES:
                self.recent.clear()

    def due(self, instance: str, now: float) -> list[Iteration]:
        """The calls that waited long enough: they have no twin."""
        held = self.held.pop(instance, [])
        left = [h for h in held if h.until > now]
        if left:
            self.held[instance] = left
        return [h.event for h in held if h.until <= now]

    def postpone(self, seconds: float) -> None:
        for held in self.held.values():
            for waiting in held:
                waiting.until += seconds
