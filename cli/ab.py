"""`agent-oncall ab`: A/B tests, from the size they need to what they say."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent_oncall.bucket import BUCKETS
from agent_oncall.experiments import records_file
from agent_oncall.schema import (
    Experiment,
    Scalar,
    State,
    check_experiment_name,
    document_bundle,
)
from cli.common import add_command, agent_option, change_options, fail, state_option, store_of, tell, told
from cli.state import version_changes, version_options
from controller import ab, actions
from controller.ab import Arm, Comparison
from controller.store import iso, whoami

_EARLY, _NOTHING = 11, 12
_USUAL = {"difference": 0.05, "tasks_per_user": 2.0, "variation": 1.0, "correlation": 0.1}
_EXAMPLE = """\
  agent-oncall ab size --base 0.8
  agent-oncall ab start --agent support --experiment short-answers --base 0.8 \\
      --prompt-version 1.10.0-short --records /var/lib/agents/ab --reason "are short answers enough?"
  agent-oncall ab analyze --agent support --experiment short-answers
  agent-oncall ab stop --agent support --experiment short-answers --reason "b is worse"

exit codes of analyze: 0 the planned size is reached, 11 it is not (or the split is broken), 12 no records
"""


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = add_command(
        subparsers,
        "ab",
        help="A/B tests: how many users, start, analyse, stop",
        description="Users are split by a hash that is the experiment's own. Nobody concludes before the planned size.",
        example=_EXAMPLE,
    )
    commands = parser.add_subparsers(metavar="WHAT", required=True)

    command = add_command(
        commands,
        "size",
        help="how many tasks and users an arm needs",
        example="  agent-oncall ab size --base 0.8 --difference 0.05 --tasks-per-user 2 --correlation 0.1",
    )
    _size_options(command, required=True)
    command.set_defaults(run=told(_size, "ab size"))

    command = add_command(
        commands,
        "start",
        help="split the users: arm a as now, arm b with what you name",
        example="  agent-oncall ab start --agent support --experiment warm --base 0.8 --temperature 0.7 "
        '--reason "warmer?"',
    )
    agent_option(command)
    _experiment(command)
    command.add_argument("--share", type=float, default=50, metavar="PERCENT", help="users in arm b (default 50)")
    command.add_argument("--records", metavar="DIR", default="", help="where the agents write the records")
    version_options(command)
    _size_options(command, required=False)
    command.add_argument("--users", type=int, metavar="N", help="the planned users an arm, instead of --base")
    change_options(command)
    command.set_defaults(run=told(_start, "ab start"))

    command = add_command(
        commands,
        "analyze",
        help="what the records say, once the planned size is reached",
        example="  agent-oncall ab analyze --agent support --experiment warm --records /var/lib/agents/ab\n"
        '  agent-oncall ab analyze --agent support --experiment warm --peek "b seems to fail"',
    )
    agent_option(command)
    _experiment(command)
    command.add_argument(
        "--records", nargs="+", type=Path, metavar="PATH", help="files or folders of records, of all hosts"
    )
    command.add_argument("--peek", metavar="REASON", help="before the planned size: an interval that holds at any time")
    command.add_argument("--json", action="store_true", help="for programs")
    state_option(command)
    command.set_defaults(run=told(_analyze, "ab analyze"))

    command = add_command(
        commands,
        "stop",
        help="end the split: all users as in arm a",
        example='  agent-oncall ab stop --agent support --experiment warm --reason "size reached"',
    )
    agent_option(command)
    _experiment(command)
    change_options(command)
    command.set_defaults(run=told(_stop, "ab stop"))


def _experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment", required=True, metavar="NAME", help="letters, digits, _ and -")


def _size_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    group = parser.add_argument_group("the size")
    group.add_argument("--base", type=float, required=required, metavar="RATE", help="success rate now, such as 0.8")
    for name, what in (
        ("difference", "to be found, absolute"),
        ("tasks_per_user", "tasks a user while the test runs"),
        ("variation", "standard deviation of tasks a user, over their mean"),
        ("correlation", "of one user's tasks' success"),
    ):
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            default=_USUAL[name],
            metavar="N",
            help=f"{what} (default %(default)s)",
        )
    group.add_argument("--power", type=float, default=0.8, metavar="N", help="default %(default)s")
    group.add_argument("--alpha", type=float, default=0.05, metavar="N", help="two-sided, default %(default)s")


def _sized(options: argparse.Namespace) -> ab.Size:
    """Raises ValueError."""
    return ab.size(
        options.base,
        options.difference,
        alpha=options.alpha,
        power=options.power,
        tasks_per_user=options.tasks_per_user,
        tasks_variation=options.variation,
        correlation=options.correlation,
    )


def _size(options: argparse.Namespace) -> int:
    try:
        needed = _sized(options)
    except ValueError as error:
        return fail("ab size", str(error))
    print(
        f"each arm: {needed.tasks:,} tasks of {needed.users:,} users\n"
        f"  {needed.independent_tasks:,} tasks if no user came back; tasks of one user resemble each other: "
        f"x{needed.design_effect:.2f}\n"
        f"  finds {options.base:.1%} against {options.base + options.difference:.1%} in {options.power:.0%} of the "
        f"tests; without a difference {options.alpha:.0%} find one"
    )
    return 0


def _start(options: argparse.Namespace) -> int:
    check_experiment_name(options.experiment)
    changes = version_changes(options)
    if not 0 < options.share < 100:
        return fail("ab start", f"--share {options.share:g}: a percentage between 0 and 100 is needed")
    if not changes:
        return fail("ab start", "say what is different in arm b, by --prompt-version, --model, --temperature, ...")
    planned: dict[str, Scalar] = {"difference": options.difference}
    if options.users is not None:
        if options.users < 2:
            return fail("ab start", f"--users {options.users}: 2 or more an arm are needed")
        planned["planned_users"] = options.users
    elif options.base is None:
        return fail(
            "ab start", "--base RATE (the success rate now), or --users N an arm: the size is planned beforehand"
        )
    else:
        try:
            needed = _sized(options)
        except ValueError as error:
            return fail("ab start", str(error))
        planned |= {"planned_users": needed.users, "planned_tasks": needed.tasks}
    store = store_of(options)

    def start(state: State) -> State:
        stable = actions.config_of(state, options.agent).variants["stable"]
        version = document_bundle(actions.changed_version(stable, changes))  # refused here if it is none
        arm = {key: version[key] for key in (*changes, *(("pinned",) if "pinned" in version else ()))}
        metadata: dict[str, Scalar] = {
            "salt": f"ab.{options.agent}.{options.experiment}",
            "started": iso(store.now),
            "records": options.records,
            **planned,
        }
        experiment = Experiment(True, {}, arm, round(options.share * BUCKETS / 100), metadata)
        return actions.start_experiment(state, options.agent, options.experiment, experiment, store.entries())

    entry = store.change(start, action="ab start", agent=options.agent, who=options.who, why=options.reason)
    return tell(entry, "")


def _stop(options: argparse.Namespace) -> int:
    store = store_of(options)
    entry = store.change(
        lambda state: actions.stop_experiment(state, options.agent, options.experiment, now=iso(store.now)),
        action="ab stop",
        agent=options.agent,
        who=options.who,
        why=options.reason,
    )
    return tell(entry, f"{options.experiment}: is stopped already")


def _analyze(options: argparse.Namespace) -> int:
    store = store_of(options)
    agent = actions.agent_of(store.read(), options.agent)
    experiment = agent.experiments.get(options.experiment)
    if experiment is None:
        known = ", ".join(sorted(agent.experiments)) or "none"
        return fail(
            "ab analyze", f"experiment {options.experiment!r}: agent {options.agent} has no such; there are {known}"
        )
    hint = str(experiment.metadata.get("records", ""))
    given = options.records or ([Path(hint)] if hint else [])
    if not given:
        return fail("ab analyze", "--records PATH is needed: where the agents write the records")
    paths = [records_file(path, options.agent, options.experiment) if path.is_dir() else path for path in given]
    # A folder has no file until its first record, and then nothing is missing; a file that was named is.
    for path in options.records or ():
        if not path.exists():
            return fail("ab analyze", f"--records {path}: there is no such file or folder")
    try:
        records = ab.read([path for path in paths if path.exists()], options.experiment)
    except ab.RecordsError as error:
        return fail("ab analyze", str(error))
    users = {arm: records.users(arm) for arm in ("a", "b")}
    tasks = {arm: records.tasks(arm) for arm in ("a", "b")}
    planned_users, planned_tasks = (int(experiment.metadata.get(f"planned_{what}", 0)) for what in ("users", "tasks"))
    found: dict[str, Any] = {
        "experiment": options.experiment,
        "users": users,
        "tasks": tasks,
        "planned_users_an_arm": planned_users,
        "planned_tasks_an_arm": planned_tasks,
        "torn_lines": records.torn,
        "users_in_both": records.both,
        "tasks_without_success": records.unknown_success,
    }
    counted = [f"{users[arm]:,} users and {tasks[arm]:,} tasks in {arm}" for arm in _arms()]
    text = [f"{options.experiment}: {', '.join(counted)}"]
    if not any(users.values()):
        return _say(options, found, [f"{options.experiment}: no records in {', '.join(map(str, paths))}"], _NOTHING)
    if records.both:
        text.append(f"{records.both} users were seen in both arms and are left out: is the salt the same everywhere?")
    if records.torn:
        text.append(f"{records.torn} lines can't be read and are left out")
    evidence = ab.mismatch(users["a"], users["b"], experiment.b_below / BUCKETS)
    found["mismatch_evidence"] = evidence
    if evidence > ab.MISMATCH:
        text.append(
            f"the split is broken: {users['b'] / sum(users.values()):.1%} of the users are in b, of "
            f"{experiment.b_below / BUCKETS:.1%} that should be. Find out who is missing; no figure means anything"
        )
        return _say(options, found, text, _EARLY)
    reached = all(users[arm] >= max(planned_users, 2) and tasks[arm] >= planned_tasks for arm in _arms())
    if not reached:
        of_tasks = f" and {planned_tasks:,} tasks" if planned_tasks else ""
        text.append(f"too early: {planned_users:,} users{of_tasks} an arm were planned; nothing is concluded before")
        if options.peek is None:
            return _say(options, found, text, _EARLY)
        return _peek(options, records, experiment, found, text)
    success = ab.compare_success(records)
    comparisons = [c for c in (success, ab.compare_cost(records)) if c is not None]
    found["comparisons"] = [_plain(comparison) for comparison in comparisons]
    text += [_line(comparison) for comparison in comparisons]
    if success is None:
        text.append("success can't be compared: of too few users it is known, or all of them do alike")
    elif not success.proven:
        text.append("no difference in success was found: if there is one, it is likely smaller than was planned for")
    return _say(options, found, text, 0)


def _peek(
    options: argparse.Namespace, records: ab.Records, experiment: Experiment, found: dict[str, Any], text: list[str]
) -> int:
    if not options.peek.strip():
        return fail("ab analyze", "--peek: is empty; write why, for whoever reads the audit log")
    target = float(experiment.metadata.get("difference", _USUAL["difference"])) / 3.6
    comparison = ab.compare_success(records, peek_target=target)
    store = store_of(options)

    def note(state: State) -> State:
        agent = actions.agent_of(state, options.agent)
        looked = agent.experiments[options.experiment]
        peeks = int(looked.metadata.get("peeks", 0)) + 1
        noted = replace(looked, metadata={**looked.metadata, "peeks": peeks})
        experiments = {**agent.experiments, options.experiment: noted}
        return actions.with_agent(state, options.agent, replace(agent, experiments=experiments))

    store.change(note, action="ab peek", agent=options.agent, who=whoami(), why=options.peek)
    if comparison is not None:
        found["peek"] = _plain(comparison)
        text.append(
            f"success rate, b less a: between {comparison.low:+.1%} and {comparison.high:+.1%} (95 %, at any time)"
        )
    return _say(options, found, text, _EARLY)


def _arms() -> tuple[Arm, Arm]:
    return ("a", "b")


def _line(comparison: Comparison) -> str:
    unit = " points" if comparison.name == "success rate" else " %"
    return (
        f"{comparison.name}: a {comparison.a:.4g}, b {comparison.b:.4g}: {100 * comparison.difference:+.2f}{unit}, "
        f"95 % between {100 * comparison.low:+.2f} and {100 * comparison.high:+.2f}, p = {comparison.p:.3g}"
    )


def _plain(comparison: Comparison) -> dict[str, object]:
    content = {name: getattr(comparison, name) for name in ("name", "a", "b", "difference", "low", "high", "p")}
    if comparison.p is None:
        return {name: content[name] for name in ("name", "low", "high")}  # a peek shows no means
    return content


def _say(options: argparse.Namespace, found: dict[str, Any], text: list[str], code: int) -> int:
    print(json.dumps(found) if options.json else "\n".join(text))
    return code
