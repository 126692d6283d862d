"""What `agent-oncall check` found: a line each, with what to do where something is wrong."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `what` was found, and `todo` where that is a problem."""

    what: str
    todo: str = ""

    @property
    def is_problem(self) -> bool:
        return bool(self.todo)

    def __str__(self) -> str:
        return f"problem  {self.what}\n         → {self.todo}" if self.todo else f"ok       {self.what}"


def listed(names: Iterable[str], most: int = 5) -> str:
    """The names for a line of text: the first few, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
