"""A real agent loop on the runtime, with a made-up model and a tool that can break: the incident of SPEC section 0.

Unlike the fleet, whose spans are made up, this agent runs: it asks the runtime for its config, is cut by its breakers
and sends its spans by whatever the OpenTelemetry SDK is set up with. It needs no network.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent_oncall import Cut, Runtime, Task
from demo.scenarios import SUPPORT, Agent, Runaway, TaskType

INCIDENT = Runaway()


@dataclass
class Shop:
    """What the agent's tool asks: orders, as JSON, or what is left of it while it is broken."""

    broken: bool = False

    def order(self, number: int) -> str:
        return '{"order": ' if self.broken else json.dumps({"order": number, "state": "sent"})


@dataclass
class SupportAgent:
    """The agent of one process. It looks orders up until it has what its task needs, then answers.

    An answer that is no JSON makes its model ask the same again, for ever: what the incident's agent did. `tells` is
    whether its code tells the runtime of a call's arguments and failure; without, only what it spends shows.
    """

    runtime: Runtime
    shop: Shop
    rng: random.Random
    agent: Agent = SUPPORT
    runaway: Runaway = INCIDENT
    tells: bool = True
    spent_usd: float = 0.0
    looping_usd: float = 0.0
    """Of that, what iterations cost that followed an answer that was no JSON, the first of such a task included."""
    answered: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    """Requests that got the fallback in place of an answer, by why."""

    async def handle(self, user_id: str) -> bool:
        """One request; False if it got the fallback."""
        kind = self.rng.choices(self.agent.types, [kind.share for kind in self.agent.types])[0]
        try:
            async with self.runtime.task(user_id, task_type=kind.name) as task:
                await self._work(task, kind)
                task.finish(success=True)
        except Cut as cut:
            self.cuts[cut.why] += 1
            return False
        self.answered += 1
        return True

    async def _work(self, task: Task, kind: TaskType) -> None:
        tokens, needed = kind.tokens, max(1, round(self.rng.gammavariate(2, kind.iterations / 2)))
        number, looping_usd = self.rng.randrange(10**9), 0.0
        for turn in range(1, self.runaway.loops + 1):
            final = turn >= needed and not looping_usd and not self.shop.broken
            async with task.iteration() as iteration:
                if looping_usd or self.shop.broken:
                    asked, told = self.runaway.input_tokens, self.runaway.output_tokens
                    seconds = self.runaway.seconds / self.runaway.loops
                else:
                    asked, told, seconds = round(tokens), 120, kind.seconds
                await asyncio.sleep(seconds * self.rng.uniform(0.8, 1.2))
                usd = self.agent.cost(asked, told)
                self.spent_usd += usd
                iteration.answered(
                    input_tokens=asked,
                    output_tokens=told,
                    cost_usd=usd,
                    model=task.config.model,
                    stop_reason="end_turn" if final else "tool_use",
                )
                if final:
                    return
                answer = await self._look_up(task, number)
            if answer is None:
                looping_usd += usd
                self.looping_usd += usd
            else:
                tokens += 270
                number, looping_usd = self.rng.randrange(10**9), 0.0

    async def _look_up(self, task: Task, number: int) -> object:
        """The tool call: the order, or None where what came is no JSON."""
        async with task.tool("lookup_order", {"order": number} if self.tells else None) as call:
            try:
                return json.loads(self.shop.order(number))
            except json.JSONDecodeError as error:
                if self.tells:
                    call.failed(error)
                return None


async def ordinary(agents: Sequence[SupportAgent], a_minute: float, seconds: float) -> None:
    """Users come at random, each to one of the agents, for so long; returns when the last has been served."""
    rng = random.Random(f"ordinary {a_minute} {seconds}")
    left = seconds
    async with asyncio.TaskGroup() as requests:
        while (pause := rng.expovariate(a_minute / 60)) < left:
            left -= pause
            await asyncio.sleep(pause)
            requests.create_task(rng.choice(agents).handle(f"user-{rng.randrange(5000)}"))


async def storm(agents: Sequence[SupportAgent], seconds: float, *, back_after: float | None = 30.0) -> None:
    """The incident's users, all within half a minute, spread over the agents; the shop is broken by who calls this.

    Who gets no answer comes back `back_after` seconds later (None for never), to any of the agents, until the time is
    over.
    """
    runaway = agents[0].runaway
    rng = random.Random("storm")

    async def user(name: str, agent: SupportAgent) -> None:
        await asyncio.sleep(rng.random() * runaway.spread_seconds)
        while not await agent.handle(name) and back_after is not None:
            await asyncio.sleep(back_after * rng.uniform(0.5, 1.5))
            agent = rng.choice(agents)

    users = [user(f"storm-{i}", agents[i % len(agents)]) for i in range(runaway.tasks)]
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*users)
    except TimeoutError:
        pass
