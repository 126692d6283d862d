"""A real Prometheus with made-up samples in it."""

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stack.servers import PROMETHEUS, PROMTOOL, get
from tests.stack.ports import free_ports

Samples = Iterable[tuple[float, float]]


@contextmanager
def prometheus(folder: Path, families: Mapping[str, Iterable[tuple[Mapping[str, str], Samples]]]) -> Iterator[str]:
    """Its URL. `families`: counter name without `_total` → series, each labels and (unix seconds, value) points."""
    text = folder / "samples.txt"
    with text.open("w", encoding="utf-8") as file:
        for name, series in families.items():
            file.write(f"# TYPE {name} counter\n")
            for labels, samples in series:
                named = ",".join(f'{key}="{value}"' for key, value in labels.items())
                file.writelines(f"{name}_total{{{named}}} {value} {at:.3f}\n" for at, value in samples)
        file.write("# EOF\n")
    tsdb = folder / "tsdb"
    binaries = get([PROMETHEUS, PROMTOOL])
    subprocess.run(
        [binaries[PROMTOOL], "tsdb", "create-blocks-from", "openmetrics", text, tsdb], check=True, capture_output=True
    )
    (folder / "prometheus.yml").write_text("global: {}\n")
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    command = [
        str(binaries[PROMETHEUS]),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={tsdb}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _until(lambda: urllib.request.urlopen(f"{url}/-/ready", timeout=5).close(), server)
        yield url
    finally:
        server.terminate()
        server.wait()


def _until(ready: Callable[[], None], server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return ready()
        except (urllib.error.URLError, OSError):
            assert server.poll() is None, "Prometheus ended"
            assert time.monotonic() < deadline, "Prometheus isn't ready after a minute"
            time.sleep(0.05)
