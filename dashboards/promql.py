"""Pieces of PromQL that several dashboards share."""

from alert_rules import rates
from alert_rules.promql import duration_seconds


def happened(counter: str, by: str) -> str:
    """How often something rare was counted in the time range, by labels; nothing where it was not.

    `increase()` sees restarts, but not the first event of a series whose zero nobody scraped, and rare events are first
    ones: what a series that began in the range says at its end is all that it counted.
    """
    begun = f"last_over_time({counter}[$__range]) unless {counter} offset $__range"
    return f"sum by ({by}) (({begun}) or increase({counter}[$__range])) > 0"


RECORDED_STEP = "2m"
"""The least step of a panel that reads alert_rules.rates. Its `$__rate_interval` is then 8 minutes or more, so that
a figure of five minutes is in it, and what happens now is seen as soon as it is recorded."""


def recorded_quantile(share: float, histogram: str, selector: str, by: str = "") -> str:
    """A quantile over time of a histogram that alert_rules.rates records."""
    labels = f"le, {by}" if by else "le"
    buckets = f"sum by ({labels}) (avg_over_time({histogram}{{{selector}}}[$__rate_interval]))"
    # Without observations the quantile is NaN, which is no answer.
    return f"histogram_quantile({share}, {buckets}) >= 0"


def recorded_count(rate: str, selector: str, by: str) -> str:
    """How many there were in the time range, by the rate of each five minutes that alert_rules.rates records."""
    seconds = duration_seconds(rates.INTERVAL)
    return f"{seconds:g} * sum by ({by}) (sum_over_time({rate}{{{selector}}}[$__range]))"


def dots(histogram: str, selector: str) -> str:
    """No line, but a raw series for Grafana to ask exemplars of: recorded ones have none."""
    return f"{histogram}_bucket{{{selector}}} @ end() < 0"
