"""Checks PromQL against what exists: the contract's series, the recorded ones, and the labels that each has."""

from collections.abc import Iterable, Mapping

import promql_parser as ast

from alert_rules.rules import Group, Recording
from exporter.contract import series_labels

# What Prometheus itself has: `up` by target, and ALERTS with whatever labels an alert has.
_PROMETHEUS = {
    "up": frozenset({"job", "instance"}),
    "ALERTS": frozenset({"alertname", "alertstate", "agent", "severity", "cause", "action", "instance", "job"}),
    "ALERTS_FOR_STATE": frozenset({"alertname", "agent", "severity", "cause", "action", "instance", "job"}),
}
# A limit has a task type only where a user gave one its own.
_LIMIT = {"agent:limit": frozenset({"name", "agent", "task_type"})}
_SETS = ("and", "unless")


class Unknown(AssertionError):
    """An expression names a series or a label that does not exist."""


def known_series(groups: Iterable[Group]) -> dict[str, frozenset[str]]:
    """Every series that an expression may read, with its labels; a rule sees what is recorded before it."""
    known = series_labels() | _PROMETHEUS | _LIMIT
    for group in groups:
        for rule in group.rules:
            if isinstance(rule, Recording):
                labels = result_labels(ast.parse(rule.expr), known) | set(rule.labels)
                known[rule.record] = known.get(rule.record, frozenset()) | labels
    return known


def result_labels(expr: ast.Expr, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The labels that the expression's result can have. Raises Unknown if it names what does not exist."""
    match expr:
        case ast.ParenExpr() | ast.UnaryExpr() | ast.SubqueryExpr():
            return result_labels(expr.expr, known)
        case ast.NumberLiteral() | ast.StringLiteral():
            return frozenset()
        case ast.MatrixSelector():
            return _selected(expr.vector_selector, known)
        case ast.VectorSelector():
            return _selected(expr, known)
        case ast.AggregateExpr():
            return _aggregated(expr, known)
        case ast.BinaryExpr():
            return _combined(expr, known)
        case ast.Call():
            return _called(expr, known)
    raise Unknown(f"cannot check {type(expr).__name__} in {expr}")


def _selected(selector: ast.VectorSelector, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    name = selector.name or ""
    if name not in known:
        raise Unknown(f"no series {name!r} (in {selector.prettify()})")
    for matcher in selector.matchers.matchers:
        _exists(matcher.name, known[name], selector)
    return known[name]


def _aggregated(expr: ast.AggregateExpr, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    inner = result_labels(expr.expr, known)
    if expr.modifier is None:
        return inner if str(expr.op) in ("topk", "bottomk") else frozenset()
    for label in expr.modifier.labels:
        _exists(label, inner, expr)
    named = frozenset(expr.modifier.labels)
    if str(expr.op) == "count_values" and expr.param is not None:
        return named | {expr.param.val}
    return named if expr.modifier.type == ast.AggModifierType.By else inner - named


def _combined(expr: ast.BinaryExpr, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    left, right = result_labels(expr.lhs, known), result_labels(expr.rhs, known)
    modifier = expr.modifier
    matching = modifier.matching if modifier else None
    for label in matching.labels if matching else ():
        _exists(label, left, expr)
        _exists(label, right, expr)
    if str(expr.op) == "or":
        return left | right
    if matching is None and left and right and left != right:
        raise Unknown(f"nothing matches: {sorted(left ^ right)} are on one side only (in {expr.prettify()})")
    if str(expr.op) in _SETS:
        return left
    if modifier is None or matching is None:
        # Without `on` both sides have the same labels, or one of them is a scalar.
        return left or right
    if modifier.card == ast.VectorMatchCardinality.OneToOne:
        return frozenset(matching.labels)
    many, one = (left, right) if modifier.card == ast.VectorMatchCardinality.ManyToOne else (right, left)
    for label in modifier.group_labels or ():
        _exists(label, one, expr)
    return many | frozenset(modifier.group_labels or ())


def _called(call: ast.Call, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    if call.func.name in ("vector", "scalar", "time"):
        return frozenset()
    labels = frozenset[str]().union(*(result_labels(argument, known) for argument in call.args))
    if call.func.name == "histogram_quantile":
        return labels - {"le"}
    return labels | {call.args[1].val} if call.func.name == "label_replace" else labels


def _exists(label: str, labels: frozenset[str], where: ast.Expr) -> None:
    if label not in labels:
        raise Unknown(f"no label {label!r} here, only {', '.join(sorted(labels)) or 'none'} (in {where.prettify()})")
