"""What an agent uses: a Runtime for the process, and from it a Task for each request.

    rt = Runtime(agent="support", state="/state/flags.json", prompts="/prompts", defaults=Config(...))
    with rt.task(user_id, task_type="refund") as task:
        ...

Into the agent it raises BreakerOpen and BudgetExceeded, and nothing else once it is made: with no state file, no
exporter and no disk it runs on its defaults.
"""

import inspect
import logging
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from opentelemetry import trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from agent_oncall import experiments, tracing
from agent_oncall.breaker import Limits, ProcessBreaker
from agent_oncall.bucket import bucket, shard
from agent_oncall.experiments import Records
from agent_oncall.metrics import BREAKER_VALUES, Metrics
from agent_oncall.models import answers, check_pin
from agent_oncall.prompts import PromptError, Prompts
from agent_oncall.schema import Agent, Arm, Breaker, Bundle, Experiment, Variant
from agent_oncall.state import StateReader, default_copy
from agent_oncall.task import Choice, Task

_log = logging.getLogger("agent_oncall")
_P = ParamSpec("_P")
_R = TypeVar("_R")

_NOTHING = Agent()
_PROMPT_AGAIN_SECONDS = 5.0
_MOST_NOTED = 1000


@dataclass(frozen=True, slots=True)
class Config:
    """A version of the agent, ready to run. As a Runtime's defaults it names the prompt in the registry, or holds its
    text itself: then the agent runs without a disk too.

    ValueError where the model's name is no pin (agent_oncall.models).
    """

    model: str
    provider: str
    prompt: str = ""
    prompt_version: str = ""
    prompt_text: str = field(default="", repr=False)
    temperature: float = 1.0
    max_iter: int = 25
    tool_schema: str = ""
    pinned: bool = False

    def __post_init__(self) -> None:
        check_pin(self.model, pinned=self.pinned)
        if self.max_iter < 1:
            raise ValueError(f"max_iter is {self.max_iter!r}: 1 or more is needed")


class Runtime:
    """One agent in this process. Make it once; it may be used from threads, from asyncio and after a fork.

    agent           the name that its series carry, as in the state file
    defaults        what runs while the state says nothing of the agent
    state           the state file; None for none
    prompts         the folder of the prompt registry; None for none
    act             whether the breakers of tasks and of this process cut. Without it they say what they would have cut,
                    in the log, in a metric and in the trace. What the state file says is done in any case.
    limits          see Limits
    prices          USD per million input and output tokens by model, for iterations that tell tokens and no cost
    records         the folder for the records of A/B tests; None writes none. `user_key` makes the hashes of its users
                    (the same on all hosts, or users would be counted once on each); `plain_users` writes their ids.
    instrumented    whether another instrumentation makes the spans of LLM and tool calls: then only agent.task is made
    last_good       a file that keeps the state over a restart; unless given, in the user's cache folder
    """

    def __init__(
        self,
        *,
        agent: str,
        defaults: Config,
        state: str | os.PathLike[str] | None = None,
        prompts: str | os.PathLike[str] | None = None,
        act: bool = False,
        limits: Limits | None = None,
        prices: Mapping[str, tuple[float, float]] | None = None,
        records: str | os.PathLike[str] | None = None,
        user_key: bytes | None = None,
        plain_users: bool = False,
        instrumented: bool = False,
        last_good: str | os.PathLike[str] | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not agent or len(agent) > 100:
            raise ValueError(f"agent is {agent!r}: a name of 1 to 100 characters is needed")
        self.agent = agent
        self.act = act
        self.limits = limits or Limits()
        self.instrumented = instrumented
        self.clock = clock
        self.now = now
        self.process = ProcessBreaker(self.limits, act=act)
        self.tracer = trace.get_tracer(tracing.SCOPE, tracer_provider=tracer_provider)
        self.metrics = Metrics.of(meter_provider)
        self._prompts = None if prompts is None else Prompts(prompts)
        self._texts: dict[tuple[str, str], str] = {}
        self._defaults = self._with_prompt(defaults)
        self._texts[self._defaults.prompt, self._defaults.prompt_version] = self._defaults.prompt_text
        self._prices = {model: (float(inputs), float(outputs)) for model, (inputs, outputs) in (prices or {}).items()}
        path = None if state is None else Path(state)
        copy = Path(last_good) if last_good is not None else None if path is None else default_copy(path)
        self._reader = StateReader(path, copy, clock=clock)
        self.records: Records | None = None
        if records is not None:
            self.records = Records(Path(records), agent, self._lost, key=user_key, plain_users=plain_users)
        self._configs: dict[Bundle, Config] = {}
        self._failed_prompts: dict[tuple[str, str], float] = {}  # when they may be looked for again
        self._answered: dict[str, str] = {}
        self._noted: set[tuple[str, ...]] = set()
        self.metrics.watch(self)
        _runtimes.add(self)

    # -- for the agent ---------------------------------------------------------------------------------------------

    def task(
        self,
        user_id: str | None,
        *,
        task_type: str = "",
        task_id: str | None = None,
        input_len: int | None = None,
    ) -> Task:
        """One request, for `with` or `async with`. BreakerOpen where it begins, if it must not.

        `user_id` decides the variant; without one it is the stable one, and the task takes part in no comparison.
        """
        return Task(self, user_id, task_type, task_id, input_len)

    def as_task(
        self, *, user: Callable[_P, str | None], task_type: str = ""
    ) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
        """Makes each call of a function, or of an async one, a task; current_task() gives it inside. What a function
        returns to be awaited is part of the task.

        `user` is called with the same arguments and returns the user's id; where it fails the task has none.
        """

        def user_of(*args: _P.args, **kwargs: _P.kwargs) -> str | None:
            try:
                return user(*args, **kwargs)
            except Exception:
                self._once(("user",), "as_task's `user` failed, so the task has no user", exc_info=True)
                return None

        def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"{function.__qualname__} is a generator: use `with rt.task(...)` inside it")

            if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):

                @wraps(function)
                async def in_async_task(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                    async with self.task(user_of(*args, **kwargs), task_type=task_type):
                        return await cast(Awaitable[Any], function(*args, **kwargs))

                return cast(Callable[_P, _R], in_async_task)

            @wraps(function)
            def in_task(*args: _P.args, **kwargs: _P.kwargs) -> _R:
                with self.task(user_of(*args, **kwargs), task_type=task_type) as task:
                    result = function(*args, **kwargs)
                    if later := inspect.isawaitable(result):
                        task.hand_over()
                if later:
                    return cast(_R, _awaited(task, cast(Awaitable[object], result)))
                if inspect.isgenerator(result) or inspect.isasyncgen(result):
                    name = getattr(function, "__qualname__", repr(function))
                    self._once(
                        ("generator", name),
                        f"{name} returns a generator, whose work is no part of the task: use `with rt.task(...)` in it",
                    )
                return result

            return in_task

        return decorate

    # -- for the gauges --------------------------------------------------------------------------------------------

    @property
    def breaker_value(self) -> int:
        """0 closed, 1 half open, 2 open: the worse of the agent's breaker and this process' own."""
        fleet = self._said().breaker or Breaker()
        return max(BREAKER_VALUES[fleet.state], BREAKER_VALUES[self.process.state(self.clock())])

    @property
    def generation(self) -> int | None:
        """The generation of the state in force; None where there is no state file to read."""
        if self._reader.path is None:
            return None
        return self._reader.current().generation

    @property
    def state_ok(self) -> bool | None:
        """Whether the state file is there and good; None where there is none to read."""
        if self._reader.path is None:
            return None
        self._reader.current()
        return self._reader.ok

    # -- for tasks -------------------------------------------------------------------------------------------------

    def refusal(self, user_id: str | None) -> str | None:
        """Why the state file does not let a task of this user begin or go on: `off`, `fleet`, or None."""
        agent = self._said()
        if agent.enabled is not None and not agent.enabled.on:
            return "off"
        breaker = agent.breaker
        if breaker is None or breaker.state == "closed":
            return None
        if breaker.state == "half_open" and user_id:
            # Each time other users: not always the same ones are to find out.
            place = bucket(f"{self.agent}.breaker {breaker.since}", user_id)
            if place < breaker.share * 1000:
                return None
        return "fleet"

    def choose(self, user_id: str | None) -> Choice:
        """What a task of this user runs on. Never raises."""
        try:
            return self._choose(user_id)
        except Exception:
            self._once(("choose",), "the state could not be used, the defaults run", exc_info=True)
            return Choice(self._defaults, "stable", {"oncall.agent": self.agent, "oncall.variant": "stable"}, {})

    def price(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        prices = self._prices.get(model)
        if prices is None:
            if input_tokens or output_tokens:
                self._once(
                    ("price", model),
                    f"no price for model {model}: budgets do not see what it costs; give cost_usd or prices",
                )
            return None
        return (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6

    def answered_by(self, model: str, answered: str) -> None:
        """Notes an answer of another model than the pinned one, or of a bare name that has come to mean another."""
        first = self._answered.get(model)
        if first == answered:
            return
        same = answers(model, answered) and (first is None or answers(first, answered) or answers(answered, first))
        if same:
            if len(self._answered) < _MOST_NOTED:
                self._answered.setdefault(model, answered)
            return
        self.metrics.mismatches.add(1, {"agent": self.agent, "model": model})
        self._once(("answered", model, answered), f"model {model} is pinned, and {answered} answered")

    def note_trip(self, why: str, span: trace.Span) -> None:
        """A task is cut, or this process' breaker opens; or would be, where the breakers do not act."""
        if self.act:
            self.metrics.trips.add(1, {"agent": self.agent, "why": why})
            _log.warning("agent %s: breaker cuts: %s", self.agent, why)
            tracing.event(span, "oncall.cut", {"oncall.why": why})
        else:
            self.metrics.shadow_trips.add(1, {"agent": self.agent, "why": why})
            _log.warning("agent %s: breaker would cut: %s (it only watches: act is not set)", self.agent, why)
            tracing.event(span, "oncall.would_cut", {"oncall.why": why})

    def after_fork(self) -> None:
        self.process.after_fork()
        self._reader.after_fork()
        if self.records is not None:
            self.records.after_fork()

    def _said(self) -> Agent:
        """What the state says of this agent now."""
        return self._reader.current().agents.get(self.agent, _NOTHING)

    def _choose(self, user_id: str | None) -> Choice:
        agent = self._said()
        variant: Variant = "stable"
        config = self._defaults
        compared = False
        if agent.config is not None:
            said = agent.config
            variant = said.default
            compared = bool(user_id and said.rollout and said.canary_below and variant == "stable")
            if user_id and compared and bucket(said.salt, user_id) < said.canary_below:
                variant = "canary"
            found = self._config(said.variants[variant])
            if found is None:
                # Its prompt is missing here: counted as what it runs on, it would spoil the comparison.
                compared = False
                if variant == "canary":
                    variant = "stable"
                    found = self._config(said.variants["stable"])
            config = found or self._defaults
        # The contract knows no third variant: to the metrics a backup is what stable runs on.
        stamps: dict[str, str | bool | int | float] = {
            "oncall.agent": self.agent,
            "oncall.variant": "canary" if variant == "canary" else "stable",
        }
        if compared and user_id and agent.config is not None:
            stamps["oncall.rollout"] = agent.config.rollout
            stamps["oncall.stage"] = agent.config.stage
            stamps["oncall.shard"] = shard(user_id)
        chosen: dict[str, Arm] = {}
        if agent.experiments and user_id and variant != "backup":
            config, chosen = self._with_arms(config, agent.experiments, user_id)
        return Choice(config, variant, stamps, chosen)

    def _with_arms(
        self, config: Config, running: Mapping[str, Experiment], user_id: str
    ) -> tuple[Config, dict[str, Arm]]:
        chosen = experiments.arms(running, user_id)
        plain = config
        for name, arm in chosen.items():
            changes = running[name].b if arm == "b" else running[name].a
            if changes:
                changed: Any = dict(changes)
                if "prompt" in changed or "prompt_version" in changed:
                    changed["prompt_text"] = ""
                if "model" in changed:
                    changed.setdefault("pinned", False)
                config = replace(config, **changed)
        if config is plain or config.prompt_text:
            return config, chosen
        try:
            return self._with_prompt(config), chosen
        except ValueError as error:
            self._prompt_failed(config, error)
            return plain, {}

    def _config(self, bundle: Bundle) -> Config | None:
        """The bundle with its prompt; None, noted, where that can't be had."""
        found = self._configs.get(bundle)
        if found is not None:
            return found
        name = bundle.prompt, bundle.prompt_version
        if self.clock() < self._failed_prompts.get(name, float("-inf")):
            self.metrics.prompt_errors.add(1, {"agent": self.agent})
            return None
        config = Config(
            model=bundle.model,
            provider=bundle.provider,
            prompt=bundle.prompt,
            prompt_version=bundle.prompt_version,
            temperature=bundle.temperature,
            max_iter=bundle.max_iter,
            tool_schema=bundle.tool_schema,
            pinned=bundle.pinned,
        )
        try:
            found = self._with_prompt(config)
        except ValueError as error:
            self._failed_prompts[name] = self.clock() + _PROMPT_AGAIN_SECONDS
            self._prompt_failed(config, error)
            return None
        if len(self._configs) >= _MOST_NOTED:
            self._configs.clear()
        self._configs[bundle] = found
        return found

    def _with_prompt(self, config: Config) -> Config:
        """The config with its prompt's text; ValueError where there is none to be had."""
        if config.prompt_text:
            return config
        if not config.prompt:
            raise ValueError("the config names no prompt: give prompt and prompt_version, or prompt_text")
        text = self._texts.get((config.prompt, config.prompt_version))
        if text is None and self._prompts is not None:
            text = self._prompts.text(config.prompt, config.prompt_version)
        if text is None:
            raise PromptError(f"prompt {config.prompt} {config.prompt_version}: there is no registry; give prompts=")
        return replace(config, prompt_text=text)

    def _prompt_failed(self, config: Config, error: Exception) -> None:
        self.metrics.prompt_errors.add(1, {"agent": self.agent})
        self._once(("prompt", config.prompt, config.prompt_version), f"{error}; the stable version runs in its place")

    def _lost(self, records: int) -> None:
        self.metrics.lost.add(records, {"agent": self.agent})

    def _once(self, what: tuple[str, ...], text: str, *, exc_info: bool = False) -> None:
        if what not in self._noted and len(self._noted) < _MOST_NOTED:
            self._noted.add(what)
            _log.warning("agent %s: %s", self.agent, text, exc_info=exc_info)


async def _awaited(task: Task, result: Awaitable[object]) -> object:
    async with task:
        return await result


_runtimes: "weakref.WeakSet[Runtime]" = weakref.WeakSet()


def _after_fork() -> None:
    for runtime in list(_runtimes):
        runtime.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
