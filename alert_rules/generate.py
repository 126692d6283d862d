"""Prometheus' own configuration, as the stack runs it."""

from collections.abc import Sequence
from typing import Any

from alert_rules.text import dump
from exporter.contract import SCRAPE_JOB


def prometheus_config(
    *,
    exporters: Sequence[str] = ("exporter:9464",),
    alertmanagers: Sequence[str] = ("alertmanager:9093",),
    rule_files: Sequence[str] = ("rules/*.yml",),
    scrape_interval: str = "15s",
    evaluation_interval: str = "15s",
) -> str:
    """`prometheus.yml`: the exporters scraped under the contract's job, the rules, where alerts go.

    Addresses are HOST:PORT; `rule_files` are seen from the file's own folder. Exemplars need the flag
    `--enable-feature=exemplar-storage` as well.
    """
    config: dict[str, Any] = {
        "global": {"scrape_interval": scrape_interval, "evaluation_interval": evaluation_interval},
        "storage": {"exemplars": {"max_exemplars": 100_000}},
        "rule_files": list(rule_files),
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
        "scrape_configs": [{"job_name": SCRAPE_JOB, "static_configs": [{"targets": list(exporters)}]}],
    }
    return dump(config)
