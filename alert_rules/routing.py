"""Alertmanager's configuration: who is told of which alert.

P1 pages through PagerDuty, one incident per agent and cause; P2 goes to Slack; P3 is shown on the dashboard alone. What
carries an `action` label goes to the controller as well, at once. Secrets are named by file, never written here.
Understood by Alertmanager 0.25 and later.
"""

from typing import Any

from alert_rules.text import dump

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
CONTROLLER_URL = "http://controller:9465/alerts"
SECRETS_DIR = "/etc/alertmanager/secrets"
SLACK_CHANNEL = "#agent-oncall"

_EACH = "{{ range .Alerts.Firing }}- {{ .Annotations.%s }}\n{{ end }}"
_FIRST = "{{ (index .Alerts 0).Annotations.%s }}"


def alertmanager_config(
    *,
    pagerduty_url: str = PAGERDUTY_URL,
    secrets_dir: str = SECRETS_DIR,
    slack_api_url_file: str | None = None,
    slack_channel: str = SLACK_CHANNEL,
    controller_url: str | None = CONTROLLER_URL,
    controller_token_file: str | None = None,
    watchdog_url: str | None = None,
) -> str:
    """The configuration as YAML.

    `secrets_dir` holds the files `pagerduty_routing_key` (an Events v2 integration key) and, unless
    `slack_api_url_file` names another place, `slack_api_url` (an incoming webhook's URL). Without `controller_url`
    nothing acts on alerts by itself; `watchdog_url` is a dead man's switch that is called once a minute or so.
    """
    slack_file = slack_api_url_file or f"{secrets_dir}/slack_api_url"
    routes: list[dict[str, Any]] = []
    receivers = [
        {"name": "pagerduty", "pagerduty_configs": [_pagerduty(pagerduty_url, f"{secrets_dir}/pagerduty_routing_key")]},
        {"name": "slack", "slack_configs": [_slack(slack_file, slack_channel)]},
        {"name": "dashboard"},
    ]
    if controller_url:
        routes.append(
            {
                "receiver": "controller",
                "matchers": ['action != ""'],
                "group_by": ["agent"],
                "group_wait": "0s",
                "group_interval": "15s",
                "repeat_interval": "5m",
                "continue": True,
            }
        )
        receivers.append(
            {"name": "controller", "webhook_configs": [_webhook(controller_url, controller_token_file)]},
        )
    if watchdog_url:
        receivers.append({"name": "watchdog", "webhook_configs": [_webhook(watchdog_url, None)]})
    routes += [
        {
            "receiver": "watchdog" if watchdog_url else "dashboard",
            "matchers": ['alertname = "Watchdog"'],
            "group_wait": "0s",
            "group_interval": "1m",
            "repeat_interval": "1m",
        },
        {
            # PagerDuty's dedup key is the group's, so the group is the incident: one per agent and cause.
            "receiver": "pagerduty",
            "matchers": ['severity = "P1"'],
            "group_by": ["agent", "cause"],
            "group_wait": "0s",
            "group_interval": "1m",
            "repeat_interval": "4h",
        },
        {
            "receiver": "slack",
            "matchers": ['severity = "P2"'],
            "group_by": ["agent", "alertname"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
        },
        {"receiver": "dashboard", "matchers": ['severity = "P3"']},
    ]
    return dump(
        {
            "route": {
                # What no route below names is still seen by someone.
                "receiver": "slack",
                "group_by": ["agent", "alertname"],
                "group_wait": "30s",
                "group_interval": "5m",
                "repeat_interval": "12h",
                "routes": routes,
            },
            "inhibit_rules": INHIBIT_RULES,
            "receivers": receivers,
        }
    )


INHIBIT_RULES: list[dict[str, Any]] = [
    {
        # Roll back includes page: one of the two is enough.
        "source_matchers": ['alertname = "AgentErrorRateCritical"'],
        "target_matchers": ['alertname = "AgentErrorRateHigh"'],
        "equal": ["agent"],
    },
    {
        # With the exporter gone, what hangs on its numbers is a consequence. P1 stays: another exporter may live.
        "source_matchers": ['alertname = "AgentExporterDown"'],
        "target_matchers": ['severity =~ "P2|P3"'],
    },
]


def _pagerduty(url: str, routing_key_file: str) -> dict[str, Any]:
    return {
        "routing_key_file": routing_key_file,
        "url": url,
        "send_resolved": True,
        "severity": "critical",
        "description": _FIRST % "summary",
        "client": "agent-oncall",
        "client_url": _FIRST % "dashboard_url",
        "component": "{{ .CommonLabels.agent }}",
        "group": "{{ .CommonLabels.agent }}",
        "class": "{{ .CommonLabels.cause }}",
        "details": {
            "agent": "{{ .CommonLabels.agent }}",
            "alerts": "{{ range .Alerts.Firing }}{{ .Labels.alertname }} since {{ .StartsAt }}\n{{ end }}",
            "what": _EACH % "description",
            "do": "{{ range .Alerts.Firing }}{{ with .Labels.action }}{{ . }}\n{{ end }}{{ end }}",
        },
        "links": [
            {"href": _FIRST % "runbook_url", "text": "Runbook"},
            {"href": _FIRST % "dashboard_url", "text": "Dashboard"},
        ],
    }


def _slack(api_url_file: str, channel: str) -> dict[str, Any]:
    return {
        "api_url_file": api_url_file,
        "channel": channel,
        "send_resolved": True,
        "title": "{{ if eq .Status `resolved` }}Resolved: {{ end }}" + _FIRST % "summary",
        "title_link": _FIRST % "runbook_url",
        "text": _EACH % "description",
        "actions": [
            {"type": "button", "text": "Runbook", "url": _FIRST % "runbook_url"},
            {"type": "button", "text": "Dashboard", "url": _FIRST % "dashboard_url"},
        ],
    }


def _webhook(url: str, token_file: str | None) -> dict[str, Any]:
    webhook: dict[str, Any] = {"url": url, "send_resolved": True}
    if token_file:
        webhook["http_config"] = {"authorization": {"credentials_file": token_file}}
    return webhook
