"""When a running task is a loop: one tool failing, or one call repeating, in several iterations in a row."""

import msgspec

# How many streaks are followed at once: calls of one iteration that go on into the next.
_MAX_STREAKS = 64


class Streak(msgspec.Struct, array_like=True, gc=False):
    turn: int  # the last iteration it went on in
    length: int


class Loop(msgspec.Struct, array_like=True):
    """Follows one task, call by call. An iteration is an LLM call and the tool calls that come before the next."""

    turn: int = 0
    calls_without_turn: int = 0
    failing: dict[str, Streak] = {}
    repeating: dict[str, Streak] = {}
    why: str = ""
    seen: list[str] = []  # every reason that was ever met, for agent_tasks_looped_total

    def forget(self) -> None:
        """Let go of the streaks that the last iteration broke; after each `turn`."""
        for streaks in (self.failing, self.repeating):
            for key, streak in list(streaks.items()):
                if streak.turn < self.turn - 1:
                    del streaks[key]

    def tool_call(self, tool: str, failed: bool, arguments: bytes, *, in_iteration: bool = False) -> None:
        """`arguments` is empty where they are not known, or where repeating them is this tool's way (polling).
        `in_iteration`: it stands inside an iteration, which ends after it; elsewhere an LLM call ends before its tools.
        """
        turn = self.turn
        if not turn and not in_iteration:
            # Sources without LLM spans: every tool call is an iteration of its own.
            self.calls_without_turn += 1
            turn = self.calls_without_turn
        if failed:
            self._go_on(self.failing, tool, turn)
        else:
            self.failing.pop(tool, None)
        if arguments:
            self._go_on(self.repeating, f"{tool} {arguments.hex()}", turn)

    @staticmethod
    def _go_on(streaks: dict[str, Streak], key: str, turn: int) -> None:
        streak = streaks.get(key)
        if streak is None:
            if len(streaks) < _MAX_STREAKS:
                streaks[key] = Streak(turn, 1)
        elif streak.turn == turn - 1:
            streak.turn, streak.length = turn, streak.length + 1
        elif streak.turn < turn - 1:
            streak.turn, streak.length = turn, 1

    def reason(self, iterations: int, failing: int, repeating: int, most_iterations: float) -> str:
        """The worst reason that holds now, or empty."""
        for streak in self.failing.values():
            if streak.length >= failing:
                return "failing_tool"
        for streak in self.repeating.values():
            if streak.length >= repeating:
                return "repeat"
        if iterations > most_iterations:
            return "iterations"
        return ""
