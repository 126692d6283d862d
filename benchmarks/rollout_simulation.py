"""How often the canary's verdict is right: whole rollouts of simulated users, judged by the code that is shipped.

    python -m benchmarks.rollout_simulation [--runs 1000] [--tasks-per-day 1000 10000] [--processes 2] [--seed 1]

Users come back (negative binomial, 0.2 tasks a day each on average), resemble themselves (intra-class correlation 0.1)
and ask for three types of tasks whose mean costs are 1 : 3 : 10, each lognormal (sigma 0.8). Stable succeeds in 0.8.
A stage is left after 7 days at the latest; who is still there then is called stuck.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Table, progress
from controller.plan import DEFAULT, Stage
from controller.verdict import Arm, Decision, Limits, Sums, judge, measure_success, measure_typical_cost

SHARDS = 16
STAGE_DAYS = 7
TYPES = ("short", "middle", "long")
_TYPE_SHARES = (0.5, 0.3, 0.2)
_TYPE_COSTS = np.array([1.0, 3.0, 10.0]) / 100
_LOOKS = tuple(range(1, 25))
_LATER_LOOKS = (6, 12, 18, 24)

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """Users and versions. `drop` is the canary's relative loss of successes, `factor` what its tasks cost more, `long`
    what its long tasks cost more besides.

    `runaways` is the share of tasks, of both versions, that cost 30 times as much.
    """

    tasks_per_day: float = 1_000
    tasks_per_user: float = 0.2
    success: float = 0.8
    correlation: float = 0.1
    sigma: float = 0.8
    runaways: float = 0.0
    drop: float = 0.0
    factor: float = 1.0
    long: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rollout ended (`complete`, `stuck`, `rolled back`), and after how many days."""

    end: str
    days: float


class Population:
    """The users of one run: each keeps its habits, its shard and its bucket."""

    def __init__(self, world: World, random: np.random.Generator) -> None:
        users = max(int(world.tasks_per_day / world.tasks_per_user), 2)
        self._world = world
        self._random = random
        habits = random.gamma(1.0, size=users)
        self._cumulated = np.cumsum(habits / habits.sum())
        spread = 1 / world.correlation - 1
        self._success = random.beta(world.success * spread, (1 - world.success) * spread, size=users)
        self._cost = random.normal(0, world.sigma * np.sqrt(world.correlation), size=users)
        self._shard = random.integers(0, SHARDS, size=users)
        self._bucket = random.random(users) * 100

    def day(self, percent: float) -> Counts:
        """Cumulated sums of a day at each of its hours: [hour, started/succeeded/cost, variant, type, shard]."""
        world, random = self._world, self._random
        n = random.poisson(world.tasks_per_day)
        user = np.minimum(np.searchsorted(self._cumulated, random.random(n)), len(self._cumulated) - 1)
        canary = self._bucket[user] < percent
        kind = random.choice(3, size=n, p=_TYPE_SHARES)
        succeeded = random.random(n) < self._success[user] * np.where(canary, 1 - world.drop, 1.0)
        noise = random.normal(0, world.sigma * np.sqrt(1 - world.correlation), size=n)
        dearer = world.factor * np.where(kind == 2, world.long, 1.0)
        cost = _TYPE_COSTS[kind] * np.exp(self._cost[user] + noise) * np.where(canary, dearer, 1.0)
        if world.runaways:
            cost = np.where(random.random(n) < world.runaways, cost * 30, cost)
        hour = random.integers(0, 24, size=n)
        cell = ((hour * 2 + canary) * 3 + kind) * SHARDS + self._shard[user]
        sums = [np.bincount(cell, weights, minlength=24 * 2 * 3 * SHARDS) for weights in (None, succeeded, cost)]
        return np.cumsum(np.stack(sums, axis=1).reshape(24, 2, 3, SHARDS, 3).transpose(0, 4, 1, 2, 3), axis=0)


def sums(counts: Counts) -> Sums:
    """[started/succeeded/cost, variant, type, shard] as the verdict takes it."""
    return Sums(*(_arm(counts[:, variant]) for variant in (0, 1)))


def _arm(counts: Counts) -> Arm:
    started, succeeded = counts[:2].sum(axis=1).tolist()
    return Arm(
        tuple(started),
        tuple(succeeded),
        {name: tuple(row) for name, row in zip(TYPES, counts[0].tolist(), strict=True)},
        {name: tuple(row) for name, row in zip(TYPES, counts[2].tolist(), strict=True)},
    )


def shipped_rule(world: World, random: np.random.Generator) -> Outcome:
    """A rollout by the default plan, judged every hour of a stage's first day and every six hours after."""
    people, limits, days = Population(world, random), Limits(), 0.0
    for stage in DEFAULT.stages:
        ended = _stage(people, stage, limits)
        days += ended.days
        if ended.end != "promoted":
            return replace(ended, days=days)
    return Outcome("complete", days)


def _stage(people: Population, stage: Stage, limits: Limits) -> Outcome:
    total = np.zeros((3, 2, 3, SHARDS))
    look: Sums | None = None
    for day in range(STAGE_DAYS):
        counts = people.day(stage.percent)
        for hour in _LOOKS if day == 0 else _LATER_LOOKS:
            now = sums(total + counts[hour - 1])
            hours = day * 24.0 + hour
            if hours >= DEFAULT.hold_hours and hours % DEFAULT.look_hours == 0:
                look = now
            verdict = judge(
                now,
                guard=stage.guard,
                limits=limits,
                hours=hours,
                hold_hours=DEFAULT.hold_hours,
                look=look,
                explain=False,
            )
            if verdict.decision is Decision.PROMOTE:
                return Outcome("promoted", hours / 24)
            if verdict.decision is Decision.ROLL_BACK:
                return Outcome("rolled back", hours / 24)
        total = total + counts[-1]
    return Outcome("stuck", STAGE_DAYS)


def point_rule(world: World, random: np.random.Generator) -> Outcome:
    """The rule of requirement 5 taken literally: after 48 hours each stage, both figures within 5 %, else back."""
    people, days = Population(world, random), 0.0
    for stage in DEFAULT.stages:
        both = sums(people.day(stage.percent)[-1] + people.day(stage.percent)[-1])
        days += 2
        success, cost = measure_success(both), measure_typical_cost(both)
        if success is None or cost is None or success.harm > 0.05 or cost.harm > 0.05:
            return Outcome("rolled back", days)
    return Outcome("complete", days)


Rule = Callable[[World, np.random.Generator], Outcome]


def simulate(rule: Rule, world: World, *, runs: int, seed: int, processes: int = 1) -> list[Outcome]:
    """The outcomes of `runs` rollouts; the same seed gives the same ones, however many processes work."""
    seeds = np.random.SeedSequence(seed).spawn(runs)
    if processes == 1:
        return [_one(rule, world, seed) for seed in seeds]
    with multiprocessing.Pool(processes) as pool:
        return pool.map(partial(_one, rule, world), seeds, chunksize=max(runs // (8 * processes), 1))


def _one(rule: Rule, world: World, seed: np.random.SeedSequence) -> Outcome:
    return rule(world, np.random.default_rng(seed))


def share(outcomes: list[Outcome], end: str) -> float:
    """Share of the runs that ended so."""
    return sum(outcome.end == end for outcome in outcomes) / len(outcomes)


TRUTHS: dict[str, dict[str, float]] = {
    "identical": {},
    "success -5 %": {"drop": 0.05},
    "success -7.5 %": {"drop": 0.075},
    "success -10 %": {"drop": 0.1},
    "success -25 %": {"drop": 0.25},
    "cost x1.05": {"factor": 1.05},
    "cost x1.1": {"factor": 1.1},
    "cost x1.25": {"factor": 1.25},
    "cost x3.5": {"factor": 3.5},
    "long tasks x1.25 (in all x1.15)": {"long": 1.25},
    "long tasks x1.5 (in all x1.29)": {"long": 1.5},
    "identical, 2 tasks a user and day": {"tasks_per_user": 2.0},
    "identical, cost sigma 1.2": {"sigma": 1.2},
    "identical, 1 % runaways x30": {"runaways": 0.01},
    "success -10 %, 2 tasks a user and day": {"tasks_per_user": 2.0, "drop": 0.1},
    "cost x1.25, 1 % runaways x30": {"runaways": 0.01, "factor": 1.25},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, metavar="N")
    parser.add_argument("--tasks-per-day", type=float, nargs="+", default=[1_000, 10_000], metavar="N")
    parser.add_argument("--truth", nargs="+", choices=TRUTHS, default=list(TRUTHS), metavar="NAME")
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    table = Table(
        ["tasks a day", "truth", "complete", "stuck", "rolled back", "days, median", "complete by the point rule"],
        ">>>>>>>".replace(">", "<", 2),
    )
    for volume in options.tasks_per_day:
        for truth in options.truth:
            progress(f"{volume:g} tasks a day, {truth}")
            world = World(tasks_per_day=volume, **TRUTHS[truth])
            ended, by_point = (
                simulate(rule, world, runs=options.runs, seed=options.seed, processes=options.processes)
                for rule in (shipped_rule, point_rule)
            )
            decided = [outcome.days for outcome in ended if outcome.end != "stuck"]
            table.add(
                f"{volume:,.0f}",
                truth,
                *(f"{share(ended, end):.3f}" for end in ("complete", "stuck", "rolled back")),
                f"{np.median(decided):.1f}" if decided else "-",
                f"{share(by_point, 'complete'):.3f}",
            )
    table.show()


if __name__ == "__main__":
    main()
