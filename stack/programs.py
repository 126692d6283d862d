"""The command lines of the local stack's processes. Each listens on the loopback interface alone."""

import sys
from pathlib import Path

from stack import servers
from stack.ports import LOOPBACK, Ports
from stack.processes import Program

_SELF = (sys.executable, "-m", "cli.main")

# One loop every 1.5 s by 40 tasks, where the incident had one every 8 s by 200: the page need not be waited for.
_RUNAWAY = ("--runaway-tasks", "40", "--loop-seconds", "1.5")


def exporter(data: Path, ports: Ports, config: Path | None, *, behind_collector: bool = False) -> Program:
    grpc, http = (ports.exporter_grpc, ports.exporter_http) if behind_collector else (ports.otlp_grpc, ports.otlp_http)
    command = [
        *_SELF,
        "serve",
        *("--otlp-grpc", f"{LOOPBACK}:{grpc}"),
        *("--otlp-http", f"{LOOPBACK}:{http}"),
        *("--metrics", f"{LOOPBACK}:{ports.metrics}"),
        *("--journal", str(data / "journal")),
        *(("--config", str(config)) if config else ()),
    ]
    url = f"http://{LOOPBACK}:{ports.metrics}"
    return Program("exporter", command, ready=f"{url}/readyz", url=url)


def prometheus(binary: Path, data: Path, ports: Ports) -> Program:
    url = f"http://{LOOPBACK}:{ports.prometheus}"
    assets = servers.web_assets(binary)
    command = [
        str(binary),
        f"--config.file={data}/prometheus/prometheus.yml",
        f"--storage.tsdb.path={data}/prometheus/tsdb",
        "--storage.tsdb.retention.time=35d",
        f"--web.listen-address={LOOPBACK}:{ports.prometheus}",
        f"--web.external-url={url}",
        "--enable-feature=exemplar-storage",
        *([f"--web.local-assets={assets}"] if assets else []),
    ]
    return Program("prometheus", command, ready=f"{url}/-/ready", url=url)


def alertmanager(binary: Path, data: Path, ports: Ports) -> Program:
    url = f"http://{LOOPBACK}:{ports.alertmanager}"
    command = [
        str(binary),
        f"--config.file={data}/alertmanager/alertmanager.yml",
        f"--storage.path={data}/alertmanager/data",
        f"--web.listen-address={LOOPBACK}:{ports.alertmanager}",
        f"--web.external-url={url}",
        # One instance: no cluster, and so no port for it.
        "--cluster.listen-address=",
    ]
    return Program("alertmanager", command, ready=f"{url}/-/ready", url=url)


def state_file(data: Path) -> Path:
    """The controller's state."""
    return data / "state" / "flags.json"


def controller(data: Path, ports: Ports) -> Program:
    url = f"http://{LOOPBACK}:{ports.controller}"
    command = [
        *_SELF,
        "controller",
        *("--listen", f"{LOOPBACK}:{ports.controller}"),
        *("--state", str(state_file(data))),
        *("--token-file", str(data / "alertmanager" / "secrets" / "controller_token")),
        *("--prometheus", f"http://{LOOPBACK}:{ports.prometheus}"),
    ]
    return Program("controller", command, ready=f"{url}/healthz", url=url)


def collector(binary: Path, data: Path, ports: Ports) -> Program:
    command = [str(binary), "--config", f"{data}/otel-collector/config.yml"]
    return Program("collector", command, ready=f"http://{LOOPBACK}:{ports.collector_health}")


def jaeger(binary: Path, ports: Ports) -> Program:
    url = f"http://{LOOPBACK}:{ports.jaeger}"
    # Port 0: what nobody here asks for, and it has no switch to leave out.
    unused = (
        "admin.http",
        "collector.grpc-server",
        "collector.http-server",
        "collector.otlp.http",
        "query.grpc-server",
    )
    command = [
        str(binary),
        "--memory.max-traces=50000",
        f"--collector.otlp.grpc.host-port={LOOPBACK}:{ports.jaeger_otlp}",
        f"--query.http-server.host-port={LOOPBACK}:{ports.jaeger}",
        *(f"--{name}.host-port={LOOPBACK}:0" for name in unused),
    ]
    return Program("jaeger", command, ready=f"{url}/", url=url)


def demo(ports: Ports) -> Program:
    target = f"{LOOPBACK}:{ports.otlp_grpc}"
    return Program("demo", [*_SELF, "demo", "normal", "--otlp", target, "--control", *_RUNAWAY], controlled=True)
