import json
import math
from pathlib import Path
from random import Random

import pytest

from controller import ab
from controller.ab import Arm, Records, User

# statsmodels 0.15: samplesize_proportions_2indep_onetail(difference, base, 0.8, ratio=1, alpha=0.05), rounded up, and
# NormalIndPower().solve_power(proportion_effectsize(base + difference, base), alpha=0.05, power=0.8), which takes the
# arcsine of the root instead of a pooled variance.
SIZES = {
    (0.70, 0.05): (1251, 1250),
    (0.70, -0.05): (1377, 1376),
    (0.75, 0.05): (1094, 1092),
    (0.80, 0.05): (906, 903),
    (0.80, -0.05): (1094, 1092),
    (0.85, 0.05): (686, 681),
    (0.90, -0.05): (686, 681),
}


def drawn(seed: int, *, rates: tuple[float, float] = (0.75, 0.8), users: int = 300, extra: float = 1.5) -> Records:
    """Users with 1 task and more, whose success resembles itself."""
    random = Random(seed)
    records = Records()
    arms: tuple[Arm, Arm] = ("a", "b")
    for arm, rate in zip(arms, rates, strict=True):
        for number in range(users):
            own = random.betavariate(rate * 9, (1 - rate) * 9)
            tasks = 1 + int(random.expovariate(1 / extra))
            cost = sum(math.exp(random.gauss(-3, 0.8)) for _ in range(tasks))
            successes = sum(random.random() < own for _ in range(tasks))
            records.arms[arm][f"{arm}{number}"] = User(tasks, successes, cost, tasks)
    return records


@pytest.mark.parametrize(("base", "difference"), SIZES)
def test_sizes_are_statsmodels(base: float, difference: float) -> None:
    pooled, arcsine = SIZES[base, difference]
    assert ab.size(base, difference).independent_tasks == pooled
    assert ab.size(base, difference).independent_tasks == pytest.approx(arcsine, rel=0.01)


def test_users_who_come_back_need_more_tasks_and_fewer_users() -> None:
    alone, back = ab.size(0.8, 0.05), ab.size(0.8, 0.05, tasks_per_user=5, tasks_variation=1, correlation=0.1)
    assert back.design_effect == pytest.approx(1.9)
    assert back.tasks == pytest.approx(alone.tasks * 1.9, abs=2)
    assert back.users == pytest.approx(back.tasks / 5, abs=1)


@pytest.mark.parametrize(("base", "difference"), [(0.8, 0), (0.98, 0.05), (0, 0.1), (1.2, 0.1)])
def test_a_size_for_rates_that_can_not_be_is_refused(base: float, difference: float) -> None:
    with pytest.raises(ValueError, match="success rate"):
        ab.size(base, difference)


# statsmodels 0.15, OLS of success on the arm over the tasks of drawn(7), cov_type="cluster" by user: difference,
# standard error, p. It corrects for (G / (G - 1)) * ((N - 1) / (N - 2)) over both arms, we for each arm's own users.
CLUSTERED = (0.025284861, 0.025240531, 0.31646130)


def test_the_test_by_user_is_statsmodels_regression_clustered_by_user() -> None:
    found = ab.compare_success(drawn(7))
    assert found is not None
    difference, error, p = CLUSTERED
    assert found.difference == pytest.approx(difference, rel=1e-6)
    assert (found.high - found.low) / 2 / 1.959964 == pytest.approx(error, rel=5e-3)
    assert found.p == pytest.approx(p, rel=2e-2)


@pytest.mark.slow
def test_the_numbers_above_are_what_statsmodels_says() -> None:
    pytest.importorskip("statsmodels")
    import numpy as np
    import statsmodels.api as sm  # type: ignore[import-not-found,unused-ignore]

    arms = drawn(7).arms
    rows = [
        (float(arm == "b"), name, float(at < user.successes))
        for arm in arms
        for name, user in arms[arm].items()
        for at in range(int(user.tasks))
    ]
    design = sm.add_constant(np.array([row[0] for row in rows]))
    groups = np.unique([row[1] for row in rows], return_inverse=True)[1]
    fitted = sm.OLS(np.array([row[2] for row in rows]), design).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert (fitted.params[1], fitted.bse[1], fitted.pvalues[1]) == pytest.approx(CLUSTERED, rel=1e-4)


def test_without_a_difference_one_test_in_twenty_finds_one() -> None:
    found = [ab.compare_success(drawn(seed, rates=(0.8, 0.8), users=150)) for seed in range(300)]
    assert 0.02 <= sum(c is not None and c.proven for c in found) / 300 <= 0.08


def test_an_interval_that_is_looked_at_again_and_again_still_holds() -> None:
    wrong = 0
    for seed in range(150):
        whole = drawn(seed, rates=(0.8, 0.8), users=400)
        wrong += any(_peek(whole, users) for users in range(20, 400, 20))
    assert wrong / 150 <= 0.05


def _peek(whole: Records, users: int) -> bool:
    part = Records()
    for arm in whole.arms:
        part.arms[arm] = dict(list(whole.arms[arm].items())[:users])
    found = ab.compare_success(part, peek_target=0.05 / 3.6)
    return found is not None and found.proven


def test_a_peek_gives_no_p_value() -> None:
    found = ab.compare_success(drawn(1), peek_target=0.05 / 3.6)
    assert found is not None
    assert found.p is None


def test_cost_is_compared_as_a_ratio_of_means() -> None:
    records = drawn(3)
    for user in records.arms["b"].values():
        user.cost *= 1.5
    plain, found = ab.compare_cost(drawn(3)), ab.compare_cost(records)
    assert plain is not None
    assert found is not None
    assert (1 + found.difference) / (1 + plain.difference) == pytest.approx(1.5)
    assert found.low < found.difference < found.high


def test_a_split_as_it_should_be_is_no_mismatch_and_a_broken_one_is() -> None:
    assert ab.mismatch(5000, 5010, 0.5) < 1
    assert ab.mismatch(9200, 800, 0.1) > ab.MISMATCH
    assert ab.mismatch(0, 0, 0.5) == 1


def test_looking_at_the_split_after_every_user_cries_wolf_in_less_than_one_of_a_hundred_tests() -> None:
    wrong = 0
    for seed in range(300):
        random, counts = Random(seed), [0, 0]
        for _ in range(1500):
            counts[random.random() < 0.1] += 1
            if ab.mismatch(counts[0], counts[1], 0.1) > ab.MISMATCH:
                wrong += 1
                break
    assert wrong <= 4


def record(arm: Arm, user: str, task: str, **more: object) -> str:
    content = {
        "experiment_id": "warm",
        "user_id": user,
        "variant": arm,
        "task_id": task,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "success": True,
        "cost_usd": 0.5,
        "iterations": 3,
        "latency_ms": 900.0,
    }
    return json.dumps(content | more) + "\n"


def test_records_are_summed_by_user_each_task_once(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(
        record("a", "u1", "t1")
        + record("a", "u1", "t2", success=False)
        + record("a", "u1", "t2", success=False)
        + record("b", "u2", "t3", cost_usd=None)
        + record("b", "u2", "t4", success=None)
        + record("b", "u3", "t5", experiment_id="another")
    )
    found = ab.read([file], "warm")
    assert found.arms["a"] == {"u1": User(2, 1, 1.0, 2, 6, 1800.0)}
    assert found.arms["b"] == {"u2": User(1, 1, 0.5, 1, 6, 1800.0)}
    assert found.unknown_success == 1


def test_a_torn_line_is_told_and_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(record("a", "u1", "t1") + '{"experiment_id": "warm", "us\n' + record("b", "u2", "t2"))
    found = ab.read([file], "warm")
    assert (found.torn, found.users("a"), found.users("b")) == (1, 1, 1)


def test_a_user_in_both_arms_is_left_out_and_told(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(record("a", "u1", "t1") + record("b", "u1", "t2") + record("b", "u2", "t3"))
    found = ab.read([file], "warm")
    assert (found.both, found.users("a"), found.users("b")) == (1, 0, 1)
