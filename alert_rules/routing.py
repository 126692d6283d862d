"""Alertmanager's configuration: who is told of which alert.

P1 pages through PagerDuty, one incident per agent and cause; P2 goes to Slack; P3 is shown on the dashboard alone. What
carries an `action` label goes to the controller as well, at once. Secrets are named by file, never written here.
Understood by Alertmanager 0.25 and later.
"""

from dataclasses import dataclass
from typing import Any

from alert_rules.text import dump

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
CONTROLLER_URL = "http://controller:9465/alerts"
SECRETS_DIR = "/etc/alertmanager/secrets"
SLACK_CHANNEL = "#agent-oncall"

FRAGMENT_PREFIX = "agent-oncall-"
"""Before the receivers' names in a fragment, so that they are not taken for ones that are there already."""

# Ours alone: an existing Alertmanager has alerts of others, a Watchdog perhaps among them.
OURS = ('alertname =~ "Agent.+|Watchdog"', 'cause != ""')


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivers:
    """Where notifications go.

    `secrets_dir` holds the files `pagerduty_routing_key` (an Events v2 integration key), `controller_token` (the
    controller's bearer token) and `slack_api_url` (an incoming webhook's URL); `slack_api_url_file` and
    `controller_token_file` name other places. Without `controller_url` nothing acts on alerts by itself.
    `watchdog_url` is a dead man's switch that is called once a minute or so; where its address is a secret,
    `watchdog_url_file` names the file that holds it (Alertmanager 0.26 and later).
    """

    pagerduty_url: str = PAGERDUTY_URL
    secrets_dir: str = SECRETS_DIR
    slack_api_url_file: str | None = None
    slack_channel: str = SLACK_CHANNEL
    controller_url: str | None = CONTROLLER_URL
    controller_token_file: str | None = None
    watchdog_url: str | None = None
    watchdog_url_file: str | None = None

    @property
    def has_watchdog(self) -> bool:
        return bool(self.watchdog_url or self.watchdog_url_file)

    def document(self, prefix: str = "") -> list[dict[str, Any]]:
        """The receivers as Alertmanager's configuration has them."""
        pagerduty = _pagerduty(self.pagerduty_url, f"{self.secrets_dir}/pagerduty_routing_key")
        slack = _slack(self.slack_api_url_file or f"{self.secrets_dir}/slack_api_url", self.slack_channel)
        found: list[dict[str, Any]] = [
            {"name": f"{prefix}pagerduty", "pagerduty_configs": [pagerduty]},
            {"name": f"{prefix}slack", "slack_configs": [slack]},
            {"name": f"{prefix}dashboard"},
        ]
        if self.controller_url:
            token = self.controller_token_file or f"{self.secrets_dir}/controller_token"
            webhook: dict[str, Any] = {
                "url": self.controller_url,
                "send_resolved": True,
                "http_config": {"authorization": {"type": "Bearer", "credentials_file": token}},
            }
            found.append({"name": f"{prefix}controller", "webhook_configs": [webhook]})
        if self.has_watchdog:
            switch = {"url": self.watchdog_url} if self.watchdog_url else {"url_file": self.watchdog_url_file}
            found.append({"name": f"{prefix}watchdog", "webhook_configs": [{**switch, "send_resolved": False}]})
        return found


def alertmanager_config(receivers: Receivers) -> str:
    """The whole configuration, as YAML."""
    return dump(
        {
            # What no route below names is still seen by someone.
            "route": {**_chat("slack"), "routes": _routes(receivers, "")},
            "inhibit_rules": INHIBIT_RULES,
            "receivers": receivers.document(),
        }
    )


def alertmanager_fragment(receivers: Receivers) -> str:
    """What to add to an existing configuration, as YAML: one route with all of ours below it, receivers, inhibitions.

    Its keys are those of the whole configuration; docs/existing-alertmanager.md says how to merge them.
    """
    prefix = FRAGMENT_PREFIX
    route = {"matchers": list(OURS), **_chat(f"{prefix}slack"), "routes": _routes(receivers, prefix)}
    return dump(
        {
            "route": {"routes": [route]},
            "inhibit_rules": INHIBIT_RULES,
            "receivers": receivers.document(prefix),
        }
    )


def _routes(receivers: Receivers, prefix: str) -> list[dict[str, Any]]:
    """The table of routes: the first that matches takes an alert, unless it says `continue`."""
    controller = {
        "receiver": f"{prefix}controller",
        "matchers": ['action != ""'],
        "group_by": ["agent"],
        "group_wait": "0s",
        # A second action for an agent waits no longer than this for its turn.
        "group_interval": "5s",
        "repeat_interval": "5m",
        "continue": True,
    }
    return [
        *([controller] if receivers.controller_url else []),
        {
            "receiver": f"{prefix}watchdog" if receivers.has_watchdog else f"{prefix}dashboard",
            "matchers": ['alertname = "Watchdog"'],
            "group_by": ["alertname"],
            "group_wait": "0s",
            "group_interval": "1m",
            # Shorter than the interval: the same would now and then skip a beat.
            "repeat_interval": "50s",
        },
        {
            # PagerDuty's dedup key is a hash of the group's labels, so the group is the incident.
            "receiver": f"{prefix}pagerduty",
            "matchers": ['severity = "P1"'],
            "group_by": ["agent", "cause"],
            "group_wait": "0s",
            "group_interval": "1m",
            "repeat_interval": "4h",
        },
        {**_chat(f"{prefix}slack"), "matchers": ['severity = "P2"']},
        {"receiver": f"{prefix}dashboard", "matchers": ['severity = "P3"']},
    ]


def _chat(receiver: str) -> dict[str, Any]:
    return {
        "receiver": receiver,
        "group_by": ["agent", "alertname"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "12h",
    }


def _inhibit(sources: tuple[str, ...], targets: tuple[str, ...], equal: tuple[str, ...] = ("agent",)) -> dict[str, Any]:
    """While one of `sources` fires for an agent, `targets` of the same agent tell nobody."""
    return {
        "source_matchers": [_any_of(sources)],
        # What is inhibited does not reach the controller either, so nothing with an action may be.
        "target_matchers": [_any_of(targets), 'action = ""'],
        "equal": list(equal),
    }


def _any_of(names: tuple[str, ...]) -> str:
    return f'alertname = "{names[0]}"' if len(names) == 1 else f'alertname =~ "{"|".join(names)}"'


# An inhibited alert's end is not told either: in PagerDuty its incident would stay open for ever. So a page is only
# inhibited by one of the same cause, which is the same incident and ends with it.
INHIBIT_RULES: list[dict[str, Any]] = [
    # The same errors, more of them or with their reason.
    _inhibit(("AgentErrorRateCritical", "AgentProviderOutage"), ("AgentErrorRateHigh",)),
    # Tasks that fail reach no goal.
    _inhibit(
        ("AgentErrorRateHigh", "AgentErrorRateCritical", "AgentProviderOutage"),
        ("AgentErrorBudgetBurn", "AgentSuccessRateDrop"),
    ),
    # The canary's fall says nothing of the stable variant.
    _inhibit(("AgentSuccessRateCritical",), ("AgentSuccessRateDrop",), ("agent", "variant")),
    # A loop is many iterations.
    _inhibit(("AgentCostAnomaly", "AgentRunawayLoop"), ("AgentIterationsSpike",)),
    {
        # No exporter is left (one of several has the label instance, and the others' agents are still watched): what
        # hangs on their numbers is a consequence. Pages are not: they rest on what was measured before, and end by
        # themselves.
        "source_matchers": ['alertname = "AgentExporterDown"', 'instance = ""'],
        "target_matchers": [*OURS, 'severity =~ "P2|P3"', 'agent != ""', 'action = ""'],
    },
]


def _first(annotation: str) -> str:
    """The annotation of the first alert that fires, or of the first one when all have ended."""
    return (
        f"{{{{ with .Alerts.Firing }}}}{{{{ (index . 0).Annotations.{annotation} }}}}"
        f"{{{{ else }}}}{{{{ (index .Alerts 0).Annotations.{annotation} }}}}{{{{ end }}}}"
    )


_DESCRIPTIONS = "{{ range .Alerts.Firing }}- {{ .Annotations.description }}\n{{ end }}"


def _pagerduty(url: str, routing_key_file: str) -> dict[str, Any]:
    return {
        "routing_key_file": routing_key_file,
        "url": url,
        "send_resolved": True,
        "severity": "critical",
        "description": _first("summary"),
        "client": "agent-oncall",
        "client_url": _first("dashboard_url"),
        "component": "{{ .CommonLabels.agent }}",
        "group": "{{ .CommonLabels.agent }}",
        "class": "{{ .CommonLabels.cause }}",
        "details": {
            # Newer Alertmanagers read each of these as YAML and keep it as text where it is none: nothing would
            # be null, a dash a list, `off` false. What begins with a tab is no YAML.
            "agent": "{{ with .CommonLabels.agent }}{{ . }}{{ else }}none{{ end }}",
            "alerts": "{{ range .Alerts.Firing }}{{ .Labels.alertname }} since {{ .StartsAt }}\n{{ end }}",
            "what": "\t" + _DESCRIPTIONS,
            "do": "\t{{ range .Alerts.Firing }}{{ with .Labels.action }}{{ . }}\n{{ end }}{{ end }}",
        },
        # One without an address is left out: an alert on no agent has no traces.
        "links": [
            {"href": _first("runbook_url"), "text": "Runbook"},
            {"href": _first("dashboard_url"), "text": "Dashboard"},
            {"href": _first("traces_url"), "text": "Traces"},
        ],
    }


def _slack(api_url_file: str, channel: str) -> dict[str, Any]:
    # In the text, not a button: Slack refuses a button without an address, and an alert on no agent has no traces.
    traces = "{{ with (index .Alerts 0).Annotations.traces_url }}<{{ . }}|Traces>{{ end }}"
    return {
        "api_url_file": api_url_file,
        "channel": channel,
        "send_resolved": True,
        "title": "{{ if eq .Status `resolved` }}Resolved: {{ end }}" + _first("summary"),
        "title_link": _first("runbook_url"),
        "text": _DESCRIPTIONS + traces,
        "actions": [
            {"type": "button", "text": "Runbook", "url": _first("runbook_url")},
            {"type": "button", "text": "Dashboard", "url": _first("dashboard_url")},
        ],
    }
