"""What rules would have recorded and fired, had they been evaluated over the past."""

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from alert_rules.promql import duration_seconds
from alert_rules.rules import Alert, Group, Recording, Site
from stack.past import STEP, Labels, PastPrometheus, Samples, labels_of

_Series = tuple[list[float], list[float]]

_STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def evaluate(
    prometheus: PastPrometheus,
    groups: Sequence[Group],
    start: float,
    end: float,
    *,
    on_rule: Callable[[int, int], None] = lambda _done, _all: None,
) -> None:
    """Writes what each rule gives from `start` to `end` (epoch seconds) back, as a server that was there would have.

    Each comes after those whose records it reads, at its group's interval, a minute at least. `on_rule` is told how
    many rules of how many are done.
    """
    waiting = [(rule, max(STEP, duration_seconds(group.interval))) for group in groups for rule in group.rules]
    count = len(waiting)
    while waiting:
        on_rule(count - len(waiting), count)
        to_come = {rule.record for rule, _ in waiting if isinstance(rule, Recording)}
        ready = next(
            i for i, (rule, _) in enumerate(waiting) if not _names(rule) & to_come - {getattr(rule, "record", "")}
        )
        rule, step = waiting.pop(ready)
        first = math.ceil(start / step) * step
        found = prometheus.range(rule.expr, first, end, step)
        made = _recorded(rule, found, step, end) if isinstance(rule, Recording) else _alerts(rule, found, step, end)
        try:
            prometheus.write(made)
        except RuntimeError as error:
            raise RuntimeError(f"{getattr(rule, 'record', getattr(rule, 'name', ''))}: {error}") from error
    on_rule(count, count)


def _names(rule: Recording | Alert) -> set[str]:
    """Every word of the expression: the series it reads are among them."""
    return set(re.findall(r"[A-Za-z_:][\w:]*", rule.expr))


def _recorded(
    rule: Recording, found: Mapping[Labels, Samples], step: float, end: float
) -> Iterator[tuple[Labels, Samples]]:
    for labels, samples in found.items():
        yield (
            labels_of(rule.record, {**dict(labels), "__name__": rule.record, **rule.labels}),
            _ended(samples, step, end),
        )


def _alerts(rule: Alert, found: Mapping[Labels, Samples], step: float, end: float) -> Iterator[tuple[Labels, Samples]]:
    """ALERTS and ALERTS_FOR_STATE, by the alert's `for` and `keep_firing_for`."""
    own = rule.document(Site())["labels"]
    wait, keep = duration_seconds(rule.wait), duration_seconds(rule.keep_firing_for)
    for labels, (times, _) in found.items():
        named = {**dict(labels), **own, "alertname": rule.name}
        named.pop("__name__", None)
        true, at = set(times), times[0]
        active: float | None = None
        last = -math.inf
        firing: _Series = ([], [])
        pending: _Series = ([], [])
        since: _Series = ([], [])
        while at <= end:
            if at in true:
                last = at
                active = at if active is None else active
            fires = active is not None and last - active >= wait
            if active is not None and last < at and not (fires and at - last <= keep):
                active = None
            if active is not None:
                for (moments, values), value in ((firing if fires else pending, 1.0), (since, active)):
                    moments.append(at)
                    values.append(value)
            at += step
        for name, state, samples in (
            ("ALERTS", "firing", firing),
            ("ALERTS", "pending", pending),
            ("ALERTS_FOR_STATE", "", since),
        ):
            if samples[0]:
                yield labels_of(name, {**named, "alertstate": state}), _ended(samples, step, end)


def _ended(samples: Samples, step: float, end: float) -> Samples:
    """With a stale marker wherever the series stops, as a server writes it."""
    times: list[float] = []
    values: list[float] = []
    for at, value in zip(*samples, strict=True):
        if times and at - times[-1] > step * 1.5:
            times.append(times[-1] + step)
            values.append(_STALE)
        times.append(at)
        values.append(value)
    if times and times[-1] + step <= end:
        times.append(times[-1] + step)
        values.append(_STALE)
    return times, values
