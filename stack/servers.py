"""Finds the servers of the local stack: named by the user, on the PATH, Debian's, unpacked into a cache, or built here.

What Debian does not have, `tools/servers` builds. `python -m stack.servers` gets what is missing and says what is used.
Debian's packages are unpacked and not installed, since installing them starts both servers on every interface.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.debian import NoPackage, unpack


@dataclass(frozen=True, slots=True)
class Server:
    """A program the stack starts or calls: its names on a PATH, and the Debian packages that hold it, if any do."""

    names: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The environment variable by which the user names a binary of their own."""
        return f"AGENT_ONCALL_{self.names[0].upper()}"


# What Prometheus' web page is made of, in Debian's cut of it.
_WEB_PAGE = (
    "fonts-glyphicons-halflings",
    "libjs-bootstrap4",
    "libjs-d3",
    "libjs-eonasdan-bootstrap-datetimepicker",
    "libjs-jquery",
    "libjs-jquery-hotkeys",
    "libjs-moment",
    "libjs-moment-timezone",
    "libjs-mustache",
    "libjs-popper.js",
    "libjs-rickshaw",
)
PROMETHEUS = Server(("prometheus",), ("prometheus", *_WEB_PAGE))
PROMTOOL = Server(("promtool",), ("prometheus",))
ALERTMANAGER = Server(("alertmanager", "prometheus-alertmanager"), ("prometheus-alertmanager",))
AMTOOL = Server(("amtool",), ("prometheus-alertmanager",))
COLLECTOR = Server(("otelcol", "otelcol-contrib"), ())
JAEGER = Server(("jaeger", "jaeger-all-in-one"), ())
ALL = (PROMETHEUS, PROMTOOL, ALERTMANAGER, AMTOOL)

_DATA = b"/usr/share/prometheus/alertmanager"


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
    cache = cache or cache_folder()
    # What is in Debian is taken from there, so that a machine with Go and one without do the same.
    kept = cache / "usr" / "bin" if server.packages else cache.with_name("servers-new") / "bin"
    places = (environ.get("PATH", ""), str(kept))
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
    reason = ""
    with _alone(cache):
        missing = [server for server in servers if find(server, environ=environ, cache=cache) is None]
        packages = sorted({package for server in missing for package in server.packages})
        try:
            if packages:
                fetch(packages, cache)
                _relocate_alertmanager(cache)
        except NoPackage as error:
            reason = str(error)
    found = {}
    for server in servers:
        path = find(server, environ=environ, cache=cache)
        if path is None:
            how = reason if server.packages else f"Where there is Go, this builds it: tools/servers {server.names[0]}"
            raise MissingServer(
                f"{server.names[0]} was not found on this machine. {how}\n"
                f"Install it so that it is on the PATH, or name it: {server.variable}=/path/to/{server.names[0]}"
            )
        found[server] = path
    return found


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Keeps two processes from unpacking into the cache at once."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def web_assets(prometheus: Path) -> Path | None:
    """The folder of an unpacked Prometheus' web page, which Debian's binary would look for under /usr/share."""
    assets = prometheus.resolve().parent.parent / "share" / "prometheus" / "web"
    return assets if assets.is_dir() and prometheus.parent != Path("/usr/bin") else None


def _relocate_alertmanager(cache: Path) -> None:
    """Lets Debian's Alertmanager run without being installed.

    Its templates' folder is compiled in. The unpacked copy gets another name of the same length there: that of a file
    descriptor, which a script in front of it opens on the unpacked folder.
    """
    program = cache / "usr" / "bin" / "prometheus-alertmanager"
    real = cache / "usr" / "lib" / "alertmanager" / "prometheus-alertmanager"
    if not program.exists() or program.read_bytes()[:2] == b"#!":
        return
    real.parent.mkdir(parents=True, exist_ok=True)
    real.write_bytes(program.read_bytes().replace(_DATA, b"/dev/fd/9".ljust(len(_DATA), b"/")))
    real.chmod(0o755)
    program.unlink()
    program.write_text(
        "#!/bin/sh\n"
        'usr=$(dirname "$(dirname "$(readlink -f "$0")")")\n'
        'exec 9<"$usr/share/prometheus/alertmanager"\n'
        'exec "$usr/lib/alertmanager/prometheus-alertmanager" "$@"\n'
    )
    program.chmod(0o755)


if __name__ == "__main__":
    try:
        for server, path in get().items():
            print(f"{server.names[0]}: {path}")
    except MissingServer as error:
        sys.exit(f"setup: {error}")
