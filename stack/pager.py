"""A pager for this machine: takes what Alertmanager sends to PagerDuty (Events API v2) and to Slack (incoming webhook),
checks its form as the real ones do, and shows it. Nothing leaves the machine.

    python -m stack.pager --port 9095

POST /v2/enqueue is PagerDuty's, POST /services/... is Slack's; GET / shows the messages, GET /api/pages is the same
as JSON: {"messages": [newest first], "open": [PagerDuty incidents triggered and not resolved]}.
"""

import argparse
import asyncio
import html
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

LOOPBACK = "127.0.0.1"
ROUTING_KEY = "0" * 32
"""A key of the right form for PagerDuty's integration key; the pager takes any such."""

_MOST_BYTES = 512 * 1024  # PagerDuty's limit for an event
_SEVERITIES = ("critical", "error", "warning", "info")
_ACTIONS = ("trigger", "acknowledge", "resolve")


class Refused(Exception):
    """A call the real service would not take; the text says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One call taken. `service` is `pagerduty` or `slack`; `action` one of trigger, acknowledge, resolve, post;
    `key` PagerDuty's dedup key (one per incident), for Slack the channel; `received` epoch seconds."""

    received: float
    service: str
    action: str
    key: str
    severity: str
    summary: str
    text: str
    links: tuple[str, ...]


class Pager:
    """Keeps the newest messages. `on_message` is called with each as it comes."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        most: int = 1000,
        on_message: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self.messages: deque[Message] = deque(maxlen=most)
        self._clock = clock
        self._on_message = on_message

    def open_incidents(self) -> list[Message]:
        """The first trigger of each PagerDuty incident that was not resolved since, newest first."""
        incidents: dict[str, Message] = {}
        for message in self.messages:
            if message.action == "trigger":
                incidents.setdefault(message.key, message)
            elif message.action == "resolve":
                incidents.pop(message.key, None)
        return list(reversed(incidents.values()))

    def application(self) -> web.Application:
        application = web.Application(client_max_size=_MOST_BYTES)
        application.add_routes(
            [
                web.post("/v2/enqueue", self._pagerduty),
                web.post("/services/{path:.+}", self._slack),
                web.get("/", self._page),
                web.get("/api/pages", self._api),
            ]
        )
        return application

    async def serve(self, port: int, host: str = LOOPBACK) -> "Serving":
        """Listens on the loopback interface, unless told otherwise. Port 0 takes a free one. Raises OSError."""
        runner = web.AppRunner(self.application(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        return Serving(runner, runner.addresses[0][1])

    async def _pagerduty(self, request: web.Request) -> web.Response:
        try:
            event = pagerduty_event(await _json(request), self._clock())
        except Refused as error:
            body = {"status": "invalid event", "message": "Event object is invalid", "errors": [str(error)]}
            return web.json_response(body, status=400)
        self.take(event)
        body = {"status": "success", "message": "Event processed", "dedup_key": event.key}
        return web.json_response(body, status=202)

    async def _slack(self, request: web.Request) -> web.Response:
        try:
            message = slack_message(await _json(request), self._clock())
        except Refused as error:
            return web.Response(text=str(error), status=400)
        self.take(message)
        return web.Response(text="ok")

    def take(self, message: Message) -> None:
        """Keeps a message, as if it had come here."""
        self.messages.append(message)
        self._on_message(message)

    async def _api(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "messages": [asdict(message) for message in reversed(self.messages)],
                "open": [asdict(message) for message in self.open_incidents()],
            }
        )

    async def _page(self, request: web.Request) -> web.Response:
        rows = "".join(_row(message) for message in reversed(self.messages))
        count = len(self.open_incidents())
        body = _HTML.format(open=count, rows=rows or "<tr><td colspan=4>No page yet.</td></tr>")
        return web.Response(text=body, content_type="text/html", headers={"Content-Security-Policy": _POLICY})


@dataclass(frozen=True, slots=True)
class Serving:
    """A pager that listens."""

    runner: web.AppRunner
    port: int

    async def close(self) -> None:
        await self.runner.cleanup()


def pagerduty_event(event: Any, now: float) -> Message:
    """An event of PagerDuty's Events API v2. Raises Refused with the reason PagerDuty would give."""
    if not isinstance(event, dict):
        raise Refused("the event is not a JSON object")
    key = event.get("routing_key")
    if not isinstance(key, str) or len(key) != 32:
        raise Refused("Length of 'routing_key' is incorrect (should be 32 characters)")
    action = event.get("event_action")
    if action not in _ACTIONS:
        raise Refused(f"'event_action' must be one of {', '.join(_ACTIONS)}")
    dedup = event.get("dedup_key") or ""
    if not isinstance(dedup, str) or len(dedup) > 255:
        raise Refused("'dedup_key' must be a text of at most 255 characters")
    if action != "trigger":
        if not dedup:
            raise Refused(f"'dedup_key' is missing, which {action} needs")
        return Message(now, "pagerduty", action, dedup, "", _summary(event), "", ())
    payload = event.get("payload")
    if not isinstance(payload, dict):
        raise Refused("'payload' is missing or is not an object")
    for field in ("summary", "source"):
        if not isinstance(payload.get(field), str) or not payload[field]:
            raise Refused(f"'payload.{field}' is missing or blank")
    if len(payload["summary"]) > 1024:
        raise Refused("'payload.summary' is longer than 1024 characters")
    if payload.get("severity") not in _SEVERITIES:
        raise Refused(f"'payload.severity' must be one of {', '.join(_SEVERITIES)}")
    details = payload.get("custom_details") or {}
    text = "\n".join(f"{k}: {_detail(v)}" for k, v in details.items()) if isinstance(details, dict) else str(details)
    links = _links(event.get("links") or [], "href")
    return Message(now, "pagerduty", action, dedup or f"{now}", payload["severity"], payload["summary"], text, links)


def _detail(value: Any) -> str:
    """A detail as text. Newer Alertmanagers send what reads as YAML as that: nothing as null, lines as a list."""
    match value:
        case None:
            return ""
        case list():
            return "\n".join(f"- {_detail(one)}" for one in value)
        case dict():
            return ", ".join(f"{key}: {_detail(one)}" for key, one in value.items())
        case _:
            return str(value)


def slack_message(message: Any, now: float) -> Message:
    """A message to one of Slack's incoming webhooks. Raises Refused with the text Slack would answer."""
    if not isinstance(message, dict):
        raise Refused("invalid_payload")
    attachments = message.get("attachments") or []
    if not isinstance(attachments, list) or not all(isinstance(one, dict) for one in attachments):
        raise Refused("invalid_attachments")
    if len(attachments) > 100:
        raise Refused("too_many_attachments")
    texts = [message.get("text")] + [one.get("text") for one in attachments]
    titles = [one.get("title") or one.get("fallback") for one in attachments]
    shown = [text for text in [*titles, *texts] if isinstance(text, str) and text]
    if not shown and not message.get("blocks"):
        raise Refused("no_text")
    actions = [action for one in attachments for action in one.get("actions") or []]
    links = _links([one for one in attachments if one.get("title_link")], "title_link") + _links(actions, "url")
    text = "\n".join(text for text in texts if isinstance(text, str))
    channel = message.get("channel")
    return Message(
        now, "slack", "post", channel if isinstance(channel, str) else "", "", shown[0] if shown else "", text, links
    )


def _summary(event: dict[str, Any]) -> str:
    payload = event.get("payload")
    summary = payload.get("summary") if isinstance(payload, dict) else None
    return summary if isinstance(summary, str) else ""


def _links(entries: Any, key: str) -> tuple[str, ...]:
    """The web addresses in a list of links. One that is none is refused, as PagerDuty and Slack do."""
    if not isinstance(entries, list):
        raise Refused("the links are not a list")
    links = []
    for entry in entries:
        link = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(link, str) or urlsplit(link).scheme not in ("http", "https") or not urlsplit(link).netloc:
            raise Refused(f"a link's {key} is not a web address: {link!r}")
        links.append(link)
    return tuple(links)


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError:
        raise Refused("invalid_payload: the body is not JSON") from None


def _row(message: Message) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(message.received))
    links = " ".join(f'<a href="{html.escape(link)}">{html.escape(link)}</a>' for link in dict.fromkeys(message.links))
    cells = (
        when,
        f"{message.service} {message.action}",
        message.severity,
    )
    text = f"<b>{html.escape(message.summary)}</b><pre>{html.escape(message.text)}</pre>{links}"
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}<td>{text}</td></tr>"


_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_HTML = """<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=5><title>Pager</title>
<style>body{{font:15px sans-serif;margin:2em}}td{{padding:.4em 1em;vertical-align:top;border-top:1px solid #ccc}}
pre{{white-space:pre-wrap;margin:.3em 0}}</style>
<h1>Pager</h1><p>{open} open PagerDuty incident(s). Newest message first.</p><table>{rows}</table>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="A local stand-in for PagerDuty and Slack, for Alertmanager to call.")
    parser.add_argument("--port", type=int, default=9095, help="0 takes a free one; default: %(default)s")
    parser.add_argument("--host", default=LOOPBACK, help="where to listen; default: %(default)s")
    options = parser.parse_args()
    asyncio.run(_run(options.port, options.host))


async def _run(port: int, host: str) -> None:
    pager = Pager(on_message=lambda m: print(f"{m.service} {m.action} {m.severity}: {m.summary}", flush=True))
    serving = await pager.serve(port, host)
    print(f"pager: http://{host}:{serving.port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
