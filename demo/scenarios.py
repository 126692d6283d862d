"""What the simulated agents are like, and what happens to them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class TaskType:
    """One kind of task: its share of an agent's tasks, and the means of what it takes.

    `tokens` are input tokens of the first iteration (later ones carry the conversation so far), `seconds` the time of
    one LLM call.
    """

    name: str
    share: float
    iterations: float
    tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: how often it is chosen, how long it takes, and how often it fails or is called wrongly."""

    name: str
    share: float
    seconds: float
    error: float = 0.03
    invalid: float = 0.02


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent. Outcomes are shares of its tasks; the rest of them succeed. Prices are USD per million tokens."""

    name: str
    tasks_per_minute: float
    types: tuple[TaskType, ...]
    tools: tuple[Tool, ...]
    model: str
    input_price: float
    output_price: float
    failure: float = 0.09
    error: float = 0.02
    abandoned: float = 0.03

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """USD."""
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6


@dataclass(frozen=True, slots=True)
class Runaway:
    """The incident of SPEC section 0: a tool answers malformed JSON, the agent asks it again, and again.

    The defaults are the incident's: 200 tasks, 340 loops of 8,000 tokens each in 45 minutes, 1,400 USD in all at the
    price of `support-agent`. After the last loop the processes are killed: their task spans never end.
    """

    agent: str = "support-agent"
    tool: str = "lookup_order"
    tasks: int = 200
    loops: int = 340
    seconds: float = 45 * 60
    input_tokens: int = 7922
    output_tokens: int = 78
    spread_seconds: float = 30
    """The tasks meet the broken tool one after the other, within this time."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A model whose calls fail from `at` to `until`. Each is tried once more, then the task ends as failed."""

    model: str
    at: float
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Canary:
    """From `at` on, a share of an agent's tasks is worked on by `agent`, its new version, and marked as such."""

    agent: Agent
    at: float
    share: float = 0.1
    rollout: str = "new-prompt"

    @property
    def stage(self) -> str:
        """The stage's percentage, as the rollout names it."""
        return f"{100 * self.share:.0f}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Agents and what happens to them; times are seconds since the start.

    `traffic` is a factor on every agent's tasks a minute, at most `peak`. `runaway_at` is when the tool breaks, None
    for never (or by Fleet.break_tool). `seconds` is how long there is something to see, None for no end.
    """

    name: str
    agents: tuple[Agent, ...]
    traffic: Callable[[float], float] = lambda _: 1.0
    peak: float = 1.0
    runaway: Runaway = Runaway()
    runaway_at: float | None = None
    outage: Outage | None = None
    canary: Canary | None = None
    seconds: float | None = None


SUPPORT = Agent(
    name="support-agent",
    tasks_per_minute=20,
    types=(
        TaskType("order_status", 0.60, 3, 1400, 8.0),
        TaskType("refund", 0.25, 5, 2000, 8.5),
        TaskType("complaint", 0.15, 7, 2400, 9.0),
    ),
    tools=(Tool("lookup_order", 0.6, 0.4), Tool("search_faq", 0.3, 0.8), Tool("issue_refund", 0.1, 1.2, invalid=0.05)),
    model="gpt-4o-2024-08-06",
    input_price=2.5,
    output_price=10,
)
RESEARCH = Agent(
    name="research-agent",
    tasks_per_minute=6,
    types=(TaskType("question", 0.7, 4, 3000, 6.0), TaskType("report", 0.3, 10, 5000, 8.0)),
    tools=(Tool("web_search", 0.6, 1.5, error=0.06), Tool("fetch_page", 0.4, 2.5, error=0.08)),
    model="claude-sonnet-4-5-20250929",
    input_price=3,
    output_price=15,
)
SUMMARIZER = Agent(
    name="summarizer",
    tasks_per_minute=12,
    types=(TaskType("summarize", 1.0, 1.3, 6000, 5.0),),
    tools=(Tool("read_document", 1.0, 0.3),),
    model="gpt-4o-mini-2024-07-18",
    input_price=0.15,
    output_price=0.6,
)
AGENTS = (SUPPORT, RESEARCH, SUMMARIZER)


def normal(agents: tuple[Agent, ...] = AGENTS) -> Scenario:
    """Ordinary traffic, without end."""
    return Scenario("normal", agents)


def incident(after: float = 0, agents: tuple[Agent, ...] = AGENTS, runaway: Runaway = Runaway()) -> Scenario:
    """Ordinary traffic; `after` seconds a tool breaks, and the agent runs away. Ends with the last loop."""
    end = after + runaway.spread_seconds + runaway.seconds
    return Scenario("incident", agents, runaway=runaway, runaway_at=after, seconds=end)


def launch(after: float = 60, factor: float = 10, agents: tuple[Agent, ...] = AGENTS) -> Scenario:
    """Ordinary traffic; `after` seconds `factor` times as many tasks come. Each costs what it always did."""
    return Scenario("launch", agents, traffic=lambda t: factor if t >= after else 1.0, peak=max(factor, 1.0))


def quiet(factor: float = 0.02, agents: tuple[Agent, ...] = AGENTS) -> Scenario:
    """A quiet night: minutes without a task, and few tasks to tell a trouble by."""
    return Scenario(
        "quiet", tuple(replace(agent, tasks_per_minute=agent.tasks_per_minute * factor) for agent in agents)
    )


def outage(after: float = 60, agent: Agent = SUPPORT, agents: tuple[Agent, ...] = AGENTS) -> Scenario:
    """Ordinary traffic; `after` seconds the calls of one agent's model fail, without end."""
    return Scenario("outage", agents, outage=Outage(agent.model, after))


def bad_canary(after: float = 0, agent: Agent = SUPPORT, agents: tuple[Agent, ...] = AGENTS) -> Scenario:
    """Ordinary traffic; from `after` seconds on a tenth of one agent's tasks get a new version of it, which misses its
    goal four times as often and takes twice the tokens."""
    worse = replace(
        agent,
        failure=min(4 * agent.failure, 0.9),
        types=tuple(replace(kind, tokens=2 * kind.tokens) for kind in agent.types),
    )
    return Scenario("bad-canary", agents, canary=Canary(worse, after))
