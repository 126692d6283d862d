"""Events and ended tasks → the contract's series. The children are looked up once and kept: this is the hot path."""

from exporter.contract import DIRECTIONS
from exporter.events import Iteration, ToolCall
from exporter.measures import Counter, Histogram, Measures
from exporter.traces import Task

# Values of labels are the senders' to choose: past this, the caches are built anew rather than grown.
_MAX_CACHED = 20_000
# Of the calls, the failed and the slow ones are worth a click (of the tasks, all: the buckets sort them).
_SLOW_SECONDS = 10.0


class _Calls:
    """The series of the calls of one agent, model and variant."""

    __slots__ = ("duration", "first_token", "model", "refusals", "spend", "stops", "tokens", "unmetered", "unpriced")

    def __init__(self, measures: Measures, agent: str, model: str, variant: str) -> None:
        measures.seen_model(agent, model, variant)
        self.model = model
        self.duration = measures.histogram("agent_iteration_duration_seconds", agent, model, variant)
        self.refusals = measures.counter("agent_refusals_total", agent, model, variant)
        self.unpriced = measures.counter("agent_unpriced_tokens_total", agent, model)
        self.unmetered = measures.counter("agent_unmetered_calls_total", agent, model)
        self.tokens: dict[str, tuple[Counter, ...]] = {}
        self.spend: dict[str, Counter] = {}
        self.stops: dict[str, Counter] = {}
        self.first_token: Histogram | None = None


class _Tools:
    __slots__ = ("duration", "results")

    def __init__(self, measures: Measures, agent: str, tool: str, variant: str) -> None:
        measures.seen_tool(agent, tool, variant)
        self.duration = measures.histogram("agent_tool_duration_seconds", agent, tool, variant)
        self.results = {
            result: measures.counter("agent_tool_calls_total", agent, tool, variant, result)
            for result in ("ok", "error", "invalid")
        }


class Ledger:
    """Writes into `measures` what `tasks` decides. Money in USD, times in seconds."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._calls: dict[tuple[str, str, str], _Calls] = {}
        self._tools: dict[tuple[str, str, str], _Tools] = {}
        self._agents: set[str] = set()

    def seen(self, agent: str) -> None:
        if agent not in self._agents:
            if len(self._agents) >= _MAX_CACHED:
                self._agents.clear()
            self._agents.add(agent)
            self._measures.seen(agent)

    # -- calls -------------------------------------------------------------------------------------------------------

    def call(self, event: Iteration, model: str, variant: str, purpose: str, cost: float | None, trace: str) -> None:
        """An LLM call that ended. `cost` is None where no price is known."""
        calls = self._calls_of(event.agent, model, variant)
        stop = "error" if event.error else event.stop_reason or "unknown"
        counter = calls.stops.get(stop)
        if counter is None:
            counter = self._measures.counter("agent_iterations_total", event.agent, model, variant, stop)
            if len(calls.stops) < 100:
                calls.stops[stop] = counter
        counter.inc(1.0, trace if event.error else None)
        length = (event.end_ns - event.start_ns) / 1e9
        if length >= 0:
            calls.duration.observe(length, trace if length > _SLOW_SECONDS else None)
        if event.first_token is not None:
            first = calls.first_token
            if first is None:
                first = calls.first_token = self._measures.histogram(
                    "agent_time_to_first_token_seconds", event.agent, model, variant
                )
            first.observe(event.first_token, trace if event.first_token > _SLOW_SECONDS else None)
        if event.refused:
            calls.refusals.inc(1.0, trace)
        if event.input is None:
            if not event.error:
                calls.unmetered.inc()
            return
        self._tokens(
            calls, event.agent, variant, purpose, event.input, event.output, event.cache_read, event.cache_write
        )
        if cost is None:
            total = event.input + event.output + event.cache_read + event.cache_write
            if total:
                calls.unpriced.inc(total)
        elif cost:
            self._spend(calls, event.agent, variant, purpose).inc(cost)

    def sums(self, task: Task, model: str, tokens: tuple[int, int, int, int], cost: float | None, trace: str) -> None:
        """A task's own sums, where nothing was counted below it: tokens as (input, output, cache read, cache write)."""
        calls = self._calls_of(task.agent, model, task.variant)
        self._tokens(calls, task.agent, task.variant, "progress", *tokens)
        if cost is None:
            calls.unpriced.inc(sum(tokens))
        elif cost:
            self._spend(calls, task.agent, task.variant, "progress").inc(cost, trace)

    def spend(self, task: Task, model: str, cost: float, trace: str) -> None:
        """Money that no call told of."""
        self._spend(self._calls_of(task.agent, model, task.variant), task.agent, task.variant, "progress").inc(
            cost, trace
        )

    def _calls_of(self, agent: str, model: str, variant: str) -> _Calls:
        key = (agent, model, variant)
        calls = self._calls.get(key)
        if calls is None:
            self.seen(agent)
            if len(self._calls) >= _MAX_CACHED:
                self._calls.clear()
            calls = self._calls[key] = _Calls(self._measures, agent, model, variant)
        return calls

    def _tokens(
        self, calls: _Calls, agent: str, variant: str, purpose: str, inputs: int, outputs: int, read: int, write: int
    ) -> None:
        counters = calls.tokens.get(purpose)
        if counters is None:
            counters = calls.tokens[purpose] = tuple(
                self._measures.counter("agent_tokens_total", agent, calls.model, variant, direction, purpose)
                for direction in DIRECTIONS
            )
        if inputs:
            counters[0].inc(inputs)
        if outputs:
            counters[1].inc(outputs)
        if read:
            counters[2].inc(read)
        if write:
            counters[3].inc(write)

    def _spend(self, calls: _Calls, agent: str, variant: str, purpose: str) -> Counter:
        counter = calls.spend.get(purpose)
        if counter is None:
            counter = self._measures.counter("agent_spend_usd_total", agent, calls.model, variant, purpose)
            calls.spend[purpose] = counter
        return counter

    def tool(self, event: ToolCall, variant: str, trace: str) -> None:
        tool = event.tool or "unknown"
        key = (event.agent, tool, variant)
        tools = self._tools.get(key)
        if tools is None:
            self.seen(event.agent)
            if len(self._tools) >= _MAX_CACHED:
                self._tools.clear()
            tools = self._tools[key] = _Tools(self._measures, event.agent, tool, variant)
        if event.result == "ok":
            tools.results["ok"].inc()
        else:
            tools.results[event.result].inc(1.0, trace)
        length = event.seconds if event.seconds is not None else (event.end_ns - event.start_ns) / 1e9
        if length >= 0:
            tools.duration.observe(length, trace if length > _SLOW_SECONDS else None)

    # -- tasks -------------------------------------------------------------------------------------------------------

    def started(self, task: Task) -> None:
        self.seen(task.agent)
        self._measures.counter("agent_tasks_started_total", task.agent, task.variant).inc()
        if task.rollout:
            name, stage, shard = task.rollout
            self._measures.counter("agent_rollout_started_total", task.agent, name, stage, task.variant, shard).inc()

    def ended(
        self,
        task: Task,
        task_type: str,
        outcome: str,
        reason: str,
        seconds: float | None,
        iterations: int,
        cost: float,
        trace: str,
    ) -> None:
        """`seconds` is None for a task that was given up or whose times cannot be meant."""
        measures, agent, variant = self._measures, task.agent, task.variant
        measures.seen_task_type(agent, task_type, variant)
        counter = measures.counter("agent_tasks_total", agent, task_type, variant, outcome, reason)
        counter.inc(1.0, trace if outcome != "success" else None)
        if seconds is not None:
            measures.histogram("agent_task_duration_seconds", agent, task_type, variant).observe(seconds, trace)
        measures.histogram("agent_task_iterations", agent, task_type, variant).observe(iterations, trace)
        measures.histogram("agent_task_cost_usd", agent, task_type, variant).observe(cost, trace)
        if task.rollout:
            name, stage, shard = task.rollout
            labels = (agent, name, stage, variant, shard, task_type)
            measures.counter("agent_rollout_tasks_total", *labels, outcome).inc()
            measures.counter("agent_rollout_cost_usd_total", *labels).inc(cost)

    def score(self, agent: str, task_type: str, variant: str, name: str, value: float, trace: str) -> None:
        family = "agent_task_confidence" if name == "confidence" else "agent_task_goal_alignment"
        self._measures.histogram(family, agent, task_type, variant).observe(value, trace)

    def looped(self, task: Task, why: str, trace: str) -> None:
        self._measures.counter("agent_tasks_looped_total", task.agent, why).inc(1.0, trace)

    def resumed(self, agent: str) -> None:
        self.seen(agent)
        self._measures.counter("agent_tasks_resumed_total", agent).inc()

    def late_labels(self) -> None:
        self._measures.counter("agent_exporter_late_labels_total").inc()

    def unmatched_score(self) -> None:
        self._measures.counter("agent_exporter_scores_unmatched_total").inc()

    def forget_rollout(self, name: str) -> None:
        for family in ("agent_rollout_started_total", "agent_rollout_tasks_total", "agent_rollout_cost_usd_total"):
            self._measures.remove(family, lambda values: values[1] == name)
