"""The table of alerts and routes, as it was promised: what the tests of rules, routing and `check` are held against."""

from alert_rules.rules import Alert

SEVERITIES = {
    "AgentCostAnomaly": {"P1"},
    "AgentErrorRateHigh": {"P1"},
    "AgentErrorRateCritical": {"P1"},
    "AgentLatencyP99High": {"P1"},
    "AgentRunawayLoop": {"P1"},
    "AgentProviderOutage": {"P1"},
    "AgentExporterDown": {"P1"},
    "AgentSuccessRateDrop": {"P2"},
    "AgentSuccessRateCritical": {"P2"},
    "AgentCostPerTaskHigh": {"P2"},
    "AgentIterationsSpike": {"P2"},
    "AgentToolValidityLow": {"P2"},
    "AgentSuccessRateLow": {"P2"},
    "AgentErrorBudgetBurn": {"P2"},
    "AgentExporterSilent": {"P2"},
    "AgentStateUnreadable": {"P2"},
    "AgentGenerationSkew": {"P2"},
    "AgentActionFailed": {"P2"},
    "AgentRolloutRollback": {"P2"},
    "AgentCostTrendUp": {"P3"},
    "AgentAbandonRateRising": {"P3"},
    "AgentConfidenceShift": {"P3"},
    "AgentGoalAlignmentShift": {"P3"},
    # P2 where an agent has no price at all.
    "AgentCostUnknown": {"P2", "P3"},
    "AgentIterationsP99High": {"P3"},
    "AgentTokenWasteHigh": {"P3"},
    "AgentLatencyP50High": {"P3"},
    "AgentAbandonRateHigh": {"P3"},
    "AgentSeriesLimited": {"P3"},
    "Watchdog": {"none"},
}
"""Alert → the severities it may have."""

ACTIONS = {
    "AgentCostAnomaly": "breaker",
    "AgentErrorRateCritical": "off",
    "AgentRunawayLoop": "breaker",
    "AgentProviderOutage": "provider",
    "AgentSuccessRateCritical": "prompt",
    "AgentCostPerTaskHigh": "model",
    "AgentRolloutRollback": "rollout",
}
"""Alert → what the controller is to do about it."""

WITHOUT_AGENT = {
    "AgentExporterDown",
    "AgentExporterSilent",
    "AgentSeriesLimited",
    "AgentStateUnreadable",
    "AgentGenerationSkew",
    "AgentActionFailed",
    "Watchdog",
}

RECEIVERS = {"P1": "pagerduty", "P2": "slack", "P3": "dashboard", "none": "dashboard"}


def labels(alert: Alert, agent: str = "a") -> dict[str, str]:
    """The labels of the alert when it fires for this agent."""
    found = {"alertname": alert.name, "severity": str(alert.severity), "cause": alert.cause}
    if alert.name not in WITHOUT_AGENT:
        found["agent"] = agent
    return {**found, "action": str(alert.action)} if alert.action else found


def expected_receivers(alert: Alert) -> list[str]:
    """The receivers by the table, in the order of the routes."""
    return [*(["controller"] if alert.action else []), RECEIVERS[alert.severity]]
