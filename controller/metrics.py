"""What the controller serves on /metrics."""

from itertools import product
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from agent_oncall.schema import Breaker, State
from controller.config import Action
from controller.prom import FLEET
from controller.rollouts import Rollout
from controller.verdict import Verdict
from exporter.contract import BY_NAME, Kind

_FAILURES = (
    *product(get_args(Action), ("unknown_agent", "state", "refused", "limit")),
    ("unknown", "unknown_action"),
    ("alerts", "bad_body"),
    ("breaker", "prometheus"),
    ("verdicts", "metadata"),
    *product(("watch", "verdicts"), ("state", "fault")),
    ("annotate", "grafana"),
)
"""What can fail, by action and why: served as 0 from the start, as a counter that begins at 1 shows no increase."""

_BREAKER = {"closed": 0, "half_open": 1, "open": 2}


class Metrics:
    """The contract's series of the controller, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._acted = self._counter("agent_controller_actions_total")
        self._held_back = self._counter("agent_controller_held_back_total")
        self._failed = self._counter("agent_controller_failures_total")
        for action, why in _FAILURES:
            self._failed.labels(action, why)
        self._trips = self._counter("agent_breaker_trips_total")
        self._breaker = self._gauge("agent_breaker_state")
        self._generation = self._gauge("agent_state_generation")
        self._read_ok = self._gauge("agent_state_read_ok")
        self._percent = self._gauge("agent_rollout_stage_percent")
        self._verdict = self._gauge("agent_rollout_verdict")

    def acted(self, agent: str, action: str, trigger: str) -> None:
        """A change that an alert caused."""
        self._acted.labels(agent, action, trigger).inc()

    def held_back(self, agent: str, action: str, why: str) -> None:
        """A change that an alert asked for and that was not made: off, dry_run, confirm, agreement."""
        self._held_back.labels(agent, action, why).inc()

    def failed(self, action: str, why: str) -> None:
        """Something that should have worked."""
        self._failed.labels(action, why).inc()

    def tripped(self, agent: str) -> None:
        """The fleet's breaker opened, by whomever."""
        self._trips.labels(agent, FLEET).inc()

    def state(self, state: State, rollouts: list[Rollout]) -> None:
        """The state in force."""
        self._read_ok.set(1)
        self._generation.set(state.generation)
        self._breaker.clear()
        for name, agent in state.agents.items():
            self._breaker.labels(name).set(_BREAKER[(agent.breaker or Breaker()).state])
            self._trips.labels(name, FLEET)
        self._percent.clear()
        for rollout in rollouts:
            self._percent.labels(rollout.agent, rollout.id).set(0 if rollout.paused else rollout.percent)

    def none_yet(self) -> None:
        """Nobody has made a state: there is nothing that could not be read."""
        self._read_ok.set(1)

    def unreadable(self) -> None:
        """The state can't be read: what was last known of it stays."""
        self._read_ok.set(0)

    def verdicts(self, found: list[tuple[Rollout, Verdict]]) -> None:
        """The verdicts on all running rollouts."""
        self._verdict.clear()
        for rollout, verdict in found:
            self._verdict.labels(rollout.agent, rollout.id, rollout.stage).set(verdict.decision.sample)

    def _counter(self, name: str) -> Counter:
        family = BY_NAME[name]
        assert family.kind is Kind.COUNTER
        return Counter(name.removesuffix("_total"), family.help, family.labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        family = BY_NAME[name]
        assert family.kind is Kind.GAUGE
        return Gauge(name, family.help, family.labels, registry=self.registry)
