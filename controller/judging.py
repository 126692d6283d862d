"""A running rollout and what Prometheus knows of it, put together into a verdict."""

from agent_oncall.schema import State
from controller.actions import Refused
from controller.plan import Plan, Stage
from controller.prom import Prometheus, PrometheusError, rollout_sums
from controller.rollouts import Rollout
from controller.verdict import NO_HARM, Decision, Guard, Limits, Sums, Verdict, confidence_width, judge

DECIDABLE_DAYS = 14.0
_DESIGN_EFFECT = 1.5
_COST_VARIATION = 1.0
_BACK = "agent-oncall rollback provider --back"


class Judge:
    """Asks Prometheus and judges. What it has learnt of a past look is kept, since that doesn't change."""

    def __init__(self, prometheus: Prometheus, limits: Limits | None = None) -> None:
        self._prometheus = prometheus
        self._limits = limits or Limits()
        self._looks: dict[tuple[str, str, str, float], Sums | None] = {}

    def verdict(self, rollout: Rollout, now: float) -> Verdict:
        """The verdict on the rollout's stage at `now` (unix seconds). An error of Prometheus is one too: no data."""
        if rollout.paused:
            why = f"the backup provider is in use: nobody gets the canary ({_BACK} --agent {rollout.agent} ends that)"
            return Verdict(Decision.HOLD, (why,))
        stage = rollout.current
        if stage is None:
            return Verdict(Decision.HOLD, (f"stage {rollout.stage} is not one of the plan {rollout.plan}",))
        hours = (now - rollout.stage_started) / 3600
        try:
            sums = self._sums(rollout, now)
            look = self._look(rollout, hours)
        except PrometheusError as error:
            return Verdict(Decision.NO_DATA, (str(error),))
        if sums is None:
            why = (
                f"Prometheus has no present series of rollout {rollout.id}, stage {rollout.stage}: is the exporter "
                "scraped, and do the agents run with agent_oncall?"
            )
            return Verdict(Decision.NO_DATA, (why,))
        return judge(
            sums,
            guard=stage.guard,
            limits=self._limits,
            hours=hours,
            hold_hours=rollout.plan.hold_hours,
            look=look,
            look_hours=rollout.plan.look_hours,
        )

    def _look(self, rollout: Rollout, hours: float) -> Sums | None:
        at = rollout.plan.last_look(hours)
        if at is None:
            return None
        key = (rollout.agent, rollout.id, rollout.stage, rollout.stage_started + at * 3600)
        if key not in self._looks:
            found = self._sums(rollout, key[3], fresh=False)
            # Of each rollout only the latest is asked for again.
            self._looks = {other: sums for other, sums in self._looks.items() if other[:2] != key[:2]}
            self._looks[key] = found
        return self._looks[key]

    def _sums(self, rollout: Rollout, until: float, *, fresh: bool = True) -> Sums | None:
        return rollout_sums(
            self._prometheus,
            rollout.agent,
            rollout.id,
            rollout.stage,
            rollout.stage_started,
            until,
            fresh=fresh,
        )


def running(state: State) -> tuple[list[Rollout], list[str]]:
    """The rollouts that run, and what is wrong with those whose metadata can't be understood."""
    found: list[Rollout] = []
    problems: list[str] = []
    for name, agent in state.agents.items():
        try:
            rollout = Rollout.of(name, agent.config)
        except Refused as error:
            problems.append(str(error))
        else:
            found += [rollout] if rollout is not None else []
    return found, problems


def days_needed(stage: Stage, tasks_per_day: float, success: float) -> float:
    """About how many days a stage takes to rule out its guard, were the canary just like stable.

    Expects what agents usually have: a design effect of 1.5 (users come back), costs that vary by their mean. Both
    figures have to be ruled out, so it is the longer of the two.
    """
    canary = tasks_per_day * stage.percent / 100
    stable = tasks_per_day - canary
    spread = _DESIGN_EFFECT * (1 - success) / success

    def settled(days: float, variance: float, limit: float, factor: float) -> bool:
        error = (variance / (canary * days) + factor**2 * variance / (stable * days)) ** 0.5
        return confidence_width(error, limit / 3.6, NO_HARM) < limit

    def needed(variance: float, limit: float, factor: float) -> float:
        days = 0.01
        while not settled(days, variance, limit, factor) and days < 10_000:
            days *= 1.05
        return days

    guard: Guard = stage.guard
    by_success = needed(spread, guard.success_drop, 1 - guard.success_drop)
    harm = guard.cost_factor - 1
    by_cost = needed(_DESIGN_EFFECT * _COST_VARIATION**2, harm, 1 + harm)
    return max(by_success, by_cost)


def undecidable(plan: Plan, tasks_per_day: float, success: float) -> list[tuple[Stage, float]]:
    """The stages that would take longer than two weeks, each with its days."""
    found = [(stage, days_needed(stage, tasks_per_day, success)) for stage in plan.stages]
    return [(stage, days) for stage, days in found if days > DECIDABLE_DAYS]
