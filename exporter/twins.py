"""One call, one count: which LLM call is the second report of one that was counted already (DIALECTS.md, rule 4)."""

from itertools import islice

import msgspec

from exporter.events import Iteration
from exporter.traces import Trace

# A call that an SDK reports of itself, in a trace of its own, waits so long for the span that contains it: two rounds
# of the OpenTelemetry SDKs' batch processors (5 s).
HOLD_SECONDS = 10.0
# Calls of the last so many seconds are looked through for such a call's twin.
_TWIN_SECONDS = 30.0
# How many of a trace's latest spans are looked through for a twin: they end at about the same time.
_LATEST = 64
_MOST_REMEMBERED = 10_000
_MOST_HELD = 1000
_MOST_RECENT = 500
_MOST_INSTANCES = 2000


def counted_before(trace: Trace, event: Iteration) -> bool:
    """Whether another span of the same trace has told of this call."""
    if event.response_id and event.response_id in trace.response_ids:
        return True
    if trace.summed or event.span_id in trace.called:
        return True  # an LLM call below an LLM call is the same call, told from nearer
    above = trace.spans.get(event.parent_id)
    if isinstance(above, Iteration) and above.counted:
        return True
    if not trace.call_scope or event.scope == trace.call_scope:
        return False
    latest = islice(reversed(trace.spans.values()), _LATEST)
    return any(isinstance(other, Iteration) and other.counted and _same(other, event) for other in latest)


def _same(other: Iteration, event: Iteration) -> bool:
    """A sibling of another scope, one containing the other, where no two response ids tell them apart."""
    return (
        other.parent_id == event.parent_id
        and other.scope != event.scope
        and not (other.response_id and event.response_id)
        and (
            (other.start_ns <= event.start_ns and event.end_ns <= other.end_ns)
            or (event.start_ns <= other.start_ns and other.end_ns <= event.end_ns)
        )
    )


def remember(trace: Trace, event: Iteration) -> None:
    """The call was counted."""
    event.counted = True
    if event.parent_id in trace.spans:
        trace.mark_called(event)
    elif event.parent_id:
        trace.called.add(event.parent_id)
    if event.response_id and len(trace.response_ids) < _MOST_REMEMBERED:
        trace.response_ids.add(event.response_id)
    if event.scope != trace.call_scope:
        trace.call_scope = "*" if trace.call_scope else event.scope


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
    recent: dict[str, list[_Recent]] = {}  # of the processes that ever sent such a call

    def has_come(self, event: Iteration) -> bool:
        """Whether a call that contains this one came lately; it then stands for this one and for no other."""
        recent = self.recent.setdefault(event.instance, [])
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
        recent = self.recent.get(event.instance)
        if recent is None or event.client:
            return
        mine = _Recent(now, event.start_ns, event.end_ns, event.model, event.answered_by)
        held = self.held.get(event.instance)
        if held:
            inside = [h for h in held if mine.contains(h.event)]
            if inside:
                held.remove(max(inside, key=lambda h: h.event.end_ns - h.event.start_ns))
                return
        recent.append(mine)
        if len(recent) > _MOST_RECENT or recent[0].arrival < now - 2 * _TWIN_SECONDS:
            self.recent[event.instance] = [r for r in recent if r.arrival >= now - _TWIN_SECONDS][-_MOST_RECENT // 2 :]
        if len(self.recent) > _MOST_INSTANCES:
            self.recent = {k: v for k, v in self.recent.items() if v and v[-1].arrival >= now - _TWIN_SECONDS}

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
