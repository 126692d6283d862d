"""Events and ended tasks → the contract's series. The children are looked up once and kept: this is the hot path."""

from exporter.contract import DIRECTIONS, OUTCOME_REASONS, UNKNOWN
from exporter.events import Iteration, ToolCall
from exporter.measures import Counter, Histogram, Measures
from exporter.traces import Task

# Values of labels are the senders' to choose: past this, the caches are built anew rather than grown.
_MAX_CACHED = 20_000
_MAX_STOPS = 100
# Of the calls, the failed and the slow ones are worth a click (of the tasks, all: the buckets sort them).
_SLOW_SECONDS = 10.0


class _Calls:
    """The series of the calls of one agent, model, variant and purpose."""

    __slots__ = (
        "cache_read",
        "cache_write",
        "duration",
        "first_token",
        "input",
        "output",
        "refusals",
        "spend",
        "stops",
        "unmetered",
        "unpriced",
    )

    def __init__(self, measures: Measures, agent: str, model: str, variant: str, purpose: str) -> None:
        measures.seen_model(agent, model, variant)
        self.input, self.output, self.cache_read, self.cache_write = (
            measures.counter("agent_tokens_total", agent, model, variant, direction, purpose)
            for direction in DIRECTIONS
        )
        self.spend = measures.counter("agent_spend_usd_total", agent, model, variant, purpose)
        self.duration = measures.histogram("agent_iteration_duration_seconds", agent, model, variant)
        self.refusals = measures.counter("agent_refusals_total", agent, model, variant)
        self.unpriced = measures.counter("agent_unpriced_tokens_total", agent, model)
        self.unmetered = measures.counter("agent_unmetered_calls_total", agent, model)
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


class _Ended:
    """The series of the ended tasks of one agent, task type and variant."""

    __slots__ = ("cost", "duration", "iterations", "outcomes")

    def __init__(self, measures: Measures, agent: str, task_type: str, variant: str) -> None:
        measures.seen_task_type(agent, task_type, variant)
        self.outcomes = {
            (outcome, reason): measures.counter("agent_tasks_total", agent, task_type, variant, outcome, reason)
            for outcome, reason in OUTCOME_REASONS
        }
        self.duration = measures.histogram("agent_task_duration_seconds", agent, task_type, variant)
        self.iterations = measures.histogram("agent_task_iterations", agent, task_type, variant)
        self.cost = measures.histogram("agent_task_cost_usd", agent, task_type, variant)


class Ledger:
    """Writes into `measures` what `tasks` decides. Money in USD, times in seconds."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._calls: dict[tuple[str, str, str, str], _Calls] = {}
        self._tools: dict[tuple[str, str, str], _Tools] = {}
        self._ended: dict[tuple[str, str, str], _Ended] = {}
        self._agents: set[str] = set()

    def seen(self, agent: str) -> None:
        if agent not in self._agents:
            if len(self._agents) >= _MAX_CACHED:
                self._agents.clear()
            self._agents.add(agent)
            self._measures.seen(agent)

    # -- calls -------------------------------------------------------------------------------------------------------

    def call(self, event: Iteration, model: str, variant: str, purpose: str, cost: float | None) -> None:
        """An LLM call that ended. `cost` is None where no price is known."""
        calls = self._calls.get((event.agent, model, variant, purpose)) or self._new_calls(
            event.agent, model, variant, purpose
        )
        stop = "error" if event.error else event.stop_reason or UNKNOWN
        counter = calls.stops.get(stop)
        if counter is None:
            counter = self._measures.counter("agent_iterations_total", event.agent, model, variant, stop)
            if len(calls.stops) < _MAX_STOPS:
                calls.stops[stop] = counter
        seconds = (event.end_ns - event.start_ns) / 1e9
        if event.error or event.refused or seconds > _SLOW_SECONDS:
            self._notable_call(event, calls, counter, seconds)
        else:
            counter.value += 1
            if seconds >= 0:
                calls.duration.observe(seconds)
        if event.first_token is not None:
            first = calls.first_token
            if first is None:
                first = calls.first_token = self._measures.histogram(
                    "agent_time_to_first_token_seconds", event.agent, model, variant
                )
            first.observe(event.first_token)
        if event.input is not None:
            # Counts were checked where they were read: they need not be again on the hottest of all paths.
            calls.input.value += event.input
            calls.output.value += event.output
            if event.cache_read:
                calls.cache_read.value += event.cache_read
            if event.cache_write:
                calls.cache_write.value += event.cache_write
            if cost is None:
                calls.unpriced.inc(event.tokens)
            elif cost:
                calls.spend.value += cost
        elif not event.error:
            calls.unmetered.inc()

    @staticmethod
    def _notable_call(event: Iteration, calls: _Calls, counter: Counter, seconds: float) -> None:
        """A call that failed, was refused or took long: one worth an exemplar."""
        trace = event.trace_id.hex()
        counter.inc(1.0, trace if event.error else None)
        if seconds >= 0:
            calls.duration.observe(seconds, trace)
        if event.refused:
            calls.refusals.inc(1.0, trace)

    def sums(self, task: Task, model: str, tokens: tuple[int, int, int, int], cost: float | None) -> None:
        """A task's own sums, where nothing was counted below it: tokens as (input, output, cache read, cache write)."""
        calls = self._new_calls(task.agent, model, task.variant, "progress")
        for counter, count in zip(
            (calls.input, calls.output, calls.cache_read, calls.cache_write), tokens, strict=True
        ):
            counter.inc(count)
        if cost is None:
            calls.unpriced.inc(sum(tokens))
        elif cost:
            calls.spend.inc(cost)

    def spend(self, task: Task, model: str, cost: float) -> None:
        """Money that no call told of."""
        self._new_calls(task.agent, model, task.variant, "progress").spend.inc(cost)

    def _new_calls(self, agent: str, model: str, variant: str, purpose: str) -> _Calls:
        key = (agent, model, variant, purpose)
        calls = self._calls.get(key)
        if calls is None:
            self.seen(agent)
            if len(self._calls) >= _MAX_CACHED:
                self._calls.clear()
            calls = self._calls[key] = _Calls(self._measures, *key)
        return calls

    def tool(self, event: ToolCall, variant: str) -> None:
        """A tool call that ended."""
        key = (event.agent, event.tool or UNKNOWN, variant)
        tools = self._tools.get(key)
        if tools is None:
            self.seen(event.agent)
            if len(self._tools) >= _MAX_CACHED:
                self._tools.clear()
            tools = self._tools[key] = _Tools(self._measures, *key)
        seconds = event.seconds if event.seconds is not None else (event.end_ns - event.start_ns) / 1e9
        if event.result != "ok" or seconds > _SLOW_SECONDS:
            trace = event.trace_id.hex()
            tools.results[event.result].inc(1.0, trace)
            if seconds >= 0:
                tools.duration.observe(seconds, trace)
        else:
            tools.results["ok"].value += 1
            if seconds >= 0:
                tools.duration.observe(seconds)

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
        key = (task.agent, task_type, task.variant)
        series = self._ended.get(key)
        if series is None:
            if len(self._ended) >= _MAX_CACHED:
                self._ended.clear()
            series = self._ended[key] = _Ended(self._measures, *key)
        series.outcomes[outcome, reason].inc(1.0, trace if outcome != "success" else None)
        if seconds is not None:
            series.duration.observe(seconds, trace)
        series.iterations.observe(iterations)
        series.cost.observe(cost, trace)
        if task.rollout:
            name, stage, shard = task.rollout
            labels = (task.agent, name, stage, task.variant, shard, task_type)
            self._measures.counter("agent_rollout_tasks_total", *labels, outcome).inc()
            self._measures.counter("agent_rollout_cost_usd_total", *labels).inc(cost)

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
