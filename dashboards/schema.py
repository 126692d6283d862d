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
_NO_DATA = {"type": "special", "options": {"match": "null+nan", "result": {"text": "no data", "index": 0}}}


def modern(dashboard: gl.Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana 13 stores it: no nulls, stable order, checked in as it is."""
    old: dict[str, Any] = json.loads(json.dumps(dashboard.to_json_data(), cls=DashboardEncoder))
    new = {key: value for key, value in old.items() if key not in _DASHBOARD_DROPS}
    new |= {"schemaVersion": SCHEMA_VERSION, "editable": False, "timepicker": {}}
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
    for key in ("links", "transformations"):
        if not panel[key]:
            del panel[key]
    if panel["type"] in _WITHOUT_DATA:
        panel.pop("datasource")
        panel.pop("targets")
        panel["fieldConfig"] = {"defaults": {}, "overrides": []}
        return panel
    panel["datasource"] = PROMETHEUS
    panel["targets"] = [_target(target, index) for index, target in enumerate(old["targets"])]
    defaults = panel["fieldConfig"]["defaults"]
    panel["fieldConfig"].setdefault("overrides", [])
    if not defaults["thresholds"]["steps"]:
        del defaults["thresholds"]
    _BY_TYPE[panel["type"]](panel, defaults, panel["options"])
    return panel


def _target(old: dict[str, Any], index: int) -> dict[str, Any]:
    target = {key: value for key, value in old.items() if key not in _TARGET_DROPS}
    target |= {"datasource": PROMETHEUS, "editorMode": "code", "range": not target["instant"]}
    target["refId"] = target["refId"] or chr(ord("A") + index)
    target["legendFormat"] = target["legendFormat"] or "__auto"
    for key in ("hide", "interval"):
        if not target[key]:
            del target[key]
    return target


def _stat(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    defaults.pop("custom")
    defaults["color"] = {"mode": "thresholds"}
    defaults["mappings"] = [*defaults["mappings"], _NO_DATA]
    options |= {"wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard"}


def _timeseries(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    custom = defaults["custom"]
    if custom["scaleDistribution"]["type"] == "linear":
        del custom["scaleDistribution"]["log"]
    custom["stacking"] = custom["stacking"] or {"mode": "none", "group": "A"}
    options["legend"]["showLegend"] = True


def _pie(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    defaults["custom"] = {"hideFrom": {"tooltip": False, "viz": False, "legend": False}}
    options |= {"displayLabels": [], "sort": "desc", "tooltip": {"mode": "single", "sort": "none"}}
    options["legend"]["showLegend"] = True


def _bar_gauge(panel: dict[str, Any], defaults: dict[str, Any], options: dict[str, Any]) -> None:
    """Built anew: grafanalib's bar gauge is the one of Grafana 6."""
    old = options["fieldOptions"]["defaults"]
    defaults |= {"color": {"mode": "continuous-BlPu"}, "unit": old["unit"], "min": old["min"], "mappings": [_NO_DATA]}
    panel["options"] = {
        "displayMode": "basic",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
        "maxVizHeight": 300,
        "minVizHeight": 12,
        "minVizWidth": 8,
        "namePlacement": "auto",
        "orientation": options["orientation"],
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }


_BY_TYPE = {"stat": _stat, "timeseries": _timeseries, "piechart": _pie, "bargauge": _bar_gauge}


def _variable(old: dict[str, Any]) -> dict[str, Any]:
    drops = {*_VARIABLE_DROPS, "auto", "auto_min", "auto_count"}
    if old["type"] == "datasource":
        drops |= {"datasource", "sort"}
    return {**{key: value for key, value in old.items() if key not in drops}, "current": {}, "refresh": 2}
