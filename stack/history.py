"""A week that could have been, in a Prometheus' data directory: the simulated agents' counters, and what the rules
record of them.

Some hours of the fleet go through the exporter itself, its clock wound on. They are played over and over, slower at
night and at weekends, so that a week costs no more than those hours.
"""

import math
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from alert_rules.generate import groups
from alert_rules.thresholds import Thresholds
from demo.fleet import Fleet
from demo.otlp import requests
from demo.scenarios import Scenario
from exporter.config import Settings
from exporter.contract import SCRAPE_JOB
from exporter.exposition import CounterRows, GaugeRows
from exporter.measures import Measures
from exporter.pipeline import Pipeline
from stack.evaluate import evaluate
from stack.past import STEP, Labels, PastPrometheus, Samples, labels_of

DAY = 86_400
_CYCLE = 3 * 3600
_SNAPSHOT = 30
"""Seconds of the simulated hours from one snapshot of the counters to the next."""
_SCRAPE = 120
"""Seconds from one sample to the next; a minute in the last hours."""
_LAST_HOURS = 3 * 3600


def fill(
    tsdb: Path,
    scenario: Scenario,
    thresholds: Thresholds,
    *,
    days: float,
    end: float,
    instance: str,
    port: int,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Puts blocks of `days` days up to the epoch second `end` into the data directory `tsdb`.

    A Prometheus that runs on `tsdb` already finds them within a minute. `instance` is the exporter's HOST:PORT as it is
    scraped; `port` is a free one, for a Prometheus that works here in between. Raises RuntimeError.
    """
    end = end // STEP * STEP
    start = end - days * DAY
    tsdb.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="history-", dir=tsdb.parent) as name:
        prometheus = PastPrometheus(Path(name), port)
        try:
            say(f"history: {_CYCLE // 3600} hours of {len(scenario.agents)} agents go through the exporter")
            cycle = Cycle(scenario)
            say(f"history: {days:g} days are made of them")
            prometheus.write(cycle.series(start, end, {"job": SCRAPE_JOB, "instance": instance}))
            told = time.monotonic()

            def on_rule(done: int, count: int) -> None:
                nonlocal told
                if done == count or time.monotonic() > told + 5:
                    told = time.monotonic()
                    say(f"history: {done} of {count} rules evaluated over {days:g} days")

            evaluate(prometheus, groups(thresholds), start, end, on_rule=on_rule)
            prometheus.blocks(tsdb)
        finally:
            prometheus.close()


def work_until(at: float) -> float:
    """Seconds of full work in an agent's life up to the epoch second `at`: less by night (UTC) and at weekends.

    The integral of a pace between 0.2 and 1, so it tells how far the counters are.
    """
    days, second = divmod(at, DAY)
    # 0.6 - 0.4 cos: least at 02:00, most at 14:00. At weekends, half of that. 1 January 1970 was a Thursday.
    whole = 0.6 * DAY * (days - _weekend_days(days) / 2)
    phase = 2 * math.pi * (second - 7200) / DAY
    part = 0.6 * second - 0.4 * DAY / (2 * math.pi) * (math.sin(phase) - math.sin(-2 * math.pi * 7200 / DAY))
    return whole + part * (0.5 if (days + 3) % 7 >= 5 else 1.0)


def _weekend_days(days: float) -> float:
    """Saturdays and Sundays among so many days from 1 January 1970."""
    weeks, rest = divmod(days, 7)
    return 2 * weeks + min(max(rest - 2, 0), 2)


class Cycle:
    """The counters of a fleet over some hours, from which those of any later moment follow."""

    def __init__(self, scenario: Scenario) -> None:
        began = clock = 1_700_000_000.0
        pipeline = Pipeline(Settings(), clock=lambda: clock)
        fleet = Fleet(scenario, seed=1, start=began)
        self._counters: dict[str, array[float]] = {}
        self._gauges: dict[str, array[float]] = {}
        for step in range(_CYCLE // _SNAPSHOT + 1):
            clock = began + step * _SNAPSHOT
            for body in requests(fleet.spans(clock)):
                pipeline.take_traces(body)
            pipeline.advance()
            for key, value, is_gauge in rows(pipeline.measures):
                kept = (self._gauges if is_gauge else self._counters).setdefault(key, array("d"))
                # Nothing from before it was there; the last value where it was away.
                kept.extend([kept[-1] if kept else 0.0] * (step - len(kept)))
                kept.append(value)

    def series(self, start: float, end: float, target: dict[str, str]) -> Iterator[tuple[Labels, Samples]]:
        """Every series from `start` to `end` (epoch seconds), with the labels `target` on each."""
        fine = max(start, end - _LAST_HOURS)
        times = [start + i * _SCRAPE for i in range(int((fine - start) // _SCRAPE))]
        times += [fine + i * STEP for i in range(int((end - fine) // STEP) + 1)]
        begun = work_until(start)
        done = [divmod((work_until(at) - begun) / _SNAPSHOT, _CYCLE // _SNAPSHOT) for at in times]
        at_snapshot = [(rounds, int(part)) for rounds, part in done]
        for key, values in self._counters.items():
            total = values[-1]
            yield (
                series_of(key, target),
                (times, [rounds * total + values[min(part, len(values) - 1)] for rounds, part in at_snapshot]),
            )
        for key, values in self._gauges.items():
            yield series_of(key, target), (times, [values[min(part, len(values) - 1)] for _, part in at_snapshot])
        yield labels_of("up", target), (times, [1.0] * len(times))


def rows(measures: Measures) -> Iterator[tuple[str, float, bool]]:
    """What /metrics would say now: the series as text, its value, whether it is a gauge."""
    for each in measures.freeze():
        name = each.family.name
        if isinstance(each, CounterRows | GaugeRows):
            is_gauge = isinstance(each, GaugeRows)
            yield from (
                (name + labels, value, is_gauge) for labels, value in zip(each.labels, each.values, strict=True)
            )
            continue
        bounds = [*(f"{float(bound)}" for bound in each.family.buckets), "+Inf"]
        for labels, (before, after), counts, total in zip(
            each.labels, each.around_le, each.counts, each.sums, strict=True
        ):
            cumulative = 0
            for bound, count in zip(bounds, counts, strict=True):
                cumulative += count
                yield f"{name}_bucket{before}{bound}{after.rstrip()}", cumulative, False
            yield f"{name}_sum{labels}", total, False
            yield f"{name}_count{labels}", cumulative, False


def series_of(key: str, target: Mapping[str, str]) -> Labels:
    """`name{a="b"}` as labels: the contract's values hold nothing that is escaped."""
    name, _, rest = key.partition("{")
    pairs = (pair.split("=", 1) for pair in rest.rstrip("}").split(",") if pair)
    return labels_of(name, {**target, **{label: value.strip('"') for label, value in pairs}})
