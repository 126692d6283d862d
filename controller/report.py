"""A verdict in words, for someone who is tired: what, why, since when, what is missing, what to type."""

from controller.rollouts import Rollout
from controller.store import Entry, iso
from controller.verdict import Decision, Measured, Verdict

_REASONS = 2
_DO = {
    Decision.PROMOTE: 'agent-oncall rollout advance --agent {agent} --reason "..."',
    Decision.ROLL_BACK: 'agent-oncall rollout back --agent {agent} --reason "..."',
    Decision.HOLD: 'wait; or overrule: agent-oncall rollout override --agent {agent} --reason "..."',
    Decision.NO_DATA: "look why nothing is counted; nothing is promoted meanwhile",
}


def lines(rollout: Rollout, verdict: Verdict, now: float, taken_back: Entry | None = None) -> list[str]:
    """At most ten lines. `taken_back`: the change by which a person took back an automatic rollback."""
    hours = (now - rollout.stage_started) / 3600
    head = f"{verdict.decision.upper()}: {rollout.agent}, rollout {rollout.id}, {rollout.stage} % of users"
    found = [f"{head} for {_span(hours)} (since {iso(rollout.stage_started)})"]
    found += [f"because  {reason}" for reason in verdict.reasons[:_REASONS]]
    if len(verdict.reasons) > _REASONS:
        found[-1] += f" (and {len(verdict.reasons) - _REASONS} more: rollout check says all)"
    figures = (verdict.success, verdict.typical, verdict.cost)
    found += [_figure(measured) for measured in figures if measured is not None]
    if verdict.tasks:
        found.append(
            f"tasks    {verdict.tasks:.0f} of the canary; not ended: {verdict.unended[1]:.1%}, "
            f"of stable's {verdict.unended[0]:.1%}"
        )
    if verdict.missing or verdict.missing_hours:
        more = f"about {verdict.missing:,.0f} more tasks of the canary, " if verdict.missing else ""
        found.append(f"missing  {more}{_span(verdict.missing_hours or 0)} at this traffic")
    following = rollout.plan.after(rollout.percent)
    found.append(f"next     {f'{following.name} %' if following else '100 %: the canary becomes stable'}")
    found.append(f"do       {_DO[verdict.decision].format(agent=rollout.agent)}")
    if taken_back is not None:
        found[-1] += f"; not rolled back by itself, since {taken_back.who} took that back by {taken_back.id}"
    return found


def _figure(measured: Measured) -> str:
    most = measured.most()
    possible = "any harm is possible" if most == float("inf") else f"surely less than {most:.0%} worse"
    word = "worse" if measured.harm >= 0 else "better"
    return (
        f"{measured.name}: canary {measured.canary:.4g}, stable {measured.stable:.4g}: "
        f"{abs(measured.harm):.1%} {word}, {possible}"
    )


def _span(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.1f} days"
