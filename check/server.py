"""Asks a server over HTTP."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_TIMEOUT_SECONDS = 10.0
_MOST_BYTES = 256 * 1024 * 1024

Query = Sequence[tuple[str, str]] | Mapping[str, str]


class NoAnswer(Exception):
    """The server did not answer, or not with what was asked for; `status` is HTTP's, 0 without an answer."""

    def __init__(self, url: str, why: str, status: int = 0) -> None:
        super().__init__(f"{url}: {why}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Server:
    """A server by its base address, with the bearer token that it asks for, and the tenant that Mimir does."""

    url: str
    token: str = field(default="", repr=False)
    tenant: str = ""

    def text(self, path: str, query: Query = (), accept: str = "*/*") -> str:
        """The body of an answer 2xx. Raises NoAnswer."""
        url = self.url.rstrip("/") + path
        request = urllib.request.Request(url + (f"?{urllib.parse.urlencode(query)}" if query else ""))
        request.add_header("Accept", accept)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        if self.tenant:
            request.add_header("X-Scope-OrgID", self.tenant)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                body: bytes = answer.read(_MOST_BYTES)
                return body.decode(errors="replace")
        except urllib.error.HTTPError as error:
            with error:
                raise NoAnswer(url, f"answers {error.code} {error.reason}", error.code) from None
        except http.client.HTTPException as error:
            raise NoAnswer(url, f"does not answer in HTTP: {error!r}") from None
        except (OSError, ValueError) as error:
            raise NoAnswer(url, f"does not answer: {getattr(error, 'reason', error)}") from None

    def json(self, path: str, query: Query = ()) -> Any:
        """The answer as JSON. Raises NoAnswer."""
        text = self.text(path, query, "application/json")
        try:
            return json.loads(text)
        except ValueError:
            raise NoAnswer(self.url.rstrip("/") + path, "answers something that is not JSON") from None

    def data(self, path: str, query: Query = ()) -> Any:
        """What an answer of Prometheus' API holds. Raises NoAnswer."""
        answer = self.json(path, query)
        if not isinstance(answer, dict) or "data" not in answer:
            raise NoAnswer(self.url.rstrip("/") + path, "answers something that is not of Prometheus' API")
        return answer["data"]
