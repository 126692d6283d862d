"""What a checkpoint keeps of traces that changed without a span of theirs coming."""

from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from exporter.config import load
from exporter.journal import Journal
from exporter.pipeline import Pipeline
from exporter.pricing import Pricing

START = 1_790_000_000


def iteration(trace: int) -> bytes:
    """A request with one iteration of a task that runs on."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    span = of_resource.scope_spans.add().spans.add(
        trace_id=trace.to_bytes(16, "big"),
        span_id=b"iterate1",
        parent_span_id=b"the task",
        name="agent.iteration",
        start_time_unix_nano=(START - 1) * 10**9,
        end_time_unix_nano=START * 10**9,
    )
    span.attributes.add(key="iteration.input_tokens").value.int_value = 100
    return request.SerializeToString()


def test_a_task_given_up_for_want_of_room_is_not_in_flight_again_after_a_restart(tmp_path: Path) -> None:
    settings = load(None, {"max_traces": 1})
    journal = Journal.open(tmp_path)
    pricing = Pricing()
    exporter = Pipeline(settings, clock=lambda: START, journal=journal, pricing=pricing)
    exporter.take_traces(iteration(1))
    exporter.checkpoint()
    exporter.take_traces(iteration(2))  # there is room for one trace: the first goes
    exporter.checkpoint()
    journal.close()

    journal = Journal.open(tmp_path)
    exporter = Pipeline(settings, clock=lambda: START, journal=journal, pricing=pricing)
    exporter.advance()
    journal.close()
    assert exporter.measures.value("agent_tasks_started_total", "shop", "stable") == 2
    assert exporter.measures.sums("agent_tasks_total", "agent") == {"shop": 1}
    assert exporter.measures.value("agent_tasks_in_flight", "shop") == 1
