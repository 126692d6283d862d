"""A copy of the controller's state on an agent's host, kept by asking for it."""

import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from agent_oncall.schema import StateError, loads
from controller.store import replace_file

_TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 16 * 1024 * 1024


class FollowError(Exception):
    """The controller's state can't be had. The text says why."""


class Follower:
    """Asks the controller at `url`, and replaces `path` when there is something newer that is valid.

    Whatever goes wrong, the copy stays: an open breaker doesn't close because the controller is gone.
    """

    def __init__(self, url: str, token_file: Path, path: Path, *, ca_file: Path | None = None) -> None:
        self._url = f"{url.rstrip('/')}/state"
        if not self._url.startswith(("http://", "https://")):
            raise FollowError(f"--url {url}: has to begin with http:// or https://")
        self._token_file = token_file
        self._path = path
        self._etag = ""
        try:
            self._tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
            self._token()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FollowError(f"{ca_file or token_file}: can't be read: {reason}") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._generation = loads(path.read_bytes()).generation
        except (OSError, StateError):
            self._generation = -1

    def step(self) -> str:
        """Asks once. What is new, in words, or "". FollowError or StoreError if that failed."""
        try:
            token = self._token()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", error)
            raise FollowError(f"{self._token_file}: can't be read: {reason}") from None
        request = urllib.request.Request(self._url, headers={"Authorization": f"Bearer {token}"})
        if self._etag and self._path.exists():
            request.add_header("If-None-Match", self._etag)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=self._tls) as answer:
                body = answer.read(_MOST_BYTES)
                etag = answer.headers.get("ETag", "")
        except urllib.error.HTTPError as error:
            if error.code == 304:
                return ""
            hint = ": its token is not known there" if error.code == 401 else ""
            raise FollowError(f"{self._url} answered {error.code}{hint}") from None
        except http.client.HTTPException as error:
            raise FollowError(f"{self._url} gave no answer of HTTP: {error!r}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise FollowError(f"{self._url} can't be reached: {reason}") from None
        try:
            generation = loads(body, strict=False).generation
        except StateError as error:
            raise FollowError(f"{self._url} gave no valid state: {error}") from None
        if generation < self._generation and self._path.exists():
            raise FollowError(
                f"{self._url} gave generation {generation}, older than {self._generation} here: is the controller on "
                f"an old copy? If its state was made anew, there: agent-oncall state init --recover --generation "
                f"{self._generation + 1}. To remove {self._path} is not enough: agents keep a copy (last_good) that "
                "refuses it as well"
            )
        replace_file(self._path, body)
        self._etag, self._generation = etag, generation
        return f"{self._path}: generation {generation}"

    def _token(self) -> str:
        lines = [line.strip() for line in self._token_file.read_text().splitlines()]
        tokens = [line for line in lines if line and not line.startswith("#")]
        if not tokens:
            raise FollowError(f"{self._token_file}: has no token")
        return tokens[0]
