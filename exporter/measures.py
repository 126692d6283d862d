"""The contract's series: children that count, and the limits of their labels.

Everything here belongs to one thread (the event loop), so nothing locks. Only the copy that `freeze` makes may be taken
to another thread, where `exposition.render` makes the page of it.
"""

import logging
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from exporter import contract
from exporter.contract import OTHER, UNKNOWN, Family, Kind
from exporter.exposition import (
    CounterRows,
    Exemplar,
    Frozen,
    GaugeRows,
    HistogramRows,
    around_le,
    labels_text,
    number_text,
    render,
)

log = logging.getLogger(__name__)

Clock = Callable[[], float]
Values = tuple[str, ...]

MAX_VALUES = {
    "agent": 200,
    "model": 100,
    "tool": 300,
    "task_type": 100,
    "scope": 50,
    "rollout": 20,
    "stage": 50,
    "shard": 16,
    "stop_reason": 30,
}
"""Most values a label may take. In a family with an `agent` label the others are counted for each agent on its own, so
that no agent can use up another's room; `agent` itself, and `scope`, are counted over all."""

_LARGEST = 1.7e308
_LONGEST = 100
_REMEMBERED_FOLDS = 10_000
_SNAPSHOT_VERSION = 1


class Counter:
    """One counter series."""

    __slots__ = ("_clock", "created", "created_text", "exemplar", "labels", "value")

    def __init__(self, family: Family, clock: Clock, values: Values, created: float) -> None:
        self._clock = clock
        self.labels = labels_text(family, values)
        self.restore(created, 0.0, None)

    def restore(self, created: float, value: float, exemplar: Exemplar | None) -> None:
        """Take over what a snapshot says; `created` is unix time in seconds."""
        self.created = created
        self.created_text = number_text(float(created))
        self.value = value
        self.exemplar = exemplar

    def inc(self, amount: float = 1.0, trace: str | None = None) -> None:
        """Add `amount`; `trace` (hex trace id) becomes the exemplar. ValueError if it is negative or not finite."""
        if not 0 <= amount <= _LARGEST:
            raise ValueError(f"a counter can't be increased by {amount!r}: give a finite number, 0 or more")
        self.value += amount
        if trace is not None:
            self.exemplar = (trace, amount, self._clock())


class Gauge:
    """One gauge series."""

    __slots__ = ("labels", "value")

    def __init__(self, family: Family, clock: Clock, values: Values, created: float) -> None:
        self.labels = labels_text(family, values)
        self.value = 0.0

    def set(self, value: float) -> None:
        """Replace the value."""
        self.value = float(value)


class Histogram:
    """One histogram. `counts` are per bucket, the last one above every bound; the page adds them up."""

    __slots__ = (
        "_bounds",
        "_clock",
        "around_le",
        "counts",
        "created",
        "created_text",
        "exemplars",
        "labels",
        "sum",
    )

    def __init__(self, family: Family, clock: Clock, values: Values, created: float) -> None:
        self._clock = clock
        self._bounds = family.buckets
        self.labels = labels_text(family, values)
        self.around_le = around_le(family, values)
        self.restore(created, 0.0, [0] * (len(family.buckets) + 1), None)

    def restore(self, created: float, total: float, counts: list[int], exemplars: list[Exemplar | None] | None) -> None:
        """Take over what a snapshot says; `created` is unix time in seconds."""
        self.created = created
        self.created_text = number_text(float(created))
        self.sum = total
        self.counts = counts
        self.exemplars = exemplars

    def observe(self, value: float, trace: str | None = None) -> None:
        """Count `value` (in the family's unit) into its bucket; `trace` (hex trace id) becomes that bucket's exemplar.

        ValueError if it is negative or not finite: `_sum` has to be a counter.
        """
        if not 0 <= value <= _LARGEST:
            raise ValueError(f"a histogram can't take {value!r}: give a finite number, 0 or more")
        bucket = bisect_left(self._bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if trace is not None:
            if self.exemplars is None:
                self.exemplars = [None] * len(self.counts)
            self.exemplars[bucket] = (trace, value, self._clock())


_Child = TypeVar("_Child", covariant=True)


class _Make(Protocol[_Child]):
    def __call__(self, values: Values, created: float) -> _Child: ...


class _Store(Generic[_Child]):
    """A family and its children by label values, in the contract's label order."""

    def __init__(self, family: Family, make: _Make[_Child]) -> None:
        self.family = family
        self.children: dict[Values, _Child] = {}
        self._make = make

    def create(self, values: Values, created: float) -> _Child:
        """A new child; `values` are clean."""
        child = self.children[values] = self._make(values, created)
        return child


class _Saved(msgspec.Struct, array_like=True):
    """A family in a snapshot: parallel columns, one item a series. `values` are a histogram's sums."""

    name: str
    labels: Values
    buckets: tuple[float, ...]
    series: list[Values]
    created: list[float]
    values: list[float]
    exemplars: list[Exemplar | None] = []
    counts: list[list[int]] = []
    bucket_exemplars: list[list[Exemplar | None] | None] = []


class _Snapshot(msgspec.Struct):
    version: int
    families: list[_Saved]


class Measures:
    """Every series that the exporter serves, and the only place where they are kept.

    Look a child up once and keep it: `counter()`, `gauge()` and `histogram()` take the values in the contract's label
    order, clean them, and create the child (0) if it is new. A clean value has only `[A-Za-z0-9_.:/@-]` (the rest
    becomes `_`) and at most 100 characters; an empty one stays empty in `reason` and becomes `unknown` elsewhere.

    A value for which its label has no room (`max_values`, see MAX_VALUES) becomes `other`, and is counted in
    `agent_exporter_series_limited_total{label}`: once for each such value and agent, as far as the last 10,000 of them
    are remembered. `other` and `unknown` never use up room. A label that is not in `max_values` has no limit: its
    values are the exporter's own.
    """

    def __init__(self, *, clock: Clock = time.time, max_values: Mapping[str, int] | None = None) -> None:
        self._clock = clock
        self._max_values = {**MAX_VALUES, **(max_values or {})}
        self._counters: dict[str, _Store[Counter]] = {}
        self._gauges: dict[str, _Store[Gauge]] = {}
        self._histograms: dict[str, _Store[Histogram]] = {}
        for family in contract.FAMILIES:
            if family.served_by != "exporter":
                continue
            if family.kind is Kind.COUNTER:
                self._counters[family.name] = _Store(family, partial(Counter, family, clock))
            elif family.kind is Kind.GAUGE:
                self._gauges[family.name] = _Store(family, partial(Gauge, family, clock))
            else:
                self._histograms[family.name] = _Store(family, partial(Histogram, family, clock))
        # By label and agent: the values that have room, and the last ones that found none.
        self._taken: dict[tuple[str, str], set[str]] = {}
        self._folded: set[tuple[str, str, str]] = set()
        for store in self._stores():
            if not store.family.labels:
                store.create((), clock())
        self.gauge("agent_exporter_start_time_seconds").set(clock())
        for result in contract.SPAN_RESULTS:
            self.counter("agent_exporter_spans_total", result)
        for label in self._max_values:
            self.counter("agent_exporter_series_limited_total", label)

    def _stores(self) -> Iterator[_Store[Any]]:
        yield from self._counters.values()
        yield from self._gauges.values()
        yield from self._histograms.values()

    # Look-ups. What is found by the values as they came is right: only clean values are keys, and cleaning leaves a
    # clean value as it is.

    def counter(self, name: str, *values: str) -> Counter:
        """The counter `name` for these label values. KeyError if the exporter serves no such counter."""
        store = self._counters[name]
        return store.children.get(values) or self._child(store, values)

    def gauge(self, name: str, *values: str) -> Gauge:
        """The gauge `name` for these label values. KeyError if the exporter serves no such gauge."""
        store = self._gauges[name]
        return store.children.get(values) or self._child(store, values)

    def histogram(self, name: str, *values: str) -> Histogram:
        """The histogram `name` for these label values. KeyError if the exporter serves no such histogram."""
        store = self._histograms[name]
        return store.children.get(values) or self._child(store, values)

    def _child(self, store: _Store[_Child], values: Values) -> _Child:
        labels = store.family.labels
        if len(values) != len(labels):
            raise ValueError(f"{store.family.name} has the labels {labels}, but {len(values)} values were given")
        agent = ""
        found = []
        for label, value in zip(labels, values, strict=True):
            found.append(self.label_value(label, value, agent))
            if label == "agent":
                agent = found[-1]
        key = tuple(found)
        return store.children.get(key) or store.create(key, self._clock())

    def label_value(self, label: str, value: str, agent: str = "") -> str:
        """What `label` is served as for `value`: cleaned, and `other` if there is no room for it.

        `agent` is the `agent` label (as served) of the same series, empty if it has none. Whoever keeps state by agent
        keeps it by `label_value("agent", name)`, else two agents set the one gauge of `other`.
        """
        clean = _clean(value[:_LONGEST])
        if not clean:
            return "" if label == "reason" else UNKNOWN
        limit = self._max_values.get(label)
        if limit is None or clean in (OTHER, UNKNOWN):
            return clean
        taken = self._taken.setdefault((label, agent), set())
        if clean in taken:
            return clean
        if len(taken) < limit:
            taken.add(clean)
            return clean
        fold = (label, agent, clean)
        if fold not in self._folded:
            if len(self._folded) >= _REMEMBERED_FOLDS:
                self._folded.clear()
            self._folded.add(fold)
            self.counter("agent_exporter_series_limited_total", label).inc()
        return OTHER

    def value(self, name: str, *values: str) -> float:
        """The value of a counter or gauge, the number of observations of a histogram; 0 if there is no such series."""
        key = tuple(_clean(value[:_LONGEST]) for value in values)
        if name in self._histograms:
            histogram = self._histograms[name].children.get(key)
            return float(sum(histogram.counts)) if histogram else 0.0
        if name in self._counters:
            counter = self._counters[name].children.get(key)
            return counter.value if counter else 0.0
        gauge = self._gauges[name].children.get(key)
        return gauge.value if gauge else 0.0

    def sums(self, name: str, label: str) -> dict[str, float]:
        """A counter's values, summed by one of its labels."""
        store = self._counters[name]
        at = contract.BY_NAME[name].labels.index(label)
        found: dict[str, float] = {}
        for values, counter in store.children.items():
            found[values[at]] = found.get(values[at], 0.0) + counter.value
        return found

    # Zeros: increase() sees the first event only if the series was there before it.

    def seen(self, agent: str) -> None:
        """An agent was seen: its series with fixed label values are there from now on."""
        for variant in contract.VARIANTS:
            self.counter("agent_tasks_started_total", agent, variant)
        for why in contract.LOOP_REASONS:
            self.gauge("agent_tasks_looping", agent, why)
            self.counter("agent_tasks_looped_total", agent, why)
        self.counter("agent_tasks_resumed_total", agent)
        self.gauge("agent_tasks_in_flight", agent)
        self.gauge("agent_task_in_flight_iterations_max", agent)
        self.gauge("agent_task_in_flight_seconds_max", agent)
        self.gauge("agent_task_in_flight_spend_usd_max", agent)
        self.gauge("agent_exporter_lag_seconds", agent)

    def seen_task_type(self, agent: str, task_type: str, variant: str) -> None:
        """A task of this type ended: all its outcomes, and its histograms, are there from now on."""
        if (agent, task_type, variant) in self._histograms["agent_task_iterations"].children:
            return
        for outcome, reason in contract.OUTCOME_REASONS:
            self.counter("agent_tasks_total", agent, task_type, variant, outcome, reason)
        self.histogram("agent_task_duration_seconds", agent, task_type, variant)
        self.histogram("agent_task_cost_usd", agent, task_type, variant)
        self.histogram("agent_task_iterations", agent, task_type, variant)

    def seen_model(self, agent: str, model: str, variant: str) -> None:
        """A model was called: its tokens, spend, errors and refusals are there from now on."""
        if (agent, model, variant) in self._counters["agent_refusals_total"].children:
            return
        for purpose in contract.PURPOSES:
            self.counter("agent_spend_usd_total", agent, model, variant, purpose)
            for direction in contract.DIRECTIONS:
                self.counter("agent_tokens_total", agent, model, variant, direction, purpose)
        self.counter("agent_iterations_total", agent, model, variant, "error")
        self.counter("agent_unpriced_tokens_total", agent, model)
        self.counter("agent_unmetered_calls_total", agent, model)
        self.histogram("agent_iteration_duration_seconds", agent, model, variant)
        self.counter("agent_refusals_total", agent, model, variant)

    def seen_tool(self, agent: str, tool: str, variant: str) -> None:
        """A tool was called: all its results are there from now on."""
        if (agent, tool, variant) in self._histograms["agent_tool_duration_seconds"].children:
            return
        for result in contract.TOOL_RESULTS:
            self.counter("agent_tool_calls_total", agent, tool, variant, result)
        self.histogram("agent_tool_duration_seconds", agent, tool, variant)

    def remove(self, name: str, where: Callable[[Values], bool]) -> int:
        """Drop the series of a family whose label values satisfy `where`; how many there were.

        A child that a caller kept is no longer served: forget it too. Values that no series has any more give their
        room back (agents keep theirs).
        """
        store = next(store for store in self._stores() if store.family.name == name)
        gone = [values for values in store.children if where(values)]
        for values in gone:
            del store.children[values]
        if gone:
            for label in store.family.labels:
                if label in self._max_values and label != "agent":
                    self._retake(label)
        return len(gone)

    def _retake(self, label: str) -> None:
        """Work out from the series that are there which values of `label` have room."""
        for key in [key for key in self._taken if key[0] == label]:
            del self._taken[key]
        for store in self._stores():
            labels = store.family.labels
            if label not in labels:
                continue
            at = labels.index(label)
            agent_at = labels.index("agent") if "agent" in labels and label != "agent" else None
            for values in store.children:
                if values[at] not in (OTHER, UNKNOWN):
                    agent = "" if agent_at is None else values[agent_at]
                    self._taken.setdefault((label, agent), set()).add(values[at])

    # The page.

    def freeze(self) -> Frozen:
        """All series as they are now, for `exposition.render` in any thread. Call it on the thread that counts."""
        return [self._rows(family.name) for family in contract.FAMILIES if family.served_by == "exporter"]

    def _rows(self, name: str) -> CounterRows | GaugeRows | HistogramRows:
        if name in self._counters:
            counters = list(self._counters[name].children.values())
            return CounterRows(
                self._counters[name].family,
                labels=[child.labels for child in counters],
                created=[child.created_text for child in counters],
                values=[child.value for child in counters],
                exemplars=[child.exemplar for child in counters],
            )
        if name in self._gauges:
            gauges = list(self._gauges[name].children.values())
            return GaugeRows(
                self._gauges[name].family,
                labels=[child.labels for child in gauges],
                values=[child.value for child in gauges],
            )
        histograms = list(self._histograms[name].children.values())
        return HistogramRows(
            self._histograms[name].family,
            labels=[child.labels for child in histograms],
            around_le=[child.around_le for child in histograms],
            created=[child.created_text for child in histograms],
            counts=[tuple(child.counts) for child in histograms],
            sums=[child.sum for child in histograms],
            exemplars=[tuple(child.exemplars) if child.exemplars else None for child in histograms],
        )

    def exposition(self, *, openmetrics: bool, process: bool = True) -> bytes:
        """The page of `/metrics`, made here and now; `process` adds the metrics of the Python process."""
        return render(self.freeze(), openmetrics=openmetrics, process=process)

    # What survives a restart. Gauges don't: they are set from the state that survives.

    def snapshot(self) -> bytes:
        """Counters and histograms, with their exemplars and times of creation, for `restore`."""
        saved = []
        for counters in self._counters.values():
            some = counters.children.values()
            saved.append(
                _Saved(
                    counters.family.name,
                    counters.family.labels,
                    (),
                    series=list(counters.children),
                    created=[child.created for child in some],
                    values=[child.value for child in some],
                    exemplars=[child.exemplar for child in some],
                )
            )
        for histograms in self._histograms.values():
            many = histograms.children.values()
            saved.append(
                _Saved(
                    histograms.family.name,
                    histograms.family.labels,
                    histograms.family.buckets,
                    series=list(histograms.children),
                    created=[child.created for child in many],
                    values=[child.sum for child in many],
                    counts=[child.counts for child in many],
                    bucket_exemplars=[child.exemplars for child in many],
                )
            )
        return msgspec.msgpack.encode(_Snapshot(_SNAPSHOT_VERSION, saved))

    def restore(self, data: bytes) -> None:
        """Take over a snapshot, before anything is counted. ValueError if `data` isn't one that this version reads.

        Families that the contract no longer has, or whose labels or buckets changed, are dropped with a line in the
        log.
        """
        try:
            snapshot = msgspec.msgpack.decode(data, type=_Snapshot)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a snapshot of the measures: {error}") from error
        if snapshot.version != _SNAPSHOT_VERSION:
            raise ValueError(f"a snapshot of version {snapshot.version}; this exporter reads {_SNAPSHOT_VERSION}")
        for saved in snapshot.families:
            store = self._counters.get(saved.name) or self._histograms.get(saved.name)
            if store is None:
                log.warning("dropped %s: the exporter no longer serves it", saved.name)
            elif saved.labels != store.family.labels:
                log.warning("dropped %s: its labels were %s, now %s", saved.name, saved.labels, store.family.labels)
            elif saved.buckets != store.family.buckets:
                log.warning("dropped %s: its buckets were %s, now %s", saved.name, saved.buckets, store.family.buckets)
            else:
                self._take_over(saved)
        for label in self._max_values:
            self._retake(label)

    def _take_over(self, saved: _Saved) -> None:
        # Children that are there already stay the same objects: callers keep them.
        for at, (values, created) in enumerate(zip(saved.series, saved.created, strict=True)):
            if saved.name in self._counters:
                counters = self._counters[saved.name]
                counter = counters.children.get(values) or counters.create(values, created)
                counter.restore(created, saved.values[at], saved.exemplars[at])
            else:
                histograms = self._histograms[saved.name]
                histogram = histograms.children.get(values) or histograms.create(values, created)
                histogram.restore(created, saved.values[at], saved.counts[at], saved.bucket_exemplars[at])


@lru_cache(maxsize=10_000)
def _clean(value: str) -> str:
    return _UNCLEAN.sub("_", value)


_UNCLEAN = re.compile(r"[^A-Za-z0-9_.:/@-]")
