import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from cli.main import main
from controller import rollouts
from controller.judging import Judge, days_needed, undecidable
from controller.plan import DEFAULT, Plan
from controller.prom import Prometheus, PrometheusError, increase, rollout_sums
from controller.rollouts import Rollout
from controller.verdict import Decision
from tests.controller.babbler import babbler
from tests.controller.prometheus import Samples, prometheus
from tests.controller.states import BUNDLE, Clock, new_store

HOUR = 3600.0


def test_a_counter_that_appears_later_began_at_zero() -> None:
    assert increase([(10, 3), (20, 5)], 0) == 5


def test_a_counter_that_was_there_before_counts_from_then_on() -> None:
    assert increase([(0, 100), (10, 103)], 0) == 3


def test_a_fall_is_a_restart() -> None:
    assert increase([(10, 3), (20, 7), (30, 2), (40, 4)], 0) == 11


def test_a_counter_without_points_is_nothing() -> None:
    assert increase([], 0) == 0


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(PrometheusError, match="begins with http"):
        Prometheus("localhost:9090")


def test_a_server_that_is_not_there_is_told_with_its_url() -> None:
    with pytest.raises(PrometheusError, match=r"http://127\.0\.0\.1:9/api/v1/query"):
        Prometheus("http://127.0.0.1:9", timeout=2).value("1")


def test_without_prometheus_the_verdict_is_no_data(tmp_path: Path) -> None:
    state = rollouts.start(new_store(tmp_path).read(), "support", BUNDLE, DEFAULT, now=0)
    rollout = rollouts.rollout_of(state, "support")
    assert Judge(Prometheus("http://127.0.0.1:9", timeout=2)).verdict(rollout, 100).decision is Decision.NO_DATA


def test_few_tasks_a_day_are_undecidable_and_many_are_not() -> None:
    assert [stage.name for stage, _ in undecidable(DEFAULT, 50, 0.8)] == ["5", "10", "25", "50"]
    assert undecidable(DEFAULT, 10_000, 0.8) == []


def test_a_larger_share_is_decided_sooner() -> None:
    small, large = (Plan.parse(f"{share}:0.2:1.5").stages[0] for share in (5, 50))
    assert days_needed(large, 100, 0.8) < days_needed(small, 100, 0.8) / 4


# -- with a real Prometheus --------------------------------------------------------------------------------------------


def rising(since: float, until: float, total: float, *, begin: float = 0.0, every: float = 60.0) -> Samples:
    """A counter's samples: from `begin`, up to `begin + total` by whole events, flat for the last ten minutes."""
    steps = int((until - since) // every)
    flat = max(int(600 // every), 1)
    for step in range(steps + 1):
        share = min(step / max(steps - flat, 1), 1.0)
        yield since + step * every, begin + math.floor(total * share)


@pytest.mark.e2e
def test_sums_are_right_over_restarts_replaced_exporters_and_late_series(tmp_path: Path) -> None:
    end = float(int(time.time())) - 60
    start = end - 6 * HOUR

    def labels(instance: str, variant: str, shard: int, **more: str) -> dict[str, str]:
        return {
            "agent": "support", "rollout": "r3", "stage": "5", "variant": variant, "shard": str(shard),
            "instance": instance, "job": "agent-exporter", **more,
        }  # fmt: skip

    def life(kind: str) -> Samples:
        """A counter of 100 events in all."""
        match kind:
            case "late":
                yield from rising(start + HOUR, end, 97, begin=3)
            case "restarted":
                yield from rising(start + 90, start + 2 * HOUR, 60)
                yield from rising(start + 2 * HOUR + 60, end, 40)
            case "replaced":
                yield from rising(start + 90, start + 3 * HOUR, 100)
            case "before":
                yield from rising(start - HOUR, start + 30, 500)
                yield from rising(start + 90, end, 100, begin=500)

    kinds = ("late", "restarted", "replaced", "before")
    started = [(labels(kind, "canary", at), life(kind)) for at, kind in enumerate(kinds)]
    started.append((labels("late", "stable", 0), life("late")))
    # Other rollouts, stages and agents are none of it.
    started += [(labels("late", "canary", 0) | other, life("late")) for other in (
        {"rollout": "r2"}, {"stage": "10"}, {"agent": "search"}, {"shard": "other"}
    )]  # fmt: skip
    tasks = [
        (labels(kind, "canary", at, task_type=task_type, outcome=outcome), life(kind))
        for at, kind in enumerate(kinds)
        for task_type in ("chat", "mail")
        for outcome in ("success", "error")
    ]
    cost = [(labels(kind, "canary", at, task_type="chat"), life(kind)) for at, kind in enumerate(kinds)]
    families = {
        "agent_rollout_started": started,
        "agent_rollout_tasks": tasks,
        "agent_rollout_cost_usd": cost,
    }
    with prometheus(tmp_path, families) as url:
        server = Prometheus(url)
        sums = rollout_sums(server, "support", "r3", "5", start, end)
        assert sums is not None
        rest = (0.0,) * 12
        assert sums.canary.started == (100.0, 100.0, 100.0, 100.0, *rest)
        assert sums.canary.succeeded == (200.0, 200.0, 200.0, 200.0, *rest)
        assert sums.canary.ended == dict.fromkeys(("chat", "mail"), (200.0, 200.0, 200.0, 200.0, *rest))
        assert sums.canary.cost == {"chat": (100.0, 100.0, 100.0, 100.0, *rest), "mail": (0.0,) * 16}
        assert sum(sums.stable.started) == 100
        assert rollout_sums(server, "support", "r9", "5", start, end) is None
        # Half an hour after the last sample nobody knows how the canary does.
        assert rollout_sums(server, "support", "r3", "5", start, end + 1800) is None
        assert rollout_sums(server, "support", "r3", "5", start, end + 1800, fresh=False) == sums


Served = Callable[[float, float], str]


@pytest.fixture
def canary_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float, float], str]]:
    """A rollout that has run for 30 hours with that success rate and cost factor; the URL of its Prometheus."""
    open_servers = []
    now = float(int(time.time()))
    begin = now - 30 * HOUR
    store = new_store(tmp_path, Clock(begin))
    entry = store.change(
        lambda state: rollouts.start(state, "support", replace(BUNDLE, prompt_version="2.0"), DEFAULT, now=begin),
        action="rollout start",
        agent="support",
        who="ann",
        why="x",
    )
    assert entry is not None
    rollout = Rollout.of("support", store.read().agents["support"].config)
    assert rollout is not None
    monkeypatch.setenv("AGENT_ONCALL_STATE", str(store.path))

    def serve(success: float, factor: float) -> str:
        families: dict[str, list[tuple[dict[str, str], Samples]]] = {
            "agent_rollout_started": [], "agent_rollout_tasks": [], "agent_rollout_cost_usd": [],
        }  # fmt: skip
        random = Random(1)
        for variant, tasks, rate, usd in (("stable", 9500, 0.8, 0.02), ("canary", 500, success, 0.02 * factor)):
            for shard in range(16):
                labels = {
                    "agent": "support",
                    "rollout": rollout.id,
                    "stage": "5",
                    "variant": variant,
                    "shard": str(shard),
                }
                n = tasks // 16
                good = round(n * rate + random.gauss(0, math.sqrt(n * rate * (1 - rate))))
                ended = labels | {"task_type": "chat"}

                def series(total: float) -> Samples:
                    return rising(begin + 60, now, total, every=300)

                families["agent_rollout_started"].append((labels, series(n)))
                families["agent_rollout_tasks"].append((ended | {"outcome": "success"}, series(good)))
                families["agent_rollout_tasks"].append((ended | {"outcome": "failure"}, series(n - good)))
                spent = n * usd * random.uniform(0.9, 1.1)
                families["agent_rollout_cost_usd"].append(
                    (ended, [(at, value / 1000) for at, value in series(1000 * spent)])
                )
        server = prometheus(tmp_path, families)
        url = server.__enter__()
        open_servers.append(server)
        return url

    yield serve
    for server in open_servers:
        server.__exit__(None, None, None)


@pytest.mark.e2e
def test_a_good_canary_is_promoted_by_the_command_line(canary_of: Served, capsys: pytest.CaptureFixture[str]) -> None:
    url = canary_of(0.8, 1.0)
    assert main(["rollout", "status", "--agent", "support", "--prometheus", url]) == 0
    text = capsys.readouterr().out
    assert text.startswith("PROMOTE: support, rollout r")
    assert len(text.splitlines()) <= 10
    assert main(["rollout", "check", "--agent", "support", "--prometheus", url]) == 0
    assert main(["rollout", "advance", "--agent", "support", "--prometheus", url, "--reason", "good"]) == 0
    assert "5 % of users → 10 % of users" in capsys.readouterr().out
    # The new stage has no data yet, so it goes no further.
    assert main(["rollout", "advance", "--agent", "support", "--prometheus", url, "--reason", "good"]) == 12


@pytest.mark.e2e
@pytest.mark.parametrize(("success", "factor"), [(0.5, 1.0), (0.8, 3.6)])
def test_a_bad_canary_is_to_be_rolled_back(
    canary_of: Served, capsys: pytest.CaptureFixture[str], success: float, factor: float
) -> None:
    url = canary_of(success, factor)
    assert main(["rollout", "status", "--agent", "support", "--prometheus", url]) == 10
    text = capsys.readouterr().out
    assert text.startswith("ROLL BACK")
    assert "over the hard limit" in text
    assert main(["rollout", "advance", "--agent", "support", "--prometheus", url, "--reason", "x"]) == 10
    assert main(["rollout", "override", "--agent", "support", "--prometheus", url, "--reason", "on my word"]) == 0
    assert "overruled: roll back" in capsys.readouterr().err


def test_what_is_no_prometheus_is_an_error_that_names_it() -> None:
    with babbler() as url, pytest.raises(PrometheusError, match=r"no answer of HTTP.*220 mail"):
        Prometheus(url).value("up")
