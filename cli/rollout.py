"""`agent-oncall rollout`: a new version for a growing share of users, judged at each stage."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from agent_oncall.schema import State
from cli.common import (
    add_command,
    agent_option,
    change_options,
    fail,
    prompts_option,
    state_option,
    store_of,
    tell,
    told,
    warn_of_prompt,
)
from cli.state import version_changes, version_options
from controller import actions, report, rollouts
from controller.judging import DECIDABLE_DAYS, Judge, undecidable
from controller.plan import DEFAULT, Plan
from controller.prom import Prometheus, PrometheusError, traffic
from controller.rollouts import Rollout
from controller.verdict import Decision, Verdict

_VARIABLE = "AGENT_ONCALL_PROMETHEUS"
_EXAMPLE = """\
  agent-oncall rollout start --agent support --prompt-version 1.10.0 --reason "shorter answers"
  agent-oncall rollout status --agent support
  agent-oncall rollout advance --agent support --reason "verdict: promote"
  agent-oncall rollout override --agent support --to 50 --reason "fixes an outage"
  agent-oncall rollout back --agent support --reason "users complain"

exit codes of status, check and advance: 0 promote, 10 roll back, 11 hold, 12 no data
"""


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = add_command(
        subparsers,
        "rollout",
        help="a new version for a growing share of users, judged at each stage",
        description="The canary gets 5, 10, 25, 50, then 100 % of users, each for a day at least. It is compared with "
        "stable at the same time; docs/rollout.md says how the verdict comes about.",
        example=_EXAMPLE,
    )
    commands = parser.add_subparsers(metavar="WHAT", required=True)

    command = add_command(
        commands,
        "start",
        help="begin with a new version: what of it differs from stable",
        example='  agent-oncall rollout start --agent support --model gpt-4o-2024-11-20 --reason "new model"\n'
        '  agent-oncall rollout start --agent support --prompt-version 1.10.0 --stages 25,50 --reason "few users"',
    )
    agent_option(command)
    version_options(command)
    group = command.add_argument_group("the plan")
    group.add_argument(
        "--stages",
        default=str(DEFAULT),
        metavar="LIST",
        help="percentages, default 5,10,25,50; with "
        "the harm to rule out before the next: 5:0.2:1.5 (successes down by 0.2, cost x1.5)",
    )
    group.add_argument("--hold-hours", type=float, default=24, metavar="N", help="each stage at least (default 24)")
    group.add_argument("--look-hours", type=float, default=24, metavar="N", help="between two looks (default 24)")
    group.add_argument(
        "--auto-rollback",
        choices=("hard", "any", "off"),
        default="hard",
        help="what the controller rolls back by itself: hard triggers (default), any such verdict, nothing",
    )
    group.add_argument("--auto-promote", action="store_true", help="the controller goes on by itself")
    prompts_option(command)
    group.add_argument("--tasks-per-day", type=float, metavar="N", help="where Prometheus can't be asked")
    _prometheus(command)
    change_options(command)
    command.set_defaults(run=told(_start, "rollout start"))

    for name, what in (("status", "the verdict, explained"), ("check", "the verdict in a line, for scripts")):
        command = add_command(
            commands, name, help=f"{what}; its exit code", example=f"  agent-oncall rollout {name} --agent support"
        )
        agent_option(command)
        command.add_argument("--json", action="store_true", help="for programs")
        _prometheus(command)
        state_option(command)
        command.set_defaults(run=told(_status if name == "status" else _check, f"rollout {name}"))

    command = add_command(
        commands,
        "advance",
        help="the next stage, if the verdict is promote",
        example='  agent-oncall rollout advance --agent support --reason "verdict: promote"',
    )
    agent_option(command)
    _prometheus(command)
    change_options(command)
    command.set_defaults(run=told(_advance, "rollout advance"))

    command = add_command(
        commands,
        "override",
        help="the next stage whatever the verdict, on your word",
        example='  agent-oncall rollout override --agent support --to 50 --reason "fixes an outage"',
    )
    agent_option(command)
    command.add_argument("--to", type=float, metavar="PERCENT", help="a later stage of the plan, or 100")
    _prometheus(command)
    change_options(command)
    command.set_defaults(run=told(_override, "rollout override"))

    command = add_command(
        commands,
        "back",
        help="all users back on stable; the rollout ends",
        example='  agent-oncall rollout back --agent support --reason "users complain"',
    )
    agent_option(command)
    change_options(command)
    command.set_defaults(run=told(_back, "rollout back"))


def _prometheus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prometheus",
        metavar="URL",
        default=os.environ.get(_VARIABLE) or "http://127.0.0.1:9090",
        help=f"${_VARIABLE}, else http://127.0.0.1:9090",
    )
    parser.add_argument("--prometheus-token-file", type=Path, metavar="FILE", help="its bearer token")


def _server(options: argparse.Namespace) -> Prometheus:
    return Prometheus(options.prometheus, token_file=options.prometheus_token_file)


def _start(options: argparse.Namespace) -> int:
    store = store_of(options)
    plan = Plan.parse(options.stages, hold_hours=options.hold_hours, look_hours=options.look_hours)
    changes = version_changes(options)

    def start(state: State) -> State:
        stable = actions.config_of(state, options.agent).variants["stable"]
        canary = actions.changed_version(stable, changes)
        return rollouts.start(
            state,
            options.agent,
            canary,
            plan,
            now=store.now,
            auto_rollback=options.auto_rollback,
            auto_promote=options.auto_promote,
        )

    # What is refused is refused before Prometheus is asked.
    canary = actions.config_of(start(store.read()), options.agent).variants["canary"]
    if changes.keys() & {"prompt", "prompt_version"}:
        warn_of_prompt(options, canary.prompt, canary.prompt_version)
    _forecast(options, plan)
    entry = store.change(start, action="rollout start", agent=options.agent, who=options.who, why=options.reason)
    return tell(entry, "")


def _forecast(options: argparse.Namespace, plan: Plan) -> None:
    """Says beforehand which stages can't be decided at this traffic."""
    tasks, success = options.tasks_per_day, None
    try:
        if tasks is None:
            tasks, success = traffic(_server(options), options.agent)
    except PrometheusError as error:
        print(f"how many tasks a day there are is not known ({error}); --tasks-per-day says it", file=sys.stderr)
        return
    if not tasks:
        print("no tasks of this agent were counted in the last day: its verdict will be `no data`", file=sys.stderr)
        return
    # An agent that never fails, or never succeeds, would make the arithmetic promise certainty.
    slow = undecidable(plan, tasks, min(max(success or 0.8, 0.05), 0.98))
    if not slow:
        return
    for stage, days in slow:
        print(
            f"at {tasks:,.0f} tasks a day the stage of {stage.name} % takes about {days:,.0f} days to decide",
            file=sys.stderr,
        )
    print(
        f"Over {DECIDABLE_DAYS:.0f} days; until then the verdict is `hold`, unless the canary is very bad: the hard "
        "triggers watch either way. --stages 50:0.2:1.5 would ask half of the users and rule out gross harm only; "
        "rollout override goes on at your word.",
        file=sys.stderr,
    )


def _judged(options: argparse.Namespace) -> tuple[Rollout, Verdict]:
    rollout = rollouts.rollout_of(store_of(options).read(), options.agent)
    return rollout, _verdict(options, rollout)


def _verdict(options: argparse.Namespace, rollout: Rollout) -> Verdict:
    try:
        return Judge(_server(options)).verdict(rollout, time.time())
    except PrometheusError as error:  # the URL is none
        return Verdict(Decision.NO_DATA, (str(error),))


def _json(rollout: Rollout, verdict: Verdict) -> str:
    content = {
        "agent": rollout.agent,
        "rollout": rollout.id,
        "stage": rollout.stage,
        "decision": verdict.decision,
        "reasons": verdict.reasons,
        "hard": verdict.hard,
        "canary_tasks": verdict.tasks,
        "success_rate": [m.stable, m.canary] if (m := verdict.success) else None,
        "cost_per_task_usd": [m.stable, m.canary] if (m := verdict.cost) else None,
        "typical_cost": m.canary if (m := verdict.typical) else None,
        "missing_tasks": verdict.missing,
        "missing_hours": verdict.missing_hours,
    }
    return json.dumps(content)


def _status(options: argparse.Namespace) -> int:
    rollout, verdict = _judged(options)
    if options.json:
        print(_json(rollout, verdict))
    else:
        taken_back = rollouts.taken_back(store_of(options).entries(), rollout)
        print("\n".join(report.lines(rollout, verdict, time.time(), taken_back)))
    return verdict.decision.exit_code


def _check(options: argparse.Namespace) -> int:
    rollout, verdict = _judged(options)
    print(_json(rollout, verdict) if options.json else f"{verdict.decision}: {'; '.join(verdict.reasons)}")
    return verdict.decision.exit_code


def _advance(options: argparse.Namespace) -> int:
    store = store_of(options)
    rollout, verdict = _judged(options)
    if verdict.decision is not Decision.PROMOTE:
        print("\n".join(report.lines(rollout, verdict, time.time())))
        return verdict.decision.exit_code
    entry = store.change(
        lambda state: rollouts.advance(state, options.agent, now=store.now, stage=rollout.stage),
        action="rollout advance",
        agent=options.agent,
        who=options.who,
        why=options.reason,
    )
    return tell(entry, f"{options.agent}: the rollout is in another stage by now")


def _override(options: argparse.Namespace) -> int:
    store = store_of(options)
    rollout = rollouts.rollout_of(store.read(), options.agent)
    verdict = _verdict(options, rollout)
    print(f"overruled: {verdict.decision}: {'; '.join(verdict.reasons)}", file=sys.stderr)
    entry = store.change(
        lambda state: rollouts.advance(state, options.agent, now=store.now, to=options.to, stage=rollout.stage),
        action="rollout override",
        agent=options.agent,
        who=options.who,
        why=f"{options.reason} (the verdict was {verdict.decision})",
    )
    return tell(entry, f"{options.agent}: the rollout is in another stage by now")


def _back(options: argparse.Namespace) -> int:
    store = store_of(options)
    if Rollout.of(options.agent, actions.config_of(store.read(), options.agent)) is None:
        return fail("rollout back", f"agent {options.agent}: no rollout runs")
    entry = store.change(
        lambda state: rollouts.back(state, options.agent),
        action="rollout back",
        agent=options.agent,
        who=options.who,
        why=options.reason,
    )
    return tell(entry, f"{options.agent}: no rollout runs")
