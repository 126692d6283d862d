"""The verdict's operating characteristics, on whole rollouts of simulated users. docs/rollout.md has the full table."""

import pytest

from benchmarks.rollout_simulation import Outcome, World, point_rule, share, shipped_rule, simulate

GOOD, BAD = World(tasks_per_day=1000), World(tasks_per_day=1000, drop=0.1)


def shipped(world: World, runs: int) -> list[Outcome]:
    return simulate(shipped_rule, world, runs=runs, seed=11)


def test_identical_versions_come_through_more_often_than_by_the_point_rule_and_are_not_rolled_back() -> None:
    ended = shipped(GOOD, 40)
    assert share(ended, "complete") > share(simulate(point_rule, GOOD, runs=200, seed=11), "complete")
    assert share(ended, "rolled back") <= 0.025


def test_a_canary_that_succeeds_a_tenth_less_never_comes_through() -> None:
    assert share(shipped(BAD, 40), "complete") == 0


def test_a_canary_that_succeeds_a_quarter_less_is_rolled_back_within_days() -> None:
    ended = shipped(World(tasks_per_day=1000, drop=0.25), 25)
    assert share(ended, "rolled back") >= 0.9
    assert sorted(outcome.days for outcome in ended)[12] < 3


def test_a_canary_at_three_and_a_half_times_the_cost_is_rolled_back_within_a_day() -> None:
    ended = shipped(World(tasks_per_day=1000, factor=3.5), 25)
    assert share(ended, "rolled back") == 1
    assert sorted(outcome.days for outcome in ended)[12] <= 1


def test_at_ten_thousand_tasks_a_day_identical_versions_come_through_in_a_day_a_stage() -> None:
    ended = shipped(World(tasks_per_day=10_000), 8)
    assert share(ended, "complete") == 1
    assert sorted(outcome.days for outcome in ended)[4] <= 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("volume", [1_000, 10_000])
def test_identical_versions_are_rolled_back_in_one_of_a_hundred_rollouts_at_most(volume: float) -> None:
    assert share(shipped(World(tasks_per_day=volume), 300), "rolled back") <= 0.01


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "world",
    [
        World(drop=0.075),
        World(drop=0.1),
        World(factor=1.1),
        World(factor=1.25),
        World(drop=0.1, tasks_per_user=2),
        World(factor=1.25, runaways=0.01),
        World(tasks_per_day=10_000, drop=0.1),
        World(tasks_per_day=10_000, factor=1.25),
    ],
    ids=repr,
)
def test_harm_comes_through_in_three_of_a_hundred_rollouts_at_most_and_seldomer_than_by_the_point_rule(
    world: World,
) -> None:
    complete = share(shipped(world, 100), "complete")
    assert complete <= 0.03
    assert complete <= share(simulate(point_rule, world, runs=500, seed=11), "complete") + 0.01
