"""A runtime with a clock of its own, its spans and metrics kept, and its log."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent_oncall import Config, Limits, Runtime, Stamps
from agent_oncall.prompts import Prompts
from agent_oncall.schema import State
from tests.agent_oncall import states


@dataclass
class World:
    """What is around the runtimes of a test."""

    folder: Path
    time: float = 1000.0
    spans_kept: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(Stamps())  # type: ignore[arg-type]  # it is one without the SDK's class
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans_kept))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.state_file = self.folder / "flags.json"
        self.prompts = self.folder / "prompts"
        for version in (states.STABLE.prompt_version, states.CANARY.prompt_version):
            Prompts(self.prompts).add("support", version, f"You help. {version}")

    def runtime(self, *, limits: Limits | None = None, **changes: Any) -> Runtime:
        """Of the agent `support`, with a state file, unless said otherwise."""
        with_defaults: dict[str, Any] = {
            "agent": "support",
            "state": self.state_file,
            "prompts": self.prompts,
            "defaults": DEFAULTS,
            "limits": limits,
            "last_good": self.folder / "cache" / "state.json",
            "tracer_provider": self.tracers,
            "meter_provider": self.meters,
            "clock": lambda: self.time,
        }
        return Runtime(**with_defaults | changes)

    def say(self, state: State) -> None:
        """The state file says so, and so much time passes that it is seen."""
        states.write(self.state_file, state)
        self.wait()

    def wait(self, seconds: float = 0.25) -> None:
        self.time += seconds

    def spans(self, name: str = "") -> list[ReadableSpan]:
        return [span for span in self.spans_kept.get_finished_spans() if not name or span.name == name]

    def span(self, name: str) -> Mapping[str, Any]:
        """The attributes of the only span of this name."""
        (span,) = self.spans(name)
        return dict(span.attributes or {})

    def metric(self, name: str, **labels: str) -> float | None:
        """A series' value, None where there is none. Names as the instruments have them, without `_total`."""
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points if metric.name == name else ():
                        if isinstance(point, NumberDataPoint) and dict(point.attributes or {}) == labels:
                            return point.value
        return None


DEFAULTS = Config(
    model="gpt-4o-mini-2024-07-18", provider="openai", prompt="support", prompt_version="1.9.0", max_iter=12
)


@pytest.fixture
def world(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    caplog.set_level(logging.INFO, "agent_oncall")
    world = World(tmp_path)
    yield world
    world.meters.shutdown()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What was logged so far."""
    return lambda: caplog.text
