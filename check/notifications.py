"""Do an Alertmanager's notifications leave? Its own counters tell."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from check.findings import Finding, listed
from check.samples import samples
from check.server import NoAnswer, Server

# A notification is tried until it leaves or is given up: each try is a request, and the next notification of its group
# is due by then.
_TRIED = "alertmanager_notification_requests_total"
_REFUSED = "alertmanager_notification_requests_failed_total"
_SENT = "alertmanager_notifications_total"
_GIVEN_UP = "alertmanager_notifications_failed_total"

_TODO = (
    "look for Notify in Alertmanager's log: does it read the files with the secrets, is the address right? "
    "It counts from its start: of what is mended, a restart tells"
)


def integrations(receiver: Mapping[str, Any]) -> list[str]:
    """By what the receiver tells somebody, as Alertmanager's counters name it: pagerduty, slack, webhook."""
    return [key.removesuffix("_configs") for key, value in receiver.items() if key.endswith("_configs") and value]


def check(server: Server, receivers: Sequence[Mapping[str, Any]], ours: Collection[str]) -> Iterator[Finding]:
    """Whether notifications of the receivers named in `ours` leave; `receivers` are all of the configuration."""
    try:
        page = server.text("/metrics")
    except NoAnswer:
        yield Finding("notifications: this server does not tell whether they leave")
        return
    counted = _counted(page)
    left, untried = 0, []
    for who, key in _counters(receivers, ours, named=any(receiver for _, _, receiver in counted)):
        tried, refused, sent, given_up = (round(counted[name, *key]) for name in (_TRIED, _REFUSED, _SENT, _GIVEN_UP))
        if not tried:
            untried.append(who)
        elif refused >= tried:
            yield Finding(f"no notification leaves by {who}: all of {tried} tries have failed", _TODO)
        elif given_up:
            yield Finding(f"{given_up} of {sent} notifications by {who} have failed", _TODO)
        else:
            left += sent
    if left:
        yield Finding(f"notifications: {left} have left")
    if untried:
        yield Finding(f"none has been sent yet by {listed(untried)}: whether one can leave is not known")


def _counted(page: str) -> defaultdict[tuple[str, str, str], float]:
    """(counter, integration, receiver) → its value; without the feature receiver-name-in-metrics, receiver is ""."""
    found: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for name, labels, value in samples(page):
        # A reload of the configuration cancels what is under way, and it is sent again.
        if name in (_TRIED, _REFUSED, _SENT, _GIVEN_UP) and labels.get("reason") != "contextCanceled":
            found[name, labels["integration"], labels.get("receiver_name", "")] += value
    return found


def _counters(
    receivers: Sequence[Mapping[str, Any]], ours: Collection[str], *, named: bool
) -> Iterator[tuple[str, tuple[str, str]]]:
    """The (integration, receiver) of counters that tell of our receivers, each with what to call it."""
    users: dict[str, list[str]] = {}
    for receiver in receivers:
        for integration in integrations(receiver):
            users.setdefault(integration, []).append(receiver["name"])
    for integration, names in users.items():
        mine = [name for name in names if name in ours]
        if named:
            for name in mine:
                yield f"{integration} (receiver {name})", (integration, name)
        elif mine:
            # Which of them fails is not counted: ours first.
            rest = [name for name in names if name not in ours]
            yield (
                f"{integration} (receiver{'s' if len(names) > 1 else ''} {listed([*mine, *rest])})",
                (integration, ""),
            )
