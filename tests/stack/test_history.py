"""Made-up history: its shape, and that a Prometheus finds it with what the rules record."""

import itertools
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest

from alert_rules.thresholds import load
from demo.scenarios import SUPPORT, normal
from stack.history import DAY, Cycle, fill, work_until
from stack.past import PastPrometheus
from tests.stack.ports import free_ports

MONDAY = 1_700_438_400.0  # 2023-11-20 00:00 UTC
TARGET = {"job": "agent-exporter", "instance": "127.0.0.1:9464"}


def work(start: float, seconds: float) -> float:
    return work_until(start + seconds) - work_until(start)


def test_work_never_runs_backwards_nor_faster_than_time() -> None:
    for minute in range(0, 14 * 1440, 7):
        assert 0 < work(MONDAY + 60 * minute, 60) <= 60


def test_nights_are_quieter_than_days_and_weekends_than_weeks() -> None:
    hour = 3600
    assert work(MONDAY + 14 * hour, hour) > 3 * work(MONDAY + 2 * hour, hour)
    assert work(MONDAY + 5 * DAY, DAY) == pytest.approx(work(MONDAY, DAY) / 2)
    assert work(MONDAY + 6 * DAY, DAY) == pytest.approx(work(MONDAY, DAY) / 2)
    assert work(MONDAY + 7 * DAY, DAY) == pytest.approx(work(MONDAY, DAY))


@pytest.mark.slow
def test_counters_never_fall_over_two_days() -> None:
    for labels, (times, values) in Cycle(normal((SUPPORT,))).series(MONDAY, MONDAY + 2 * DAY, TARGET):
        name = dict(labels)["__name__"]
        assert len(times) == len(values)
        if name.endswith(("_total", "_bucket", "_count")):
            assert all(a <= b for a, b in itertools.pairwise(values)), labels


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PastPrometheus]:
    folder = tmp_path_factory.mktemp("history")
    between, serving = free_ports(2)
    fill(
        folder / "tsdb",
        normal((SUPPORT,)),
        load(),
        days=1,
        end=time.time(),
        instance=TARGET["instance"],
        port=between,
    )
    with closing(PastPrometheus(folder, serving)) as prometheus:
        yield prometheus


def ask(prometheus: PastPrometheus, query: str) -> list[float]:
    url = f"{prometheus.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return [float(sample["value"][1]) for sample in json.load(answer)["data"]["result"]]


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_prometheus_finds_the_blocks_and_in_them_a_day_of_tasks(prometheus: PastPrometheus) -> None:
    (tasks,) = ask(prometheus, "sum(increase(agent_tasks_started_total[1d]))")
    days_work = work(time.time() - DAY, DAY) / 60 * SUPPORT.tasks_per_minute
    assert tasks == pytest.approx(days_work, rel=0.1)


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_it_finds_what_the_rules_record_as_well(prometheus: PastPrometheus) -> None:
    (recorded,) = ask(prometheus, 'count(count by (__name__) ({__name__=~"agent:.+"}))')
    assert recorded > 20


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_nothing_fired_on_that_ordinary_day(prometheus: PastPrometheus) -> None:
    assert ask(prometheus, 'count(count_over_time(ALERTS{alertstate="firing",alertname!="Watchdog"}[1d]))') == []
