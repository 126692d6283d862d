"""Vercel's AI SDK by its own spans.

npm install --prefix FOLDER ai @opentelemetry/api @opentelemetry/sdk-node @opentelemetry/exporter-trace-otlp-proto
NODE_PATH=FOLDER/node_modules uv run --no-project --with opentelemetry-proto \
    tests/exporter/recordings/make_vercel_ai.py
"""

import os
import shutil
import subprocess
from pathlib import Path

import scripted


def run(script: scripted.Script, base_url: str) -> None:
    modules = Path(os.environ["NODE_PATH"])
    program = modules.parent / "vercel_ai.mjs"  # beside its modules, where node looks for them
    shutil.copy(Path(__file__).with_name("vercel_ai.mjs"), program)
    asked = [base_url, script.scenario.name, str(script.scenario.tasks)]
    done = subprocess.run(["node", str(program), *asked], check=True, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        script.truth.tools.append(line.split())


if __name__ == "__main__":
    scripted.main(
        "vercel_ai",
        "its own, experimental_telemetry",
        ["npm:ai"],
        ["happy", "streaming", "tool_error", "llm_down", "two_tasks"],
        run,
    )
