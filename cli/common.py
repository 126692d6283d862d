"""What the commands that change the state share: options, messages, exit codes."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent_oncall.prompts import PromptError, Prompts
from agent_oncall.schema import StateError
from controller.actions import Refused
from controller.changes import differences
from controller.plan import BadPlan
from controller.store import Entry, Store, StoreError, whoami

STATE_VARIABLE = "AGENT_ONCALL_STATE"
PROMPTS_VARIABLE = "AGENT_ONCALL_PROMPTS"
USAGE = 2

Run = Callable[[argparse.Namespace], int]


def add_command(
    subparsers: Any, name: str, *, help: str, example: str, description: str = ""
) -> argparse.ArgumentParser:
    """A command, or a command of a command, whose help ends with an example."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help,
        description=description or f"{help[0].upper()}{help[1:]}.",
        epilog=f"example:\n{example.rstrip()}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def state_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        default=Path(os.environ.get(STATE_VARIABLE) or "state/flags.json"),
        help=f"the state file; ${STATE_VARIABLE}, else state/flags.json",
    )


def prompts_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get(PROMPTS_VARIABLE) or "prompts"),
        help=f"the registry of prompts; ${PROMPTS_VARIABLE}, else prompts",
    )


def warn_of_prompt(options: argparse.Namespace, name: str, version: str) -> None:
    """Says so if the registry of `--prompts` doesn't have this version. The agents' own may, so it is no error."""
    if version not in Prompts(options.prompts).versions(name):
        print(
            f"prompt {name} {version} is not in {options.prompts} (--prompts DIR or ${PROMPTS_VARIABLE} names another "
            f"registry): agents whose registry lacks it run what they would without this change",
            file=sys.stderr,
        )


def agent_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agent", required=True, metavar="NAME", help="the agent, as the label `agent` names it")


def change_options(parser: argparse.ArgumentParser) -> None:
    """Where the state is, and what the audit log has to say of the change."""
    state_option(parser)
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; it goes into the audit log")
    parser.add_argument("--who", default=None, metavar="NAME", help="who; the user of this process unless given")


def told(run: Run, command: str) -> Run:
    """`run`, with what it refuses told in one line on standard error and exit code 2."""

    def guarded(options: argparse.Namespace) -> int:
        if hasattr(options, "who"):
            options.who = options.who or whoami()
        if hasattr(options, "reason") and not options.reason.strip():
            return fail(command, "--reason: is empty; write why, for whoever reads the audit log")
        try:
            return run(options)
        except (Refused, StoreError, BadPlan, PromptError, StateError) as error:
            return fail(command, str(error))

    return guarded


def fail(command: str, text: str) -> int:
    """Tells a mistake; the exit code."""
    for line in text.splitlines():
        print(f"agent-oncall {command}: {line}", file=sys.stderr)
    return USAGE


def tell(entry: Entry | None, otherwise: str) -> int:
    """Says what was changed and how to take it back, or `otherwise` if nothing was."""
    if entry is None:
        print(otherwise)
        return 0
    print(f"{entry.id}  {entry.action}  {entry.agent}".rstrip())
    for line in differences(entry.before, entry.after):
        print(f"  {line}")
    print(f'take it back: agent-oncall rollback undo {entry.id} --reason "..."')
    return 0


def store_of(options: argparse.Namespace) -> Store:
    """The store of `--state`; the folder that holds the file will do as well."""
    path: Path = options.state
    return Store(path / "flags.json" if path.is_dir() else path)
