"""What PromQL expressions read, and whether two say the same."""

from collections.abc import Iterator
from datetime import timedelta

import promql_parser as ast


def canonical(expr: str) -> str:
    """The expression without comments, and spaced one way. Raises ValueError where it is no PromQL."""
    return str(ast.parse(expr).prettify())


def series(expr: str) -> set[str]:
    """The names of all series that the expression reads."""
    return {selector.name for selector, _ in _selectors(ast.parse(expr)) if selector.name}


def lookback(expr: str) -> timedelta:
    """How far back the expression looks: the longest of its ranges with its offset."""
    return max((reach for _, reach in _selectors(ast.parse(expr))), default=timedelta())


def _selectors(expr: ast.Expr, reach: timedelta = timedelta()) -> Iterator[tuple[ast.VectorSelector, timedelta]]:
    """The selectors in the expression, each with how far back it looks, the subqueries around it included."""
    match expr:
        case ast.VectorSelector():
            yield expr, reach + _offset(expr)
        case ast.MatrixSelector():
            yield from _selectors(expr.vector_selector, reach + expr.range)
        case ast.SubqueryExpr():
            yield from _selectors(expr.expr, reach + (expr.range or timedelta()) + _offset(expr))
        case ast.ParenExpr() | ast.UnaryExpr():
            yield from _selectors(expr.expr, reach)
        case ast.AggregateExpr():
            for inner in (expr.expr, expr.param):
                if inner is not None:
                    yield from _selectors(inner, reach)
        case ast.BinaryExpr():
            yield from _selectors(expr.lhs, reach)
            yield from _selectors(expr.rhs, reach)
        case ast.Call():
            for argument in expr.args:
                yield from _selectors(argument, reach)


def _offset(expr: ast.VectorSelector | ast.SubqueryExpr) -> timedelta:
    # A negative offset looks ahead, which asks for no history.
    return max(expr.offset or timedelta(), timedelta())
