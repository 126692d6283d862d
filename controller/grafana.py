"""Changes of the state as annotations in Grafana."""

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path

from agent_oncall.schema import parse_time
from controller.store import Entry

_TIMEOUT_SECONDS = 10.0


class AnnotationError(Exception):
    """Grafana did not take an annotation."""


def annotate(url: str, token_file: Path | None, entry: Entry) -> None:
    """Posts one change. AnnotationError if that failed."""
    moment = parse_time(entry.time)
    body = {
        "time": int((moment.timestamp() if moment else 0) * 1000),
        "tags": ["agent-oncall", *([f"agent:{entry.agent}"] if entry.agent else []), entry.action],
        "text": f"{entry.action} {entry.agent} ({entry.id}, {entry.who}): {entry.why}",
    }
    request = urllib.request.Request(
        f"{url.rstrip('/')}/api/annotations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        if token_file:
            request.add_header("Authorization", f"Bearer {token_file.read_text().strip()}")
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError as error:
        raise AnnotationError(f"{url}: an annotation was answered with {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AnnotationError(f"{url}: can't be annotated: {getattr(error, 'reason', error)}") from None
