"""A section of the report."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Section:
    """Lines of Markdown, and a sentence of it for the top. `missing` says what could not be asked."""

    lines: list[str] = field(default_factory=list)
    headline: str = ""
    missing: str = ""

    def say(self, *lines: str) -> None:
        """More lines, as a paragraph of their own."""
        if self.lines:
            self.lines.append("")
        self.lines += lines
