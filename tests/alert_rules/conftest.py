"""Debian's promtool and amtool, fetched where this machine lacks them."""

from pathlib import Path

import pytest

from stack.servers import AMTOOL, PROMTOOL, get


@pytest.fixture(scope="session")
def promtool() -> Path:
    return get([PROMTOOL])[PROMTOOL]


@pytest.fixture(scope="session")
def amtool() -> Path:
    return get([AMTOOL])[AMTOOL]
