"""Is the canary as good as stable? Pure functions: sums in, verdict out.

Everything is compared with stable at the same time in the same stage, by users: tasks of one user resemble each other,
so the spread is taken between the 16 shards of users, not between tasks. "Proven" means proven at every moment at once:
the bounds are one-sided confidence sequences (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: Time-uniform central limit
theory and asymptotic confidence sequences, Annals of Statistics 2024), so looking each minute costs no more errors than
looking once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Confidence:
    """`alpha`: chance of a wrong proof, over all looks at one stage. `t15_over_z`: the spread comes from 16 shards, so
    the quantile is that of Student's t with 15 degrees of freedom."""

    alpha: float
    t15_over_z: float
    tune: float = field(init=False)
    """Where the bound is tightest (the paper's rho squared times n)."""

    def __post_init__(self) -> None:
        tune = -2 * math.log(2 * self.alpha) + math.log(1 - 2 * math.log(2 * self.alpha))
        object.__setattr__(self, "tune", tune)


HARM = Confidence(0.02, 2.249 / 2.054)
"""For "it is worse": a stage asks it of two figures, and a rollout has four stages."""
NO_HARM = Confidence(0.05, 1.753 / 1.645)
"""For "it is not that much worse"."""

_TARGET = 3.6  # the bounds are tightest where the standard error is the margin over this
_FEWEST_SHARDS = 4.0
_LEAST_COMPARED = 0.8
_FEWEST_OF_A_TYPE = 5
_MOST_TASKS = 1e7


class Decision(StrEnum):
    """What to do with the canary. No data is never a reason to go on."""

    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    HOLD = "hold"
    NO_DATA = "no data"

    @property
    def exit_code(self) -> int:
        return {"promote": 0, "roll back": 10, "hold": 11, "no data": 12}[self.value]

    @property
    def sample(self) -> int:
        """The value of `agent_rollout_verdict`."""
        return {"promote": 1, "roll back": -1}.get(self.value, 0)


@dataclass(frozen=True, slots=True)
class Arm:
    """What one variant did in one stage. Every tuple has an entry for each shard of users, in the same order.

    `started` and `succeeded` count tasks; `ended` and `cost` (USD, of ended tasks) are by task type.
    """

    started: tuple[float, ...]
    succeeded: tuple[float, ...]
    ended: Mapping[str, tuple[float, ...]]
    cost: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Sums:
    """Both variants at one moment."""

    stable: Arm
    canary: Arm


@dataclass(frozen=True, slots=True)
class Guard:
    """The harm that has to be disproved before a stage is left.

    `success_drop` is relative (0.2: a fifth fewer successes), `cost_factor` a ratio (1.5: half as much again).
    """

    success_drop: float
    cost_factor: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What is as good, and what can't wait.

    The canary may be worse by `margin` (relative, requirement 5). The hard triggers of requirement 7 are a success rate
    down by more than `hard_drop`, and a cost per task of more than `hard_factor` times stable's.
    """

    margin: float = 0.05
    hard_drop: float = 0.2
    hard_factor: float = 3.0
    fewest_tasks: int = 20
    most_unended: float = 0.05


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of both variants. `harm` is the canary's relative loss: 0.1 is 10 % worse, negative is better.

    `standard_error(h)` is that of (harm - h), were the true harm h.
    """

    name: str
    stable: float
    canary: float
    harm: float
    standard_error: Callable[[float], float]

    def proven_above(self, limit: float, margin: float) -> bool:
        """Whether the harm is proven to exceed `limit`; the bound is tightest for an excess of about `margin`."""
        return self.harm - limit > confidence_width(self.standard_error(limit), margin / _TARGET, HARM)

    def proven_below(self, limit: float, stretch: float = 1.0) -> bool:
        """Whether a harm of `limit` is disproved; with `stretch` times the tasks, were all else as now."""
        error = self.standard_error(limit) / math.sqrt(stretch)
        return limit - self.harm > confidence_width(error, limit / _TARGET, NO_HARM)

    def most(self) -> float:
        """The largest harm that is not disproved; infinite if any is possible."""
        low, high = max(self.harm, 1e-6), 1e3
        if not self.proven_below(high):
            return math.inf
        for _ in range(20):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self.proven_below(middle) else (middle, high)
        return high


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and why. `tasks` are the canary's; `missing` is how many more of them are needed, if more would help.

    `hard` says that a hard trigger was met. `missing_hours` lasts until the look after that.
    """

    decision: Decision
    reasons: tuple[str, ...]
    tasks: float = 0.0
    success: Measured | None = None
    cost: Measured | None = None
    typical: Measured | None = None
    hard: bool = False
    missing: float | None = None
    missing_hours: float | None = None
    unended: tuple[float, float] = field(default=(0.0, 0.0))


def confidence_width(error: float, target: float, level: Confidence) -> float:
    """Half-width of the one-sided confidence sequence at a standard error of `error`, tuned for one of `target`."""
    if error <= 0:
        return 0.0
    x = level.tune * (target / error) ** 2
    return error * level.t15_over_z * math.sqrt(2 * (x + 1) / x * math.log(1 + math.sqrt(x + 1) / (2 * level.alpha)))


def measure_success(sums: Sums) -> Measured | None:
    """Succeeded tasks per started one; None without tasks or without any success of stable.

    Of the started ones, not the ended ones: a canary whose tasks never end would look healthy otherwise.
    """
    (n_stable, p_stable, e_stable) = _rate(sums.stable)
    (n_canary, p_canary, e_canary) = _rate(sums.canary)
    if not n_stable or not n_canary or not p_stable:
        return None
    # Few shards of a small canary may agree by chance: it is given at least the spread of stable's users.
    e_canary = max(e_canary, e_stable * math.sqrt(n_stable / n_canary))

    def standard_error(harm: float) -> float:
        return math.hypot(e_canary, (1 - harm) * e_stable) / p_stable

    return Measured("success rate", p_stable, p_canary, 1 - p_canary / p_stable, standard_error)


def measure_cost(sums: Sums) -> tuple[Measured | None, float]:
    """USD per task as a ratio within task types, dear types weighing more; and the compared share of canary tasks.

    Types that stable hardly has are left out. None without tasks or without any cost of stable.
    """
    return _compare_cost(sums, "cost per task", by_task=False)


def measure_typical_cost(sums: Sums) -> Measured | None:
    """Each task's cost over the mean of its type with stable, averaged over tasks: every task weighs the same.

    Needs far fewer tasks than dollars do where types differ in cost, and sees what happens to cheap ones.
    """
    return _compare_cost(sums, "typical cost", by_task=True)[0]


def _compare_cost(sums: Sums, name: str, *, by_task: bool) -> tuple[Measured | None, float]:
    stable, canary = sums.stable, sums.canary
    shards = len(canary.started)
    all_tasks = sum(map(sum, canary.ended.values()))
    stable_tasks = canary_tasks = spent = expected = stable_spent = 0.0
    canary_spent = [0.0] * shards
    canary_expected = [0.0] * shards
    stable_excess = [0.0] * shards
    stable_weighted = [0.0] * shards
    for task_type, ended in canary.ended.items():
        n_canary = sum(ended)
        stable_ended = stable.ended.get(task_type)
        if not n_canary or stable_ended is None or (n_stable := sum(stable_ended)) < _FEWEST_OF_A_TYPE:
            continue
        stable_cost, canary_cost = stable.cost[task_type], canary.cost[task_type]
        mean = sum(stable_cost) / n_stable
        if not mean:
            continue
        unit = 1 / mean if by_task else 1.0
        per_task = mean * unit
        weight = n_canary / n_stable
        stable_tasks += n_stable
        canary_tasks += n_canary
        spent += unit * sum(canary_cost)
        expected += n_canary * per_task
        stable_spent += n_stable * per_task
        for shard in range(shards):
            canary_expected[shard] += ended[shard] * per_task
            canary_spent[shard] += unit * canary_cost[shard]
            excess = unit * stable_cost[shard] - per_task * stable_ended[shard]
            stable_excess[shard] += excess
            stable_weighted[shard] += weight * excess
    compared = canary_tasks / all_tasks if all_tasks else 0.0
    if not expected:
        return None, compared
    ratio = spent / expected
    bias = shards / (shards - 1)
    e_canary = math.sqrt(bias * _squares(canary_spent, canary_expected, ratio)) / expected
    e_stable = math.sqrt(bias * sum([w * w for w in stable_weighted])) / expected
    # A small canary has seldom met the costly tasks yet: it is given at least the spread of stable's.
    usual = (
        math.sqrt(bias * sum([x * x for x in stable_excess])) / stable_spent * math.sqrt(stable_tasks / canary_tasks)
    )

    def standard_error(harm: float) -> float:
        factor = 1 + harm
        return math.hypot(max(e_canary, factor * usual), factor * e_stable)

    return Measured(name, expected / canary_tasks, spent / canary_tasks, ratio - 1, standard_error), compared


def judge(
    now: Sums,
    *,
    guard: Guard,
    limits: Limits,
    hours: float,
    hold_hours: float,
    look: Sums | None,
    look_hours: float = 24.0,
    explain: bool = True,
) -> Verdict:
    """The verdict on a stage that has run for `hours`.

    Harm counts at every moment (`now`). That all is well is asked every `look_hours` only, from `hold_hours` on
    (`look`: the sums at the last such moment; None before): with each further look at a point estimate a canary that is
    exactly as bad as allowed gets another chance. Without `explain` the decision is the same, and what harm is still
    possible and how much is missing is left out: that takes most of the time.
    """
    tasks = sum(_started(now.canary))
    success = measure_success(now)
    cost, compared = measure_cost(now)
    typical = measure_typical_cost(now)
    unended = (_unended(now.stable), _unended(now.canary))
    shown = {"tasks": tasks, "success": success, "cost": cost, "typical": typical, "unended": unended}
    if not tasks:
        return Verdict(Decision.NO_DATA, ("no task of the canary was counted in this stage",), **shown)  # type: ignore[arg-type]
    if not sum(_started(now.stable)):
        return Verdict(Decision.NO_DATA, ("no task of stable was counted in this stage",), **shown)  # type: ignore[arg-type]

    def verdict(decision: Decision, *reasons: str, **more: object) -> Verdict:
        return Verdict(decision, reasons, **shown, **more)  # type: ignore[arg-type]

    if success is None:
        return verdict(Decision.HOLD, "stable has not a single success, so there is nothing to compare with")
    if tasks < limits.fewest_tasks or _effective_shards(now.canary) < _FEWEST_SHARDS:
        missing = max(limits.fewest_tasks - tasks, 0.0)
        why = f"{tasks:.0f} tasks of the canary, and from too few users, are too few to say anything"
        if missing:
            why = f"{tasks:.0f} tasks of the canary are too few to say anything: {limits.fewest_tasks} are the least"
        return verdict(Decision.HOLD, why, missing=missing or None, missing_hours=hours * missing / tasks or None)

    harms = _harms(success, cost, typical, limits)
    if harms:
        return verdict(Decision.ROLL_BACK, *(text for text, _ in harms), hard=any(hard for _, hard in harms))

    reasons: list[str] = []
    if hours < hold_hours:
        reasons.append(f"held for {hours:.1f} h of {hold_hours:g} h")
    if compared < _LEAST_COMPARED:
        reasons.append(f"only {compared:.0%} of the canary's ended tasks are of a type that stable has too")
    if unended[1] - unended[0] > limits.most_unended:
        reasons.append(f"{unended[1]:.0%} of the canary's tasks have not ended, of stable's {unended[0]:.0%}")
    if reasons and hours >= hold_hours:
        return verdict(Decision.HOLD, *reasons)
    if look is not None:
        again, stretch = _doubts(look, guard, limits, explain)
        if not again:
            return verdict(Decision.PROMOTE, "as good as stable, as far as this stage has to prove")
        reasons.extend(f"at the last look: {doubt}" for doubt in again)
    elif not explain:
        stretch = None
    else:
        doubts, stretch = _doubts(now, guard, limits, explain)
        reasons.extend(f"so far: {doubt}" for doubt in doubts)
    if stretch is None:
        return verdict(Decision.HOLD, *reasons)
    enough = stretch * sum(_started((look or now).canary))
    missing = max(enough - tasks, 0.0)
    looks = max(math.ceil((hours * max(enough / tasks, 1.0) - hold_hours) / look_hours), 0)
    return verdict(
        Decision.HOLD, *reasons, missing=missing or None, missing_hours=hold_hours + looks * look_hours - hours
    )


def _harms(
    success: Measured, cost: Measured | None, typical: Measured | None, limits: Limits
) -> list[tuple[str, bool]]:
    """What the canary is to be rolled back for, each with whether it is a hard trigger."""
    found: list[tuple[str, bool]] = []
    dear = limits.hard_factor - 1
    for measured, hard in ((success, limits.hard_drop), (cost, dear), (typical, dear)):
        if measured is None:
            continue
        if measured.harm > hard and measured.proven_above(0.0, hard):
            found.append((f"{describe(measured)}: over the hard limit of {hard:.0%}, and proven to be worse", True))
        elif measured.proven_above(limits.margin, limits.margin):
            found.append((f"{describe(measured)}: proven to be worse by more than {limits.margin:.0%}", False))
    return found


def _doubts(sums: Sums, guard: Guard, limits: Limits, explain: bool) -> tuple[list[str], float | None]:
    """What speaks against the next stage, and how many times the tasks would settle it (None: more won't help)."""
    success = measure_success(sums)
    cost, _ = measure_cost(sums)
    typical = measure_typical_cost(sums)
    reasons: list[str] = []
    stretch: float | None = 1.0
    for name, measured, margin, harm in (
        ("success rate", success, limits.margin, guard.success_drop),
        ("typical cost", typical, limits.margin, guard.cost_factor - 1),
        # In dollars a few dear tasks decide: twice the tasks and more would be needed to be as certain.
        ("cost per task", cost, 2 * limits.margin, 2 * (guard.cost_factor - 1)),
    ):
        if measured is None:
            reasons.append(f"{name}: nothing to compare")
            stretch = None
        elif measured.harm > margin:
            reasons.append(f"{describe(measured)}: more than {margin:.0%} worse, though that may be chance")
            stretch = None
        elif measured.proven_below(harm):
            continue
        elif not explain:
            reasons.append(f"{name}: {harm:.0%} worse is still possible")
        else:
            most = measured.most()
            possible = "any harm" if math.isinf(most) else f"{most:.0%} worse"
            reasons.append(f"{describe(measured)}: {possible} is still possible, this stage has to rule out {harm:.0%}")
            needed = _needed(measured, harm)
            stretch = None if stretch is None or needed is None else max(stretch, needed)
    if sum(_started(sums.canary)) < limits.fewest_tasks:
        reasons.append(f"fewer than {limits.fewest_tasks} tasks of the canary")
    return reasons, stretch


def describe(measured: Measured) -> str:
    """Such as "success rate 0.76, stable 0.80 (5.0 % worse)"."""
    digits = 3 if measured.name == "success rate" else 4
    word = "worse" if measured.harm >= 0 else "better"
    return (
        f"{measured.name} {measured.canary:.{digits}g}, stable {measured.stable:.{digits}g} "
        f"({abs(measured.harm):.1%} {word})"
    )


def _needed(measured: Measured, limit: float) -> float | None:
    """How many times the tasks disprove a harm of `limit`, were the figures to stay as they are."""
    low, high = 1.0, _MOST_TASKS
    if not measured.proven_below(limit, high):
        return None
    for _ in range(20):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if measured.proven_below(limit, middle) else (middle, high)
    return high


def _started(arm: Arm) -> list[float]:
    """Started tasks by shard. What ended must have started, even if its start was counted elsewhere."""
    if not arm.ended:
        return list(arm.started)
    return list(map(max, arm.started, map(sum, zip(*arm.ended.values(), strict=True))))


def _unended(arm: Arm) -> float:
    started = sum(_started(arm))
    return 1 - sum(map(sum, arm.ended.values())) / started if started else 0.0


def _effective_shards(arm: Arm) -> float:
    """As many shards of equal size would spread the tasks as much: one, if they all are one user's."""
    started = _started(arm)
    squares = sum(n * n for n in started)
    return sum(started) ** 2 / squares if squares else 0.0


def _rate(arm: Arm) -> tuple[float, float, float]:
    """Tasks, success rate and its standard error: by shards, and never less than that of as many independent tasks."""
    started = _started(arm)
    n, successes = sum(started), sum(arm.succeeded)
    if not n:
        return 0.0, 0.0, 0.0
    rate = successes / n
    shards = len(started)
    between = math.sqrt(shards / (shards - 1) * _squares(arm.succeeded, started, rate)) / n
    # Agresti-Coull's estimate: with no failure at all the plain one would be certain.
    careful = (successes + 2) / (n + 4)
    return n, rate, max(between, math.sqrt(careful * (1 - careful) / n))


def _squares(sums: Sequence[float], sizes: Sequence[float], ratio: float) -> float:
    """Squared distances of the shards' sums from what their sizes would give."""
    distances = [y - ratio * m for y, m in zip(sums, sizes, strict=True)]
    return sum([d * d for d in distances])
