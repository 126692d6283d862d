"""Takes the pictures of docs/dashboards.md: of a normal day, and of the incident an hour later.

.venv/bin/python -m tools.history HISTORY
.venv/bin/python -m tools.dashboard_pictures VIEWER HISTORY docs/img

VIEWER is the folder of the dashboard viewer, set up. It draws no annotations and asks no Tempo.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from alert_rules.thresholds import load
from dashboards.generate import dashboard_files
from stack.past import PastPrometheus
from tools.history import span

_HOURS = 3600
# name of the picture: dashboard, hours before the end of the incident, hours shown, theme, height
_PICTURES = {
    "overview-normal": ("overview", 1, 6, "light", "900"),
    "overview-incident": ("overview", 0, 6, "dark", "900"),
    "overview-all": ("overview", 1, 6, "dark", "auto"),
    "agent": ("agent", 0, 6, "light", "1300"),
    "rollout": ("rollout", 1, 48, "light", "auto"),
    "exporter": ("exporter", 1, 6, "dark", "1300"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("viewer", type=Path)
    parser.add_argument("history", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--only", choices=_PICTURES, action="append")
    parser.add_argument("--port", type=int, default=9099)
    options = parser.parse_args()
    _, end = span(options.history)
    prometheus = PastPrometheus(options.history / "evaluated", options.port)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in dashboard_files(load()).items():
                Path(folder, name).write_text(text, encoding="utf-8")
            for picture in options.only or _PICTURES:
                board, before, hours, theme, height = _PICTURES[picture]
                until = end - before * _HOURS
                command = [
                    *("./view", f"{folder}/{board}.json", "--prom", prometheus.url),
                    *("--out", str(options.pictures.resolve() / f"dashboard-{picture}.png")),
                    *("--from", f"{1000 * (until - hours * _HOURS):.0f}", "--to", f"{1000 * until:.0f}"),
                    *("--theme", theme, "--height", height, "--timeout", "300"),
                    *(("--var", "agent=support-agent") if board in ("agent", "rollout") else ()),
                ]
                done = subprocess.run(command, cwd=options.viewer, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(done.stdout + done.stderr, file=sys.stderr)
                    return 1
                print(f"{picture}: empty are {json.loads(done.stdout)['noData']}", flush=True)
    finally:
        prometheus.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
