"""Finds the servers of the local stack: named by the user, on the PATH, or Debian's, unpacked into a cache.

`python -m stack.servers` gets what is missing and says what is used.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.debian import NoPackage, unpack


@dataclass(frozen=True, slots=True)
class Server:
    """A program the stack starts or calls: its names on a PATH, and the Debian package that holds it."""

    names: tuple[str, ...]
    package: str

    @property
    def variable(self) -> str:
        """The environment variable by which the user names a binary of their own."""
        return f"AGENT_ONCALL_{self.names[0].upper()}"


PROMETHEUS = Server(("prometheus",), "prometheus")
PROMTOOL = Server(("promtool",), "prometheus")
ALERTMANAGER = Server(("alertmanager", "prometheus-alertmanager"), "prometheus-alertmanager")
AMTOOL = Server(("amtool",), "prometheus-alertmanager")
ALL = (PROMETHEUS, PROMTOOL, ALERTMANAGER, AMTOOL)


class MissingServer(Exception):
    """A server is not on this machine; the text says how to get it or name it."""


def cache_folder() -> Path:
    """Where unpacked servers are kept: `.cache` of a checkout, else the user's cache folder."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").exists():
        return checkout / ".cache" / "servers"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-oncall" / "servers"


def find(server: Server, *, environ: Mapping[str, str] = os.environ, cache: Path | None = None) -> Path | None:
    """The server's binary, or None if it is not on this machine. Raises MissingServer if the user named a wrong one."""
    if named := environ.get(server.variable):
        path = shutil.which(named, path=environ.get("PATH"))
        if path is None:
            raise MissingServer(f"{server.variable}={named} is not a program that can be run: correct it or unset it")
        return Path(path)
    places = (environ.get("PATH", ""), str((cache or cache_folder()) / "usr" / "bin"))
    for place in places:
        for name in server.names:
            if path := shutil.which(name, path=place):
                return Path(path)
    return None


def get(
    servers: Iterable[Server] = ALL,
    *,
    environ: Mapping[str, str] = os.environ,
    cache: Path | None = None,
    fetch: Callable[[list[str], Path], None] = unpack,
) -> dict[Server, Path]:
    """All of `servers`, after fetching what this machine lacks. Raises MissingServer."""
    cache = cache or cache_folder()
    servers = list(servers)
    missing = [server for server in servers if find(server, environ=environ, cache=cache) is None]
    reason = ""
    if missing:
        try:
            fetch(sorted({server.package for server in missing}), cache)
        except NoPackage as error:
            reason = str(error)
    found = {}
    for server in servers:
        path = find(server, environ=environ, cache=cache)
        if path is None:
            raise MissingServer(
                f"{server.names[0]} was not found on this machine. {reason}\n"
                f"Install it so that it is on the PATH, or name it: {server.variable}=/path/to/{server.names[0]}"
            )
        found[server] = path
    return found


if __name__ == "__main__":
    try:
        for server, path in get().items():
            print(f"{server.names[0]}: {path}")
    except MissingServer as error:
        sys.exit(f"setup: {error}")
