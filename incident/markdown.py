"""Markdown of text that others wrote: a label, a reason in the audit log."""

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def plain(text: str) -> str:
    """The text as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """A name."""
    return f"`{' '.join(text.split()).replace('`', '').replace('|', '/')}`"


def link(text: str, url: str) -> str:
    return f"[{text}]({url.replace('(', '%28').replace(')', '%29').replace(' ', '%20')})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> list[str]:
    """A table's lines; the last `numbers` columns hold numbers. The cells are Markdown already."""
    ruler = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    return [f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows)]


def usd(value: float) -> str:
    """An amount; small ones to the hundredth of a cent."""
    return f"{value:,.2f} USD" if abs(value) >= 1 or not value else f"{value:.4f} USD"


def count(value: float) -> str:
    return f"{value:,.0f}"
