"""Bearer tokens: who may send, and for which agents; who may read the metrics."""

import base64
import binascii
import hmac
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from exporter.config import ConfigError, Sender, Settings

log = logging.getLogger(__name__)


class Unauthenticated(Exception):
    """No token, or one that is not known. The text is fit for the sender."""


class Senders:
    """The tokens that a receiver accepts. Without any configured, everyone may send for every agent."""

    def __init__(self, senders: Sequence[Sender]) -> None:
        """Reads the token files. ConfigError names the key whose file can't be used."""
        self.required = bool(senders)
        self._known: list[tuple[bytes, frozenset[str] | None]] = []
        for at, sender in enumerate(senders):
            agents = None if sender.agents is None else frozenset(sender.agents)
            for token in read_tokens(sender.token_file, f"senders.{at}.token_file"):
                if any(token == other for other, _ in self._known):
                    raise ConfigError(f"senders.{at}.token_file: a token in it belongs to another sender already")
                self._known.append((token, agents))

    def may_speak_for(self, authorization: str | None) -> frozenset[str] | None:
        """The agents that the sender of this `Authorization` header may speak for; None: any. Or Unauthenticated."""
        if not self.required:
            return None
        given = _bearer(authorization)
        # Every token is compared, whichever fits, so that the time says nothing.
        found = [agents for token, agents in self._known if hmac.compare_digest(token, given)]
        if not found:
            raise Unauthenticated("a known bearer token is needed: the header `authorization: Bearer TOKEN`")
        return found[0]


class Readers:
    """The tokens that open /metrics and the landing page. Without a file, everyone may read."""

    def __init__(self, token_file: Path | None) -> None:
        """Reads the token file, or raises ConfigError."""
        self._tokens = read_tokens(token_file, "metrics.token_file") if token_file else []

    def admit(self, authorization: str | None) -> bool:
        """Whether this `Authorization` header may read. A browser gives the token as the password of basic auth."""
        if not self._tokens:
            return True
        given = _bearer(authorization) or _basic_password(authorization)
        return max(hmac.compare_digest(token, given) for token in self._tokens)


def read_tokens(path: Path, key: str) -> list[bytes]:
    """The tokens of a file: one a line, empty lines and lines that start with `#` left out."""
    tokens = [line.strip() for line in path.read_bytes().splitlines()]
    tokens = [token for token in tokens if token and not token.startswith(b"#")]
    if not tokens:
        raise ConfigError(f"{key}: {path} has no token: write one a line, such as the output of `openssl rand -hex 32`")
    for at, token in enumerate(tokens, 1):
        if not token.isascii() or any(byte <= 0x20 or byte == 0x7F for byte in token):
            raise ConfigError(f"{key}: {path}: token {at} has a space or another character that no header can carry")
    return tokens


def warn_of_open_files(settings: Settings) -> None:
    """Log a warning for each secret file that others than its owner can read.

    A warning and no refusal: Kubernetes mounts secrets readable by all, inside a container that has one user.
    """
    for key, path in _secret_files(settings):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & 0o077:
            log.warning("%s: %s can be read or changed by others (mode %04o): chmod 600 it", key, path, mode)


def _secret_files(settings: Settings) -> list[tuple[str, Path]]:
    files = [(f"senders.{at}.token_file", sender.token_file) for at, sender in enumerate(settings.senders)]
    if settings.metrics.token_file:
        files.append(("metrics.token_file", settings.metrics.token_file))
    for key, tls in (
        ("otlp_grpc", settings.otlp_grpc.tls),
        ("otlp_http", settings.otlp_http.tls),
        ("metrics", settings.metrics.tls),
    ):
        if tls:
            files.append((f"{key}.tls.key_file", tls.key_file))
    return files


def _bearer(authorization: str | None) -> bytes:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""


def _basic_password(authorization: str | None) -> bytes:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
