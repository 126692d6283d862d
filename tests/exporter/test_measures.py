import logging
import math
import random
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import prometheus_client
import pytest
from prometheus_client.openmetrics import exposition as library_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from exporter import contract
from exporter.contract import FAMILIES, Kind
from exporter.exposition import render
from exporter.measures import Measures

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def generate_openmetrics(registry: prometheus_client.CollectorRegistry) -> bytes:
    return cast(bytes, library_openmetrics.generate_latest(registry))  # type: ignore[no-untyped-call]


class Clock:
    def __init__(self, now: float = 1_700_000_000.25) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def measures(clock: Clock) -> Measures:
    return Measures(clock=clock)


def page(measures: Measures, openmetrics: bool = False) -> list[str]:
    return measures.exposition(openmetrics=openmetrics, process=False).decode().splitlines()


def samples(measures: Measures, name: str) -> list[str]:
    return [line for line in page(measures) if line.startswith((name + "{", name + " "))]


class TestCounting:
    def test_a_counter_adds_up(self, measures: Measures) -> None:
        counter = measures.counter("agent_tasks_started_total", "a", "stable")
        counter.inc()
        counter.inc(2.5)
        assert measures.value("agent_tasks_started_total", "a", "stable") == 3.5

    def test_a_child_looked_up_again_is_the_same(self, measures: Measures) -> None:
        assert measures.counter("agent_tasks_resumed_total", "a") is measures.counter("agent_tasks_resumed_total", "a")

    @pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf, -0.5, 10**400])
    def test_a_counter_refuses_what_would_spoil_it(self, measures: Measures, amount: float) -> None:
        counter = measures.counter("agent_tasks_started_total", "a", "stable")
        with pytest.raises(ValueError, match="can't be increased"):
            counter.inc(amount)
        assert counter.value == 0

    @pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
    def test_a_histogram_refuses_what_would_spoil_its_sum(self, measures: Measures, value: float) -> None:
        histogram = measures.histogram("agent_task_cost_usd", "a", "t", "stable")
        with pytest.raises(ValueError, match="can't take"):
            histogram.observe(value)
        assert measures.value("agent_task_cost_usd", "a", "t", "stable") == 0

    def test_a_value_on_a_bound_falls_into_that_bucket(self, measures: Measures) -> None:
        measures.histogram("agent_task_duration_seconds", "a", "t", "stable").observe(30)
        buckets = dict(line.rsplit(" ", 1) for line in samples(measures, "agent_task_duration_seconds_bucket"))
        by_bound = {series.split('le="')[1].split('"')[0]: float(count) for series, count in buckets.items()}
        assert (by_bound["20.0"], by_bound["30.0"], by_bound["+Inf"]) == (0, 1, 1)

    def test_a_gauge_keeps_the_last_value(self, measures: Measures) -> None:
        measures.gauge("agent_tasks_in_flight", "a").set(3)
        measures.gauge("agent_tasks_in_flight", "a").set(2)
        assert measures.value("agent_tasks_in_flight", "a") == 2

    def test_what_is_not_there_has_the_value_0(self, measures: Measures) -> None:
        assert measures.value("agent_tasks_in_flight", "nobody") == 0

    def test_a_name_that_is_not_in_the_contract_is_an_error(self, measures: Measures) -> None:
        with pytest.raises(KeyError, match="agent_typo_total"):
            measures.counter("agent_typo_total", "a")

    def test_a_family_that_another_process_serves_is_an_error(self, measures: Measures) -> None:
        with pytest.raises(KeyError, match="agent_breaker_trips_total"):
            measures.counter("agent_breaker_trips_total", "a", "cost")

    def test_too_few_label_values_are_an_error_that_names_the_labels(self, measures: Measures) -> None:
        with pytest.raises(ValueError, match=r"agent_tasks_started_total has the labels .*variant"):
            measures.counter("agent_tasks_started_total", "a")


class TestLabelValues:
    @pytest.mark.parametrize(
        ("raw", "served"),
        [
            ("gpt-4o", "gpt-4o"),
            ("us.anthropic.claude:0@x/y_z", "us.anthropic.claude:0@x/y_z"),
            ('drop "table"\n\\', "drop__table___"),
            ("größe", "gr__e"),
            ("\ud800", "_"),
            ("x" * 1000, "x" * 100),
            ("", "unknown"),
        ],
    )
    def test_a_value_is_served_clean(self, measures: Measures, raw: str, served: str) -> None:
        measures.counter("agent_unpriced_tokens_total", "a", raw).inc(7)
        assert samples(measures, "agent_unpriced_tokens_total") == [
            f'agent_unpriced_tokens_total{{agent="a",model="{served}"}} 7.0'
        ]

    def test_an_empty_reason_stays_empty(self, measures: Measures) -> None:
        measures.counter("agent_tasks_total", "a", "t", "stable", "success", "").inc()
        assert 'reason=""' in samples(measures, "agent_tasks_total")[0]

    def test_values_that_are_the_same_when_clean_share_a_series(self, measures: Measures) -> None:
        measures.counter("agent_unpriced_tokens_total", "a", "my model").inc()
        measures.counter("agent_unpriced_tokens_total", "a", "my_model").inc()
        assert measures.value("agent_unpriced_tokens_total", "a", "my model") == 2


class TestLimits:
    def test_values_over_the_limit_become_other(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"model": 2})
        for model in ("one", "two", "three", "four", "one"):
            measures.counter("agent_unpriced_tokens_total", "a", model).inc()
        counted = {m: measures.value("agent_unpriced_tokens_total", "a", m) for m in ("one", "two", "three", "other")}
        assert counted == {"one": 2, "two": 1, "three": 0, "other": 2}

    def test_each_folded_value_is_counted_once(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"tool": 1})
        for tool in ("kept", "x", "y", "x", "y"):
            measures.counter("agent_tool_calls_total", "a", tool, "stable", "ok").inc()
        assert measures.value("agent_exporter_series_limited_total", "tool") == 2

    def test_a_hundred_thousand_tool_names_leave_little_behind(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"tool": 3})
        for at in range(100_000):
            measures.counter("agent_tool_calls_total", "a", f"tool {at}", "stable", "ok").inc()
        assert len(samples(measures, "agent_tool_calls_total")) == 4
        assert measures.value("agent_exporter_series_limited_total", "tool") == 99_997
        assert len(measures._folded) <= 10_000

    def test_one_agent_does_not_use_up_the_room_of_another(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"tool": 2})
        for at in range(10):
            measures.counter("agent_tool_calls_total", "hostile", f"t{at}", "stable", "ok")
        measures.counter("agent_tool_calls_total", "good", "search", "stable", "ok").inc()
        assert measures.value("agent_tool_calls_total", "good", "search", "stable", "ok") == 1

    def test_agents_over_the_limit_share_the_agent_other(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"agent": 1})
        for agent in ("a", "b", "c"):
            measures.counter("agent_tasks_started_total", agent, "stable").inc()
        assert measures.value("agent_tasks_started_total", "other", "stable") == 2

    def test_scopes_are_limited_over_all(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"scope": 1})
        for scope in ("a", "b", "c"):
            measures.counter("agent_exporter_unknown_scope_total", scope).inc()
        assert measures.value("agent_exporter_unknown_scope_total", "other") == 2

    def test_other_and_unknown_use_up_no_room(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"model": 1})
        for model in ("other", "", "real"):
            measures.counter("agent_unpriced_tokens_total", "a", model).inc()
        assert measures.value("agent_unpriced_tokens_total", "a", "real") == 1

    def test_the_value_to_keep_state_by_is_told(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"agent": 1})
        assert [measures.label_value("agent", name) for name in ("my agent", "two", "my agent")] == [
            "my_agent",
            "other",
            "my_agent",
        ]

    def test_removed_rollouts_give_their_room_back(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"rollout": 1})
        measures.counter("agent_rollout_started_total", "a", "r1", "5", "canary", "0").inc()
        assert measures.remove("agent_rollout_started_total", lambda values: values[1] == "r1") == 1
        measures.counter("agent_rollout_started_total", "a", "r2", "5", "canary", "0").inc()
        assert samples(measures, "agent_rollout_started_total") == [
            'agent_rollout_started_total{agent="a",rollout="r2",shard="0",stage="5",variant="canary"} 1.0'
        ]


class TestZeros:
    def test_a_new_exporter_serves_its_own_fixed_series(self, measures: Measures) -> None:
        assert samples(measures, "agent_exporter_scores_unmatched_total") == [
            "agent_exporter_scores_unmatched_total 0.0"
        ]
        assert len(samples(measures, "agent_exporter_spans_total")) == len(contract.SPAN_RESULTS)
        assert 'agent_exporter_series_limited_total{label="tool"} 0.0' in page(measures)

    def test_an_agent_seen_has_its_fixed_series_at_0(self, measures: Measures) -> None:
        measures.seen("a")
        assert samples(measures, "agent_tasks_started_total") == [
            'agent_tasks_started_total{agent="a",variant="stable"} 0.0',
            'agent_tasks_started_total{agent="a",variant="canary"} 0.0',
        ]
        for name in ("agent_tasks_looping", "agent_tasks_looped_total"):
            assert len(samples(measures, name)) == len(contract.LOOP_REASONS)
        for name in ("agent_tasks_in_flight", "agent_tasks_resumed_total", "agent_task_in_flight_spend_usd_max"):
            assert samples(measures, name) == [f'{name}{{agent="a"}} 0.0']

    def test_a_task_type_seen_has_every_outcome_at_0(self, measures: Measures) -> None:
        measures.seen_task_type("a", "t", "stable")
        assert len(samples(measures, "agent_tasks_total")) == len(contract.OUTCOME_REASONS)
        assert len(samples(measures, "agent_task_cost_usd_count")) == 1

    def test_a_model_seen_has_its_tokens_spend_and_errors_at_0(self, measures: Measures) -> None:
        measures.seen_model("a", "m", "stable")
        assert len(samples(measures, "agent_tokens_total")) == 12
        assert len(samples(measures, "agent_spend_usd_total")) == 3
        assert 'stop_reason="error"' in samples(measures, "agent_iterations_total")[0]

    def test_a_tool_seen_has_every_result_at_0(self, measures: Measures) -> None:
        measures.seen_tool("a", "search", "canary")
        assert len(samples(measures, "agent_tool_calls_total")) == len(contract.TOOL_RESULTS)

    def test_what_is_seen_again_keeps_its_counts(self, measures: Measures) -> None:
        for _ in range(2):
            measures.seen("a")
            measures.seen_tool("a", "search", "stable")
            measures.counter("agent_tool_calls_total", "a", "search", "stable", "ok").inc()
        assert measures.value("agent_tool_calls_total", "a", "search", "stable", "ok") == 2


def numbers(choose: random.Random) -> Iterator[float]:
    while True:
        yield choose.choice(
            [0, 1, 30, 0.1 + 0.2, 1e-7, 999_999.5, 1e6, 12_345_678, 1e16, 1.5e300, 1e-300, choose.random() * 500]
        )


class Both:
    """The same events counted by Measures and by prometheus_client's own metrics."""

    def __init__(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.time", clock)
        self.ours = Measures(clock=clock)
        self.registry = prometheus_client.CollectorRegistry()
        kinds = {Kind.COUNTER: prometheus_client.Counter, Kind.GAUGE: prometheus_client.Gauge}
        self.theirs: dict[str, Any] = {
            family.name: prometheus_client.Histogram(
                family.name, family.help, family.labels, buckets=family.buckets, registry=self.registry
            )
            if family.kind is Kind.HISTOGRAM
            else kinds[family.kind](family.name, family.help, family.labels, registry=self.registry)
            for family in FAMILIES
            if family.served_by == "exporter"
        }
        self.theirs["agent_exporter_start_time_seconds"].set(clock())
        for result in contract.SPAN_RESULTS:
            self.theirs["agent_exporter_spans_total"].labels(result)
        for label in self.ours._max_values:
            self.theirs["agent_exporter_series_limited_total"].labels(label)

    def count(self, family: contract.Family, values: tuple[str, ...], amount: float, trace: str | None) -> None:
        theirs = self.theirs[family.name].labels(*values) if values else self.theirs[family.name]
        exemplar = {"trace_id": trace} if trace else None
        if family.kind is Kind.COUNTER:
            self.ours.counter(family.name, *values).inc(amount, trace)
            theirs.inc(amount, exemplar)
        elif family.kind is Kind.GAUGE:
            self.ours.gauge(family.name, *values).set(amount)
            theirs.set(amount)
        else:
            self.ours.histogram(family.name, *values).observe(amount, trace)
            theirs.observe(amount, exemplar)


@pytest.fixture
def both(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Both:
    both = Both(clock, monkeypatch)
    choose = random.Random(7)
    amounts = numbers(choose)
    for family in FAMILIES:
        if family.served_by != "exporter":
            continue
        for _ in range(40):
            clock.now += choose.random()
            values = tuple(choose.choice(["a", "b.c:d/e@f-g_h", "0"]) for _ in family.labels)
            both.count(family, values, next(amounts), choose.choice([None, TRACE]))
    return both


class TestPage:
    def test_the_text_page_is_the_librarys_to_the_byte(self, both: Both) -> None:
        assert both.ours.exposition(openmetrics=False, process=False) == prometheus_client.generate_latest(
            both.registry
        )

    def test_the_openmetrics_page_is_the_librarys_to_the_byte(self, both: Both) -> None:
        assert both.ours.exposition(openmetrics=True, process=False) == generate_openmetrics(both.registry)

    @pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -1e7, -3.5, 0.0])
    def test_odd_gauge_values_are_written_as_the_library_does(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch, value: float
    ) -> None:
        both = Both(clock, monkeypatch)
        both.count(contract.BY_NAME["agent_tasks_in_flight"], ("a",), value, None)
        assert both.ours.exposition(openmetrics=True, process=False) == generate_openmetrics(both.registry)

    def test_an_exemplar_is_served_in_openmetrics(self, measures: Measures) -> None:
        measures.histogram("agent_task_cost_usd", "a", "t", "stable").observe(3, trace=TRACE)
        line = next(line for line in page(measures, openmetrics=True) if 'le="5.0"' in line and "cost" in line)
        assert line.endswith(f'1.0 # {{trace_id="{TRACE}"}} 3.0 1700000000.25')

    def test_the_latest_exemplar_is_kept_per_bucket(self, measures: Measures) -> None:
        histogram = measures.histogram("agent_task_cost_usd", "a", "t", "stable")
        for value, trace in ((3, "01"), (4, "02"), (20, "03"), (4.5, None)):
            histogram.observe(value, trace)
        text = "\n".join(page(measures, openmetrics=True))
        assert [trace in text for trace in ('trace_id="01"', 'trace_id="02"', 'trace_id="03"')] == [False, True, True]

    def test_the_time_of_creation_is_served(self, measures: Measures, clock: Clock) -> None:
        clock.now = 1_700_000_123.5
        measures.counter("agent_tasks_resumed_total", "late")
        assert 'agent_tasks_resumed_created{agent="late"} 1.7000001235e+09' in page(measures, openmetrics=True)

    @pytest.mark.parametrize("openmetrics", [False, True])
    def test_the_process_is_on_the_page(self, measures: Measures, openmetrics: bool) -> None:
        text = measures.exposition(openmetrics=openmetrics).decode()
        assert all(name in text for name in ("process_cpu_seconds_total", "python_gc_collections_total", "python_info"))

    def test_an_openmetrics_page_ends_once(self, measures: Measures) -> None:
        text = measures.exposition(openmetrics=True).decode()
        assert text.endswith("# EOF\n")
        assert text.count("# EOF") == 1

    def test_the_page_has_every_family_of_the_contract_and_nothing_else(self, both: Both) -> None:
        text = both.ours.exposition(openmetrics=False, process=False).decode()
        known = {
            (sample.name, frozenset(sample.labels) - {"le"})
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
        promised = {
            (name, labels - {"le", "job", "instance"})
            for name, labels in contract.series_labels().items()
            if contract.BY_NAME.get(name, FAMILIES[0]).served_by == "exporter"
        }
        assert known == promised

    def test_a_frozen_page_does_not_change_when_counting_goes_on(self, measures: Measures) -> None:
        counter = measures.counter("agent_tasks_started_total", "a", "stable")
        histogram = measures.histogram("agent_task_cost_usd", "a", "t", "stable")
        histogram.observe(1, TRACE)
        frozen = measures.freeze()
        before = render(frozen, openmetrics=True, process=False)
        counter.inc()
        histogram.observe(1, "02")
        measures.seen("b")
        assert render(frozen, openmetrics=True, process=False) == before


class TestRestart:
    def test_the_page_after_a_restart_is_the_page_before_it(self, both: Both, clock: Clock) -> None:
        fresh = Measures(clock=clock)
        fresh.restore(both.ours.snapshot())

        def counted(measures: Measures) -> list[str]:
            gauges = tuple(family.name for family in FAMILIES if family.kind is Kind.GAUGE)
            return sorted(line for line in page(measures, openmetrics=True) if not line.startswith(gauges))

        assert counted(fresh) == counted(both.ours)

    def test_counting_goes_on_after_a_restart(self, measures: Measures, clock: Clock) -> None:
        measures.histogram("agent_task_cost_usd", "a", "t", "stable").observe(3, TRACE)
        fresh = Measures(clock=clock)
        fresh.restore(measures.snapshot())
        fresh.histogram("agent_task_cost_usd", "a", "t", "stable").observe(3, TRACE)
        assert fresh.value("agent_task_cost_usd", "a", "t", "stable") == 2

    def test_children_looked_up_before_the_restart_was_read_go_on_counting(self, measures: Measures) -> None:
        measures.counter("agent_exporter_spans_total", "counted").inc(5)
        fresh = Measures()
        kept = fresh.counter("agent_exporter_spans_total", "counted")
        histogram = fresh.histogram("agent_task_cost_usd", "a", "t", "stable")
        fresh.restore(measures.snapshot())
        kept.inc()
        histogram.observe(1)
        assert fresh.value("agent_exporter_spans_total", "counted") == 6
        assert fresh.value("agent_task_cost_usd", "a", "t", "stable") == 1

    def test_the_limits_know_the_values_from_before_the_restart(self, clock: Clock) -> None:
        measures = Measures(clock=clock, max_values={"tool": 1})
        measures.counter("agent_tool_calls_total", "a", "one", "stable", "ok").inc()
        fresh = Measures(clock=clock, max_values={"tool": 1})
        fresh.restore(measures.snapshot())
        fresh.counter("agent_tool_calls_total", "a", "two", "stable", "ok").inc()
        assert fresh.value("agent_tool_calls_total", "a", "other", "stable", "ok") == 1

    def test_a_family_that_is_gone_is_dropped_with_a_line_in_the_log(
        self, measures: Measures, caplog: pytest.LogCaptureFixture
    ) -> None:
        measures.counter("agent_tasks_resumed_total", "a").inc()
        old = msgspec.msgpack.decode(measures.snapshot())
        for family in old["families"]:
            if family[0] == "agent_tasks_started_total":
                family[0] = "agent_gone_total"
        fresh = Measures()
        with caplog.at_level(logging.WARNING):
            fresh.restore(msgspec.msgpack.encode(old))
        assert "dropped agent_gone_total" in caplog.text
        assert fresh.value("agent_tasks_resumed_total", "a") == 1

    @pytest.mark.parametrize(("column", "now"), [(1, ["agent"]), (2, [1.0, 2.0])])
    def test_a_family_whose_labels_or_buckets_changed_is_dropped_with_a_line_in_the_log(
        self, measures: Measures, caplog: pytest.LogCaptureFixture, column: int, now: object
    ) -> None:
        measures.histogram("agent_task_cost_usd", "a", "t", "stable").observe(1)
        old = msgspec.msgpack.decode(measures.snapshot())
        for family in old["families"]:
            if family[0] == "agent_task_cost_usd":
                family[column] = now
        fresh = Measures()
        with caplog.at_level(logging.WARNING):
            fresh.restore(msgspec.msgpack.encode(old))
        assert "dropped agent_task_cost_usd" in caplog.text
        assert fresh.value("agent_task_cost_usd", "a", "t", "stable") == 0

    @pytest.mark.parametrize("data", [b"", b"junk", msgspec.msgpack.encode({"version": 99, "families": []})])
    def test_what_is_no_snapshot_is_refused(self, measures: Measures, data: bytes) -> None:
        with pytest.raises(ValueError, match="snapshot"):
            measures.restore(data)
