"""`agent-oncall model`: whether a model's name stands for one version."""

import argparse
import sys
from typing import Any

from agent_oncall.models import UnpinnedModel, check_pin
from cli.common import add_command

_EXAMPLE = """\
  agent-oncall model check gpt-4o-2024-08-06
  agent-oncall model check my-deployment --pinned
"""


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = add_command(
        subparsers,
        "model",
        help="check that a model's name stands for one version",
        example=_EXAMPLE,
    )
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    command = add_command(commands, "check", help="exit 1 for an alias or a name without version", example=_EXAMPLE)
    command.add_argument("names", metavar="NAME", nargs="+")
    command.add_argument("--pinned", action="store_true", help="your word that a name without a version stands still")
    command.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    refused = False
    for name in options.names:
        try:
            check_pin(name, pinned=options.pinned)
        except UnpinnedModel as error:
            refused = True
            print(error, file=sys.stderr)
        else:
            print(f"{name}: pinned")
    return 1 if refused else 0
