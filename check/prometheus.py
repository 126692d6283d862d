"""Is a Prometheus (or what speaks its API: Mimir, Thanos) complete: rules, series, scrapes, exemplars, retention?"""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import yaml

from alert_rules.promql import duration_seconds
from alert_rules.rules import Alert, Group, Recording, Site
from check import expressions, relabel, rules
from check.findings import Finding, listed
from check.server import NoAnswer, Server
from exporter.contract import FAMILIES, SCRAPE_JOB, Family, Kind

OLDEST = (2, 42)
COMPONENTS = ("library", "controller")
"""What else than the exporter serves series that rules read, and may not be in use."""

_SLOWEST_SCRAPE_SECONDS = 60
_SUFFIXES = ("", "_bucket", "_sum", "_count")
_SAMPLES = {
    f"{family.name}{suffix}": family
    for family in FAMILIES
    for suffix in (_SUFFIXES[1:] if family.kind is Kind.HISTOGRAM else _SUFFIXES[:1])
}
# Labels that may be empty on all series, and then are not there.
_MAY_BE_EMPTY = {"reason"}

# Why a series of a healthy installation may have no sample: family → the reason.
_NOT_YET = {
    "agent_task_confidence": "no agent tells its confidence",
    "agent_task_goal_alignment": "no judge scores tasks",
    "agent_tool_calls_total": "no agent has called a tool",
    "agent_tool_duration_seconds": "no agent has called a tool",
    "agent_time_to_first_token_seconds": "no agent streams",
    "agent_refusals_total": "no model has refused",
    "agent_unpriced_tokens_total": "every model has a price",
    "agent_unmetered_calls_total": "every call tells its tokens",
    "agent_rollout_started_total": "no rollout runs",
    "agent_rollout_tasks_total": "no rollout runs",
    "agent_rollout_cost_usd_total": "no rollout runs",
    "agent_rollout_stage_percent": "no rollout runs",
    "agent_rollout_verdict": "no rollout runs",
    "agent_controller_actions_total": "the controller has not acted",
}


def check(
    server: Server, groups: Sequence[Group], site: Site, *, without: Collection[str] = (), now: float | None = None
) -> Iterator[Finding]:
    """Everything about this server. `without` names components that are not in use; `now` is in epoch seconds."""
    try:
        found = server.data("/api/v1/rules")["groups"]
    except NoAnswer as error:
        yield Finding(f"Prometheus: {error}", "is it running, and is this its address? (--prometheus)")
        return
    yield from _version(server)
    yield from rules.same_rules(groups, site, found)
    yield from rules.evaluation(groups, found)
    now = time.time() if now is None else now
    for answers in (
        _targets(server),
        _series(server, groups, without, now),
        _exemplars(server),
        _retention(server, groups),
        _alertmanagers(server),
        _relabelling(server, groups, now),
    ):
        try:
            yield from answers
        except NoAnswer as error:
            yield Finding(f"Prometheus: {error}", "ask again; if it stays so, its log may say why")


def _version(server: Server) -> Iterator[Finding]:
    try:
        build = server.data("/api/v1/status/buildinfo")
    except NoAnswer:
        yield Finding(f"Prometheus answers at {server.url}")
        return
    version = build.get("version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    other = build.get("application") or "Prometheus"
    if other == "Prometheus" and numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        yield Finding(
            f"Prometheus {version} knows no keep_firing_for", f"update it to {OLDEST[0]}.{OLDEST[1]} or a later one"
        )
    else:
        yield Finding(f"{other} {version} answers at {server.url}")


def _query(server: Server, promql: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = server.data("/api/v1/query", {"query": promql})["result"]
    return result


def _targets(server: Server) -> Iterator[Finding]:
    """The exporters are scraped under the contract's job, answer, and often enough."""
    up = {
        sample["metric"].get("instance", ""): sample["value"][1]
        for sample in _query(server, f'up{{job="{SCRAPE_JOB}"}}')
    }
    if not up:
        jobs = {s["metric"].get("job", "") for s in _query(server, "group by (job) (agent_exporter_build_info)")}
        if jobs:
            yield Finding(
                f"the exporter is scraped under the job {listed(sorted(jobs))}, where rules look for {SCRAPE_JOB}",
                f"set job_name: {SCRAPE_JOB}, or relabel the label job to it (docs/existing-prometheus.md)",
            )
        else:
            yield Finding(
                f"no exporter is scraped: there is no job {SCRAPE_JOB}",
                "add the scrape job of docs/existing-prometheus.md",
            )
        return
    details = _active_targets(server)
    for instance, value in sorted(up.items()):
        if value != "1":
            error = details.get(instance, {}).get("lastError") or "the last scrape failed"
            yield Finding(
                f"exporter {instance} is not scraped: {error}", "is it running, and reachable from Prometheus?"
            )
    alive = sum(value == "1" for value in up.values())
    if alive == len(up):
        yield Finding(f"scrapes: job {SCRAPE_JOB}, {alive} of {len(up)} exporters up")
    slow = {
        instance: interval
        for instance, target in details.items()
        if (interval := duration_seconds(target.get("scrapeInterval", ""))) > _SLOWEST_SCRAPE_SECONDS
    }
    for instance, interval in sorted(slow.items()):
        yield Finding(
            f"exporter {instance} is scraped every {interval:g} s: rates over 2 minutes see too little",
            "set scrape_interval: 15s for the job",
        )


def _active_targets(server: Server) -> dict[str, dict[str, Any]]:
    """Instance → what Prometheus tells of the scrapes; nothing where the server has no scrapes of its own."""
    try:
        active = server.data("/api/v1/targets", {"state": "active"})["activeTargets"]
    except NoAnswer:
        return {}
    return {
        target["labels"].get("instance", ""): target for target in active if target["labels"].get("job") == SCRAPE_JOB
    }


def _series(server: Server, groups: Sequence[Group], without: Collection[str], now: float) -> Iterator[Finding]:
    """Every series that a rule reads is there, with the contract's labels, or it is told why it is not."""
    readers = _readers(groups)
    lately = _lately(now)
    match = [("match[]", '{__name__=~"agent_.+"}'), *lately.items()]
    there = set(server.data("/api/v1/label/__name__/values", match))
    read = [name for name in readers if name in _SAMPLES]
    if "agent_tasks_started_total" not in there:
        yield Finding(
            "no agent is seen: Prometheus has no agent_tasks_started_total of the last hour",
            "let an agent send its spans by OTLP to the exporter, 4317 (gRPC) or 4318 (HTTP)",
        )
    else:
        seen = agents(server, now)
        yield Finding(f"agents: {len(seen)} seen, {listed(seen)}")
    yield from _missing(server, [name for name in read if name not in there], readers, without)
    present = [name for name in read if name in there]
    yield from _labels(server, present, lately)
    if present:
        yield Finding(f"series: {len(present)} of {len(read)} that the rules read are there")


def agents(server: Server, now: float) -> list[str]:
    """The agents of the last hour, by name. `now` is in epoch seconds. Raises NoAnswer."""
    query = [("match[]", "agent_tasks_started_total"), *_lately(now).items()]
    return sorted(server.data("/api/v1/label/agent/values", query))


def _lately(now: float) -> dict[str, str]:
    return {"start": f"{now - 3600:.0f}", "end": f"{now:.0f}"}


def _readers(groups: Sequence[Group]) -> dict[str, set[str]]:
    """Every series that is read → the alerts that hang on it, through recorded series as well."""
    recorded: dict[str, set[str]] = {}
    readers: dict[str, set[str]] = {}
    for group in groups:
        for rule in group.rules:
            if isinstance(rule, Recording):
                recorded.setdefault(rule.record, set()).update(expressions.series(rule.expr))
    for group in groups:
        for rule in group.rules:
            if isinstance(rule, Alert):
                for name in _inputs(expressions.series(rule.expr), recorded):
                    readers.setdefault(name, set()).add(rule.name)
            else:
                for name in expressions.series(rule.expr):
                    readers.setdefault(name, set())
    return readers


def _inputs(names: set[str], recorded: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += recorded.get(name, ())
    return found


def _missing(
    server: Server, missing: Sequence[str], readers: Mapping[str, set[str]], without: Collection[str]
) -> Iterator[Finding]:
    scraped = _scraped_families(server)
    explained: dict[str, set[str]] = {}
    unserved: dict[str, set[str]] = {}
    for name in missing:
        family = _SAMPLES[name]
        if family.served_by in without:
            explained.setdefault(f"no {family.served_by} is in use, as you said", set()).add(name)
        elif _is_scraped(family, scraped):
            reason = _NOT_YET.get(family.name, "nothing of the kind has happened")
            explained.setdefault(reason, set()).add(name)
        else:
            unserved.setdefault(family.served_by, set()).add(name)
    for component, names in unserved.items():
        alerts = set().union(*(readers[name] for name in names))
        what = f"{listed(sorted(alerts)) or 'no alert'} can never fire: there is no {listed(sorted(names))}"
        if component in COMPONENTS:
            yield Finding(
                f"{what}, which the {component} serves",
                f"scrape the {component}, or say --without {component} where you do not use it",
            )
        else:
            yield Finding(
                what, "is the exporter scraped, of this version, and are none of its series dropped by relabelling?"
            )
    for reason, names in explained.items():
        yield Finding(f"no sample of {listed(sorted(names))}: {reason}")


def _scraped_families(server: Server) -> set[str]:
    """The families that targets tell of, samples or not."""
    try:
        return set(server.data("/api/v1/metadata"))
    except NoAnswer:
        return set()


def _is_scraped(family: Family, scraped: set[str]) -> bool:
    # OpenMetrics names a counter's family without _total.
    return family.name in scraped or family.name.removesuffix("_total") in scraped


def _labels(server: Server, present: Sequence[str], lately: Mapping[str, str]) -> Iterator[Finding]:
    for name in present:
        found = set(server.data("/api/v1/labels", [("match[]", name), *lately.items()]))
        labels = set(_SAMPLES[name].labels)
        if covered := sorted(label for label in labels if f"exported_{label}" in found):
            yield Finding(
                f"{name} has exported_{covered[0]}: the scrape puts a label of its own over {covered[0]}",
                f"set honor_labels: true for the job {SCRAPE_JOB}, or give the target no label {covered[0]}",
            )
        elif missing := sorted(labels - found - _MAY_BE_EMPTY):
            yield Finding(
                f"{name} has no label {listed(missing)}, which rules read",
                "is it dropped or renamed by relabelling, or is the exporter of another version?",
            )


def _exemplars(server: Server) -> Iterator[Finding]:
    todo = "start Prometheus with --enable-feature=exemplar-storage: without, no dot on a graph opens a trace"
    try:
        features = server.data("/api/v1/status/flags").get("enable-feature", "")
        config = yaml.safe_load(server.data("/api/v1/status/config")["yaml"]) or {}
    except (NoAnswer, yaml.YAMLError):
        yield Finding("exemplars: this server does not tell whether it stores them")
        return
    most = (config.get("storage") or {}).get("exemplars", {}).get("max_exemplars", 100_000)
    if "exemplar-storage" not in features.split(","):
        yield Finding("exemplars are not stored", todo)
    elif most <= 0:
        yield Finding(f"exemplars are not stored: storage.exemplars.max_exemplars is {most}", "set it to 100000")
    else:
        yield Finding(f"exemplars: stored, up to {most}")


def _retention(server: Server, groups: Sequence[Group]) -> Iterator[Finding]:
    needed = max((expressions.lookback(rule.expr) for group in groups for rule in group.rules), default=timedelta())
    try:
        told = server.data("/api/v1/status/runtimeinfo").get("storageRetention", "")
    except NoAnswer:
        told = ""
    kept = duration_seconds(told.partition(" or ")[0])
    if not kept:
        # By size alone, or kept elsewhere.
        yield Finding(f"retention: rules look back {needed.days} days; this server tells no time that it keeps data")
    elif kept < needed.total_seconds():
        yield Finding(
            f"data is kept for {told}, and rules look back {needed.total_seconds() / 86400:.1f} days",
            "start Prometheus with --storage.tsdb.retention.time=35d",
        )
    else:
        yield Finding(f"retention: {told} kept, {needed.total_seconds() / 86400:.1f} days needed")


def _alertmanagers(server: Server) -> Iterator[Finding]:
    try:
        active = server.data("/api/v1/alertmanagers")["activeAlertmanagers"]
    except NoAnswer:
        yield Finding("alerting: this server does not tell which Alertmanager it sends to")
        return
    if not active:
        yield Finding("Prometheus sends alerts to nobody", "name the Alertmanager in prometheus.yml, under alerting")
    else:
        yield Finding(f"alerting: alerts go to {listed(one['url'] for one in active)}")


def _relabelling(server: Server, groups: Sequence[Group], now: float) -> Iterator[Finding]:
    try:
        config = yaml.safe_load(server.data("/api/v1/status/config")["yaml"]) or {}
    except (NoAnswer, yaml.YAMLError):
        yield Finding("relabelling: this server does not tell what it does to alerts on their way")
        return
    alerts = [rule for group in groups for rule in group.rules if isinstance(rule, Alert)]
    yield from relabel.check(config, alerts, agents(server, now))
