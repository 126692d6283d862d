"""Real instrumentations' spans, as recorded, count as what really happened."""

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from exporter.config import Settings
from exporter.pipeline import Pipeline
from exporter.pricing import Pricing
from exporter.replay import read, replay

ROOT = Path(__file__).parents[2]
RECORDINGS = Path(__file__).parent / "recordings"
SHARED_SPANS = ROOT.parent / "shared" / "spans"
TRUTHS = sorted(RECORDINGS.glob("*/*.json"))
PRICING = Pricing()
# How many of the 285 shared recordings must be right, by measure.
BARS = {"tokens": 254, "calls": 266, "tools": 195, "tasks": 276, "outcome": 230}


def measured(counted: Pipeline) -> dict[str, Any]:
    got: dict[str, Any] = {"tokens": Counter(), "calls": 0, "tools": Counter(), "tasks": 0, "outcome": Counter()}
    for line in counted.measures.exposition(openmetrics=False, process=False).decode().splitlines():
        found = re.match(r"(\w+)\{(.*?)\} (\S+)", line)
        if found is None or not float(found[3]):
            continue
        labels, value = dict(re.findall(r'(\w+)="(.*?)"', found[2])), int(float(found[3]))
        match found[1]:
            case "agent_tokens_total":
                got["tokens"][labels["direction"]] += value
            case "agent_iterations_total" if labels["stop_reason"] != "error":
                got["calls"] += value
            case "agent_tool_calls_total":
                got["tools"][labels["tool"], labels["result"]] += value
            case "agent_tasks_total":
                got["tasks"] += value
                got["outcome"][labels["outcome"], labels["reason"]] += value
    return got


def expected(truth: dict[str, Any]) -> dict[str, Any]:
    """What the recording's maker saw; where the source does not send it (`why` says so), what it does send."""
    told = truth | truth.get("as_sent", {})
    return {
        "tokens": +Counter(told["tokens"]),
        "calls": told["calls"],
        "tools": Counter((name, result) for name, result in told["tools"]),
        "tasks": told["tasks"],
        "outcome": Counter({tuple(told["outcome"]): told["tasks"]}),
    }


@pytest.mark.parametrize("path", TRUTHS, ids=[f"{p.parent.name}-{p.stem}" for p in TRUTHS])
def test_a_recording_counts_as_what_really_happened(path: Path) -> None:
    counted = replay([path.with_suffix(".bin")], Settings(), PRICING)
    assert measured(counted) == expected(json.loads(path.read_text()))


@pytest.mark.parametrize("path", TRUTHS, ids=[f"{p.parent.name}-{p.stem}" for p in TRUTHS])
def test_a_recording_counts_the_same_when_all_of_it_comes_at_once(path: Path) -> None:
    requests = list(read(path.with_suffix(".bin")))
    clock = requests[-1].arrival
    counted = Pipeline(Settings(), clock=lambda: clock, pricing=PRICING)
    # The requests of one sender strung together are a request too, in protobuf.
    counted.take_traces(b"".join(request.body for request in requests))
    clock = counted.end_of_time()
    counted.advance()
    assert measured(counted) == expected(json.loads(path.read_text()))


@pytest.mark.skipif(not SHARED_SPANS.is_dir(), reason="no shared/spans beside the repository")
def test_the_shared_recordings_are_read_at_least_as_well_as_required() -> None:
    replaying = f"{shlex.quote(sys.executable)} -m cli.main replay --each"
    scored = subprocess.run(
        [sys.executable, SHARED_SPANS / "score", "--fails", "0", "--replay", replaying],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    right = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+) +(\d+) of 285 right", scored.stdout, re.MULTILINE)}
    assert {measure: right.get(measure, 0) for measure in BARS} == {
        measure: max(bar, right.get(measure, 0)) for measure, bar in BARS.items()
    }
    assert "0 below the prototype" in scored.stdout.splitlines()
