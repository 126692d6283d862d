"""When a running task is a loop: one tool failing, or one call repeating, in several iterations in a row."""

from dataclasses import dataclass, field

# How many streaks are followed at once: calls of one iteration that go on into the next.
_MAX_STREAKS = 64


@dataclass(slots=True)
class Loop:
    """Follows one task, call by call. An iteration is an LLM call and the tool calls that come before the next.

    Of a tool that fails, or a call with the same arguments, it knows in how many iterations in a row that was so: by
    this iteration, and by the one before for those that may yet go on.
    """

    iterations: int = 0
    failing: dict[str, int] = field(default_factory=dict)
    failing_before: dict[str, int] = field(default_factory=dict)
    repeating: dict[str, int] = field(default_factory=dict)
    repeating_before: dict[str, int] = field(default_factory=dict)
    why: str = ""
    seen: list[str] = field(default_factory=list)  # every reason that was ever met, for agent_tasks_looped_total

    def iteration(self) -> None:
        """An iteration ended: what it did not go on with is over."""
        self.iterations += 1
        self._turn()

    def _turn(self) -> None:
        self.failing_before, self.failing = self.failing, {}
        self.repeating_before, self.repeating = self.repeating, {}

    def tool_call(self, tool: str, failed: bool, arguments: bytes, *, in_iteration: bool = False) -> bool:
        """Returns whether it failed, or goes on with something. `arguments` is empty where they are not known, or where
        repeating them is this tool's way (polling). `in_iteration`: it stands inside an iteration, which ends after it;
        elsewhere an LLM call ends before its tools.
        """
        if not self.iterations and not in_iteration:
            self._turn()  # sources without LLM spans: every tool call is an iteration of its own
        if failed:
            _go_on(self.failing, self.failing_before, tool)
        elif self.failing or self.failing_before:
            self.failing.pop(tool, None)
            self.failing_before.pop(tool, None)
        if not arguments:
            return failed
        return _go_on(self.repeating, self.repeating_before, f"{tool} {arguments.hex()}") or failed

    def reason(self, iterations: int, failing: int, repeating: int, most_iterations: float) -> str:
        """The worst reason that holds now, or empty."""
        if _longest(self.failing, self.failing_before) >= failing:
            return "failing_tool"
        if _longest(self.repeating, self.repeating_before) >= repeating:
            return "repeat"
        if iterations > most_iterations:
            return "iterations"
        return ""


def _go_on(present: dict[str, int], before: dict[str, int], key: str) -> bool:
    """Note that it happened in this iteration; whether it did in the one before, too."""
    if key not in present and len(present) < _MAX_STREAKS:
        present[key] = before.get(key, 0) + 1
    return key in before


def _longest(present: dict[str, int], before: dict[str, int]) -> int:
    return max((*present.values(), *before.values()), default=0)
