"""The prompt registry: DIR/NAME/VERSION.txt, and DIR/index.json with the SHA-256 of each.

A version's text never changes, and nothing asks for the newest: what runs is named exactly, in the configuration.
"""

import fcntl
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

INDEX = "index.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_VERSION = re.compile(r"v?\d[A-Za-z0-9._+-]{0,99}")


class PromptError(ValueError):
    """The registry can't give this prompt; the text names prompt and version and says why."""


def check_name(name: str) -> None:
    """Raises PromptError unless it can be a prompt's name: letters, digits, `_` and `-`."""
    if not _NAME.fullmatch(name):
        raise PromptError(f"prompt {name!r}: a name has letters, digits, _ and -, and at most 100 of them")


def check_version(version: str) -> None:
    """Raises PromptError unless it is an exact version: it begins with a digit, so no `latest`."""
    if not _VERSION.fullmatch(version):
        raise PromptError(f"prompt version {version!r}: an exact version is needed, such as 1.9.0")


def version_key(version: str) -> tuple[object, ...]:
    """Sorts versions as people count: 1.10 after 1.9, 2.0-rc1 before 2.0. Build metadata after `+` comes last."""
    release, _, build = version.removeprefix("v").partition("+")
    release, _, early = release.partition("-")
    return _natural(release), not early, _natural(early), _natural(build)


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    parts = re.findall(r"\d+|[A-Za-z]+", text)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


class Prompts:
    """The registry in a folder. Texts are checked against the index when first read, then kept."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._texts: dict[tuple[str, str], str] = {}

    def text(self, name: str, version: str) -> str:
        """The prompt's text. PromptError if there is no such version, or it is not the text that was added."""
        known = self._texts.get((name, version))
        if known is not None:
            return known
        check_name(name)
        check_version(version)
        digest = self._index().get(name, {}).get(version)
        if digest is None:
            raise PromptError(f"prompt {name} {version}: not in {self.folder / INDEX}; add it, or name one that is")
        text = self._read(name, version, digest)
        self._texts[name, version] = text
        return text

    def names(self) -> list[str]:
        return sorted(self._index())

    def versions(self, name: str) -> list[str]:
        """Oldest first, as people count; empty for an unknown name."""
        return sorted(self._index().get(name, {}), key=version_key)

    def add(self, name: str, version: str, text: str) -> None:
        """Adds a version. The same text again is no change; another text under a version that exists is refused."""
        check_name(name)
        check_version(version)
        if not text.strip():
            raise PromptError(f"prompt {name} {version}: the text is empty")
        body = text.encode()
        digest = hashlib.sha256(body).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            index = self._index()
            known = index.setdefault(name, {}).get(version)
            if known == digest:
                self._read(name, version, digest)
                return
            if known is not None:
                raise PromptError(f"prompt {name} {version}: exists with another text; a changed text is a new version")
            (self.folder / name).mkdir(exist_ok=True)
            # The text first: an index never names what is not there.
            _replace(self._path(name, version), body)
            index[name][version] = digest
            _replace(self.folder / INDEX, json.dumps(index, indent=2, sort_keys=True).encode() + b"\n")

    def verify(self) -> list[str]:
        """What is wrong with the registry, a line each: texts changed or missing, files that nobody added."""
        problems = []
        index = self._index()
        for name in sorted(index):
            for version in sorted(index[name], key=version_key):
                try:
                    self._read(name, version, index[name][version])
                except PromptError as error:
                    problems.append(str(error))
        for path in sorted(self.folder.glob("*/*.txt")):
            if path.stem not in index.get(path.parent.name, {}):
                problems.append(f"prompt {path.parent.name} {path.stem}: {path} is not in the index; add it")
        return problems

    def _path(self, name: str, version: str) -> Path:
        return self.folder / name / f"{version}.txt"

    def _read(self, name: str, version: str, digest: str) -> str:
        path = self._path(name, version)
        try:
            body = path.read_bytes()
            text = body.decode()
        except OSError as error:
            raise PromptError(f"prompt {name} {version}: {path} can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise PromptError(f"prompt {name} {version}: {path} is no UTF-8 text") from error
        if hashlib.sha256(body).hexdigest() != digest:
            raise PromptError(f"prompt {name} {version}: {path} was changed after it was added; put the text back")
        return text

    def _index(self) -> dict[str, dict[str, str]]:
        path = self.folder / INDEX
        try:
            index = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise PromptError(f"{path} can't be read: {error}") from error
        if not isinstance(index, dict):
            raise PromptError(f"{path}: an object of prompts is needed, not {type(index).__name__}")
        for name, versions in index.items():
            check_name(name)
            if not isinstance(versions, dict) or not all(isinstance(digest, str) for digest in versions.values()):
                raise PromptError(f"{path}: {name}: an object of versions with their SHA-256 is needed")
            for version in versions:
                check_version(version)
        return index


def _replace(path: Path, body: bytes) -> None:
    """Writes a file such that readers see the old one or the new one, also after a crash."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fchmod(handle, 0o644)
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
