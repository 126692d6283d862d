"""What an expression reads, and whether two say the same."""

from datetime import timedelta

import pytest

from check.expressions import canonical, lookback, series


@pytest.mark.parametrize(
    ("expr", "back"),
    [
        ("x", timedelta()),
        ("rate(x[5m])", timedelta(minutes=5)),
        ("avg_over_time(x[7d] offset 1h)", timedelta(days=7, hours=1)),
        ("x offset -1h", timedelta()),
        ("sum by (a) (rate(x[5m])) / sum by (a) (rate(y[1h] offset 1d))", timedelta(days=1, hours=1)),
        ("max_over_time((sum(rate(x[10m])))[2d:5m])", timedelta(days=2, minutes=10)),
        ("quantile(0.5, -rate(x[5m]))", timedelta(minutes=5)),
    ],
)
def test_how_far_back_an_expression_looks(expr: str, back: timedelta) -> None:
    assert lookback(expr) == back


def test_every_series_is_found_wherever_it_stands() -> None:
    expr = 'a + on (l) (b{x="y"} or c unless -d) and topk(3, label_replace(rate(e:f[5m]), "p", "q", "", ""))'

    assert series(expr) == {"a", "b", "c", "d", "e:f"}


def test_comments_and_space_make_no_difference() -> None:
    assert canonical("# why\nsum by (a) (\n  rate(x[5m])\n)") == canonical("sum by(a) (rate(x[5m]))")


def test_another_number_makes_one() -> None:
    assert canonical("x > 1") != canonical("x > 2")
