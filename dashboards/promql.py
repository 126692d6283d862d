"""Pieces of PromQL that several dashboards share."""


def happened(counter: str, by: str) -> str:
    """How often something rare was counted in the time range, by labels; nothing where it was not.

    `increase()` does not see the first event of a series whose zero nobody scraped, and rare events are first ones.
    """
    return f"sum by ({by}) (clamp_min({counter} - ({counter} offset $__range), 0) or {counter}) > 0"
