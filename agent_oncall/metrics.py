"""The library's own series, by the OpenTelemetry metrics API; opentelemetry-exporter-prometheus gives them these names.

| series | labels | counts |
| --- | --- | --- |
| `agent_breaker_state` | agent | 0 closed, 1 half open, 2 open: the worse of the agent's and this process' breaker |
| `agent_breaker_trips_total` | agent, why | tasks cut, and openings of this process' breaker (`process_spend`) |
| `agent_breaker_shadow_trips_total` | agent, why | those that would have been, where the breakers do not act |
| `agent_tasks_refused_total` | agent, why | tasks that were not begun: `fleet`, `process_spend`, `off` |
| `agent_state_generation`, `agent_state_read_ok` | agent | the state in force; 1 if the file is there and good |
| `agent_prompt_errors_total` | agent | tasks begun without their variant's prompt |
| `agent_model_mismatches_total` | agent, model | answers of another model than the pinned one |
| `agent_ab_records_lost_total` | agent | records of A/B tests that could not be written |
"""

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from agent_oncall.tracing import SCOPE

TRIPS = ("failing_tool", "repeat", "iterations", "cost", "process_spend")
REFUSALS = ("fleet", "process_spend", "off")
BREAKER_VALUES = {"closed": 0, "half_open": 1, "open": 2}


class Watched(Protocol):
    """What the gauges read of a runtime."""

    agent: str

    @property
    def breaker_value(self) -> int: ...

    @property
    def generation(self) -> int | None: ...

    @property
    def state_ok(self) -> bool | None: ...


_lock = threading.Lock()
_global: "list[Metrics]" = []
_of: "weakref.WeakKeyDictionary[MeterProvider, Metrics]" = weakref.WeakKeyDictionary()


class Metrics:
    """One set of instruments per meter provider, whatever the number of agents in the process."""

    @staticmethod
    def of(provider: MeterProvider | None) -> "Metrics":
        """The provider's; the global provider's for None, whichever that is now or becomes."""
        with _lock:
            if provider is None:
                if not _global:
                    _global.append(Metrics(metrics.get_meter(SCOPE)))
                return _global[0]
            if provider not in _of:
                _of[provider] = Metrics(provider.get_meter(SCOPE))
            return _of[provider]

    def __init__(self, meter: Meter) -> None:
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        # The exporter adds _total.
        self.trips = meter.create_counter("agent_breaker_trips", description="Tasks cut, and breakers opened")
        self.shadow_trips = meter.create_counter("agent_breaker_shadow_trips", description="What would have been cut")
        self.refused = meter.create_counter("agent_tasks_refused", description="Tasks that were not begun")
        self.prompt_errors = meter.create_counter("agent_prompt_errors", description="Tasks without their prompt")
        self.mismatches = meter.create_counter("agent_model_mismatches", description="Answers of another model")
        self.lost = meter.create_counter("agent_ab_records_lost", description="Records that could not be written")
        for name, description, value in (
            ("agent_breaker_state", "0 closed, 1 half open, 2 open", lambda seen: seen.breaker_value),
            ("agent_state_generation", "Generation of the state in force", lambda seen: seen.generation),
            ("agent_state_read_ok", "Whether the state file is there and good", lambda seen: seen.state_ok),
        ):
            meter.create_observable_gauge(name, [self._observe(value)], description=description)

    def watch(self, runtime: Watched) -> None:
        self._watched.add(runtime)
        # There with 0 from the beginning, so that increase() sees the first.
        for counter in (self.prompt_errors, self.lost):
            counter.add(0, {"agent": runtime.agent})
        for counter, whys in (
            (self.trips, TRIPS),
            (self.shadow_trips, TRIPS),
            (self.refused, REFUSALS),
        ):
            for why in whys:
                counter.add(0, {"agent": runtime.agent, "why": why})

    def _observe(self, value: Callable[[Watched], int | None]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            by_agent: dict[str, int] = {}
            for runtime in list(self._watched):
                if (now := value(runtime)) is not None:
                    by_agent[runtime.agent] = max(int(now), by_agent.get(runtime.agent, 0))
            return [Observation(now, {"agent": agent}) for agent, now in by_agent.items()]

        return observe
