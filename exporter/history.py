"""What an agent's ended tasks taught: how many iterations are normal for it, and what its tokens cost."""

import msgspec

# An agent's own P99 is believed from so many ended tasks on, and follows the latest few thousand.
_LEAST_TASKS = 20
_MOST_TASKS = 4000
_MOST_ITERATIONS = 1000
_MOST_AGENTS = 10_000
_HALVE_AT_TOKENS = 1e9


class _Agent(msgspec.Struct, array_like=True):
    tasks: dict[int, int] = {}  # tasks by iterations
    total: int = 0
    usd: float = 0.0
    tokens: float = 0.0
    agent_spans: bool = False


class History(msgspec.Struct, array_like=True):
    agents: dict[str, _Agent] = {}

    def _of(self, agent: str) -> _Agent:
        found = self.agents.get(agent)
        if found is None:
            found = _Agent()
            if len(self.agents) < _MOST_AGENTS:
                self.agents[agent] = found
        return found

    def sent_agent_span(self, agent: str) -> None:
        self._of(agent).agent_spans = True

    def sends_agent_spans(self, agent: str) -> bool:
        found = self.agents.get(agent)
        return found is not None and found.agent_spans

    def took(self, agent: str, iterations: int) -> None:
        """A task that ended by itself took so many iterations."""
        known = self._of(agent)
        iterations = min(iterations, _MOST_ITERATIONS)
        known.tasks[iterations] = known.tasks.get(iterations, 0) + 1
        known.total += 1
        if known.total > _MOST_TASKS:
            known.tasks = {k: half for k, v in known.tasks.items() if (half := v // 2)}
            known.total = sum(known.tasks.values())

    def iterations_p99(self, agent: str) -> float:
        """0 while too few tasks have ended."""
        known = self.agents.get(agent)
        if known is None or known.total < _LEAST_TASKS:
            return 0.0
        above = known.total * 0.01
        for iterations in sorted(known.tasks, reverse=True):
            above -= known.tasks[iterations]
            if above < 0:
                return float(iterations)
        return 0.0

    def cost(self, agent: str, usd: float, tokens: int) -> None:
        """A task told its own cost."""
        known = self._of(agent)
        known.usd += usd
        known.tokens += tokens
        if known.tokens > _HALVE_AT_TOKENS:
            known.usd /= 2
            known.tokens /= 2

    def usd_per_token(self, agent: str) -> float | None:
        """None while no task told its cost."""
        known = self.agents.get(agent)
        return known.usd / known.tokens if known is not None and known.tokens else None
