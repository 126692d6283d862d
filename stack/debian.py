"""Debian packages without installing them: download by apt, unpack into a folder, start no service.

Needs neither root nor the project's packages: `python3 -I stack/debian.py FOLDER PACKAGE...` is also how the setup gets
pip on a machine that has none.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path


class NoPackage(Exception):
    """A package could not be had; the text says why and what to do."""


def unpack(packages: Iterable[str], folder: Path) -> None:
    """Downloads `packages` (newest of the machine's own apt sources) and unpacks them into `folder`.

    Dependencies are not followed, documentation is left out. Raises NoPackage.
    """
    packages = list(packages)
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NoPackage("this machine has no apt-get, so Debian's packages cannot be fetched")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="packages-", dir=folder) as name:
        downloads = Path(name)
        if not _download(packages, downloads, []):
            # The machine's package lists are missing or too old. Fresh ones go into a folder of our own: the machine's
            # may be written by root only, and are not ours to change.
            _say("reading the package lists")
            private = _private_lists(folder / "apt")
            update = _apt([*private, "update"], downloads)
            if update.returncode or not _download(packages, downloads, private):
                raise NoPackage(
                    f"apt-get could not get {' '.join(packages)}: {_last_line(update.stderr)}\n"
                    f"Try by hand: apt-get update && apt-get download {' '.join(packages)}"
                )
        for package in sorted(downloads.glob("*.deb")):
            _extract(package, folder)


def _download(packages: list[str], downloads: Path, options: list[str]) -> bool:
    _say(f"downloading {', '.join(packages)}")
    return _apt([*options, "download", *packages], downloads).returncode == 0


def _extract(package: Path, folder: Path) -> None:
    # Leaves out documentation, and source data of which libjs-moment-timezone alone has 200 MB.
    left_out = ["--exclude=./usr/share/doc/*", "--exclude=./usr/share/javascript/*/data/*"]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as contents:
        subprocess.run(
            ["tar", "--extract", "--no-same-owner", *left_out, "--directory", str(folder)],
            stdin=contents.stdout,
            check=True,
        )
    if contents.returncode:
        raise NoPackage(f"{package.name} could not be unpacked: is the disk full?")


def _apt(arguments: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    # As root, apt would drop to the user _apt, who cannot write into a folder of root's.
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.getuid() == 0 else []
    return subprocess.run(
        ["apt-get", "-q", *sandbox, *arguments], cwd=where, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def _private_lists(folder: Path) -> list[str]:
    options: list[str] = []
    for key, place in (("Dir::State", "state"), ("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")):
        (folder / place / "partial").mkdir(parents=True, exist_ok=True)
        options += ["-o", f"{key}={(folder / place).resolve()}"]
    # dpkg's own database stays the machine's; what else runs after an update is for root.
    options += ["-o", "Dir::State::status=/var/lib/dpkg/status"]
    for hook in ("APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success"):
        options += ["-o", f"{hook}::="]
    return options


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        unpack(sys.argv[2:], Path(sys.argv[1]))
    except NoPackage as error:
        sys.exit(f"setup: {error}")
