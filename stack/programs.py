"""The command lines of the local stack's processes. Each listens on the loopback interface alone."""

import sys
from pathlib import Path

from stack import servers
from stack.ports import LOOPBACK, Ports
from stack.processes import Program

_SELF = (sys.executable, "-m", "cli.main")

# One loop every 1.5 s by 40 tasks, where the incident had one every 8 s by 200: the page need not be waited for.
_RUNAWAY = ("--runaway-tasks", "40", "--loop-seconds", "1.5")


def exporter(data: Path, ports: Ports, config: Path | None) -> Program:
    command = [
        *_SELF,
        "serve",
        *("--otlp-grpc", f"{LOOPBACK}:{ports.otlp_grpc}"),
        *("--otlp-http", f"{LOOPBACK}:{ports.otlp_http}"),
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


def demo(ports: Ports) -> Program:
    target = f"{LOOPBACK}:{ports.otlp_grpc}"
    return Program("demo", [*_SELF, "demo", "normal", "--otlp", target, "--control", *_RUNAWAY], controlled=True)
