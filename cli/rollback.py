"""`agent-oncall rollback`: an agent back to what ran before, seen by its processes within a second."""

import argparse
from typing import Any

from cli.common import add_command, agent_option, change_options, fail, store_of, tell, told
from controller import actions, rollouts
from controller.store import iso

_EXAMPLE = """\
  agent-oncall rollback prompt --agent support --reason "success rate down since 14:00"
  agent-oncall rollback model --agent support --to gpt-4o-2024-08-06 --reason "cost x3"
  agent-oncall rollback provider --agent support --reason "provider's status page is red"
  agent-oncall rollback off --agent support --reason "half of the tasks fail"
  agent-oncall rollback provider --back --agent support --reason "provider is back"
  agent-oncall rollback undo c12 --reason "false alarm"
"""


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = add_command(
        subparsers,
        "rollback",
        help="an agent back to an earlier prompt or model, to its backup provider, or off",
        description="Changes the state file; agents see it within a second. Every change is a line of the audit log, "
        "whose id `rollback undo` takes.",
        example=_EXAMPLE,
    )
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    for part, what in (("prompt", "its version"), ("model", "its name")):
        command = add_command(
            commands,
            part,
            help=f"the latest earlier version of the agent with another {part}",
            description=f"Puts back, whole, the latest earlier version of the agent with another {part}: its model, "
            "prompt, tools, temperature and iteration limit ran together and come back together. A running "
            "rollout ends.",
            example=f'  agent-oncall rollback {part} --agent support --reason "success rate down"',
        )
        agent_option(command)
        command.add_argument("--to", metavar="NAME", help=f"{what}, where it is not the latest earlier one")
        if part == "model":
            command.add_argument("--provider", metavar="NAME", help="of the model of --to")
            command.add_argument(
                "--pinned", action="store_true", default=None, help="the name of --to stands for one version"
            )
        change_options(command)
        command.set_defaults(run=told(_restore, f"rollback {part}"), part=part)
    command = add_command(
        commands,
        "provider",
        help="the backup provider",
        example='  agent-oncall rollback provider --agent support --reason "outage"\n'
        '  agent-oncall rollback provider --back --agent support --reason "it is over"',
    )
    agent_option(command)
    command.add_argument("--back", action="store_true", help="off the backup again: on what would run without it")
    change_options(command)
    command.set_defaults(run=told(_provider, "rollback provider"))
    command = add_command(
        commands,
        "off",
        help="the agent off: callers use what they have without it",
        example='  agent-oncall rollback off --agent support --reason "half of the tasks fail"',
    )
    agent_option(command)
    change_options(command)
    command.set_defaults(run=told(_off, "rollback off"))
    command = add_command(
        commands,
        "undo",
        help="take back a change of the state, by its id in the audit log",
        example='  agent-oncall state log\n  agent-oncall rollback undo c12 --reason "false alarm"',
    )
    command.add_argument("id", metavar="ID", help="such as c12; agent-oncall state log lists them")
    change_options(command)
    command.set_defaults(run=told(_undo, "rollback undo"))


def _restore(options: argparse.Namespace) -> int:
    store = store_of(options)
    given = {key: getattr(options, key, None) for key in ("provider", "pinned")}
    also = {key: value for key, value in given.items() if value is not None}
    if also and options.to is None:
        return fail("rollback model", f"--{next(iter(also))}: says more of the model of --to, which is not given")
    entry = store.change(
        lambda state: actions.restore(
            state, options.agent, options.part, store.entries(), options.to, now=iso(store.now), also=also
        ),
        action=f"rollback {options.part}",
        agent=options.agent,
        who=options.who,
        why=options.reason,
    )
    for experiment in actions.stopped_experiments(entry) if entry is not None else ():
        print(f"experiment {experiment} set the {options.part} of its users and is stopped")
    code = tell(entry, f"{options.agent}: runs that version already")
    if entry is not None and options.part == "model" and options.to and "provider" not in also:
        provider = actions.config_of(store.read(), options.agent).variants["stable"].provider
        print(f"its provider is {provider}; --provider names another")
    if actions.config_of(store.read(), options.agent).default == "backup":
        print(
            f"{options.agent} is on its backup provider, so nobody gets that version before: "
            f'agent-oncall rollback provider --back --agent {options.agent} --reason "..."'
        )
    return code


def _provider(options: argparse.Namespace) -> int:
    decide = rollouts.off_backup if options.back else actions.to_backup
    entry = store_of(options).change(
        lambda state: decide(state, options.agent),
        action="rollback provider" + (" --back" if options.back else ""),
        agent=options.agent,
        who=options.who,
        why=options.reason,
    )
    where = "does not run on its backup provider" if options.back else "runs on its backup provider already"
    return tell(entry, f"{options.agent}: {where}")


def _off(options: argparse.Namespace) -> int:
    store = store_of(options)
    entry = store.change(
        lambda state: actions.switch(state, options.agent, on=False, since=iso(store.now), why=options.reason),
        action="rollback off",
        agent=options.agent,
        who=options.who,
        why=options.reason,
    )
    return tell(entry, f"{options.agent}: is off already")


def _undo(options: argparse.Namespace) -> int:
    undone = store_of(options).undo(options.id, who=options.who, why=options.reason, check=actions.check_apart)
    return tell(undone, "")
