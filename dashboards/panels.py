"""Small builders in the field's words. A panel says what it counts and what is normal, in its description."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafanalib import core as gl

COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL query: over the time range, or `now` alone. `buckets` takes a classic histogram's `le` apart."""

    expr: str
    legend: str = ""
    now: bool = False
    buckets: bool = False
    exemplars: bool = False


class _Target(gl.Target):  # type: ignore[misc]
    """grafanalib knows no exemplars."""

    exemplar = False

    def to_json_data(self) -> dict[str, Any]:
        data: dict[str, Any] = super().to_json_data()
        return {**data, "exemplar": True} if self.exemplar else data


def _targets(queries: Sequence[Query]) -> list[gl.Target]:
    targets = []
    for query in queries:
        target = _Target(
            expr=query.expr,
            legendFormat=query.legend,
            instant=query.now,
            format="heatmap" if query.buckets else "time_series",
        )
        target.exemplar = query.exemplars
        targets.append(target)
    return targets


def steps(*colours: tuple[str, float | None]) -> list[dict[str, Any]]:
    """Threshold steps, the first from minus infinity: steps(("green", None), ("red", 0.2))."""
    return [{"color": colour, "value": value} for colour, value in colours]


def dashed(pattern: str) -> dict[str, Any]:
    """An override that draws the series whose name matches as a dashed line: limits and baselines."""
    return {
        "matcher": {"id": "byRegexp", "options": pattern},
        "properties": [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}}],
    }


def _size(width: int, height: int) -> gl.GridPos:
    return gl.GridPos(h=height, w=width, x=0, y=0)


def stat(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    thresholds: list[dict[str, Any]] | None = None,
    width: int = 3,
    height: int = 5,
    decimals: int | None = None,
    time_from: str | None = None,
    points: int | None = None,
) -> gl.Stat:
    """One number, or a few by name; with a sparkline unless every query is about now alone."""
    return gl.Stat(
        title=title,
        description=description,
        targets=_targets(queries),
        format=unit,
        thresholds=thresholds or steps(("text", None)),
        graphMode="none" if all(query.now for query in queries) else "area",
        textMode="auto",
        reduceCalc="lastNotNull",
        noValue="no data",
        decimals=decimals,
        timeFrom=time_from,
        hideTimeOverride=time_from is not None,
        maxDataPoints=points or 100,
        gridPos=_size(width, height),
    )


def timeseries(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 8,
    overrides: list[dict[str, Any]] | None = None,
    bars: bool = False,
    thresholds: list[dict[str, Any]] | None = None,
) -> gl.TimeSeries:
    """Lines over time, or stacked bars; thresholds are drawn as lines."""
    return gl.TimeSeries(
        title=title,
        description=description,
        targets=_targets(queries),
        unit=unit,
        drawStyle="bars" if bars else "line",
        stacking={"mode": "normal", "group": "A"} if bars else {},
        fillOpacity=60 if bars else 5,
        showPoints="never",
        tooltipMode="multi",
        tooltipSort="desc",
        axisSoftMin=0,
        thresholds=thresholds or [],
        thresholdsStyleMode="dashed" if thresholds else "off",
        overrides=overrides or [],
        gridPos=_size(width, 8),
    )


def pie(title: str, description: str, query: Query, *, unit: str, width: int = 6) -> gl.PieChartv2:
    """Shares of a whole, as they add up over the time range."""
    return gl.PieChartv2(
        title=title,
        description=description,
        targets=_targets([query]),
        unit=unit,
        pieType="donut",
        reduceOptionsCalcs=["lastNotNull"],
        legendDisplayMode="table",
        legendPlacement="right",
        legendValues=["value", "percent"],
        gridPos=_size(width, 8),
    )


def bar_gauge(title: str, description: str, query: Query, *, unit: str, width: int = 6) -> gl.BarGauge:
    """A bar for each bucket of a classic histogram."""
    return gl.BarGauge(
        title=title,
        description=description,
        targets=_targets([query]),
        format=unit,
        orientation="horizontal",
        thresholds=[],
        gridPos=_size(width, 8),
    )


def text(title: str, markdown: str, width: int = COLUMNS, height: int = 5) -> gl.Text:
    """Markdown."""
    return gl.Text(title=title, content=markdown, mode="markdown", gridPos=_size(width, height))


def rows(*titled: tuple[str, Sequence[gl.Panel]]) -> list[gl.Panel]:
    """Row after row: each a title and its panels, laid out from left to right in 24 columns."""
    placed: list[gl.Panel] = []
    y = 0
    for title, panels in titled:
        placed.append(gl.RowPanel(title=title, gridPos=gl.GridPos(h=1, w=COLUMNS, x=0, y=y)))
        y += 1
        x = tallest = 0
        for panel in panels:
            width, height = panel.gridPos.w, panel.gridPos.h
            if x + width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            panel.gridPos = gl.GridPos(h=height, w=width, x=x, y=y)
            x, tallest = x + width, max(tallest, height)
            placed.append(panel)
        y += tallest
    return placed
