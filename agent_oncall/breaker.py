"""When a task, or all tasks of a process, spend or loop beyond what is theirs.

Three circles, each with a breaker of its own: a task (TaskBreaker), the tasks of this process (ProcessBreaker), all of
an agent's processes (the state file's, which the controller opens). This module knows the first two; it decides and
counts, and leaves acting on it to the runtime. The clock is passed in, in seconds.
"""

import re
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

TaskWhy: TypeAlias = Literal["failing_tool", "repeat", "iterations", "cost"]

WINDOW_SECONDS = 60

# What ended tasks taught is believed from so many on.
_ENOUGH_TASKS = 20
_ENOUGH_MINUTES = 10
_KEEP_COSTS = 256
_MOST_TYPES = 100
_MOST_STREAKS = 64
_LONGEST_COOLDOWN = 3600.0
_PROBE_SECONDS = 900.0
# A few tasks alone, however costly, never open the breaker of the process.
_LARGEST_PART = 1 / 6
# So many times the mean task's cost needs no explanation. A tenfold launch, simulated with costs of lognormal sigma 0.8
# and 1.2 and 5 to 500 tasks a minute, opens it 0.00 to 0.02 times an hour; with 1 and a third of the budget, up to 0.9.
_SPARE = 1.5
_GOOD_PROBES = 3
# Of tasks whose costs vary by a lognormal sigma of 1.2, 45 % of the spend is above the mean task's.
_MOST_WASTE = 2 / 3


class Cut(Exception):
    """A breaker ends this task, or does not let it begin. `why` is one word, as in agent_breaker_trips_total."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


class BreakerOpen(Cut):
    """The breaker of the whole agent or of this process is open, or the agent is off: use the fallback."""


class BudgetExceeded(Cut):
    """This task loops, or spends more than is its own: end it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to cut. The defaults suit most agents; `cost` and spend limits are learnt from the tasks that end here."""

    failing: int = 3
    """Iterations in a row in which one tool failed with the same error."""
    repeating: int = 3
    """Iterations in a row that called one tool with the same arguments."""
    polling: frozenset[str] = frozenset()
    """Tools whose way it is to be called again with the same arguments."""
    cost_factor: float = 3.0
    """A task is cut at so many times the cost below which 99 % of its type's tasks stayed."""
    expected_task_usd: float | Mapping[str, float] | None = None
    """What a task (of a type) costs, until enough of them have ended; without it the process learns first."""
    process_factor: float = 8.0
    """The process may spend so many times its usual USD a minute beyond what its tasks are expected to cost."""
    process_floor_usd: float = 0.25
    """At least so much a minute is left to the process, in USD."""
    cooldown_seconds: float = 120.0
    """The process' breaker stays open so long before one task may try; doubled each time that fails."""

    def __post_init__(self) -> None:
        for name in ("failing", "repeating"):
            if getattr(self, name) < 2:
                raise ValueError(f"limits: {name} is {getattr(self, name)!r}: 2 or more is needed")
        for name in ("cost_factor", "process_factor", "process_floor_usd", "cooldown_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"limits: {name} is {getattr(self, name)!r}: a number above 0 is needed")
        expected = self.expected_task_usd
        for usd in expected.values() if isinstance(expected, Mapping) else (expected,):
            if usd is not None and not 0 < usd < float("inf"):
                raise ValueError(f"limits: expected_task_usd is {usd!r}: USD above 0 are needed")


class TaskBreaker:
    """Follows one task. An iteration is an LLM call and the tool calls that come before the next."""

    __slots__ = ("_failing", "_limits", "_repeating", "calls", "turn")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.turn = 0
        self.calls = 0
        self._failing: dict[tuple[str, str], tuple[int, int]] = {}  # the last turn it went on in, its length
        self._repeating: dict[tuple[str, str], tuple[int, int]] = {}

    def tool_call(self, tool: str, arguments: str, error: str) -> None:
        """A tool call ended. `arguments` is their hash, "" where they are not known; `error` is "" where it worked."""
        turn = self.turn
        if not turn:
            # Agents that tell of no iterations: each tool call is one.
            self.calls += 1
            turn = self.calls
        if error:
            self._go_on(self._failing, (tool, alike(error)), turn)
        else:
            for key in [key for key in self._failing if key[0] == tool]:
                del self._failing[key]
        if arguments and tool not in self._limits.polling:
            self._go_on(self._repeating, (tool, arguments), turn)

    def why(self, iterations: int, max_iter: int, cost_usd: float, most_usd: float | None) -> TaskWhy | None:
        """Why the next iteration should not be, if so. `iterations` are those that were."""
        for _, length in self._failing.values():
            if length >= self._limits.failing:
                return "failing_tool"
        for _, length in self._repeating.values():
            if length >= self._limits.repeating:
                return "repeat"
        if iterations >= max_iter:
            return "iterations"
        if most_usd is not None and cost_usd > most_usd:
            return "cost"
        return None

    @staticmethod
    def _go_on(streaks: dict[tuple[str, str], tuple[int, int]], key: tuple[str, str], turn: int) -> None:
        last, length = streaks.get(key, (0, 0))
        if last != turn:
            if len(streaks) >= _MOST_STREAKS or any(at < turn - 1 for at, _ in streaks.values()):
                for old in [old for old, (at, _) in streaks.items() if at < turn - 1]:
                    del streaks[old]
            if len(streaks) < _MOST_STREAKS:
                streaks[key] = turn, length + 1 if last == turn - 1 else 1


def alike(error: str) -> str:
    """An error's text without what differs from call to call."""
    return re.sub(r"\d+", "0", error[:200])


@dataclass(slots=True)
class _Costs:
    """Costs of the latest ended tasks of a type, USD."""

    latest: deque[float] = field(default_factory=lambda: deque(maxlen=_KEEP_COSTS))
    mean: float = 0.0
    most: float | None = None  # at which a task is cut
    fresh: int = 0


class History:
    """What ended tasks cost, by task type. Tasks that were cut do not teach."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_type: dict[str, _Costs] = {}
        self._all = _Costs()

    def ended(self, task_type: str, usd: float) -> None:
        if task_type not in self._by_type and len(self._by_type) >= _MOST_TYPES:
            task_type = ""
        for costs in (self._by_type.setdefault(task_type, _Costs()), self._all):
            costs.latest.append(usd)
            costs.fresh += 1
            # Sorting each time would be the dearest thing a task does.
            if len(costs.latest) <= _ENOUGH_TASKS or costs.fresh >= 16 or not costs.mean:
                costs.fresh = 0
                ordered = sorted(costs.latest)
                costs.mean = sum(ordered) / len(ordered)
                if len(ordered) >= _ENOUGH_TASKS and costs.mean:
                    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
                    # Of few tasks, the dearest says little of the dearest to come.
                    scarce = 1 + 2 * (1 - min(1.0, len(ordered) / 100))
                    costs.most = self._limits.cost_factor * p99 * scarce

    def expected(self, task_type: str) -> float | None:
        """USD that a task of the type costs in the mean; None where nobody knows."""
        costs = self._by_type.get(task_type)
        if costs is not None and len(costs.latest) >= _ENOUGH_TASKS:
            return costs.mean
        given = self._limits.expected_task_usd
        if isinstance(given, Mapping):
            given = given.get(task_type)
        if given is not None:
            return given
        return self._all.mean if len(self._all.latest) >= _ENOUGH_TASKS else None

    def most(self, task_type: str) -> float | None:
        """USD at which a task of the type is cut; None until enough have ended."""
        costs = self._by_type.get(task_type)
        return None if costs is None else costs.most


class _Window:
    """USD of the last 60 seconds, by second."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, float]] = deque()
        self.usd = 0.0

    def add(self, now: float, usd: float) -> None:
        self.forget(now)
        second = int(now)
        if self._slots and self._slots[-1][0] >= second:
            second, had = self._slots.pop()
            self._slots.append((second, had + usd))
        else:
            self._slots.append((second, usd))
        self.usd += usd

    def forget(self, now: float) -> None:
        while self._slots and self._slots[0][0] <= now - WINDOW_SECONDS:
            self.usd -= self._slots.popleft()[1]
        if not self._slots:
            self.usd = 0.0


class Account:
    """One task's part in what the process spends. Kept by ProcessBreaker, under its lock."""

    __slots__ = ("allowance", "counted", "cut", "largest", "probe", "reserved", "spent", "stopped", "task_type")

    def __init__(self, task_type: str, allowance: float | None) -> None:
        self.task_type = task_type
        self.allowance = allowance  # what needs no explanation; None where nobody knows
        self.spent = 0.0
        self.reserved = 0.0
        self.counted = 0.0  # of that, what went into the window
        self.largest = 0.0  # the dearest iteration so far
        self.cut = False  # for its own sake
        self.stopped = False  # by the breaker of the process
        self.probe = False

    def unexplained(self, usd: float) -> float:
        """Of `usd` spent or reserved, what the task was not expected to cost. All, once it was cut for its own sake."""
        if self.cut:
            return usd
        if self.allowance is None or usd <= self.allowance:
            return 0.0
        return usd - self.allowance


class ProcessBreaker:
    """What the tasks of this process spend beyond what tasks like them cost, in 60 seconds, against a budget.

    Each task brings along what it is expected to cost, so ten times the tasks trip nothing; a loop, or one task after
    the other that has to be cut, does. An iteration reserves its cost before it begins: those that run at the same
    time can't overshoot together. After `cooldown_seconds` one task at a time may try; three that end well close it.
    """

    def __init__(self, limits: Limits, *, act: bool) -> None:
        self._limits = limits
        self._act = act
        self.history = History(limits)
        self._baseline = 0.0  # USD a minute, all spend
        self._minutes = 0
        self._reset()

    def after_fork(self) -> None:
        """In the child: nothing was spent here yet, but what was learnt holds."""
        self._reset()

    def _reset(self) -> None:
        # A task of an abandoned generator ends wherever the collector runs: also below one of these methods.
        self._lock = threading.RLock()
        self._window = _Window()
        self._spent = _Window()
        self._second: int | None = None
        self._minute_began: float | None = None
        self._minute_usd = 0.0
        self._iteration_usd = 0.0
        self._open_until: float | None = None
        self._cooldown = self._limits.cooldown_seconds
        self._probe: Account | None = None
        self._probe_began = 0.0
        self._good_probes = 0

    @property
    def budget_usd(self) -> float:
        """USD of 60 seconds that need no explanation."""
        if self._minutes >= _ENOUGH_MINUTES:
            return max(self._limits.process_floor_usd, self._limits.process_factor * self._baseline)
        # Nobody knows yet what is much for this process: only where most of what it spends is for nothing.
        return max(self._limits.process_floor_usd, _MOST_WASTE * self._spent.usd)

    @property
    def _largest_usd(self) -> float:
        """USD of the budget that one task can use up."""
        return self.budget_usd * _LARGEST_PART

    def state(self, now: float) -> Literal["closed", "half_open", "open"]:
        """As agents are treated: always closed while it does not act."""
        if self._open_until is None or not self._act:
            return "closed"
        return "open" if now < self._open_until else "half_open"

    def begin(self, task_type: str, now: float) -> Account | None:
        """The task's account; None if the breaker does not let it begin."""
        with self._lock:
            self._pass_time(now)
            account = Account(task_type, self._allowance(task_type))
            if self._open_until is not None and self._act:
                if now < self._open_until:
                    return None
                if self._probe is not None:
                    if now - self._probe_began < _PROBE_SECONDS:
                        return None
                    self._open(now, again=True)
                    return None
                account.probe, self._probe, self._probe_began = True, account, now
            return account

    def reserve(self, account: Account, now: float, usd: float | None = None) -> tuple[float, bool, bool]:
        """Before an iteration: (USD reserved, whether it may be, whether this has just opened the breaker).

        `usd` is what it will cost at most; without it, the dearest of this task so far or the usual one.
        """
        with self._lock:
            self._pass_time(now)
            if usd is None:
                usd = max(account.largest, self._iteration_usd)
            if self._open_until is not None and self._act and not account.probe:
                account.stopped = True
                return 0.0, False, False
            if account.probe and account.unexplained(account.spent + account.reserved + usd) > self._largest_usd:
                self._open(now, again=True)
                account.stopped = True
                return 0.0, False, False
            more = self._count(account, account.spent + account.reserved + usd)
            if more > 0 and self._open_until is None and self._window.usd + more > self.budget_usd:
                self._open(now, again=False)
                if self._act:
                    account.stopped = True
                    return 0.0, False, True
                self._take(account, now, more, usd)
                return usd, True, True
            self._take(account, now, more, usd)
            return usd, True, False

    def settle(self, account: Account, now: float, reserved: float, usd: float) -> bool:
        """After an iteration that cost `usd`; what was reserved for it is given back. True if it has just opened the
        breaker."""
        with self._lock:
            account.reserved = max(0.0, account.reserved - reserved)
            account.spent += usd
            account.largest = max(account.largest, usd)
            self._minute_usd += usd
            if usd:
                self._spent.add(now, usd)
                self._iteration_usd += (usd - self._iteration_usd) * (0.05 if self._iteration_usd else 1.0)
            return self._recount(account, now)

    def cut(self, account: Account, now: float) -> bool:
        """The task loops: what it spent was for nothing. True if this has just opened the breaker."""
        with self._lock:
            account.cut = True
            if account.probe:
                self._open(now, again=True)
                return False
            return self._recount(account, now)

    def end(self, account: Account, now: float, *, well: bool) -> None:
        """The task ended; `well` if it was not cut and did not fail."""
        with self._lock:
            account.reserved = 0.0
            self._recount(account, now)
            if account.spent and not account.cut and not account.stopped:
                self.history.ended(account.task_type, account.spent)
            if self._probe is not account:
                return
            self._probe = None
            if well and not account.unexplained(account.spent) > 2 * (account.allowance or 0):
                self._good_probes += 1
                if self._good_probes >= _GOOD_PROBES:
                    self._open_until = None
                    self._cooldown = self._limits.cooldown_seconds
                    self._window = _Window()

    def _allowance(self, task_type: str) -> float | None:
        # The first few tasks tell too little of what is ordinary to cut anybody by.
        if self._minutes < _ENOUGH_MINUTES and self._limits.expected_task_usd is None:
            return None
        expected = self.history.expected(task_type)
        return None if expected is None else _SPARE * expected

    def _count(self, account: Account, usd: float) -> float:
        """What `usd` spent and reserved in all adds to the window."""
        unexplained = account.unexplained(usd)
        if not unexplained:
            return -account.counted  # as most tasks always have it
        return min(unexplained, self._largest_usd) - account.counted

    def _recount(self, account: Account, now: float) -> bool:
        more = self._count(account, account.spent + account.reserved)
        if not more:
            return False
        self._take(account, now, more, 0.0)
        if more > 0 and self._open_until is None and self._window.usd > self.budget_usd:
            self._open(now, again=False)
            return True
        return False

    def _take(self, account: Account, now: float, more: float, reserved: float) -> None:
        account.reserved += reserved
        if more:
            account.counted += more
            self._window.add(now, more)

    def _open(self, now: float, *, again: bool) -> None:
        self._cooldown = min(2 * self._cooldown, _LONGEST_COOLDOWN) if again else self._limits.cooldown_seconds
        self._open_until = now + self._cooldown
        self._probe = None
        self._good_probes = 0

    def _pass_time(self, now: float) -> None:
        second = int(now)
        if second != self._second:  # what the windows hold is by second
            self._second = second
            self._window.forget(now)
            self._spent.forget(now)
        if self._open_until is not None and not self._act and now >= self._open_until:
            # Nothing was held back, so there is nothing to try: it watches again from nought.
            self._open_until = None
            self._window = _Window()
        if self._minute_began is None:
            self._minute_began = now
        elif now - self._minute_began >= WINDOW_SECONDS:
            minutes = (now - self._minute_began) / WINDOW_SECONDS
            if self._open_until is None:
                self._learn(self._minute_usd / minutes)
            self._minute_began, self._minute_usd = now, 0.0

    def _learn(self, usd: float) -> None:
        self._minutes += 1
        if self._minutes > _ENOUGH_MINUTES:
            # What is far out of the ordinary is no lesson: it may be the loop.
            usd = min(usd, 3 * self._baseline)
        self._baseline += (usd - self._baseline) / min(self._minutes, 60)
