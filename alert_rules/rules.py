"""What a rule is: recording rules and alerts as plain data that check themselves."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from textwrap import dedent
from typing import Any

from alert_rules import links

_DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
_RECORD = re.compile(r"[a-z][a-z0-9_]*(:[a-z0-9_]+)+")
_ALERT = re.compile(r"Agent[A-Za-z0-9]+|Watchdog")


class Severity(StrEnum):
    """Who is told: see `routing`."""

    PAGE = "P1"
    CHAT = "P2"
    DASHBOARD = "P3"
    NONE = "none"


class Action(StrEnum):
    """What the controller is to do about an alert, by itself: the label `action`."""

    BREAKER = "breaker"
    OFF = "off"
    PROMPT = "prompt"
    MODEL = "model"
    PROVIDER = "provider"
    ROLLOUT = "rollout"


@dataclass(frozen=True, slots=True)
class Site:
    """What differs from one installation to the next and stands in the alerts' annotations."""

    runbooks: str = "https://github.com/agent-oncall/agent-oncall/blob/main/docs/runbooks"
    grafana: str = "http://127.0.0.1:3000"
    traces: str = ""
    """A trace search's address with `{agent}` in it; "" is Grafana's Explore."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule: the series `record` with `labels` is the value of `expr` at each evaluation of its group."""

    record: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _RECORD.fullmatch(self.record):
            raise ValueError(f"{self.record}: a recorded series is named level:metric or level:metric:operation")
        object.__setattr__(self, "expr", dedent(self.expr).strip())

    def document(self, site: Site) -> dict[str, Any]:
        """The rule as a rule file has it."""
        rule: dict[str, Any] = {"record": self.record, "expr": self.expr}
        return {**rule, "labels": dict(self.labels)} if self.labels else rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert: fires while `expr` has had a result for `wait`, and for `keep_firing_for` after the last one.

    `requirement` is where it comes from (A1, M14, ...); `cause` groups the alerts that are one incident; `action` is
    what the controller is to do about it, by itself.
    """

    name: str
    requirement: str
    severity: Severity
    cause: str
    expr: str
    wait: str = "0s"
    keep_firing_for: str = "0s"
    summary: str
    description: str
    action: Action | None = None

    def __post_init__(self) -> None:
        if not _ALERT.fullmatch(self.name):
            raise ValueError(f"{self.name}: an alert's name begins with Agent")
        for key, value in (("wait", self.wait), ("keep_firing_for", self.keep_firing_for)):
            if not _DURATION.fullmatch(value):
                raise ValueError(f"{self.name}.{key}: {value!r} is not a duration such as 5m")
        for key, text in (("summary", self.summary), ("description", self.description), ("cause", self.cause)):
            if not text:
                raise ValueError(f"{self.name}.{key}: is empty")
        object.__setattr__(self, "expr", dedent(self.expr).strip())

    def runbook(self) -> str:
        """The runbook's file name in docs/runbooks."""
        return f"{self.name}.md"

    def document(self, site: Site) -> dict[str, Any]:
        """The rule as a rule file has it."""
        labels = {"severity": str(self.severity), "cause": self.cause}
        if self.action:
            labels["action"] = str(self.action)
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expr}
        if self.wait != "0s":
            rule["for"] = self.wait
        if self.keep_firing_for != "0s":
            rule["keep_firing_for"] = self.keep_firing_for
        dashboard = f"{site.grafana.rstrip('/')}/d/agent-oncall-overview"
        annotations = {
            "summary": self.summary,
            "description": " ".join(dedent(self.description).split()),
            "requirement": self.requirement,
            "runbook_url": f"{site.runbooks.rstrip('/')}/{self.runbook()}",
            "dashboard_url": dashboard + "{{ with $labels.agent }}?var-agent={{ . | urlquery }}{{ end }}",
            "traces_url": links.traces(site.traces, site.grafana),
        }
        return {**rule, "labels": labels, "annotations": annotations}


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other, each seeing what those before it have just recorded."""

    name: str
    rules: tuple[Recording | Alert, ...]
    interval: str = ""

    def document(self, site: Site) -> dict[str, Any]:
        """The group as a rule file has it."""
        group: dict[str, Any] = {"name": self.name}
        if self.interval:
            group["interval"] = self.interval
        return {**group, "rules": [rule.document(site) for rule in self.rules]}
