"""What was done about it: the audit log, the state in force, the controller's own counters."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent_oncall.schema import State
from controller.changes import differences
from controller.store import Entry, Store, StoreError
from incident.markdown import code, count, plain, table
from incident.past import Past
from incident.section import Section
from incident.window import Window, moment, told


@dataclass(frozen=True, slots=True)
class Log:
    """The audit log's lines on an agent in a window, with their epoch seconds; `problem` says why there are none."""

    entries: Sequence[tuple[float, Entry]] = ()
    problem: str = ""

    @classmethod
    def read(cls, store: Store, agent: str, window: Window) -> "Log":
        if not store.audit_path.exists():
            return cls(problem=f"There is no audit log at {code(str(store.audit_path))}: what was done is not known.")
        try:
            entries = store.entries()
        except StoreError as error:
            return cls(problem=f"{plain(str(error))}: what was done is not known.")
        timed = [(moment("time", entry.time, 0), entry) for entry in entries if entry.agent == agent and not entry.void]
        return cls([(at, entry) for at, entry in timed if window.since <= at <= window.until])


def section(log: Log, store: Store, agent: str) -> Section:
    """The lines of the log with what each changed, and what is in force now."""
    if log.problem:
        return Section([log.problem])
    found = Section()
    for at, entry in log.entries:
        found.lines.append(
            f"- {told(at)} {code(entry.action)} by {plain(entry.who)}: {plain(entry.why)} ({code(entry.id)})"
        )
        found.lines += [f"  - {plain(line)}" for line in differences(entry.before, entry.after)]
    if log.entries:
        times = f"{len(log.entries)} times, first" if len(log.entries) > 1 else "once"
        found.headline = f"The state was changed {times} at {told(log.entries[0][0])}."
    else:
        found.headline = "Nothing was changed in the state."
        found.say("The audit log tells of no change at this agent in this time.")
    try:
        found.say(_in_force(store.read(), agent))
    except StoreError as error:
        found.say(f"{plain(str(error))}: what is in force is not known.")
    return found


def of_controller(past: Past) -> Section:
    """How often the controller acted, held back, and could not, as Prometheus knows it."""
    done = past.increases("agent_controller_actions_total", "action", "trigger")
    held = past.increases("agent_controller_held_back_total", "action", "why")
    failed = past.increases_of_all("agent_controller_failures_total", "action", "why")
    rows = [
        (what, code(action), code(why), count(n))
        for what, counted in (("done", done), ("held back", held), ("could not", failed))
        for (action, why), n in counted.items()
    ]
    if not rows:
        return Section(
            ["Prometheus tells of no action of the controller, of none that it held back, and of none that failed."]
        )
    section = Section(table(("controller", "action", "because of", "times"), rows, numbers=1))
    if failed:
        section.headline = f"The controller failed {_times(sum(failed.values()))}, counted over all agents."
        section.say("What it could not do is counted for all agents together; its log names them.")
    return section


def _times(number: float) -> str:
    return "once" if round(number) == 1 else f"{count(number)} times"


def _in_force(state: State, agent: str) -> str:
    of = state.agents.get(agent)
    if of is None:
        return "The state says nothing of this agent."
    said = ["off" if of.enabled and not of.enabled.on else "on"]
    if of.breaker is not None:
        said.append(f"breaker {of.breaker.state.replace('_', '-')}")
    if of.config is not None:
        bundle = of.config.variants[of.config.default]
        said.append(f"{code(bundle.model)} by {code(bundle.provider)}")
        said.append(f"prompt {code(f'{bundle.prompt} {bundle.prompt_version}')}")
        if of.config.rollout:
            said.append(f"rollout {code(of.config.rollout)} at {code(of.config.stage)} % of users")
    return f"In force now: {', '.join(said)}."
