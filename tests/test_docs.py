"""What the documentation names is there: files it links to, commands with their options."""

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}.*\n?)+", re.MULTILINE)

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def commands(pages: list[Path] = PAGES) -> list[Any]:
    """Every `agent-oncall` command of these pages, in blocks and in the text; of a pipe, its part."""
    found = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        blocks = [*FENCED.findall(text), *INDENTED.findall(FENCED.sub("", text))]
        lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        inline = [" ".join(words.split()) for words in re.findall(r"`(agent-oncall [^`]+)`", FENCED.sub("", text))]
        for line in dict.fromkeys([*lines, *inline]):
            # a comment, or where the output goes
            command = re.split(r"\s[|>#&]", line)[0].strip()
            # "agent-oncall serve: ..." is what it says
            if command.startswith("agent-oncall ") and not command.split()[1].endswith(":"):
                found.append(pytest.param(command, id=f"{page.stem}: {command}"))
    return found


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_that_agent_oncall_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]
    name = words[0]
    if name in ("--help", "--version", "COMMAND", "..."):
        return
    assert name in {command.name for command in COMMANDS}
    parser = argparse.ArgumentParser()
    importlib.import_module(f"cli.{name}").add(parser.add_subparsers(required=True))

    try:
        parser.parse_args(words)
    except SystemExit:
        printed = capsys.readouterr()
        # In the text a command may be named without what it asks for.
        named = "the following arguments are required" in printed.err and not any(w.startswith("--") for w in words)
        assert named or printed.out.startswith("usage:"), printed.err


@by_page
def test_a_page_links_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []
