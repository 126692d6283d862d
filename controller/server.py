"""The controller as a process: alerts in, state out, rollouts judged."""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from agent_oncall.schema import State, StateError, loads
from controller import rollouts as steps
from controller.actions import Refused
from controller.config import Settings
from controller.grafana import AnnotationError, annotate
from controller.judging import Judge, running
from controller.metrics import Metrics
from controller.prom import Prometheus, agrees_on_loops
from controller.responder import WHO, BadBody, Responder, parse_alerts
from controller.rollouts import Rollout
from controller.store import Entry, Store, StoreError
from controller.verdict import Decision, Verdict
from exporter.auth import read_tokens
from exporter.config import Address, RequestLimits
from exporter.faults import where
from exporter.listen import HttpServer

log = logging.getLogger(__name__)

_MOST_BODY_BYTES = 4 * 1024 * 1024
_BODY_SECONDS = 15
_WATCH_SECONDS = 1.0
_AGAIN_SECONDS = 5.0
_AGREEMENT_TIMEOUT_SECONDS = 5.0

_Result = TypeVar("_Result")


class Tokens:
    """Bearer tokens, one of which a request has to have."""

    def __init__(self, *files: tuple[Path | None, str]) -> None:
        """Reads the files, each with the setting that names it. ConfigError if one can't be used."""
        self._tokens = [token for path, key in files if path is not None for token in read_tokens(path, key)]

    def admit(self, authorization: str | None) -> bool:
        """Whether this `Authorization` header has one of them."""
        scheme, _, token = (authorization or "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""
        # Every token is compared, whichever fits, so that the time says nothing.
        return max(hmac.compare_digest(known, given) for known in self._tokens)


class Server:
    """The listener, and what runs beside it: the state watched, rollouts judged, waiting alerts taken again.

    Files and other servers are waited for in threads, one for each kind of work: a slow Prometheus holds up no alert.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        """Reads the token files. ConfigError, or PrometheusError for a URL that is none."""
        self._settings = settings
        self._store = store
        self.metrics = Metrics()
        self._writers = Tokens((settings.token_file, "token_file"))
        self._readers = Tokens((settings.token_file, "token_file"), (settings.state_token_file, "state_token_file"))
        prometheus = settings.prometheus
        self._judge: Judge | None = None
        agrees: Callable[[str, bool], bool] | None = None
        if prometheus.url:
            credentials: dict[str, Any] = {"token_file": prometheus.token_file, "ca_file": prometheus.ca_file}
            self._judge = Judge(Prometheus(prometheus.url, **credentials))
            agrees = partial(
                agrees_on_loops, Prometheus(prometheus.url, **credentials, timeout=_AGREEMENT_TIMEOUT_SECONDS)
            )
        self._responder = Responder(settings, store, self.metrics, agrees)
        self._good: bytes | None = None
        self._generation = -1  # of the state that was last watched
        self._seen: int | None = None  # entries of the audit log that were gone through
        self._went_through = (-1, -1)
        self._told_of_rollouts: dict[str, str] = {}
        self._threads = {
            name: ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("alerts", "watch", "verdicts", "grafana")
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._http = HttpServer(
            "listen",
            self._handle,
            settings.listen.address,
            settings.listen.tls,
            RequestLimits(),
            stop_seconds=settings.stop_seconds,
        )
        self.address = settings.listen.address

    async def start(self) -> None:
        """Listens and begins to watch. ListenError if the address can't be had. Then call `stop`."""
        await self._in("watch", self._watch)
        port = await self._http.start()
        self.address = Address(self._settings.listen.address.host, port)
        log.info("listens on %s; %s", self.address, self._modes())
        for every, thread, work in (
            (_WATCH_SECONDS, "watch", self._watch),
            (_AGAIN_SECONDS, "alerts", self._responder.again),
            (self._settings.verdict_seconds, "verdicts", self.judge),
        ):
            self._tasks.append(asyncio.create_task(self._repeat(every, thread, work)))

    async def stop(self) -> None:
        """Answers what is in flight and stops."""
        for task in self._tasks:
            task.cancel()
        await self._http.stop()
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)

    def judge(self) -> None:
        """Judges every running rollout, once; rolls back and promotes where its settings say so."""
        if self._judge is None or not self._store.begun:
            return
        found: list[tuple[Rollout, Verdict]] = []
        rollouts, problems = running(self._store.read())
        for problem in problems:
            self.metrics.failed("verdicts", "metadata")
            self._tell_once(problem)
        for rollout in rollouts:
            with self._faults("verdicts"):
                verdict = self._judge.verdict(rollout, self._store.now)
                found.append((rollout, verdict))
                said = f"{verdict.decision}, {'; '.join(verdict.reasons)}"
                if self._told_of_rollouts.get(rollout.agent) != verdict.decision:
                    self._told_of_rollouts[rollout.agent] = verdict.decision
                    log.info("%s, rollout %s, %s %%: %s", rollout.agent, rollout.id, rollout.stage, said)
                self._follow(rollout, verdict)
        self.metrics.verdicts(found)

    def _follow(self, rollout: Rollout, verdict: Verdict) -> None:
        agent = rollout.agent
        if verdict.decision is Decision.ROLL_BACK and (
            rollout.auto_rollback == "any" or (rollout.auto_rollback == "hard" and verdict.hard)
        ):
            if (undo := steps.taken_back(self._store.entries(), rollout)) is not None:
                self._tell_once(
                    f"{agent}: rollout {rollout.id} is left to people: {undo.who} took a rollback back by {undo.id}"
                )
                return
            action, decide = "rollout back", lambda state: _same_stage(state, rollout, steps.back(state, agent))
        elif verdict.decision is Decision.PROMOTE and rollout.auto_promote:
            now = self._store.now
            action = "rollout advance"
            decide = lambda state: _same_stage(state, rollout, steps.advance(state, agent, now=now))  # noqa: E731
        else:
            return
        entry = self._store.change(
            decide,
            action=action,
            agent=agent,
            who=WHO,
            why="; ".join(verdict.reasons),
            trigger={"verdict": str(verdict.decision), "rollout": rollout.id, "stage": rollout.stage},
        )
        if entry is not None:
            self.metrics.acted(agent, action.replace(" ", "_"), "verdict")
            log.warning("%s: %s, %s: %s", agent, action, entry.id, entry.why)

    def _watch(self) -> None:
        """Takes over the state if it is a good one, and goes through what is new in the audit log."""
        try:
            body = self._store.path.read_bytes()
            state = loads(body)
            self._good, self._generation = body, state.generation
            self.metrics.state(state, running(state)[0])
        except (OSError, StateError) as error:
            if self._store.begun:
                self.metrics.unreadable()
                self._tell_once(f"{self._store.path}: {error}; what was last good is served")
            else:
                self.metrics.none_yet()
                self._tell_once(f"{self._store.path}: there is no state yet: agent-oncall state init makes it")
        try:
            size = self._store.audit_path.stat().st_size
        except OSError:
            return
        at = (size, self._generation)
        if at == self._went_through:
            return
        entries = self._store.entries()
        if entries and entries[-1].void:
            del entries[-1]  # it may be about to happen: the file is then another, or the log goes on
        if self._seen is not None:
            for entry in entries[self._seen :]:
                self._new(entry)
        self._seen, self._went_through = len(entries), at

    def _new(self, entry: Entry) -> None:
        if entry.void:
            return
        if _opens(entry):
            self.metrics.tripped(entry.agent)
        if self._settings.grafana.url:
            self._threads["grafana"].submit(self._annotate, entry)

    def _annotate(self, entry: Entry) -> None:
        assert self._settings.grafana.url
        try:
            annotate(self._settings.grafana.url, self._settings.grafana.token_file, entry)
        except AnnotationError as error:
            self.metrics.failed("annotate", "grafana")
            log.error("%s", error)

    def _tell_once(self, text: str) -> None:
        if self._told_of_rollouts.get("") != text:
            self._told_of_rollouts[""] = text
            log.error("%s", text)

    def _modes(self) -> str:
        return ", ".join(f"{name}: {mode}" for name, mode in self._settings.actions.model_dump().items())

    async def _repeat(self, every: float, thread: str, work: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(every)
            with self._faults(thread):
                await self._in(thread, work)

    @contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        """Tells and counts what goes wrong, and goes on after it."""
        try:
            yield
        except (StoreError, Refused) as error:
            self.metrics.failed(what, "state")
            self._tell_once(str(error))
        except Exception as error:
            self.metrics.failed(what, "fault")
            log.error("%s failed, which is a fault of the controller: %s", what, where(error))

    async def _in(self, thread: str, work: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads[thread], work, *arguments)

    # -- HTTP ----------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ConnectionError:
            raise
        except Exception as error:
            log.error("%s failed, which is a fault of the controller: %s", request.path, where(error))
            return _text(500, "a fault of the controller: see its log\n")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        route = (request.method, request.path)
        authorization = request.headers.get("Authorization")
        match route:
            case ("GET" | "HEAD", "/healthz"):
                return _text(200, "alive\n")
            case ("GET" | "HEAD", "/metrics"):
                encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
                return web.Response(body=encoder(self.metrics.registry), headers={"Content-Type": content_type})
            case ("GET" | "HEAD", "/state"):
                return self._state(request) if self._readers.admit(authorization) else _denied("state_token_file")
            case ("POST", "/alerts"):
                return await self._alerts(request) if self._writers.admit(authorization) else _denied("token_file")
            case ("GET", "/pending"):
                return await self._pending() if self._writers.admit(authorization) else _denied("token_file")
            case ("POST", "/confirm"):
                return await self._confirm(request) if self._writers.admit(authorization) else _denied("token_file")
            case (_, "/healthz" | "/metrics" | "/state" | "/alerts" | "/pending" | "/confirm"):
                return _text(405, "read by GET; alerts and confirmations come by POST\n")
        return _text(404, "not found: there are /alerts, /state, /pending, /confirm, /metrics and /healthz\n")

    def _state(self, request: web.BaseRequest) -> web.StreamResponse:
        # Read now and not when the watcher last came by: what is asked for each second is to be of this second.
        try:
            body = self._store.path.read_bytes()
            loads(body)
            self._good = body
        except (OSError, StateError):
            pass  # the watcher tells
        if self._good is None:
            return _text(503, "there is no state yet: agent-oncall state init makes it\n", {"Retry-After": "5"})
        etag = f'"{hashlib.sha256(self._good).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=self._good, content_type="application/json", headers=headers)

    async def _alerts(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            alerts = parse_alerts(await _json(request))
        except BadBody as error:
            self.metrics.failed("alerts", "bad_body")
            return _text(400, f"{error}\n")
        outcomes = await self._in("alerts", self._responder.take, alerts)
        status = 200
        if any(outcome.result in ("unknown agent", "unknown action") for outcome in outcomes):
            status = 422  # Alertmanager counts it as failed and doesn't try again
        if any(outcome.retry for outcome in outcomes):
            status = 503  # Alertmanager tries again
        found = [{"result": outcome.result, "text": outcome.text} for outcome in outcomes]
        return web.json_response({"alerts": found}, status=status)

    async def _pending(self) -> web.StreamResponse:
        found = await self._in("alerts", self._responder.pending)
        return web.json_response(
            [{"id": p.id, "agent": p.alert.agent, "action": p.action, "alert": p.alert.name} for p in found]
        )

    async def _confirm(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            content = await _json(request)
        except BadBody as error:
            return _text(400, f"{error}\n")
        if not isinstance(content, dict) or not content.get("id") or not content.get("who"):
            return _text(400, "an object with id and who is needed\n")
        outcome = await self._in("alerts", self._responder.confirm, str(content["id"]), str(content["who"])[:200])
        status = 404 if outcome.result == "unknown" else 409 if outcome.error else 200
        return web.json_response({"result": outcome.result, "text": outcome.text}, status=status)


async def _json(request: web.BaseRequest) -> object:
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.content.iter_chunked(65536):
                body += chunk
                if len(body) > _MOST_BODY_BYTES:
                    raise BadBody(f"more than {_MOST_BODY_BYTES} bytes")
        return json.loads(body)
    except BadBody:
        raise
    except TimeoutError:
        raise BadBody(f"the body didn't come within {_BODY_SECONDS} s") from None
    except (ValueError, RecursionError):
        raise BadBody("the body is not JSON") from None


def _same_stage(state: State, rollout: Rollout, then: State) -> State:
    """`then`, if the rollout still is where it was judged."""
    config = state.agents[rollout.agent].config
    same = config is not None and (config.rollout, config.stage) == (rollout.id, rollout.stage)
    return then if same else state


def _opens(entry: Entry) -> bool:
    for name, flag in entry.after.items():
        before = entry.before.get(name)
        was = before.get("defaultVariant") if isinstance(before, dict) else None
        if name.endswith(".breaker") and isinstance(flag, dict) and flag.get("defaultVariant") == "open" != was:
            return True
    return False


def _denied(setting: str) -> web.Response:
    return _text(401, f"a bearer token of {setting} is needed\n", {"WWW-Authenticate": "Bearer"})


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text, headers=headers)
