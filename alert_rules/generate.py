"""Everything that is generated for Prometheus and Alertmanager, as text by file name."""

from collections.abc import Mapping, Sequence
from typing import Any

from alert_rules import (
    abandon,
    baseline,
    cost,
    cost_per_task,
    errors,
    health,
    iterations,
    latency,
    loops,
    provider,
    rates,
    rollout,
    scores,
    slo,
    success,
    tools,
    unpriced,
    waste,
)
from alert_rules.rules import Alert, Group, Site
from alert_rules.text import dump
from alert_rules.thresholds import Thresholds, load
from exporter.contract import SCRAPE_JOB

# The services' names in Compose.
EXPORTERS = ("exporter:9464",)
ALERTMANAGERS = ("alertmanager:9093",)


def groups(thresholds: Thresholds) -> tuple[Group, ...]:
    """All groups of rules, each a file of its own name: what is read is recorded before."""
    return (
        thresholds.group(),
        baseline.GROUP,
        cost.GROUP,
        errors.GROUP,
        errors.CRITICAL,
        loops.GROUP,
        provider.GROUP,
        latency.group(thresholds),
        iterations.BASE,
        iterations.GROUP,
        success.GROUP,
        abandon.GROUP,
        cost_per_task.GROUP,
        waste.GROUP,
        unpriced.GROUP,
        tools.GROUP,
        scores.GROUP,
        *slo.groups(thresholds),
        rollout.GROUP,
        rates.GROUP,
        health.GROUP,
        health.SLOW,
    )


def alerts() -> tuple[Alert, ...]:
    """All alerts, in the order of their files."""
    return tuple(rule for group in groups(load()) for rule in group.rules if isinstance(rule, Alert))


def rule_files(thresholds: Thresholds, site: Site) -> dict[str, str]:
    """The rule files: name → YAML."""
    return {f"{group.name}.yml": dump({"groups": [group.document(site)]}) for group in groups(thresholds)}


def prometheus_rules(
    thresholds: Thresholds, site: Site, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The rules for Prometheus' operator: file name → a PrometheusRule resource as YAML.

    A resource a group: the operator refuses one that is larger than half a ConfigMap. `labels` are what Prometheus'
    `ruleSelector` asks for.
    """
    metadata = {"namespace": namespace} if namespace else {}
    common = {"app.kubernetes.io/name": "agent-oncall", "app.kubernetes.io/component": "rules", **(labels or {})}
    return {
        f"{group.name}.yml": dump(
            {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "PrometheusRule",
                "metadata": {"name": f"agent-oncall-{group.name}", **metadata, "labels": common},
                "spec": {"groups": [group.document(site)]},
            }
        )
        for group in groups(thresholds)
    }


def prometheus_config(
    *,
    exporters: Sequence[str] = EXPORTERS,
    alertmanagers: Sequence[str] = ALERTMANAGERS,
    others: Mapping[str, Sequence[str]] | None = None,
    rule_files: Sequence[str] = ("rules/*.yml",),
    scrape_interval: str = "15s",
    evaluation_interval: str = "15s",
) -> str:
    """`prometheus.yml`: the exporters scraped under the contract's job, the rules, where alerts go.

    Addresses are HOST:PORT; `others` are further jobs, by name: the controller and agents that serve the library's
    series. `rule_files` are seen from the file's own folder. Exemplars need the flag
    `--enable-feature=exemplar-storage` as well.
    """
    jobs = {SCRAPE_JOB: exporters, **(others or {})}
    config: dict[str, Any] = {
        "global": {"scrape_interval": scrape_interval, "evaluation_interval": evaluation_interval},
        "storage": {"exemplars": {"max_exemplars": 100_000}},
        "rule_files": list(rule_files),
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()
        ],
    }
    return dump(config)
