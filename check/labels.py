"""The labels of the alerts as routes see them, for a made-up agent and for those that are seen."""

from collections.abc import Iterator, Mapping, Sequence

from alert_rules.rules import Alert, Severity
from check.findings import listed

ANY_AGENT = "any-agent"


def labels_of(alert: Alert, agent: str = ANY_AGENT) -> dict[str, str]:
    """The labels of the alert when it fires for the agent."""
    found = {"alertname": alert.name, "severity": str(alert.severity), "cause": alert.cause}
    if alert.severity is not Severity.NONE:
        # The heartbeat is of no agent.
        found["agent"] = agent
    return {**found, "action": str(alert.action)} if alert.action else found


def affected(names: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Which alerts, a text for each Finding. `names` is agent → alerts; what holds for any agent is told once."""
    common = names.get(ANY_AGENT, ())
    if common:
        yield listed(common)
    alike: dict[tuple[str, ...], list[str]] = {}
    for agent, found in names.items():
        if only := tuple(name for name in found if name not in common):
            alike.setdefault(only, []).append(agent)
    for only, agents in alike.items():
        yield f"{listed(only)} of {listed(agents)}"
