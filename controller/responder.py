"""Alerts → actions on the state. What an alert asks for, whether it may be done, and doing it once.

An alert is the same one as long as its labels and the moment it began are; whether it was acted on is read from the
audit log, so that a restart forgets nothing. One that began before a person last changed the same thing doesn't act
again: people win. `resolved` undoes nothing.
"""

import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent_oncall.models import answers
from agent_oncall.schema import State, parse_time
from controller import actions, rollouts
from controller.config import Action, Settings
from controller.prom import PrometheusError
from controller.store import Entry, Store, StoreError, iso
from exporter.faults import where

log = logging.getLogger(__name__)

WHO = "controller"
_COST_ANOMALY = "AgentCostAnomaly"
_RUNAWAY_LOOP = "AgentRunawayLoop"
_ACTIONS: Mapping[str, Action] = {
    "breaker": "breaker",
    "off": "off",
    "agent off": "off",
    "prompt": "prompt",
    "model": "model",
    "provider": "provider",
    "backup provider": "provider",
    "rollout": "rollout",
    "rollout back": "rollout",
}
_NAMES: Mapping[Action, str] = {
    "breaker": "breaker open",
    "off": "rollback off",
    "prompt": "rollback prompt",
    "model": "rollback model",
    "provider": "rollback provider",
    "rollout": "rollout back",
}
_NOTHING_DONE = ("off", "dry-run")
"""The modes in which an alert changes nothing."""
_FLAGS: Mapping[Action, str] = {"breaker": "breaker", "off": "enabled"}
_UNCLEAN = re.compile(r"[^A-Za-z0-9_.:/@-]")  # what the exporter replaces in a label
_AGREEMENT_SECONDS = 600.0
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of a webhook's body. `starts_at` is unix seconds."""

    name: str
    agent: str
    action: str
    fingerprint: str
    starts: str
    starts_at: float
    firing: bool
    variant: str
    model: str
    summary: str

    @property
    def key(self) -> tuple[str, str]:
        return self.fingerprint, self.starts


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an alert. `result` is one word for programs, `text` says it to people; `error`: it is a fault."""

    result: str
    text: str
    error: bool = False
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """An action that waits for a person's word."""

    id: str
    alert: Alert
    action: Action
    until: float


class Counts(Protocol):
    """What is counted, for /metrics."""

    def acted(self, agent: str, action: str, trigger: str) -> None: ...
    def held_back(self, agent: str, action: str, why: str) -> None: ...
    def failed(self, action: str, why: str) -> None: ...


class Responder:
    """Takes alerts, one at a time.

    `agrees(agent, now_only)` asks whether more than spending says that an agent's tasks run away: at this moment, or
    within the last minutes.
    """

    def __init__(
        self, settings: Settings, store: Store, counts: Counts, agrees: Callable[[str, bool], bool] | None = None
    ) -> None:
        self._settings = settings
        self._store = store
        self._counts = counts
        self._agrees = agrees
        self._firing: dict[tuple[str, str], float] = {}
        self._waiting: dict[tuple[str, str], Alert] = {}
        self._pending: dict[str, Pending] = {}
        self._told: dict[tuple[str, str, str], None] = {}

    def take(self, alerts: Iterable[Alert]) -> list[Outcome]:
        """What became of each alert."""
        alerts = list(alerts)
        for alert in alerts:
            if alert.firing:
                self._firing[alert.agent, alert.name] = self._store.now
            else:
                self._firing.pop((alert.agent, alert.name), None)
                self._waiting.pop(alert.key, None)
        return [self._take(alert) for alert in alerts]

    def again(self) -> None:
        """Takes those alerts again that wait for others to agree."""
        now = self._store.now
        self._firing = {key: at for key, at in self._firing.items() if now - at < _AGREEMENT_SECONDS}
        for alert in list(self._waiting.values()):
            if (alert.agent, alert.name) in self._firing:
                self._take(alert)
            else:
                del self._waiting[alert.key]

    def pending(self) -> list[Pending]:
        """Actions that wait to be confirmed."""
        now = self._store.now
        self._pending = {key: found for key, found in self._pending.items() if found.until > now}
        return list(self._pending.values())

    def confirm(self, pending_id: str, who: str) -> Outcome:
        """Does what waits under that id, on a person's word."""
        found = next((one for one in self.pending() if one.id == pending_id), None)
        if found is None:
            return Outcome("unknown", f"{pending_id}: nothing of that id waits to be confirmed", error=True)
        outcome = self._do(found.alert, found.action, f"{WHO}, confirmed by {who}")
        if not outcome.error:
            del self._pending[pending_id]
        return outcome

    def _take(self, alert: Alert) -> Outcome:
        try:
            outcome = self._decide(alert)
        except Exception as error:  # the other alerts of the message are still to be acted on
            fault = f"a fault of the controller: {where(error)}"
            outcome = self._failed(alert, "alerts", "fault", fault, retry=True)
        first = (*alert.key, outcome.result)
        if first not in self._told:
            self._told[first] = None
            while len(self._told) > _REMEMBERED:
                del self._told[next(iter(self._told))]
            log.log(logging.ERROR if outcome.error else logging.INFO, "%s: %s", alert.name, outcome.text)
        return outcome

    def _decide(self, alert: Alert) -> Outcome:
        if not alert.firing:
            return Outcome("resolved", f"{alert.agent}: resolved; what was done stays until a person takes it back")
        action = _ACTIONS.get(" ".join(alert.action.lower().replace("_", " ").replace("-", " ").split()))
        if action is None:
            return self._failed(
                alert, "unknown", "unknown_action", f"action {alert.action!r} is none; there are {', '.join(_ACTIONS)}"
            )
        mode = self._settings.mode(alert.agent, action)
        try:
            state = self._store.read()
            agent = actions.agent_of(state, alert.agent)
            log_entries = self._store.entries()
        except actions.UnknownAgent as error:
            if mode in _NOTHING_DONE:
                return self._lacking(alert, action, mode, str(error))
            return self._failed(alert, action, "unknown_agent", str(error))
        except StoreError as error:
            if mode in _NOTHING_DONE and not self._store.begun:
                return self._lacking(alert, action, mode, str(error))
            return self._failed(alert, action, "state", str(error), retry=self._store.begun)
        half_open = action == "breaker" and agent.breaker is not None and agent.breaker.state == "half_open"
        if any(_same(entry, alert) for entry in log_entries) and not half_open:
            return Outcome("done before", f"{alert.agent}: {_NAMES[action]} was done for this alert before")
        person = _decided_since(log_entries, f"{alert.agent}.{_FLAGS.get(action, 'config')}", alert.starts_at)
        if person is not None and not half_open:
            return Outcome(
                "left", f"{alert.agent}: left as {person.who} set it by {person.id}, after this alert had begun"
            )
        needs_agreement = alert.name == _COST_ANOMALY and self._settings.breaker_needs_agreement
        # A half-open breaker stays so unless loops are seen now: the alert may still tell of before.
        if action == "breaker" and (needs_agreement or half_open) and not self._agreed(alert, now_only=half_open):
            self._waiting[alert.key] = alert
            self._held_back(alert, action, "agreement")
            return Outcome("waiting", f"{alert.agent}: the breaker waits until loops agree with the spending")
        self._waiting.pop(alert.key, None)
        if mode == "off":
            self._held_back(alert, action, "off")
            return Outcome("off", f"{alert.agent}: {_NAMES[action]} is off in the settings")
        try:
            then, name = apply(state, alert, action, log_entries, iso(self._store.now))
        except actions.Refused as error:
            return self._failed(alert, action, "refused", str(error))
        if then == state:
            return Outcome("already", f"{alert.agent}: nothing to change for {name}")
        if mode == "dry-run":
            self._held_back(alert, action, "dry_run")
            return Outcome("dry-run", f"{alert.agent}: {name} would be done now; {_command(alert, action)}")
        if mode == "confirm":
            return self._ask(alert, action)
        recent = [entry for entry in log_entries if _by_alert(entry, alert.agent, self._store.now - 3600)]
        if len(recent) >= self._settings.most_actions_per_hour:
            return self._failed(
                alert,
                action,
                "limit",
                f"{_NAMES[action]} is left to people: {len(recent)} actions within an hour already; "
                f"{_command(alert, action)}",
            )
        return self._do(alert, action, WHO)

    def _do(self, alert: Alert, action: Action, who: str) -> Outcome:
        trigger = {"alert": alert.name, "fingerprint": alert.fingerprint, "starts_at": alert.starts}
        why = f"{alert.name}: {alert.summary}" if alert.summary else alert.name
        name = _NAMES[action]

        def decide(state: State) -> State:
            nonlocal name
            found, name = apply(state, alert, action, self._store.entries(), iso(self._store.now))
            return found

        try:
            # Decided before it is named: a prompt's alert may end a rollout instead.
            decide(self._store.read())
            entry = self._store.change(decide, action=name, agent=alert.agent, who=who, why=why, trigger=trigger)
        except actions.Refused as error:
            return self._failed(alert, action, "refused", str(error))
        except StoreError as error:
            return self._failed(alert, action, "state", str(error), retry=True)
        if entry is None:
            return Outcome("already", f"{alert.agent}: nothing to change for {name}")
        self._counts.acted(alert.agent, action, alert.name)
        ended = "".join(f"; experiment {test} is stopped" for test in actions.stopped_experiments(entry))
        return Outcome(
            "done", f"{alert.agent}: {name}{ended}; take it back: agent-oncall rollback undo {entry.id} --reason ..."
        )

    def _agreed(self, alert: Alert, *, now_only: bool) -> bool:
        seen = self._firing.get((alert.agent, _RUNAWAY_LOOP))
        if seen is not None and self._store.now - seen < _AGREEMENT_SECONDS and not now_only:
            return True
        if self._agrees is None:
            return False
        try:
            return self._agrees(alert.agent, now_only)
        except PrometheusError as error:
            self._counts.failed("breaker", "prometheus")
            log.error("whether loops agree can't be known: %s", error)
            return False

    def _ask(self, alert: Alert, action: Action) -> Outcome:
        for found in self.pending():
            if found.alert.key == alert.key:
                return Outcome("pending", f"{alert.agent}: {_NAMES[action]} waits as {found.id} to be confirmed")
        pending = Pending(secrets.token_hex(4), alert, action, self._store.now + 60 * self._settings.confirm_minutes)
        self._pending[pending.id] = pending
        self._held_back(alert, action, "confirm")
        return Outcome(
            "pending", f"{alert.agent}: {_NAMES[action]} waits: agent-oncall controller confirm {pending.id}"
        )

    def _lacking(self, alert: Alert, action: Action, mode: str, what: str) -> Outcome:
        """Nothing was to be done, so that nothing has failed: it is told what an action would need."""
        self._held_back(alert, action, mode.replace("-", "_"))
        return Outcome(
            mode,
            f"{alert.agent}: {_NAMES[action]} is {mode} in the settings; to be done it would need the agent in the "
            f"state: {what}; agent-oncall state init --agent {alert.agent} enters one",
        )

    def _held_back(self, alert: Alert, action: Action, why: str) -> None:
        if (*alert.key, f"held back: {why}") not in self._told:
            self._told[*alert.key, f"held back: {why}"] = None
            self._counts.held_back(alert.agent, action, why)

    def _failed(self, alert: Alert, action: str, why: str, text: str, *, retry: bool = False) -> Outcome:
        self._counts.failed(action, why)
        told = text if text.startswith("agent ") else f"{alert.agent}: {text}"
        return Outcome(why.replace("_", " "), told, error=True, retry=retry)


def apply(state: State, alert: Alert, action: Action, history: Iterable[Entry], now: str) -> tuple[State, str]:
    """The state after an alert's action, and what it is called in the log. Refused if it can't be.

    Where a rollout runs and the alert is the canary's, or nobody's in particular, the canary is what changed last: the
    prompt's and the model's alerts end the rollout. So does an outage of the canary's model alone.
    """
    agent = alert.agent
    match action:
        case "breaker":
            why = alert.summary or alert.name
            return actions.set_breaker(state, agent, "open", since=now, why=why), _NAMES[action]
        case "off":
            return actions.switch(state, agent, on=False, since=now, why=alert.summary or alert.name), _NAMES[action]
        case "provider":
            config = actions.config_of(state, agent)
            failing = {
                name for name, bundle in config.variants.items() if alert.model and _is(bundle.model, alert.model)
            }
            if failing == {"canary"}:
                return rollouts.back(state, agent), _NAMES["rollout"]
            if failing == {"backup"} and config.default == "stable":
                raise actions.Refused(f"agent {agent}: {alert.model}, which fails, is the backup's own model")
            return actions.to_backup(state, agent), _NAMES[action]
        case "rollout":
            return rollouts.back(state, agent), _NAMES[action]
        case "prompt" | "model":
            running = rollouts.Rollout.of(agent, actions.config_of(state, agent))
            if running is not None and alert.variant != "stable":
                return rollouts.back(state, agent), _NAMES["rollout"]
            return actions.restore(state, agent, action, history, now=now), _NAMES[action]


def _is(model: str, label: str) -> bool:
    return label in (model, _UNCLEAN.sub("_", model)) or answers(model, label)


class BadBody(ValueError):
    """The webhook's body is not Alertmanager's."""


def parse_alerts(body: object) -> list[Alert]:
    """The alerts of an Alertmanager webhook (version 4). BadBody says what is missing."""
    if not isinstance(body, dict) or not isinstance(body.get("alerts"), list):
        raise BadBody("a body as Alertmanager's webhook sends it is needed: an object with a list `alerts`")
    found = []
    for at, content in enumerate(body["alerts"]):
        try:
            labels, starts = content["labels"], str(content["startsAt"])
            began = parse_time(starts)
            if began is None:
                raise BadBody(f"alerts.{at}.startsAt: {starts!r} is no time")
            found.append(
                Alert(
                    name=_line(labels["alertname"]),
                    agent=_line(labels.get("agent", "")),
                    action=_line(labels.get("action", "")),
                    fingerprint=str(content.get("fingerprint") or sorted(labels.items())),
                    starts=starts,
                    starts_at=began.timestamp(),
                    firing=content.get("status") == "firing",
                    variant=_line(labels.get("variant", "")),
                    model=_line(labels.get("model", "")),
                    summary=_line((content.get("annotations") or {}).get("summary", ""))[:500],
                )
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BadBody(f"alerts.{at}: labels with alertname, and startsAt, are needed ({error!r})") from None
    return found


def _line(value: object) -> str:
    """As text of one line: what comes from outside forges none in a log or on a terminal."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def _same(entry: Entry, alert: Alert) -> bool:
    trigger = entry.trigger or {}
    return not entry.void and (trigger.get("fingerprint"), trigger.get("starts_at")) == alert.key


def _by_alert(entry: Entry, agent: str, since: float) -> bool:
    return not entry.void and entry.agent == agent and "alert" in (entry.trigger or {}) and _moment(entry) > since


def _decided_since(entries: Iterable[Entry], flag: str, since: float) -> Entry | None:
    """The last change by a person after `since` of what runs by `flag`.

    None that adds the agent, nor what makes the file anew, nor what adds a backup: they decide nothing of it.
    """
    found = None
    for entry in entries:
        by_person = not entry.void and entry.trigger is None and _moment(entry) > since
        if by_person and entry.before.get(flag) and _runs(entry.before[flag]) != _runs(entry.after.get(flag)):
            found = entry
    return found


def _runs(flag: object) -> object:
    """What of a flag decides what runs: all but its metadata, and a backup that isn't in use."""
    if not isinstance(flag, Mapping):
        return None
    used = flag.get("defaultVariant")
    variants = {name: found for name, found in flag["variants"].items() if name in (used, "stable", "canary")}
    return used, variants, flag.get("targeting")


def _moment(entry: Entry) -> float:
    moment = parse_time(entry.time)
    return moment.timestamp() if moment else 0.0


def _command(alert: Alert, action: Action) -> str:
    return f'by hand: agent-oncall {_NAMES[action]} --agent {alert.agent} --reason "{alert.name}"'
