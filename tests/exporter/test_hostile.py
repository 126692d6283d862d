"""Senders that mean harm, against a real exporter: it lives, stays small, tells no secret and counts others right."""

import random
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks import workload
from benchmarks.serving import EXPORT_TRACES, Serving, samples
from tests.exporter.hostile import JSON, PROTOBUF, SECRET
from tests.exporter.test_kill import counted, truth, unbalanced, undisturbed

# Limits so low that a short run goes past each of them.
SETTINGS: dict[str, Any] = {
    "max_values": {"agent": 20, "model": 20, "tool": 20, "task_type": 20, "scope": 20, "rollout": 5, "stop_reason": 10},
    "max_traces": 2_000,
    "max_spans_per_task": 500,
    "max_spans_in_flight": 10_000,
    "seen_spans": 20_000,
    "remembered_tasks": 2_000,
    "parent_grace_seconds": 0.2,
    "checkpoint_seconds": 1,
    "agents": {"*": {"give_up_seconds": 5}},
}
CONTROL = "control"
MOST_SERIES = 60_000
MOST_GROWTH_BYTES = 100 << 20


def send(serving: Serving, channel: grpc.Channel, name: str, body: bytes) -> None:
    """Sends it, and fails unless the answer is one that the protocol has for it."""
    if name in JSON:
        url = f"http://{serving.addresses['OTLP/HTTP']}/v1/traces"
        made = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(made, timeout=60) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        assert status in (200, 400), name
        return
    answer = channel.unary_unary(EXPORT_TRACES).future(body, timeout=60)
    assert answer.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), f"{name}: {answer.details()}"


def whole_tasks(chance: random.Random) -> bytes:
    """Tasks of the control agent from first to last span, so that nobody's flood comes in between."""
    start = time.time_ns() - 600 * 10**9
    tasks = [workload.base_task(chance, CONTROL, start) for _ in range(20)]
    return workload.encoded({CONTROL: [span for task in tasks for span in task]})


@pytest.mark.parametrize(
    ("rounds", "seed"), [(2, 1), pytest.param(150, 2, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_hostile_senders_do_no_harm(rounds: int, seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    control = [whole_tasks(chance) for _ in range(rounds)]
    senders = {**PROTOBUF, **JSON}
    sizes = []
    with Serving(journal=tmp_path / "journal", settings=SETTINGS) as serving, serving.channel() as channel:
        send(serving, channel, "control", control[0])
        for number in range(rounds):
            for name in chance.sample(sorted(senders), len(senders)):
                send(serving, channel, name, senders[name](chance))
            send(serving, channel, "control", control[number])
            page = serving.page()
            assert unbalanced(page) == ""
            assert SECRET not in page
            assert len(samples(page)) < MOST_SERIES
            sizes.append(serving.resident_bytes())
        found = {key: value for key, value in counted(page).items() if dict(key[1])["agent"] == CONTROL}
    log = "\n".join(serving.log)
    assert SECRET not in log
    assert "fault of the exporter" not in log
    assert len(log) < 100_000
    assert sizes[-1] - sizes[len(sizes) // 3] < MOST_GROWTH_BYTES, [size >> 20 for size in sizes]
    expected = undisturbed({CONTROL: control})
    assert {key: value for key, value in found.items() if value != pytest.approx(expected.get(key))} == {}
    assert sum(v for (name, _), v in found.items() if name == "agent_tokens_total") == truth(control)["tokens"]
