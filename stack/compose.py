"""What docker-compose.yml mounts beyond the rules, routes and dashboards that every installation has."""

from alert_rules.generate import prometheus_config
from alert_rules.routing import Receivers, alertmanager_config
from alert_rules.text import dump
from stack.collector import collector_config

EXPORTERS = ("exporter", "exporter-2", "exporter-3")
"""The exporters' services; the first is there always, the others in the profile `scale`."""

_STORES = {"tempo": "tempo:4317", "jaeger": "jaeger:4317"}
_STORE = "${env:TRACE_STORE}"


def files() -> dict[str, str]:
    """Path below provisioning/ → text."""
    return {
        "alertmanager/local.yml": alertmanager_config(Receivers(pagerduty_url="http://pager:9095/v2/enqueue")),
        "otel-collector/config.yml": collector_config(
            exporters=[f"{EXPORTERS[0]}:4317"], trace_stores=_STORES, trace_store=_STORE
        ),
        "otel-collector/scale.yml": collector_config(
            exporters=[f"{name}:4317" for name in EXPORTERS], trace_stores=_STORES, trace_store=_STORE
        ),
        "prometheus/scale.yml": prometheus_config(
            exporters=[f"{name}:9464" for name in EXPORTERS], others={"agent-controller": ["controller:9465"]}
        ),
        "tempo/tempo.yml": tempo_config(),
    }


def tempo_config() -> str:
    """Tempo in one process, blocks on disk for two weeks."""
    return dump(
        {
            "server": {"http_listen_port": 3200},
            "distributor": {"receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}}}}},
            "storage": {
                "trace": {
                    "backend": "local",
                    "local": {"path": "/var/tempo/blocks"},
                    "wal": {"path": "/var/tempo/wal"},
                }
            },
            "compactor": {"compaction": {"block_retention": "336h"}},
            "usage_report": {"reporting_enabled": False},
        }
    )
