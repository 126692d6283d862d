"""What a benchmark prints: progress on standard error, a Markdown table on standard output."""

import sys


def progress(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


class Table:
    """Rows under a head; `aligned` has < or > for each column."""

    def __init__(self, head: list[str], aligned: str) -> None:
        self._rows = [head]
        self._aligned = aligned

    def add(self, *cells: str) -> None:
        self._rows.append(list(cells))

    def show(self) -> None:
        widths = [max(map(len, column)) for column in zip(*self._rows, strict=True)]
        head, *rows = self._rows
        rule = [
            "-" * (width - 1) + (":" if side == ">" else "-") for width, side in zip(widths, self._aligned, strict=True)
        ]
        for row in [head, rule, *rows]:
            cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, self._aligned, widths, strict=True))
            print(f"| {' | '.join(cells)} |")
