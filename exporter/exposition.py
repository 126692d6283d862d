"""Columns of numbers → the page of `/metrics`, in prometheus_client's format to the byte (a test compares the two).

The library draws the families' heads, the process' own metrics and odd numbers. The lines of the series are drawn here
from texts made once a series, because the library takes 5-7 µs a line. Any thread may draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, exposition, utils
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_exposition

from exporter import contract
from exporter.contract import Family, Kind

Exemplar = tuple[str, float, float]
"""Trace id (hex), the value counted, unix time in seconds."""


@dataclass(frozen=True, slots=True)
class CounterRows:
    family: Family
    labels: list[str]
    created: list[str]
    values: list[float]
    exemplars: list[Exemplar | None]


@dataclass(frozen=True, slots=True)
class GaugeRows:
    family: Family
    labels: list[str]
    values: list[float]


@dataclass(frozen=True, slots=True)
class HistogramRows:
    """`counts` are per bucket, the last one above every bound; the page adds them up."""

    family: Family
    labels: list[str]
    around_le: list[tuple[str, str]]
    created: list[str]
    counts: list[tuple[int, ...]]
    sums: list[float]
    exemplars: list[tuple[Exemplar | None, ...] | None]


Frozen = list[CounterRows | GaugeRows | HistogramRows]
"""All series at one moment: one entry a family, parallel columns, one item a series."""


def labels_text(family: Family, values: Sequence[str]) -> str:
    """`{agent="a",model="m"}`, empty without labels. The values hold nothing that the format would escape."""
    pairs = _pairs(family, values)
    return f"{{{','.join(pairs)}}}" if pairs else ""


def around_le(family: Family, values: Sequence[str]) -> tuple[str, str]:
    """The label text of a bucket before and after the value of `le`: labels are sorted by name."""
    pairs = _pairs(family, values)
    place = sum(label < "le" for label in family.labels)
    before = "".join(f"{pair}," for pair in pairs[:place])
    after = "".join(f",{pair}" for pair in pairs[place:])
    return f'{{{before}le="', f'"{after}}} '


def _pairs(family: Family, values: Sequence[str]) -> list[str]:
    return [f'{label}="{value}"' for label, value in sorted(zip(family.labels, values, strict=True))]


def number_text(value: float) -> str:
    """A number as the library writes it; by itself where that is the same."""
    return repr(value) if -1e6 < value < 1e6 else cast(str, utils.floatToGoString(value))  # type: ignore[no-untyped-call]


def render(frozen: Frozen, *, openmetrics: bool, process: bool = True) -> bytes:
    """The page, in OpenMetrics 1.0 (with exemplars) or in the plain text format 0.0.4.

    `process` adds the metrics of the Python process: CPU, memory, garbage collection, version.
    """
    lines: list[str] = []
    for rows in frozen:
        base, heads, created_head, bounds = _DRAWN[rows.family.name]
        lines.append(heads[openmetrics])
        if isinstance(rows, GaugeRows):
            lines += [f"{base}{labels} {number_text(v)}\n" for labels, v in zip(rows.labels, rows.values, strict=True)]
            continue
        if isinstance(rows, CounterRows):
            _draw_counters(lines, rows, base, openmetrics)
        else:
            _draw_histograms(lines, rows, base, bounds, openmetrics)
        if not openmetrics and rows.labels:
            # The plain text format has no creation times: there they are a gauge of their own, as the library does it.
            lines.append(created_head)
            lines += [f"{base}_created{labels} {at}\n" for labels, at in zip(rows.labels, rows.created, strict=True)]
    page = "".join(lines).encode()
    if process:
        return page + _library(_PROCESS, openmetrics)
    return page + b"# EOF\n" if openmetrics else page


def _draw_counters(lines: list[str], rows: CounterRows, base: str, openmetrics: bool) -> None:
    if not openmetrics:
        lines += [
            f"{base}_total{labels} {number_text(v)}\n" for labels, v in zip(rows.labels, rows.values, strict=True)
        ]
        return
    for labels, value, exemplar, created in zip(rows.labels, rows.values, rows.exemplars, rows.created, strict=True):
        lines.append(
            f"{base}_total{labels} {number_text(value)}{_exemplar_text(exemplar)}\n{base}_created{labels} {created}\n"
        )


def _draw_histograms(lines: list[str], rows: HistogramRows, base: str, bounds: list[str], openmetrics: bool) -> None:
    for labels, (before, after), created, counts, total, exemplars in zip(
        rows.labels, rows.around_le, rows.created, rows.counts, rows.sums, rows.exemplars, strict=True
    ):
        numbers = [number_text(float(count)) for count in accumulate(counts)]
        if openmetrics and exemplars:
            lines += [
                f"{base}_bucket{before}{bound}{after}{number}{_exemplar_text(exemplar)}\n"
                for bound, number, exemplar in zip(bounds, numbers, exemplars, strict=True)
            ]
        else:
            lines += [
                f"{base}_bucket{before}{bound}{after}{number}\n" for bound, number in zip(bounds, numbers, strict=True)
            ]
        lines.append(f"{base}_count{labels} {numbers[-1]}\n{base}_sum{labels} {number_text(total)}\n")
        if openmetrics:
            lines.append(f"{base}_created{labels} {created}\n")


def _exemplar_text(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    trace, value, moment = exemplar
    return f' # {{trace_id="{trace}"}} {number_text(float(value))} {moment}'


class _Of:
    """A collector of one family without series: what the library draws for it is its head."""

    def __init__(self, name: str, text: str, kind: str) -> None:
        self._metric = Metric(name, text, kind)

    def collect(self) -> list[Metric]:
        return [self._metric]


def _library(collector: Any, openmetrics: bool) -> bytes:
    draw: Any = openmetrics_exposition.generate_latest if openmetrics else exposition.generate_latest
    return cast(bytes, draw(collector))


def _head(name: str, text: str, kind: str, openmetrics: bool) -> str:
    return _library(_Of(name, text, kind), openmetrics).decode().removesuffix("# EOF\n")


def _draw(family: Family) -> tuple[str, tuple[str, str], str, list[str]]:
    """What is the same on every page: the bare name, the head by `openmetrics`, that of `_created`, the bounds."""
    base = family.name.removesuffix("_total") if family.kind is Kind.COUNTER else family.name
    heads = (_head(base, family.help, family.kind, False), _head(base, family.help, family.kind, True))
    bounds = [*(number_text(float(bound)) for bound in family.buckets), "+Inf"]
    return base, heads, _head(f"{base}_created", family.help, "gauge", False), bounds


_DRAWN = {family.name: _draw(family) for family in contract.FAMILIES}

_PROCESS = CollectorRegistry()
ProcessCollector(registry=_PROCESS)
PlatformCollector(registry=_PROCESS)
GCCollector(registry=_PROCESS)
