"""Runs promtool's unit tests of rules."""

import subprocess
from pathlib import Path
from typing import Any

import yaml


def problems(promtool: Path, file: Path) -> str:
    """What the test file finds wrong with its rules; "" if nothing."""
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def problems_of(promtool: Path, document: dict[str, Any], folder: Path) -> str:
    """The same of a test file's content, written into the folder."""
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return problems(promtool, file)
