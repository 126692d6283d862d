"""`agent-oncall breaker`: the fleet's circuit breaker by hand."""

import argparse
from typing import Any, cast

from agent_oncall.schema import Breaker, BreakerState
from cli.common import add_command, agent_option, change_options, fail, state_option, store_of, tell, told
from controller import actions
from controller.store import iso

_EXAMPLE = """\
  agent-oncall breaker status
  agent-oncall breaker open --agent support --reason "AgentRunawayLoop"
  agent-oncall breaker half-open --agent support --share 1 --reason "the tool is repaired"
  agent-oncall breaker close --agent support --reason "an hour half open without a loop"
"""
_WHAT: dict[BreakerState, str] = {
    "open": "no new task; running ones end at their next iteration",
    "half_open": "a small share of users gets through, to see whether it is over",
    "closed": "everybody gets through",
}


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = add_command(
        subparsers,
        "breaker",
        help="open, half-open or close an agent's circuit breaker",
        description="The breaker of all of an agent's processes. Alerts may open it; only people close it.",
        example=_EXAMPLE,
    )
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    for name, to in (("open", "open"), ("half-open", "half_open"), ("close", "closed")):
        state = cast(BreakerState, to)
        command = add_command(
            commands,
            name,
            help=_WHAT[state],
            example=f'  agent-oncall breaker {name} --agent support --reason "..."',
        )
        agent_option(command)
        if state == "half_open":
            command.add_argument("--share", type=float, metavar="PERCENT", help="of users let through; 1 unless set")
        change_options(command)
        command.set_defaults(run=told(_set, f"breaker {name}"), to=state, name=name)
    command = add_command(
        commands, "status", help="every agent's breaker", example="  agent-oncall breaker status --agent support"
    )
    state_option(command)
    command.add_argument("--agent", metavar="NAME", help="of this agent alone")
    command.set_defaults(run=told(_status, "breaker status"))


def _set(options: argparse.Namespace) -> int:
    share = getattr(options, "share", None)
    if share is not None and not 0 < share <= 100:
        return fail("breaker half-open", f"--share {share:g}: a percentage over 0 and at most 100 is needed")
    store = store_of(options)
    entry = store.change(
        lambda state: actions.set_breaker(
            state, options.agent, options.to, since=iso(store.now), why=options.reason, share=share
        ),
        action=f"breaker {options.name}",
        agent=options.agent,
        who=options.who,
        why=options.reason,
    )
    return tell(entry, f"{options.agent}: the breaker is {options.to.replace('_', '-')} already")


def _status(options: argparse.Namespace) -> int:
    state = store_of(options).read()
    names = [options.agent] if options.agent else sorted(state.agents)
    for name in names:
        breaker = actions.agent_of(state, name).breaker or Breaker()
        line = f"{name}: {breaker.state.replace('_', '-')}"
        if breaker.state == "half_open":
            line += f", {breaker.share:g} % of users get through"
        if breaker.since:
            line += f", since {breaker.since}: {breaker.why}"
        print(line)
    return 0
