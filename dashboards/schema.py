"""grafanalib 0.7.1 writes Grafana 8's JSON: this turns a dashboard of it into the schema of Grafana 13.

The one place that knows both. What it changes was found by checking against Grafana's own packages.
"""

import json
from typing import Any

from grafanalib import core as gl
from grafanalib._gen import DashboardEncoder

SCHEMA_VERSION = 42
PROMETHEUS = {"type": "prometheus", "uid": "${prometheus_datasource}"}

_DASHBOARD_DROPS = ("__inputs", "gnetId", "hideControls", "rows", "sharedCrosshair", "style")
_PANEL_DROPS = ("cacheTimeout", "editable", "error", "height", "minSpan", "span", "thresholds")
_TARGET_DROPS = ("intervalFactor", "metric", "query", "step", "target")
_VARIABLE_DROPS = ("tagValuesQuery", "tagsQuery", "useTags")
_WITHOUT_DATA = ("row", "text")
_HEATMAP_KEEPS = {"datasource", "description", "fieldConfig", "gridPos", "id", "links"} | {
    "maxDataPoints", "targets", "title", "type"
}  # fmt: skip
_HIDE_NOTHING = {"tooltip": False, "viz": False, "legend": False}


def modern(dashboard: gl.Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana 13 stores it: no nulls, stable order, checked in as it is."""
    old: dict[str, Any] = json.loads(json.dumps(dashboard.to_json_data(), cls=DashboardEncoder))
    new = {key: value for key, value in old.items() if key not in _DASHBOARD_DROPS}
    new |= {"schemaVersion": SCHEMA_VERSION, "editable": False, "timepicker": {}}
    new["graphTooltip"] = old["graphTooltip"]
    new["panels"] = [_panel(panel) for panel in old["panels"]]
    new["templating"] = {"list": [_variable(variable) for variable in old["templating"]["list"]]}
    # Only here null means something: a dashboard that Grafana has yet to give a number.
    return {**_without_nulls(new), "id": None}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        # The first step of thresholds begins at minus infinity, which Grafana writes as null.
        return {k: _without_nulls(v) for k, v in value.items() if v is not None or (k == "value" and "color" in value)}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _panel(old: dict[str, Any]) -> dict[str, Any]:
    if old["type"] == "row":
        row = {key: old[key] for key in ("type", "id", "title", "collapsed", "gridPos")}
        return {**row, "panels": [_panel(panel) for panel in old["panels"]]}
    panel = {key: value for key, value in old.items() if key not in _PANEL_DROPS}
    if panel["maxDataPoints"] == 100:
        del panel["maxDataPoints"]
    if not panel["hideTimeOverride"]:
        del panel["hideTimeOverride"]
    if not panel["transparent"]:
        del panel["transparent"]
    for key in ("links", "transformations"):
        if not panel[key]:
            del panel[key]
    if panel["type"] in _WITHOUT_DATA:
        panel.pop("datasource")
        panel.pop("targets")
        panel["fieldConfig"] = {"defaults": {}, "overrides": []}
        return panel
    panel["targets"] = [_target(target, index) for index, target in enumerate(old["targets"])]
    panel["datasource"] = panel["targets"][0]["datasource"]
    defaults = panel["fieldConfig"]["defaults"]
    panel["fieldConfig"].setdefault("overrides", [])
    if not defaults["thresholds"]["steps"]:
        del defaults["thresholds"]
    _BY_TYPE[panel["type"]](panel, defaults, panel.setdefault("options", {}))
    return panel


def _target(old: dict[str, Any], index: int) -> dict[str, Any]:
    ref = old.get("refId") or chr(ord("A") + index)
    if "expr" not in old:
        return {**old, "refId": ref}
    target = {key: value for key, value in old.items() if key not in _TARGET_DROPS}
    target |= {"datasource": PROMETHEUS, "editorMode": "code", "range": not target["instant"], "refId": ref}
    target["legendFormat"] = target["legendFormat"] or "__auto"
    for key in ("hide", "interval"):
        if not target[key]:
            del target[key]
    return target


def _no_data(text: str) -> dict[str, Any]:
    return {"type": "special", "options": {"match": "null+nan", "result": {"text": text, "index": 99}}}


def _stat(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    defaults.pop("custom")
    defaults["color"] = {"mode": "thresholds"}
    defaults["mappings"] = [*defaults["mappings"], _no_data(defaults["noValue"])]
    options |= {"wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard"}


def _timeseries(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    custom = defaults["custom"]
    if custom["scaleDistribution"]["type"] == "linear":
        del custom["scaleDistribution"]["log"]
    custom["stacking"] = custom["stacking"] or {"mode": "none", "group": "A"}
    options["legend"]["showLegend"] = True


def _pie(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    defaults["custom"] = {"hideFrom": _HIDE_NOTHING}
    # A colour for each name, so that a slice keeps its own when the order changes.
    defaults["color"] = {"mode": "palette-classic"}
    options |= {"displayLabels": [], "sort": "desc", "tooltip": {"mode": "single", "sort": "none"}}
    options["legend"]["showLegend"] = True


def _table(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    for key in ("color", "columns", "fontSize", "mappings"):
        panel.pop(key)
    defaults["color"] = {"mode": "thresholds"}
    defaults.setdefault("thresholds", {"mode": "absolute", "steps": [{"color": "text", "value": None}]})
    defaults["custom"] = {
        "align": defaults["custom"]["align"],
        "cellOptions": {"type": "auto"},
        "filterable": defaults["custom"]["filterable"],
        "inspect": False,
    }
    options |= {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}


def _bar_gauge(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    """Built anew: grafanalib's bar gauge is the one of Grafana 6."""
    old = options["fieldOptions"]["defaults"]
    colour = "thresholds" if "thresholds" in defaults else "continuous-BlPu"
    defaults |= {"color": {"mode": colour}, "unit": old["unit"], "min": old["min"], "max": old["max"]}
    defaults |= {"decimals": old["decimals"], "mappings": []}
    panel["options"] = {
        "displayMode": "basic",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
        "maxVizHeight": 300,
        "minVizHeight": 10,
        "minVizWidth": 8,
        "namePlacement": "left",
        "orientation": options["orientation"],
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "text",
    }


def _heatmap(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    """Built anew: grafanalib's heatmap is the one of Grafana 6."""
    unit = panel["yAxis"]["format"]
    for key in set(panel) - _HEATMAP_KEEPS:
        del panel[key]
    defaults["custom"] = {"hideFrom": _HIDE_NOTHING, "scaleDistribution": {"type": "linear"}}
    panel["options"] = {
        "calculate": False,
        "cellGap": 1,
        # From nothing to blue, on a light page as on a dark one.
        "color": {
            "exponent": 0.5,
            "fill": "blue",
            "mode": "opacity",
            "reverse": False,
            "scale": "exponential",
            "scheme": "Blues",
            "steps": 32,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": False},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }


def _state_timeline(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    defaults["custom"] |= {"hideFrom": _HIDE_NOTHING}
    options["legend"]["showLegend"] = False
    options["tooltip"] = {"mode": "single", "sort": "none"}


_BY_TYPE = {
    "bargauge": _bar_gauge,
    "heatmap": _heatmap,
    "piechart": _pie,
    "stat": _stat,
    "state-timeline": _state_timeline,
    "table": _table,
    "timeseries": _timeseries,
}


def _variable(old: dict[str, Any]) -> dict[str, Any]:
    drops = {*_VARIABLE_DROPS, "auto", "auto_min", "auto_count"}
    if old["type"] == "datasource":
        drops |= {"datasource", "sort"}
    if old["type"] == "textbox":
        drops |= {"datasource", "sort", "refresh", "regex", "includeAll", "multi", "allValue"}
        current = {"text": old["query"], "value": old["query"]}
        kept = {key: value for key, value in old.items() if key not in drops}
        return {**kept, "current": current, "options": [{"selected": True, **current}]}
    return {**{key: value for key, value in old.items() if key not in drops}, "current": {}, "refresh": 2}
