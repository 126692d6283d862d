"""`agent-oncall prompt`: the registry of prompts."""

import argparse
import sys
from pathlib import Path
from typing import Any

from agent_oncall.prompts import Prompts
from cli.common import add_command, fail, prompts_option, told

_EXAMPLE = """\
  agent-oncall prompt add support 1.9.0 support.txt
  agent-oncall prompt list
  agent-oncall prompt verify
"""


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = add_command(
        subparsers,
        "prompt",
        help="add, list and verify versions of prompts",
        description="The registry holds DIR/NAME/VERSION.txt and the SHA-256 of each in DIR/index.json. A version's "
        "text never changes: another text is another version.",
        example=_EXAMPLE,
    )
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    command = add_command(
        commands, "add", help="add a version", example="  agent-oncall prompt add support 1.9.0 support.txt"
    )
    command.add_argument("name", metavar="NAME")
    command.add_argument("version", metavar="VERSION", help="exact, such as 1.9.0")
    command.add_argument("file", metavar="FILE", help="its text; - for standard input")
    prompts_option(command)
    command.set_defaults(run=told(_add, "prompt add"))
    command = add_command(
        commands, "list", help="all versions, oldest first", example="  agent-oncall prompt list support"
    )
    command.add_argument("name", metavar="NAME", nargs="?")
    prompts_option(command)
    command.set_defaults(run=told(_list, "prompt list"))
    command = add_command(
        commands,
        "verify",
        help="whether every text is the one that was added; exit 1 if not",
        example="  agent-oncall prompt verify",
    )
    prompts_option(command)
    command.set_defaults(run=told(_verify, "prompt verify"))


def _add(options: argparse.Namespace) -> int:
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return fail("prompt add", f"{options.file}: is no UTF-8 text")
    except OSError as error:
        return fail("prompt add", f"{options.file}: {error.strerror}")
    Prompts(options.prompts).add(options.name, options.version, text)
    print(f"{options.name} {options.version}: in {options.prompts}")
    return 0


def _list(options: argparse.Namespace) -> int:
    prompts = Prompts(options.prompts)
    names = [options.name] if options.name else prompts.names()
    for name in names:
        versions = prompts.versions(name)
        if not versions:
            return fail("prompt list", f"{name}: no such prompt in {options.prompts}")
        for version in versions:
            print(f"{name} {version}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    problems = Prompts(options.prompts).verify()
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{options.prompts}: every text is the one that was added")
    return 1 if problems else 0
