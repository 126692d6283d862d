import math
from dataclasses import replace
from random import Random

import pytest

from controller.plan import Plan
from controller.report import lines
from controller.rollouts import Rollout
from controller.verdict import (
    HARM,
    NO_HARM,
    Arm,
    Decision,
    Guard,
    Limits,
    Sums,
    Verdict,
    confidence_width,
    judge,
    measure_cost,
    measure_success,
    measure_typical_cost,
)

GUARD = Guard(0.2, 1.5)
NOTHING = Arm((0.0,) * 16, (0.0,) * 16, {}, {})


def even(tasks: int, rate: float, cost: float = 0.02, *, kind: str = "chat", noise: int = 0) -> Arm:
    """Tasks spread over 16 shards, with a spread between them as independent tasks have."""
    random = Random(noise)
    started = [tasks // 16 + (shard < tasks % 16) for shard in range(16)]
    succeeded = [float(sum(random.random() < rate for _ in range(n))) for n in started]
    # What the draw missed of the rate is made up for, so that the figure is the one asked for.
    missing = round(tasks * rate - sum(succeeded))
    for at in range(abs(missing)):
        succeeded[at % 16] += math.copysign(1, missing)
    spent = tuple(n * cost * (1 + 0.1 * math.sin(shard + noise)) for shard, n in enumerate(started))
    scale = tasks * cost / sum(spent)
    return Arm(
        tuple(map(float, started)),
        tuple(succeeded),
        {kind: tuple(map(float, started))},
        {kind: tuple(scale * s for s in spent)},
    )


def verdict(stable: Arm, canary: Arm, *, hours: float = 24, looked: bool = True, hold: float = 24) -> Verdict:
    sums = Sums(stable, canary)
    return judge(
        sums,
        guard=GUARD,
        limits=Limits(),
        hours=hours,
        hold_hours=hold,
        look=sums if looked and hours >= hold else None,
    )


def test_a_canary_like_stable_is_promoted_after_a_day() -> None:
    found = verdict(even(19_000, 0.8, noise=1), even(1000, 0.8, noise=2))
    assert found.decision is Decision.PROMOTE
    assert found.decision.exit_code == 0


def test_it_is_held_before_the_day_is_over() -> None:
    found = verdict(even(19_000, 0.8, noise=1), even(1000, 0.8, noise=2), hours=20)
    assert (found.decision, found.decision.exit_code) == (Decision.HOLD, 11)
    assert found.reasons == ("held for 20.0 h of 24 h",)
    assert found.missing_hours == pytest.approx(4)


def test_between_looks_it_is_not_promoted() -> None:
    sums = Sums(even(19_000, 0.8, noise=1), even(1000, 0.8, noise=2))
    bad = Sums(sums.stable, even(1000, 0.75, noise=2))
    found = judge(sums, guard=GUARD, limits=Limits(), hours=30, hold_hours=24, look=bad)
    assert found.decision is Decision.HOLD


def test_much_worse_and_proven_is_rolled_back_at_once_by_the_hard_trigger() -> None:
    found = verdict(even(1900, 0.8, noise=1), even(100, 0.4, noise=2), hours=1)
    assert (found.decision, found.hard, found.decision.exit_code) == (Decision.ROLL_BACK, True, 10)
    assert "success rate 0.4, stable 0.8 (50.0 % worse)" in found.reasons[0].replace("%", " %").replace("  ", " ")


def test_much_worse_by_a_few_tasks_is_not() -> None:
    found = verdict(even(400, 0.8, noise=1), even(20, 0.6, noise=2), hours=1)
    assert found.decision is Decision.HOLD


def test_three_times_the_cost_is_rolled_back_by_the_hard_trigger() -> None:
    found = verdict(even(1900, 0.8, noise=1), even(100, 0.8, 0.07, noise=2), hours=1)
    assert (found.decision, found.hard) == (Decision.ROLL_BACK, True)


def test_worse_by_more_than_the_margin_and_proven_is_rolled_back_without_the_hard_trigger() -> None:
    found = verdict(even(50_000, 0.8, noise=1), even(50_000, 0.7, noise=2))
    assert (found.decision, found.hard) == (Decision.ROLL_BACK, False)


def test_worse_by_more_than_the_margin_but_unproven_is_held() -> None:
    found = verdict(even(1900, 0.8, noise=1), even(200, 0.73, noise=2))
    assert found.decision is Decision.HOLD
    assert "though that may be chance" in found.reasons[0]
    assert found.missing is None  # more tasks of the same would not help


def test_a_hold_for_lack_of_tasks_says_how_many_and_how_long() -> None:
    found = verdict(even(1900, 0.8, noise=1), even(40, 0.8, noise=2))
    assert found.decision is Decision.HOLD
    assert "still possible" in found.reasons[0]
    assert found.missing is not None
    assert 20 < found.missing < 200
    assert found.missing_hours == 24 * math.ceil(found.missing / 40)  # until the look after that


def test_what_was_said_to_be_missing_is_enough() -> None:
    stable, few = even(1900, 0.8, noise=1), even(32, 0.8125, noise=2)
    found = verdict(stable, few)
    assert found.missing is not None
    factor = 1 + found.missing / 32

    def grown(arm: Arm) -> Arm:
        # As many times the tasks of as many more users: the spread between shards grows by the root.
        def column(values: tuple[float, ...]) -> tuple[float, ...]:
            mean = sum(values) / 16
            return tuple(factor * mean + math.sqrt(factor) * (value - mean) for value in values)

        return Arm(
            column(arm.started),
            column(arm.succeeded),
            {"chat": column(arm.ended["chat"])},
            {"chat": column(arm.cost["chat"])},
        )

    assert verdict(grown(stable), grown(few), hours=72).decision is Decision.PROMOTE


def test_without_tasks_there_is_no_data() -> None:
    found = verdict(even(1000, 0.8), NOTHING)
    assert (found.decision, found.decision.exit_code, found.decision.sample) == (Decision.NO_DATA, 12, 0)
    assert verdict(NOTHING, even(1000, 0.8)).decision is Decision.NO_DATA


def test_tasks_that_never_end_are_no_successes() -> None:
    canary = even(1000, 0.8, noise=2)
    stuck = replace(canary, succeeded=tuple(y / 2 for y in canary.succeeded), ended={"chat": (30.0,) * 16})
    found = verdict(even(19_000, 0.8, noise=1), stuck)
    assert found.decision is Decision.ROLL_BACK


def test_many_more_unended_tasks_than_stable_has_are_held() -> None:
    canary = even(1000, 0.8, noise=2)
    slow = replace(canary, ended={"chat": tuple(0.9 * n for n in canary.started)})
    found = verdict(even(19_000, 0.8, noise=1), slow)
    assert found.decision is Decision.HOLD
    assert "not ended" in found.reasons[0]


def test_all_of_one_user_proves_nothing() -> None:
    tasks = (200.0,) + (0.0,) * 15
    one = Arm(tasks, (0.0,) * 16, {"chat": tasks}, {"chat": tuple(0.02 * n for n in tasks)})
    found = verdict(even(19_000, 0.8), one)
    assert found.decision is Decision.HOLD
    assert "too few users" in found.reasons[0]


def test_cost_is_compared_within_task_types() -> None:
    # The canary has far more of the dear type, at the same price each.
    cost, compared = measure_cost(Sums(two_types(9000, 1000, 1), two_types(500, 500, 2)))
    assert cost is not None
    assert cost.harm == pytest.approx(0, abs=0.01)
    assert compared == 1


def test_types_that_stable_has_not_can_not_be_compared_and_are_held() -> None:
    found = verdict(even(19_000, 0.8, noise=1), even(1000, 0.8, kind="chat_v2", noise=2))
    assert found.decision is Decision.HOLD
    assert "0% of the canary's ended tasks are of a type that stable has" in " ".join(found.reasons)


def test_no_success_at_all_of_stable_is_held() -> None:
    assert verdict(even(1000, 0.0), even(100, 0.0)).decision is Decision.HOLD


def test_a_canary_without_a_failure_is_not_certain() -> None:
    success = measure_success(Sums(even(1000, 1.0), even(30, 1.0)))
    assert success is not None
    assert success.most() > 0.05


def test_the_width_shrinks_with_the_error_and_is_wider_than_a_single_look() -> None:
    widths = [confidence_width(error, 0.01, NO_HARM) for error in (0.04, 0.02, 0.01)]
    assert widths == sorted(widths, reverse=True)
    assert confidence_width(0.01, 0.01, NO_HARM) > 1.645 * 0.01
    assert confidence_width(0.01, 0.01, HARM) > confidence_width(0.01, 0.01, NO_HARM)


def test_a_proof_by_the_bounds_is_wrong_as_seldom_as_they_say_however_often_one_looks() -> None:
    wrong = 0
    for seed in range(400):
        random, total = Random(seed), 0.0
        for n in range(1, 1001):
            total += random.gauss(0, 1)
            error = 1 / math.sqrt(n)
            if n >= 20 and total / n > confidence_width(error, 0.1, NO_HARM):
                wrong += 1
                break
    assert wrong / 400 <= NO_HARM.alpha


def two_types(cheap: int, dear: int, noise: int, *, cheap_cost: float = 0.01, dear_cost: float = 0.5) -> Arm:
    one = even(cheap, 0.8, cheap_cost, kind="cheap", noise=noise)
    two = even(dear, 0.8, dear_cost, kind="dear", noise=noise)
    return Arm(
        tuple(a + b for a, b in zip(one.started, two.started, strict=True)),
        tuple(a + b for a, b in zip(one.succeeded, two.succeeded, strict=True)),
        {**one.ended, **two.ended},
        {**one.cost, **two.cost},
    )


def test_harm_to_cheap_tasks_is_not_hidden_by_what_dear_ones_cost() -> None:
    sums = Sums(two_types(9000, 1000, 1), two_types(900, 100, 2, cheap_cost=0.02))
    cost, typical = measure_cost(sums)[0], measure_typical_cost(sums)
    assert cost is not None
    assert typical is not None
    assert cost.harm < 0.2
    assert typical.harm == pytest.approx(0.9, abs=0.01)
    assert verdict(sums.stable, sums.canary).decision is Decision.ROLL_BACK


def test_harm_to_dear_tasks_is_not_hidden_by_the_number_of_cheap_ones() -> None:
    sums = Sums(two_types(9900, 100, 1), two_types(990, 16, 2, dear_cost=3.5))
    cost, typical = measure_cost(sums)[0], measure_typical_cost(sums)
    assert cost is not None
    assert typical is not None
    assert typical.harm < 0.15
    assert cost.harm > 2
    assert verdict(sums.stable, sums.canary).decision is Decision.ROLL_BACK


def test_a_type_that_stable_hardly_has_is_not_compared() -> None:
    _, compared = measure_cost(Sums(two_types(9000, 4, 1), two_types(500, 500, 2)))
    assert compared == pytest.approx(0.5)


def test_a_report_has_ten_lines_at_most_and_says_what_to_type() -> None:
    canary = even(200, 0.73, 0.024, noise=2)
    slow = replace(canary, ended={"chat": tuple(0.9 * n for n in canary.started)})
    found = verdict(even(1900, 0.8, noise=1), slow)
    plan = Plan.parse("5,10")
    rollout = Rollout("support", "r3", "5", 0.0, plan, "hard", False, False)
    for one in (found, verdict(even(1900, 0.8), even(200, 0.73, 0.024), hours=3), verdict(even(99, 0.8), NOTHING)):
        text = lines(rollout, replace(one, reasons=(*one.reasons, "second", "third")), 86400.0)
        assert len(text) <= 10
        assert text[0].startswith(f"{one.decision.upper()}: support, rollout r3, 5 % of users for 24 h")
        assert text[-1].startswith("do ")
