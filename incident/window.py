"""The time that a report is about."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from alert_rules.promql import duration_seconds

_DURATION = re.compile(r"(\d+[smhdw])+")
_MOST_SECONDS = 35 * 86400
"""As long as Prometheus keeps data."""


class BadWindow(ValueError):
    """A time that can't be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `since` to `until`, in epoch seconds."""

    since: float
    until: float

    @classmethod
    def parse(cls, since: str, until: str, now: float) -> "Window":
        """The window of the options --since and --until; `until` may be empty for now. Raises BadWindow."""
        end = moment("--until", until, now) if until else float(int(now))
        start = moment("--since", since, end)
        if start >= end:
            raise BadWindow(f"--since {since}: begins at {told(start)}, and the window ends at {told(end)}")
        if end > now:
            raise BadWindow(f"--until {until}: is yet to come")
        if end - start > _MOST_SECONDS:
            raise BadWindow(f"--since {since}: more than 35 days, which is what Prometheus keeps")
        return cls(start, end)

    @property
    def seconds(self) -> float:
        return self.until - self.since

    def step(self, points: int, least: float) -> float:
        """Seconds from one of at most `points` moments to the next, so that the last is `until`."""
        return self.seconds / max(min(points, int(self.seconds // least)), 1)


def moment(option: str, text: str, end: float) -> float:
    """The epoch second that the text names: a duration before `end`, or a time of ISO 8601, UTC unless it says."""
    if _DURATION.fullmatch(text):
        return end - duration_seconds(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadWindow(
            f"{option} {text}: neither a duration such as 2h nor a time such as 2026-03-01T12:00Z"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def told(at: float) -> str:
    """A moment with its day."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def lasted(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"
