"""A/B tests: how many users they need, and what their records say. Pure functions over plain data; no SciPy.

Users are split, not tasks, and tasks of one user resemble each other: sums are taken by user first, and the spread is
that between users (the linearised ratio, which is what a regression with standard errors clustered by user gives).
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

Arm = Literal["a", "b"]

MISMATCH = 100.0
"""Evidence, as a factor, from which a split is called broken: wrong in one of 100 tests, however often one looks."""
_NORMAL = NormalDist()
_MOST_TASKS = 10**12


class RecordsError(ValueError):
    """Records can't be read. The text names file and line."""


@dataclass(frozen=True, slots=True)
class Size:
    """What an arm needs: independent tasks, tasks of users who come back, and users."""

    independent_tasks: int
    design_effect: float
    tasks: int
    users: int


def size(
    base: float,
    difference: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    tasks_per_user: float = 1.0,
    tasks_variation: float = 0.0,
    correlation: float = 0.0,
) -> Size:
    """What one arm needs to find a success rate of `base` + `difference` (absolute), two-sided.

    The usual formula with the pooled variance under "no difference" (Fleiss, Statistical Methods for Rates and
    Proportions, 4.14), as statsmodels' `samplesize_proportions_2indep_onetail`. `correlation` is
    that of one user's tasks; `tasks_variation` the standard deviation of tasks a user over their mean. ValueError says
    what is out of range.
    """
    other = base + difference
    for name, value in (("tasks per user", tasks_per_user), ("variation", tasks_variation), ("difference", difference)):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value:g}: a number is needed")
    if not 0 < base < 1 or not 0 < other < 1 or other == base:
        raise ValueError(f"a success rate of {base:g} and one of {other:g}: both between 0 and 1, and not the same")
    if not 0 < alpha < 1 or not 0 < power < 1 or not 0 <= correlation <= 1 or tasks_per_user < 1 or tasks_variation < 0:
        raise ValueError("alpha and power between 0 and 1, a correlation from 0 to 1, 1 task a user or more are needed")
    z_alpha, z_power = _NORMAL.inv_cdf(1 - alpha / 2), _NORMAL.inv_cdf(power)
    mean = (base + other) / 2
    none = math.sqrt(2 * mean * (1 - mean))
    some = math.sqrt(base * (1 - base) + other * (1 - other))
    independent = ((z_alpha * none + z_power * some) / difference) ** 2
    effect = 1 + ((1 + tasks_variation * tasks_variation) * tasks_per_user - 1) * correlation
    if not independent * effect < _MOST_TASKS:
        raise ValueError(
            f"a difference of {difference:g} at a design effect of {effect:.3g} needs more than {_MOST_TASKS:,} tasks "
            "an arm: ask for a larger one"
        )
    tasks = math.ceil(independent * effect)
    return Size(math.ceil(independent), effect, tasks, math.ceil(tasks / tasks_per_user))


@dataclass(slots=True)
class User:
    """One user's sums in one arm."""

    tasks: float = 0
    successes: float = 0
    cost: float = 0
    costed: float = 0
    iterations: float = 0
    latency_ms: float = 0


@dataclass(slots=True)
class Records:
    """All that was recorded of an experiment, by arm and user. Tasks without a known success are left out of it."""

    arms: dict[Arm, dict[str, User]] = field(default_factory=lambda: {"a": {}, "b": {}})
    unknown_success: int = 0
    torn: int = 0
    both: int = 0
    """Users that were seen in both arms: they are left out, and none should be."""

    def users(self, arm: Arm) -> int:
        return len(self.arms[arm])

    def tasks(self, arm: Arm) -> int:
        return int(sum(user.tasks for user in self.arms[arm].values()))


def read(paths: Iterable[Path], experiment: str) -> Records:
    """The records of an experiment in JSON lines; each task once. RecordsError if a file can't be read."""
    found = Records()
    seen: set[str] = set()
    for content in _lines(paths, found):
        if content.get("experiment_id") != experiment:
            continue
        try:
            arm, user_id, task = content["variant"], str(content["user_id"]), str(content["task_id"])
            if arm not in ("a", "b") or task in seen:
                continue
            seen.add(task)
            success, cost = content.get("success"), content.get("cost_usd")
            user = found.arms[arm].setdefault(user_id, User())
            if success is None:
                found.unknown_success += 1
            else:
                user.tasks += 1
                user.successes += bool(success)
            if cost is not None:
                user.cost += float(cost)
                user.costed += 1
            user.iterations += float(content.get("iterations") or 0)
            user.latency_ms += float(content.get("latency_ms") or 0)
        except (KeyError, TypeError, ValueError):
            found.torn += 1
    both = found.arms["a"].keys() & found.arms["b"].keys()
    found.both = len(both)
    for user_id in both:
        del found.arms["a"][user_id], found.arms["b"][user_id]
    return found


def _lines(paths: Iterable[Path], found: Records) -> Iterator[Mapping[str, Any]]:
    for path in paths:
        try:
            with path.open("rb") as file:
                for line in file:
                    try:
                        content = json.loads(line)
                    except ValueError:
                        found.torn += 1
                        continue
                    if isinstance(content, dict):
                        yield content
        except OSError as error:
            raise RecordsError(f"{path}: can't be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of both arms.

    `difference` is b - a (success rate: absolute), or b / a - 1 (cost); `low` and `high` are its 95 % interval, `p` the
    two-sided p-value of no difference (None for an interval that may be looked at any time).
    """

    name: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float | None

    @property
    def proven(self) -> bool:
        """Whether the interval excludes no difference."""
        return not self.low <= 0 <= self.high


def compare_success(records: Records, *, alpha: float = 0.05, peek_target: float | None = None) -> Comparison | None:
    """Success rates, clustered by user; None while an arm has fewer than two users with a known success, or no user
    differs from another of the arm: then nothing tells how much chance there is in it.

    With `peek_target` (the standard error at which the interval is tightest) the interval holds at every look.
    """
    rate_a, error_a = _ratio([(u.successes, u.tasks) for u in records.arms["a"].values()])
    rate_b, error_b = _ratio([(u.successes, u.tasks) for u in records.arms["b"].values()])
    if error_a is None or error_b is None:
        return None
    difference, error = rate_b - rate_a, math.hypot(error_a, error_b)
    if not error:
        return None
    width, p = _width(error, alpha, peek_target), None
    if peek_target is None:
        p = _p_value(difference, error)
    return Comparison("success rate", rate_a, rate_b, difference, difference - width, difference + width, p)


def compare_cost(records: Records, *, alpha: float = 0.05) -> Comparison | None:
    """Mean cost per task as a ratio less 1, clustered by user, the interval by the delta method on its logarithm."""
    mean_a, error_a = _ratio([(u.cost, u.costed) for u in records.arms["a"].values()])
    mean_b, error_b = _ratio([(u.cost, u.costed) for u in records.arms["b"].values()])
    if error_a is None or error_b is None or mean_a <= 0 or mean_b <= 0:
        return None
    logarithm, error = math.log(mean_b / mean_a), math.hypot(error_a / mean_a, error_b / mean_b)
    width = _width(error, alpha, None)
    low, high = math.expm1(logarithm - width), math.expm1(logarithm + width)
    return Comparison("cost per task", mean_a, mean_b, mean_b / mean_a - 1, low, high, _p_value(logarithm, error))


def mismatch(users_a: int, users_b: int, share_b: float) -> float:
    """Evidence that users do not come in the shares they should: a factor, 1 is none, over MISMATCH is a broken split.

    The mixture likelihood ratio of a binomial against a beta with mean `share_b` worth 100 users: an e-process, so it
    may be looked at after every user, where a chi-square test would cry wolf once in ten times.
    """
    n, k = users_a + users_b, users_b
    if not n or not 0 < share_b < 1:
        return 1.0
    a, b = 100 * share_b, 100 * (1 - share_b)
    logarithm = _log_beta(a + k, b + n - k) - _log_beta(a, b) - k * math.log(share_b) - (n - k) * math.log1p(-share_b)
    return math.exp(min(logarithm, 700.0))


def always_valid_width(error: float, target: float, alpha: float = 0.05) -> float:
    """Half-width of the two-sided confidence sequence at a standard error of `error`, tuned for one of `target`.

    Waudby-Smith et al., Time-uniform central limit theory and asymptotic confidence sequences, theorem 2.2.
    """
    if error <= 0:
        return 0.0
    x = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) * (target / error) ** 2
    return error * math.sqrt(2 * (x + 1) / x * math.log(math.sqrt(x + 1) / alpha))


def _width(error: float, alpha: float, peek_target: float | None) -> float:
    if peek_target is not None:
        return always_valid_width(error, peek_target, alpha)
    return error * _NORMAL.inv_cdf(1 - alpha / 2)


def _p_value(difference: float, error: float) -> float:
    if error <= 0:
        return 1.0 if not difference else 0.0
    return math.erfc(abs(difference) / error / math.sqrt(2))


def _ratio(users: list[tuple[float, float]]) -> tuple[float, float | None]:
    """Sum over sum and its standard error between users; None for fewer than two users."""
    users = [(y, n) for y, n in users if n]
    n = sum(n for _, n in users)
    if len(users) < 2:
        return 0.0, None
    rate = sum(y for y, _ in users) / n
    squares = sum((y - rate * m) ** 2 for y, m in users)
    return rate, math.sqrt(len(users) / (len(users) - 1) * squares) / n


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
