"""The same spans give the same counts, whichever way they come."""

import dataclasses
import itertools
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from exporter.config import Settings
from exporter.journal import Journal
from exporter.pipeline import Pipeline
from exporter.pricing import Pricing

SECOND = 10**9
EPOCH = 1_790_000_000
PRICING = Pricing()
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclasses.dataclass
class Clock:
    now: float = float(EPOCH)

    def __call__(self) -> float:
        return self.now


class Maker:
    """Random traces of agents: base schema or GenAI, sub-agents behind tools, plain spans between, remote parents."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.spans: list[Span] = []
        self.at = EPOCH * SECOND

    def span(self, trace: bytes, parent: bytes, name: str, **attributes: object) -> Span:
        span = Span(trace_id=trace, span_id=self.random.randbytes(8), parent_span_id=parent, name=name, flags=0x100)
        for key, value in attributes.items():
            pair = span.attributes.add(key=key.replace("__", "."))
            if isinstance(value, bool):
                pair.value.bool_value = value
            elif isinstance(value, int):
                pair.value.int_value = value
            else:
                pair.value.string_value = str(value)
        span.start_time_unix_nano = self.at
        return span

    def end(self, span: Span) -> None:
        self.at += self.random.randint(1, SECOND)
        span.end_time_unix_nano = self.at
        self.spans.append(span)

    def trace(self) -> None:
        trace = self.random.randbytes(16)
        parent = b""
        server = None
        shape = self.random.randrange(4)
        if shape == 1:
            server = self.span(trace, b"", "POST /ask")
            parent = server.span_id
        elif shape == 2:
            parent = self.random.randbytes(8)  # of another process, and never heard of
        for _ in range(self.random.choice((1, 1, 2)) if server is not None else 1):
            self.agent(trace, parent, depth=0, remote=shape == 2, base=self.random.random() < 0.5)
        if server is not None:
            self.end(server)

    def agent(self, trace: bytes, parent: bytes, *, depth: int, remote: bool, base: bool) -> None:
        if base:
            agent = self.span(trace, parent, "agent.task", task__type="invoice", task__status="completed")
        else:
            agent = self.span(trace, parent, "invoke_agent x", gen_ai__operation__name="invoke_agent")
        if remote:
            agent.flags = 0x300
        for turn in range(self.random.randint(1, 4)):
            self.turn(trace, agent.span_id, depth=depth, base=base, turn=turn)
        self.end(agent)

    def turn(self, trace: bytes, parent: bytes, *, depth: int, base: bool, turn: int) -> None:
        tokens = {"input": self.random.randint(1, 5000), "output": self.random.randint(1, 500)}
        if base:
            call = self.span(
                trace,
                parent,
                "agent.iteration",
                iteration__number=turn,
                iteration__input_tokens=tokens["input"],
                iteration__output_tokens=tokens["output"],
                iteration__stop_reason="tool_use",
            )
        else:
            call = self.span(
                trace,
                parent,
                "chat m",
                gen_ai__operation__name="chat",
                gen_ai__request__model="gpt-4o-mini",
                gen_ai__usage__input_tokens=tokens["input"],
                gen_ai__usage__output_tokens=tokens["output"],
                gen_ai__response__id=f"r{self.random.getrandbits(64)}",
            )
        if not base:
            self.end(call)
        for _ in range(self.random.randint(0, 2)):
            self.tool(trace, call.span_id if base else parent, depth=depth, base=base)
        if base:
            self.end(call)

    def tool(self, trace: bytes, parent: bytes, *, depth: int, base: bool) -> None:
        name = self.random.choice(("search", "fetch"))
        if base:
            tool = self.span(trace, parent, "tool.execute", tool__name=name)
        else:
            asked = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": name}
            tool = self.span(trace, parent, "execute_tool x", **asked)
        if self.random.random() < 0.2:
            tool.status.code = Status.STATUS_CODE_ERROR
        if depth < 1 and self.random.random() < 0.15:
            self.agent(trace, tool.span_id, depth=depth + 1, remote=False, base=base)
        self.end(tool)


def traces(seed: int, count: int = 3) -> list[Span]:
    """Spans in the order they ended, as an SDK sends them."""
    maker = Maker(seed)
    for _ in range(count):
        maker.trace()
    return maker.spans


def body(spans: Iterable[Span]) -> bytes:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    name = of_resource.resource.attributes.add(key="service.name")
    name.value.string_value = "billing"
    of_resource.scope_spans.add(spans=spans).scope.name = "my.agent"
    return request.SerializeToString()


def pipeline(clock: Clock, journal: Journal | None = None) -> Pipeline:
    return Pipeline(Settings(), clock=clock, pricing=PRICING, journal=journal)


def wind_up(counting: Pipeline, clock: Clock) -> list[str]:
    """The metrics after every time-out, without what tells of the way the spans came."""
    counting.advance()
    clock.now = counting.end_of_time()
    counting.advance()
    return metrics(counting)


def metrics(counting: Pipeline) -> list[str]:
    lines = counting.measures.exposition(openmetrics=False, process=False).decode().splitlines()
    aside = (
        "#",
        "agent_exporter_spans_total",
        "agent_exporter_lag",
        "agent_exporter_journal",
        "agent_exporter_traces",
        "agent_exporter_start",
    )
    return sorted(line for line in lines if not line.startswith(aside) and "_created" not in line)


def sums(counting: Pipeline) -> dict[str, dict[str, float]]:
    measures = counting.measures
    return {
        "tokens": measures.sums("agent_tokens_total", "direction"),
        "calls": measures.sums("agent_iterations_total", "agent"),
        "tools": measures.sums("agent_tool_calls_total", "result"),
        "started": measures.sums("agent_tasks_started_total", "agent"),
        "ended": measures.sums("agent_tasks_total", "agent"),
    }


@QUICK
@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
def test_the_order_inside_one_request_makes_no_difference(seed: int, shuffled: random.Random) -> None:
    spans = traces(seed)
    first, second = Clock(), Clock()
    straight, mixed = pipeline(first), pipeline(second)
    straight.take_traces(body(spans))
    shuffled.shuffle(spans)
    mixed.take_traces(body(spans))
    assert wind_up(mixed, second) == wind_up(straight, first)


@QUICK
@given(st.integers(0, 10**9), st.lists(st.integers(0, 200), max_size=12))
def test_any_split_into_requests_counts_the_same(seed: int, cuts: list[int]) -> None:
    spans = traces(seed)
    first, second = Clock(), Clock()
    whole, split = pipeline(first), pipeline(second)
    whole.take_traces(body(spans))
    edges = sorted({0, len(spans), *(cut % (len(spans) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        split.take_traces(body(spans[start:stop]))
    assert wind_up(split, second) == wind_up(whole, first)


@QUICK
@given(st.integers(0, 10**9), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=12))
def test_requests_that_are_sent_again_are_counted_once(seed: int, again: list[tuple[int, int]]) -> None:
    spans = traces(seed)
    first, second = Clock(), Clock()
    once, repeated = pipeline(first), pipeline(second)
    half = len(spans) // 2
    for part in (spans[:half], spans[half:]):
        once.take_traces(body(part))
        repeated.take_traces(body(part))
        for start, stop in again:
            repeated.take_traces(body(part[min(start, stop) : max(start, stop)]))
        first.now += 5
        second.now += 5
    assert wind_up(repeated, second) == wind_up(once, first)


@QUICK
@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
def test_in_any_order_every_token_call_and_tool_is_counted_once(seed: int, shuffled: random.Random) -> None:
    spans = traces(seed)
    first, second = Clock(), Clock()
    straight, mixed = pipeline(first), pipeline(second)
    straight.take_traces(body(spans))
    shuffled.shuffle(spans)
    for span in spans:
        mixed.take_traces(body([span]))
        second.now += 0.01
    wind_up(straight, first)
    wind_up(mixed, second)
    expected, found = sums(straight), sums(mixed)
    assert {k: found[k] for k in ("tokens", "calls", "tools")} == {k: expected[k] for k in ("tokens", "calls", "tools")}
    assert found["started"] == found["ended"]


@QUICK
@given(st.integers(0, 10**9), st.lists(st.floats(0, 120), max_size=20))
def test_it_makes_no_difference_how_often_the_clock_is_looked_at(seed: int, looks: list[float]) -> None:
    spans = traces(seed)
    first, second = Clock(), Clock()
    seldom, often = pipeline(first), pipeline(second)
    for at, span in enumerate(spans):
        for look in looks:
            second.now = max(second.now, EPOCH + 7 * at - look / 20)
            often.advance()
        first.now = EPOCH + 7.0 * at
        second.now = max(second.now, first.now)
        seldom.take_traces(body([span]))
        often.take_traces(body([span]))
    assert wind_up(often, second) == wind_up(seldom, first)


@QUICK
@given(st.integers(0, 10**9))
def test_started_is_ended_plus_in_flight_after_every_request(seed: int) -> None:
    spans = traces(seed)
    clock = Clock()
    counting = pipeline(clock)
    for span in spans:
        counting.take_traces(body([span]))
        clock.now += 3
        counting.advance()
        started, ended = (sum(sums(counting)[what].values()) for what in ("started", "ended"))
        assert started == ended + counting.measures.value("agent_tasks_in_flight", "billing")


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_restart_at_any_moment_changes_nothing(checkpoint: bool) -> None:
    @QUICK
    @given(st.integers(0, 10**9), st.lists(st.integers(0, 200), min_size=1, max_size=4))
    def restarted(seed: int, kills: list[int]) -> None:
        spans = traces(seed)
        stops = {kill % len(spans) for kill in kills}
        first, second = Clock(), Clock()
        undisturbed = pipeline(first)
        with tempfile.TemporaryDirectory() as directory:
            journal = Journal.open(Path(directory))
            killed = pipeline(second, journal)
            for at, span in enumerate(spans):
                undisturbed.take_traces(body([span]))
                killed.take_traces(body([span]))
                if at in stops:
                    if checkpoint:
                        killed.checkpoint()
                    journal.close()
                    journal = Journal.open(Path(directory))
                    killed = pipeline(second, journal)
                    killed.take_traces(body([span]))  # the answer was lost: the sender sends it again
                first.now += 2
                second.now += 2
            assert wind_up(killed, second) == wind_up(undisturbed, first)
            journal.close()

    restarted()
