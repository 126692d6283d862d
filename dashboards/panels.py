"""Small builders in the field's words. A panel says what it counts and what is normal, in its description."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafanalib import core as gl

COLUMNS = 24
NO_DATA = "No agent's spans were counted in this time: see the dashboard Exporter and alert health"

Step = dict[str, Any]
Override = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL query: over the time range, or `now` alone. `buckets` takes a classic histogram's `le` apart; `step` is
    the least time between two points ("2m"), where that is more than the data source's interval."""

    expr: str
    legend: str = ""
    now: bool = False
    buckets: bool = False
    exemplars: bool = False
    step: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: one number for each row. `cell` is how its threshold shows: "color-text",
    "color-background", "gauge" (with `most` at its right end), or "" for none. A click on the number opens `links`."""

    name: str
    expr: str
    unit: str
    thresholds: Sequence[Step] = ()
    cell: str = "color-text"
    decimals: int | None = None
    most: float | None = None
    width: int | None = None
    links: Sequence[gl.DataLink] = ()
    words: Mapping[float, tuple[str, str]] | None = None


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
            interval=query.step,
            format="heatmap" if query.buckets else "time_series",
        )
        target.exemplar = query.exemplars
        targets.append(target)
    return targets


# -- how values look ---------------------------------------------------------------------------------------------------


def steps(*colours: tuple[str, float | None]) -> list[Step]:
    """Threshold steps, the first from minus infinity: steps(("green", None), ("red", 0.2))."""
    return [{"color": colour, "value": value} for colour, value in colours]


def above(*limits: tuple[str, float]) -> list[Step]:
    """Nothing to see below the first limit: above(("orange", 0.1), ("red", 0.2))."""
    return steps(("text", None), *limits)


def lit(*limits: tuple[str, float]) -> list[Step]:
    """As `above`, for backgrounds: no colour at all below the first limit."""
    return steps(("transparent", None), *limits)


def below(limit: float) -> list[Step]:
    """Red below the limit, nothing to see from there on."""
    return steps(("red", None), ("text", limit))


def percent(ratio: float) -> str:
    """A ratio as a description says it: 0.15 is "15 %"."""
    return f"{100 * ratio:g} %"


def minutes(seconds: float) -> str:
    """Seconds as a description says them: 300 is "5 minutes"."""
    return f"{seconds:g} seconds" if seconds < 60 else f"{seconds / 60:g} minutes"


def by_name(name: str, **properties: Any) -> Override:
    """An override for the series of this name: by_name("now", unit="s", thresholds=above(("red", 300)))."""
    return _override("byName", name, properties)


def by_pattern(pattern: str, **properties: Any) -> Override:
    """An override for the series whose name matches, as in by_pattern("/ limit$/", color="red")."""
    return _override("byRegexp", pattern, properties)


def _override(matcher: str, options: str, properties: Mapping[str, Any]) -> Override:
    listed = []
    for key, value in properties.items():
        match key:
            case "thresholds":
                listed.append({"id": key, "value": {"mode": "absolute", "steps": value}})
            case "color":
                listed.append({"id": key, "value": {"mode": "fixed", "fixedColor": value}})
            case _:
                listed.append({"id": key.replace("__", "."), "value": value})
    return {"matcher": {"id": matcher, "options": options}, "properties": listed}


def dashed(pattern: str, color: str = "text", *, legend: bool = True) -> Override:
    """Draws the series whose name matches as a thin dashed line: limits and baselines."""
    return by_pattern(
        pattern,
        color=color,
        custom__lineStyle={"fill": "dash", "dash": [8, 6]},
        custom__lineWidth=1,
        custom__fillOpacity=0,
        custom__hideFrom={"legend": not legend, "tooltip": False, "viz": False},
    )


def colours(names: Mapping[str, str]) -> list[Override]:
    """A fixed colour for each series that has a meaning of its own: colours({"error": "red"})."""
    return [by_name(name, color=colour) for name, colour in names.items()]


def words(texts: Mapping[float, tuple[str, str]]) -> list[dict[str, Any]]:
    """Words and colours for numbers that are states: words({0: ("closed", "green"), 2: ("open", "red")})."""
    options = {
        f"{value:g}": {"text": text, "color": colour, "index": index}
        for index, (value, (text, colour)) in enumerate(texts.items())
    }
    return [{"type": "value", "options": options}]


# -- panels ------------------------------------------------------------------------------------------------------------


def stat(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    thresholds: Sequence[Step] = (),
    overrides: Sequence[Override] = (),
    width: int = 3,
    height: int = 5,
    decimals: int | None = None,
    time_from: str | None = None,
    points: int | None = None,
    sparkline: bool | None = None,
    background: bool = False,
    names: bool = True,
    states: Mapping[float, tuple[str, str]] | None = None,
    links: Sequence[gl.DataLink] = (),
    no_data: str = "no data",
) -> gl.Stat:
    """One number, or a few by name; with a sparkline unless every query is about now alone."""
    line = not all(query.now for query in queries) if sparkline is None else sparkline
    return gl.Stat(
        title=title,
        description=description,
        targets=_targets(queries),
        format=unit,
        thresholds=list(thresholds) or steps(("transparent" if background else "text", None)),
        colorMode="background" if background else "value",
        graphMode="area" if line else "none",
        textMode="auto" if names else "value",
        orientation="auto",
        reduceCalc="lastNotNull",
        noValue=no_data,
        decimals=decimals,
        mappings=words(states) if states else [],
        overrides=list(overrides),
        timeFrom=time_from,
        hideTimeOverride=time_from is not None,
        maxDataPoints=points or 100,
        links=list(links),
        gridPos=_size(width, height),
    )


def timeseries(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 8,
    height: int = 7,
    overrides: Sequence[Override] = (),
    stacked: bool = False,
    stepped: bool = False,
    thresholds: Sequence[Step] = (),
    time_from: str | None = None,
    points: int | None = None,
    least: float = 0,
    most: float | None = None,
    legend: str = "list",
    log: bool = False,
    links: Sequence[gl.DataLink] = (),
    no_data: str = NO_DATA,
) -> gl.TimeSeries:
    """Lines over time, or areas one upon the other; thresholds are drawn as lines. The axis begins at `least`, or lower
    where the values are. As many points as pixels, unless `points` says how many at most."""
    extra = _defaults(noValue=no_data, max=most)
    if not log:
        extra["fieldConfig"]["defaults"]["custom"] = {"axisSoftMin": least}
    return gl.TimeSeries(
        title=title,
        description=description,
        targets=_targets(queries),
        unit=unit,
        lineInterpolation="stepAfter" if stepped else "linear",
        stacking={"mode": "normal", "group": "A"} if stacked else {},
        fillOpacity=50 if stacked else 8,
        lineWidth=1 if stacked else 2,
        showPoints="never",
        spanNulls=False,
        scaleDistributionType="log" if log else "linear",
        scaleDistributionLog=10,
        tooltipMode="multi",
        tooltipSort="desc",
        legendDisplayMode=legend,
        legendPlacement="right" if legend == "table" else "bottom",
        legendCalcs=["lastNotNull"] if legend == "table" else [],
        thresholds=list(thresholds),
        thresholdsStyleMode="dashed" if thresholds else "off",
        overrides=list(overrides),
        timeFrom=time_from,
        maxDataPoints=points or 100,
        links=list(links),
        extraJson=extra,
        gridPos=_size(width, height),
    )


def pie(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int = 6,
    height: int = 7,
    overrides: Sequence[Override] = (),
    links: Sequence[gl.DataLink] = (),
    no_data: str = NO_DATA,
) -> gl.PieChartv2:
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
        overrides=list(overrides),
        links=list(links),
        extraJson=_defaults(noValue=no_data),
        gridPos=_size(width, height),
    )


def bar_gauge(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 6,
    height: int = 7,
    decimals: int | None = None,
    thresholds: Sequence[Step] = (),
    most: float | None = None,
    links: Sequence[gl.DataLink] = (),
    no_data: str = NO_DATA,
) -> gl.BarGauge:
    """A bar for each bucket of a classic histogram, or for each series."""
    return gl.BarGauge(
        title=title,
        description=description,
        targets=_targets(queries),
        format=unit,
        max=most,
        decimals=decimals,
        orientation="horizontal",
        thresholds=list(thresholds),
        links=list(links),
        extraJson=_defaults(noValue=no_data),
        gridPos=_size(width, height),
    )


def heatmap(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int = 12,
    height: int = 7,
    links: Sequence[gl.DataLink] = (),
    no_data: str = NO_DATA,
) -> gl.Heatmap:
    """A classic histogram's buckets over time: the darker, the more. `unit` is the histogram's."""
    return gl.Heatmap(
        title=title,
        description=description,
        targets=_targets([query]),
        yAxis=gl.YAxis(format=unit),
        maxDataPoints=72,
        links=list(links),
        extraJson=_defaults(noValue=no_data),
        gridPos=_size(width, height),
    )


def state_timeline(
    title: str,
    description: str,
    *queries: Query,
    states: Mapping[float, tuple[str, str]],
    width: int = 8,
    height: int = 5,
    links: Sequence[gl.DataLink] = (),
    no_data: str = NO_DATA,
) -> gl.StateTimeline:
    """A band for each series, coloured by its state; `states` gives each number its word and colour."""
    return gl.StateTimeline(
        title=title,
        description=description,
        targets=_targets(queries),
        mappings=words(states),
        links=list(links),
        extraJson=_defaults(noValue=no_data),
        gridPos=_size(width, height),
    )


def table(
    title: str,
    description: str,
    rows_by: Mapping[str, str],
    *columns: Column,
    sort: str,
    first: str = "",
    width: int = 12,
    height: int = 8,
    row_links: Sequence[gl.DataLink] = (),
    row_widths: Mapping[str, int] | None = None,
    words_of: Mapping[str, Mapping[str, tuple[str, str]]] | None = None,
    links: Sequence[gl.DataLink] = (),
    no_data: str = NO_DATA,
) -> gl.Table:
    """A row for each set of labels, now, the highest `sort` first; within the order of `first` if there is one.

    `rows_by` names the labels and how each is headed; every column's query has these labels and no other. A click on
    the first of them opens `row_links`; in those `${__data.fields.Agent}` is the row's value under the head "Agent".
    """
    targets = []
    names: dict[str, str] = dict(rows_by)
    overrides: list[Override] = []
    for index, column in enumerate(columns):
        ref = chr(ord("A") + index)
        targets.append(gl.Target(expr=column.expr, instant=True, format="table", refId=ref))
        names[f"Value #{ref}" if len(columns) > 1 else "Value"] = column.name
        overrides.append(by_name(column.name, **_cell(column)))
    for index, head in enumerate(rows_by.values()):
        properties: dict[str, Any] = {"unit": "string"}
        if row_links and index == 0:
            properties["links"] = list(row_links)
        if row_widths and head in row_widths:
            properties["custom__width"] = row_widths[head]
        if words_of and head in words_of:
            texts = words_of[head]
            options = {v: {"text": t, "color": c, "index": i} for i, (v, (t, c)) in enumerate(texts.items())}
            properties["mappings"] = [{"type": "value", "options": options}]
            properties["custom__cellOptions"] = {"type": "color-text"}
        overrides.append(by_name(head, **properties))
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: index for index, name in enumerate(names)},
        "renameByName": names,
    }
    return gl.Table(
        title=title,
        description=description,
        targets=targets,
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
        sortBy=[
            *([gl.TableSortByField(first, desc=False)] if first else []),
            gl.TableSortByField(sort, desc=True),
        ],
        unit="short",
        overrides=overrides,
        links=list(links),
        extraJson=_defaults(noValue=no_data),
        gridPos=_size(width, height),
    )


def _cell(column: Column) -> dict[str, Any]:
    # A row that one of the columns has no number for.
    properties: dict[str, Any] = {"unit": column.unit, "noValue": "–"}
    if column.decimals is not None:
        properties["decimals"] = column.decimals
    if column.thresholds:
        properties["thresholds"] = list(column.thresholds)
    if column.cell == "gauge":
        properties |= {"custom__cellOptions": {"type": "gauge", "mode": "basic"}, "min": 0, "max": column.most}
    elif column.cell and column.thresholds:
        properties["custom__cellOptions"] = {"type": column.cell}
    if column.words:
        properties |= {"mappings": words(column.words), "custom__cellOptions": {"type": "color-text"}}
    if column.width:
        properties["custom__width"] = column.width
    if column.links:
        properties["links"] = list(column.links)
    return properties


def trace_table(
    title: str, description: str, traceql: str, *, width: int = 12, height: int = 7, no_data: str, limit: int = 20
) -> gl.Table:
    """What a TraceQL search finds in the dashboard's Tempo; a click on a trace's id opens it."""
    return gl.Table(
        title=title,
        description=description,
        targets=[_TraceQL(traceql, limit)],
        unit="string",
        extraJson=_defaults(noValue=no_data),
        gridPos=_size(width, height),
    )


class _TraceQL:
    """grafanalib knows no Tempo."""

    def __init__(self, query: str, limit: int) -> None:
        self._query = query
        self._limit = limit

    def to_json_data(self) -> dict[str, Any]:
        return {
            "datasource": {"type": "tempo", "uid": "${tempo_datasource}"},
            "queryType": "traceql",
            "query": self._query,
            "limit": self._limit,
            "tableType": "traces",
        }


def text(title: str, markdown: str, width: int = COLUMNS, height: int = 5, transparent: bool = False) -> gl.Text:
    """Markdown."""
    return gl.Text(
        title=title, content=markdown, mode="markdown", transparent=transparent, gridPos=_size(width, height)
    )


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


def _size(width: int, height: int) -> gl.GridPos:
    return gl.GridPos(h=height, w=width, x=0, y=0)


def _defaults(**values: Any) -> dict[str, Any]:
    return {"fieldConfig": {"defaults": {key: value for key, value in values.items() if value is not None}}}
