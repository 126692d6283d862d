"""The OpenTelemetry Collector's configuration: agents' OTLP in; out to exporters and to a trace store.

What an exporter has to get waits in a queue on disk until it has got it: neither a restart of the exporter nor one of
the Collector loses a span. Batches are made behind that queue, so that nothing answered is in memory alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from alert_rules.text import dump

QUEUE_BYTES = 2_000_000_000
"""On disk, for each exporter: a day of 20 spans of 1 KB a second."""

_LISTEN = "0.0.0.0"


def collector_config(
    *,
    exporters: Sequence[str],
    trace_stores: Mapping[str, str],
    trace_store: str = "",
    grpc: str = f"{_LISTEN}:4317",
    http: str = f"{_LISTEN}:4318",
    health: str = f"{_LISTEN}:13133",
    queues: str = "/var/lib/otelcol",
) -> str:
    """The configuration as YAML. Addresses are HOST:PORT, `queues` is the folder of the queues on disk.

    `trace_stores` are the OTLP/gRPC addresses by name, `trace_store` is the name of the one that gets the traces, ""
    for none; `${env:...}` may stand there. Several `exporters` get a task's spans each, by its trace id.
    Understood by Collectors (contrib) of 0.144 and later.
    """
    if not 1 <= len(exporters) <= _PARTS:
        raise ValueError(f"{len(exporters)} exporters: there have to be 1 to {_PARTS}")
    names = ["exporter"] if len(exporters) == 1 else [f"exporter-{i}" for i in range(1, len(exporters) + 1)]
    outputs: dict[str, Any] = {
        f"otlp_grpc/{name}": _certain(address) for name, address in zip(names, exporters, strict=True)
    }
    outputs |= {f"otlp_grpc/{name}": _best_effort(address) for name, address in trace_stores.items()}
    store = [f"otlp_grpc/{trace_store}"] if trace_store else []

    def pipeline(receiver: str, sent_to: list[str]) -> dict[str, Any]:
        first = {"processors": ["memory_limiter"]} if receiver == "otlp" else {}
        return {"receivers": [receiver], **first, "exporters": sent_to}

    connectors: dict[str, Any] = {}
    if len(exporters) == 1:
        pipelines = {
            "traces": pipeline("otlp", ["otlp_grpc/exporter", *store]),
            "logs": pipeline("otlp", ["otlp_grpc/exporter"]),
        }
    else:
        for signal in ("traces", "logs"):
            connectors[f"routing/{signal}"] = _by_trace_id(signal, names)
        pipelines = {
            "traces": pipeline("otlp", ["routing/traces", *store]),
            "logs": pipeline("otlp", ["routing/logs"]),
        }
        for name in names:
            for signal in ("traces", "logs"):
                pipelines[f"{signal}/{name}"] = pipeline(f"routing/{signal}", [f"otlp_grpc/{name}"])
    return dump(
        {
            "extensions": {
                "health_check": {"endpoint": health},
                "file_storage": {"directory": queues, "create_directory": True, "fsync": False},
            },
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}}}},
            "processors": {
                "memory_limiter": {"check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 20}
            },
            **({"connectors": connectors} if connectors else {}),
            "exporters": outputs,
            "service": {
                "extensions": ["health_check", "file_storage"],
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": pipelines,
            },
        }
    )


_PARTS = 256


def _by_trace_id(signal: str, names: list[str]) -> dict[str, Any]:
    """Equal parts of the trace ids' last four hex digits: those are random even where the first ones are a time."""
    table = [
        {
            "context": {"traces": "span", "logs": "log"}[signal],
            "condition": f"ParseInt(Substring(trace_id.string, 28, 4), 16) < {0x10000 * i // len(names)}",
            "pipelines": [f"{signal}/{name}"],
        }
        for i, name in enumerate(names[:-1], start=1)
    ]
    return {"default_pipelines": [f"{signal}/{names[-1]}"], "error_mode": "ignore", "table": table}


def _certain(address: str) -> dict[str, Any]:
    return {
        "endpoint": address,
        "tls": {"insecure": True},
        "timeout": "10s",
        "retry_on_failure": {"enabled": True, "initial_interval": "1s", "max_interval": "10s", "max_elapsed_time": 0},
        "sending_queue": {
            "enabled": True,
            "storage": "file_storage",
            "sizer": "bytes",
            "queue_size": QUEUE_BYTES,
            # One after the other: so spans keep their order, children before the task that ends with them.
            "num_consumers": 1,
            "batch": {"sizer": "bytes", "flush_timeout": "200ms", "min_size": 100_000, "max_size": 4_000_000},
        },
    }


def _best_effort(address: str) -> dict[str, Any]:
    return {
        "endpoint": address,
        "tls": {"insecure": True},
        "retry_on_failure": {"enabled": True, "max_elapsed_time": "5m"},
        "sending_queue": {"enabled": True, "sizer": "bytes", "queue_size": 100_000_000},
    }
