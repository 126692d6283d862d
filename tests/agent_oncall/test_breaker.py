"""When a task is a loop, and when a process spends beyond what its tasks explain."""

import random
import threading
from collections.abc import Callable

import pytest

from agent_oncall.breaker import History, Limits, ProcessBreaker, TaskBreaker

NONE = (0, 100, 0.0, None)


def turns(breaker: TaskBreaker, *calls: tuple[str, str, str]) -> str | None:
    """An iteration for each (tool, arguments, error); why the next should not be."""
    for call in calls:
        breaker.turn += 1
        breaker.tool_call(*call)
    return breaker.why(*NONE)


def test_a_tool_that_fails_with_the_same_error_in_three_iterations_is_a_loop() -> None:
    breaker = TaskBreaker(Limits())

    assert turns(breaker, ("lookup", "", "line 1: no JSON"), ("lookup", "", "line 20: no JSON")) is None
    assert turns(breaker, ("lookup", "", "line 3: no JSON")) == "failing_tool"


@pytest.mark.parametrize(
    "calls",
    [
        [("lookup", "", "no JSON"), ("lookup", "", "timeout"), ("lookup", "", "no JSON")],
        [("lookup", "", "no JSON"), ("search", "", "no JSON"), ("lookup", "", "no JSON")],
        [("lookup", "", "no JSON"), ("lookup", "", ""), ("lookup", "", "no JSON"), ("lookup", "", "no JSON")],
        [("lookup", "a", ""), ("lookup", "b", ""), ("lookup", "a", ""), ("lookup", "c", "")],
        [("lookup", "a", ""), ("search", "a", ""), ("lookup", "a", "")],
        [("poll", "a", "")] * 9,
        [("lookup", "", "")] * 9,
    ],
)
def test_other_failures_and_calls_are_none(calls: list[tuple[str, str, str]]) -> None:
    assert turns(TaskBreaker(Limits(polling=frozenset({"poll"}))), *calls) is None


def test_the_same_call_in_three_iterations_is_a_loop_also_where_it_works() -> None:
    assert turns(TaskBreaker(Limits()), *[("lookup", "a", "")] * 3) == "repeat"


def test_many_failures_of_one_iteration_are_one() -> None:
    breaker = TaskBreaker(Limits())
    breaker.turn = 1
    for _ in range(5):
        breaker.tool_call("lookup", "a", "no JSON")

    assert breaker.why(*NONE) is None


def test_an_agent_that_tells_of_no_iterations_has_one_a_tool_call() -> None:
    breaker = TaskBreaker(Limits())
    for _ in range(3):
        breaker.tool_call("lookup", "a", "")

    assert breaker.why(*NONE) == "repeat"


def test_thousands_of_different_calls_take_no_memory_to_speak_of() -> None:
    breaker = TaskBreaker(Limits())
    breaker.turn = 1
    for i in range(5_000):
        breaker.tool_call(f"tool{i}", f"{i}", f"{'x' * i}")

    assert len(breaker._failing) + len(breaker._repeating) <= 128


def test_a_task_ends_at_its_iterations_and_at_its_cost() -> None:
    breaker = TaskBreaker(Limits())

    assert breaker.why(12, 12, 0.0, None) == "iterations"
    assert breaker.why(11, 12, 0.5, 0.4) == "cost"
    assert breaker.why(11, 12, 99.0, None) is None


def test_the_cost_limit_is_learnt_by_type() -> None:
    history = History(Limits())
    for _ in range(160):
        history.ended("refund", 0.10)
        history.ended("report", 2.00)

    assert history.most("refund") == pytest.approx(0.3)
    assert history.most("report") == pytest.approx(6.0)
    assert history.most("new") is None
    assert history.expected("new") == pytest.approx(1.05)


def test_few_tasks_make_a_loose_limit() -> None:
    history = History(Limits())
    for _ in range(19):
        history.ended("refund", 0.10)
    assert history.most("refund") is None

    history.ended("refund", 0.10)
    assert history.most("refund") == pytest.approx(0.3 * 2.6)


@pytest.mark.parametrize("sigma", [0.8, 1.2])
def test_the_cost_limit_cuts_next_to_no_ordinary_task(sigma: float) -> None:
    rng = random.Random(7)
    history = History(Limits())
    cut = 0
    for _ in range(20_000):
        usd = rng.lognormvariate(-3, sigma)
        most = history.most("refund")
        if most is not None and usd > most:
            cut += 1
        else:
            history.ended("refund", usd)

    assert cut / 20_000 < 0.002


def test_what_a_task_may_cost_can_be_said_beforehand() -> None:
    assert History(Limits(expected_task_usd={"refund": 0.2})).expected("refund") == 0.2
    assert History(Limits(expected_task_usd=0.3)).expected("refund") == 0.3
    assert History(Limits()).expected("refund") is None


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        ({"failing": 1}, "failing"),
        ({"cost_factor": 0}, "cost_factor"),
        ({"process_floor_usd": float("nan")}, "process_floor_usd"),
        ({"expected_task_usd": {"refund": -1}}, "expected_task_usd"),
    ],
)
def test_limits_that_make_no_sense_are_told(limits: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        Limits(**limits)  # type: ignore[arg-type]


# -- the process -----------------------------------------------------------------------------------------------------


def ordinary(process: ProcessBreaker, now: float, usd: float, iterations: int = 3, *, well: bool = True) -> bool:
    """One task from beginning to end; False if it was not let begin or go on."""
    account = process.begin("refund", now)
    if account is None:
        return False
    for _ in range(iterations):
        reserved, may, _ = process.reserve(account, now)
        if not may:
            process.end(account, now, well=False)
            return False
        process.settle(account, now, reserved, usd / iterations)
    process.end(account, now, well=well)
    return True


def learnt(*, act: bool = True, a_minute: int = 10, usd: float = 0.05) -> ProcessBreaker:
    """A process that has seen half an hour of tasks, all of one cost; its time is 1800 s."""
    process = ProcessBreaker(Limits(), act=act)
    for minute in range(30):
        for i in range(a_minute):
            assert ordinary(process, minute * 60 + i * 60 / a_minute, usd)
    return process


def loop(
    process: ProcessBreaker, loops: int, now: float, usd: float = 0.02, seconds: float = 8.0
) -> tuple[float, float]:
    """So many tasks that loop, each iteration so dear: (USD until none may go on, when that was)."""
    accounts = [account for _ in range(loops) if (account := process.begin("refund", now)) is not None]
    spent = 0.0
    while accounts and now < 20_000:
        calls = [(account, *process.reserve(account, now)) for account in accounts]
        now += seconds
        accounts = []
        for account, reserved, may, _ in calls:
            if may:
                process.settle(account, now, reserved, usd)
                spent += usd
                accounts.append(account)
            else:
                process.end(account, now, well=False)
    return spent, now


def test_the_budget_is_so_many_times_the_usual_spend_and_never_below_the_floor() -> None:
    assert learnt(usd=0.2).budget_usd == pytest.approx(8 * 2.0, rel=0.2)
    assert learnt(usd=0.001).budget_usd == 0.25
    assert ProcessBreaker(Limits(process_floor_usd=2), act=True).budget_usd == 2


def test_loops_open_the_breaker_and_no_task_begins() -> None:
    process = learnt(a_minute=1)
    spent, now = loop(process, 10, 1800)

    # What the ten may cost as tasks like them do, and the budget.
    assert spent <= 10 * 1.5 * 0.05 + process.budget_usd
    assert process.state(now) == "open"
    assert process.begin("refund", now) is None


def test_calls_at_the_same_time_can_not_overshoot_together() -> None:
    process = learnt(a_minute=1)
    accounts = [process.begin("refund", 1800) for _ in range(500)]
    for account in accounts:
        assert account is not None
        process.settle(account, 1800, 0.0, 0.075)  # as much as needs no explanation
    reserved: list[float] = []

    def work(part: int) -> None:
        for account in accounts[part::8]:
            assert account is not None
            usd, may, _ = process.reserve(account, 1801, 0.02)
            if may:
                reserved.append(usd)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(reserved) == pytest.approx(process.budget_usd, abs=0.02)


def test_what_was_reserved_and_not_spent_is_given_back() -> None:
    process = learnt(a_minute=1)
    for i in range(100):
        account = process.begin("refund", 1800 + i * 0.1)
        assert account is not None
        reserved, may, _ = process.reserve(account, 1800 + i * 0.1, 0.15)
        assert may
        process.settle(account, 1800 + i * 0.1, reserved, 0.01)
        process.end(account, 1800 + i * 0.1, well=True)


def test_tasks_that_have_to_be_cut_one_after_the_other_open_it() -> None:
    process = learnt(a_minute=1)
    begun = 0
    while (account := process.begin("refund", 1800 + begun)) is not None:
        begun += 1
        process.settle(account, 1800 + begun, 0.0, 0.04)  # less than a task is expected to cost
        process.cut(account, 1800 + begun)
        process.end(account, 1800 + begun, well=False)

    assert begun == pytest.approx(process.budget_usd / 0.04, abs=2)


def test_one_task_alone_never_opens_it() -> None:
    process = learnt(a_minute=1)
    account = process.begin("refund", 1800)
    assert account is not None

    process.settle(account, 1800, 0.0, 1000.0)
    process.cut(account, 1800)

    assert process.state(1801) == "closed"


def test_a_process_that_knows_no_costs_judges_by_tasks_that_were_cut_alone() -> None:
    process = ProcessBreaker(Limits(), act=True)
    accounts = [process.begin("refund", 0) for _ in range(20)]
    for account in accounts:
        assert account is not None
        process.settle(account, 0, 0.0, 5.0)
    assert process.state(0) == "closed"

    for account in accounts:
        assert account is not None
        process.cut(account, 1)
    assert process.state(1) == "open"


def test_where_it_does_not_act_it_says_so_once_a_while_and_holds_nobody_back() -> None:
    process = learnt(a_minute=1, act=False)
    accounts = [process.begin("refund", 1800) for _ in range(10)]
    opened = 0
    for second in range(0, 600, 8):
        for account in accounts:
            assert account is not None
            reserved, may, told = process.reserve(account, 1800 + second)
            assert may
            opened += told + process.settle(account, 1800 + second, reserved, 0.02)

    assert process.state(2400) == "closed"
    assert 1 <= opened <= 5


def test_after_a_while_one_task_at_a_time_may_try_and_three_good_ones_close_it() -> None:
    process = learnt(a_minute=1)
    _, now = loop(process, 10, 1800)
    assert process.begin("refund", now + 100) is None
    now += 121

    assert process.state(now) == "half_open"
    trying = process.begin("refund", now)
    assert trying is not None
    assert process.begin("refund", now) is None
    process.end(trying, now, well=True)
    assert ordinary(process, now, 0.05)
    assert process.state(now) == "half_open"
    assert ordinary(process, now, 0.05)

    assert process.state(now) == "closed"


def test_a_try_that_loops_opens_it_again_for_twice_as_long() -> None:
    process = learnt(a_minute=1)
    _, now = loop(process, 10, 1800)
    for cooldown in (120, 240, 480):
        now += cooldown + 1
        trying = process.begin("refund", now)
        assert trying is not None
        process.cut(trying, now)
        process.end(trying, now, well=False)
        assert process.state(now + 2 * cooldown - 5) == "open"


def test_a_try_that_never_ends_is_a_bad_one() -> None:
    process = learnt(a_minute=1)
    _, now = loop(process, 10, 1800)
    assert process.begin("refund", now + 121) is not None

    assert process.begin("refund", now + 121 + 901) is None
    assert process.state(now + 121 + 902) == "open"


def test_a_try_that_just_fails_neither_closes_nor_opens_it() -> None:
    process = learnt(a_minute=1)
    _, now = loop(process, 10, 1800)
    now += 121

    for _ in range(5):
        assert ordinary(process, now, 0.05, well=False)

    assert process.state(now) == "half_open"


def day(
    process: ProcessBreaker, rng: random.Random, sigma: float, a_minute: Callable[[float], float], until: float
) -> int:
    """Tasks at random times with costs at random; how many were not let begin or go on."""
    refused, now = 0, 0.0
    while now < until:
        now += rng.expovariate(a_minute(now) / 60)
        refused += not ordinary(process, now, rng.lognormvariate(-3, sigma), rng.randint(2, 8))
    return refused


@pytest.mark.parametrize("a_minute", [0.5, 5, 50])
@pytest.mark.parametrize("sigma", [0.8, 1.2])
def test_a_tenfold_launch_trips_nothing(a_minute: float, sigma: float) -> None:
    process = ProcessBreaker(Limits(), act=True)
    launch = 2 * 3600.0

    refused = day(process, random.Random(3), sigma, lambda now: a_minute * (10 if now > launch else 1), launch + 1800)

    assert refused == 0


def test_the_child_of_a_fork_has_spent_nothing_and_knows_what_was_learnt() -> None:
    process = learnt(a_minute=1)
    _, now = loop(process, 10, 1800)
    process.after_fork()

    assert process.state(now) == "closed"
    assert process.history.expected("refund") == pytest.approx(0.05)
