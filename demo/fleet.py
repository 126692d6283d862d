"""The simulated fleet: from a scenario and a seed, the spans that its agents end, in the order they end."""

import heapq
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from demo.scenarios import Agent, Outage, Runaway, Scenario, TaskType, Tool
from demo.spans import Span, Value

_MAX_ITERATIONS = 25
_DOWN = "APIError: 503"


@dataclass(frozen=True, slots=True)
class Totals:
    """What an agent's spans so far add up to: the truth that an exporter's counters are compared with."""

    started: int = 0
    ended: int = 0
    iterations: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0


class Fleet:
    """Agents at work. `spans(until)` tells what ended since the last call; nothing is sent and no clock is read.

    `start` is the epoch second at which the scenario's time is zero. The same scenario, seed, start and breaks give
    the same spans, however `until` is stepped. With `bare` the spans carry only what the base schema requires.
    """

    def __init__(self, scenario: Scenario, *, seed: int = 0, start: float = 0.0, bare: bool = False) -> None:
        self.scenario = scenario
        self.totals = {agent.name: Totals() for agent in scenario.agents}
        self.broken = False
        self._seed = seed
        self._start = start
        self._bare = bare
        self._agents = {agent.name: agent for agent in scenario.agents}
        # (when it starts or its next span ends, tie-breaker, the task's spans, that span or None before the first)
        self._queue: list[tuple[float, int, Iterator[Span], Span | None]] = []
        self._born = 0
        self._breaks = 0
        self._traces_seen: set[int] = set()
        self._arrivals = [self._arrivals_of(agent) for agent in scenario.agents]
        self._next_arrival = [next(arrivals) for arrivals in self._arrivals]
        self._next_break = math.inf if scenario.runaway_at is None else start + scenario.runaway_at

    def spans(self, until: float) -> list[Span]:
        """The spans that ended since the last call, up to the epoch second `until`, by end."""
        if self._next_break <= until:
            self.break_tool(self._next_break)
            self._next_break = math.inf
        for i, arrivals in enumerate(self._arrivals):
            while self._next_arrival[i][0] <= until:
                moment, task = self._next_arrival[i]
                if task is not None:
                    self._push(moment, task)
                self._next_arrival[i] = next(arrivals)
        ended: list[Span] = []
        while self._queue and self._queue[0][0] <= until:
            _, order, task, span = heapq.heappop(self._queue)
            if span is not None:
                ended.append(span)
                self._count(span)
            following = next(task, None)
            if following is not None:
                heapq.heappush(self._queue, (following.end, order, task, following))
        return [span.bare() for span in ended] if self._bare else ended

    def break_tool(self, at: float, runaway: Runaway | None = None) -> None:
        """From the epoch second `at`, the tool answers malformed JSON: the runaway's tasks start and loop."""
        runaway = runaway or self.scenario.runaway
        self.broken = True
        self._breaks += 1
        rng = random.Random(f"{self._seed}/break/{self._breaks}")
        for i in range(runaway.tasks):
            moment = at + rng.random() * runaway.spread_seconds
            self._push(moment, self._looping(runaway, random.Random(f"{self._seed}/break/{self._breaks}/{i}"), moment))

    def repair(self) -> None:
        """The tool answers well again: each looping task ends with its next loop."""
        self.broken = False

    def _push(self, moment: float, task: Iterator[Span]) -> None:
        self._born += 1
        heapq.heappush(self._queue, (moment, self._born, task, None))

    def _count(self, span: Span) -> None:
        have = self.totals[span.agent]
        if span.trace_id not in self._traces_seen:
            self._traces_seen.add(span.trace_id)
            have = replace(have, started=have.started + 1)
        match span.name:
            case "agent.task":
                self._traces_seen.discard(span.trace_id)
                have = replace(have, ended=have.ended + 1)
            case "agent.iteration":
                tokens_in, tokens_out = (
                    _number(span, "iteration.input_tokens"),
                    _number(span, "iteration.output_tokens"),
                )
                have = replace(
                    have,
                    iterations=have.iterations + 1,
                    input_tokens=have.input_tokens + tokens_in,
                    output_tokens=have.output_tokens + tokens_out,
                    cost_usd=have.cost_usd + self._agents[span.agent].cost(tokens_in, tokens_out),
                )
            case "tool.execute":
                have = replace(have, tool_calls=have.tool_calls + 1)
        self.totals[span.agent] = have

    def _arrivals_of(self, agent: Agent) -> Iterator[tuple[float, Iterator[Span] | None]]:
        """Poisson arrivals at the scenario's peak, of which those above its present traffic bring no task."""
        rng = random.Random(f"{self._seed}/{agent.name}")
        peak = agent.tasks_per_minute / 60 * self.scenario.peak
        moment, number = self._start, 0
        while peak:
            moment += rng.expovariate(peak)
            if rng.random() * self.scenario.peak < self.scenario.traffic(moment - self._start):
                number += 1
                yield moment, self._task(agent, random.Random(f"{self._seed}/{agent.name}/{number}"), moment)
            else:
                yield moment, None
        yield math.inf, None

    def _task(self, agent: Agent, rng: random.Random, moment: float) -> Iterator[Span]:
        outage, canary, marks = self.scenario.outage, self.scenario.canary, {}
        if outage:
            outage = replace(outage, at=self._start + outage.at, until=self._start + outage.until)
        if canary and agent.name == canary.agent.name and moment >= self._start + canary.at:
            user = rng.random()
            agent, variant = (canary.agent, "canary") if user < canary.share else (agent, "stable")
            marks = {
                "oncall.variant": variant,
                "oncall.rollout": canary.rollout,
                "oncall.stage": canary.stage,
                "oncall.shard": str(rng.randrange(16)),
            }
        return _ordinary(_Task(agent, rng, moment, _kind(agent, rng), marks), outage)

    def _looping(self, runaway: Runaway, rng: random.Random, start: float) -> Iterator[Span]:
        agent = self._agents[runaway.agent]
        task = _Task(agent, rng, start, agent.types[0])
        tool = next(tool for tool in agent.tools if tool.name == runaway.tool)
        arguments = f"{rng.getrandbits(64):016x}"
        every = runaway.seconds / runaway.loops
        for _ in range(runaway.loops):
            seconds = every * rng.uniform(0.8, 1.2)
            used = min(tool.seconds * rng.uniform(0.5, 1.5), seconds / 2)
            # The call worked, the answer was no JSON: neither the tool nor the model's turn is an error to anyone.
            calls = [(tool, used, "ok", arguments)]
            yield from task.iteration(seconds - used, runaway.input_tokens, runaway.output_tokens, calls)
            if not self.broken:
                break
        else:
            return
        yield from task.iteration(every / 2, runaway.input_tokens, runaway.output_tokens, [])
        yield task.ended("completed", success=True)


class _Task:
    """One task as it goes: the next moment, and sums of what its iterations took."""

    def __init__(
        self,
        agent: Agent,
        rng: random.Random,
        start: float,
        kind: TaskType,
        marks: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.agent = agent
        self.marks = marks
        self.kind = kind
        self.rng = rng
        self.start = self.now = start
        self.trace_id = rng.getrandbits(128) | 1
        self.root_id = rng.getrandbits(64) | 1
        self.iterations = self.input_tokens = self.output_tokens = 0

    def iteration(
        self,
        llm_seconds: float,
        input_tokens: int,
        output_tokens: int,
        calls: list[tuple[Tool, float, str, str]],
        purpose: str = "progress",
        error: str = "",
    ) -> Iterator[Span]:
        """One turn: the LLM call, then the tools it asked for, (tool, seconds, result, hash of the arguments) each.

        With an `error` the call failed.
        """
        self.iterations += 1
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        began, span_id = self.now, self.rng.getrandbits(64) | 1
        self.now += llm_seconds
        for tool, seconds, result, arguments in calls:
            attributes: dict[str, Value] = {
                "tool.name": tool.name,
                "tool.latency_ms": seconds * 1e3,
                "tool.result": result,
                "tool.args_hash": arguments,
            }
            self.now += seconds
            failed = "" if result == "ok" else f"{tool.name}: {result}"
            yield self._span(
                "tool.execute", self.rng.getrandbits(64) | 1, span_id, self.now - seconds, attributes, failed
            )
        attributes = {
            "iteration.number": self.iterations,
            "iteration.latency_ms": llm_seconds * 1e3,
            "iteration.input_tokens": input_tokens,
            "iteration.output_tokens": output_tokens,
            "iteration.stop_reason": "error" if error else "tool_use" if calls else "end_turn",
            "iteration.final": not calls and not error,
            "iteration.model": self.agent.model,
            "iteration.purpose": purpose,
            "iteration.ttft_ms": llm_seconds * self.rng.uniform(0.08, 0.25) * 1e3,
        }
        yield self._span("agent.iteration", span_id, self.root_id, began, attributes, error)

    def ended(self, status: str, *, success: bool, error: str = "") -> Span:
        confidence = self.rng.betavariate(8, 2) if success else self.rng.betavariate(4, 4)
        attributes: dict[str, Value] = {
            "task.id": f"{self.trace_id:032x}",
            "task.type": self.kind.name,
            "task.input_len": self.rng.randint(20, 2000),
            "agent.max_iter": _MAX_ITERATIONS,
            "task.total_iterations": self.iterations,
            "task.total_input_tokens": self.input_tokens,
            "task.total_output_tokens": self.output_tokens,
            "task.cost_usd": self.agent.cost(self.input_tokens, self.output_tokens),
            "task.status": status,
            "task.success": success,
            "task.confidence": confidence,
        }
        return self._span("agent.task", self.root_id, 0, self.start, attributes, error)

    def _span(
        self, name: str, span_id: int, parent_id: int, start: float, attributes: dict[str, Value], error: str = ""
    ) -> Span:
        attributes |= self.marks
        return Span(self.agent.name, name, self.trace_id, span_id, parent_id, start, self.now, attributes, error)


def _kind(agent: Agent, rng: random.Random) -> TaskType:
    return rng.choices(agent.types, [kind.share for kind in agent.types])[0]


def _ordinary(task: _Task, outage: Outage | None) -> Iterator[Span]:
    """The task from its first call to its end. The outage's times are epoch seconds."""
    agent, rng, kind = task.agent, task.rng, task.kind
    fate = rng.choices(
        ("success", "failure", "error", "abandoned"),
        (1 - agent.failure - agent.error - agent.abandoned, agent.failure, agent.error, agent.abandoned),
    )[0]
    turns = 1 + _poisson(rng, rng.gammavariate(2, max(kind.iterations - 1, 0.01) / 2))
    turns = min(turns, _MAX_ITERATIONS)
    size, pace = rng.lognormvariate(0, 0.4), rng.lognormvariate(0, 0.3)
    context, purpose = kind.tokens * size, "progress"
    for turn in range(1, turns + 1):
        if outage and outage.model == agent.model and outage.at <= task.now < outage.until:
            for attempt in ("progress", "retry"):
                yield from task.iteration(rng.uniform(1, 4), 0, 0, [], attempt, _DOWN)
            yield task.ended("error", success=False, error=_DOWN)
            return
        # A task that is cut short, by an error or by its user, never comes to its last answer.
        last = turn == turns and fate in ("success", "failure")
        calls = [] if last else [_call(agent, rng) for _ in range(1 if rng.random() < 0.8 else 2)]
        output = max(10, int(rng.lognormvariate(math.log(180 if last else 60), 0.5)))
        seconds = kind.seconds * pace * rng.lognormvariate(0, 0.25)
        yield from task.iteration(seconds, int(context), output, calls, purpose)
        context += output + 150 * len(calls) * rng.lognormvariate(0, 0.6)
        purpose = "recovery" if any(result != "ok" for _, _, result, _ in calls) else "progress"
    match fate:
        case "error":
            yield task.ended(
                "error", success=False, error=rng.choice(("APITimeoutError", "RateLimitError", "APIError: 503"))
            )
        case "abandoned":
            yield task.ended(rng.choice(("user_cancel", "timeout", "max_iter_exceeded")), success=False)
        case _:
            yield task.ended("completed", success=fate == "success")


def _call(agent: Agent, rng: random.Random) -> tuple[Tool, float, str, str]:
    tool = rng.choices(agent.tools, [tool.share for tool in agent.tools])[0]
    result = rng.choices(("ok", "error", "invalid"), (1 - tool.error - tool.invalid, tool.error, tool.invalid))[0]
    return tool, tool.seconds * rng.lognormvariate(0, 0.5), result, f"{rng.getrandbits(64):016x}"


def _poisson(rng: random.Random, mean: float) -> int:
    """A Poisson draw by Knuth's product; means here are small."""
    limit, product, n = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        n += 1
    return n


def _number(span: Span, key: str) -> int:
    value = span.attributes[key]
    assert isinstance(value, int)
    return value
