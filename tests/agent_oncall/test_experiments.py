"""A/B tests in the agent: arms by user, and records that cost the agent nothing."""

import json
import os
import threading
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_oncall.bucket import bucket
from agent_oncall.experiments import KEY_FILE, Record, Records, hash_user, records_file, utc
from agent_oncall.schema import Experiment
from tests.agent_oncall import states
from tests.agent_oncall.conftest import World

TONE = Experiment(True, {}, {"prompt_version": "1.10.0", "temperature": 0.9}, 50_000, {"salt": "tone-1"})
OTHER = Experiment(True, {}, {}, 50_000, {"salt": "other-1"})


def record(i: int = 0, experiment: str = "tone") -> Record:
    return Record(experiment, f"u{i}", "a", f"t{i}", utc(0), True, 0.1, 3, 1500.0)


def lines(folder: Path, experiment: str = "tone") -> list[dict[str, Any]]:
    return [json.loads(line) for line in records_file(folder, "support", experiment).read_text("utf-8").splitlines()]


def test_users_are_split_by_the_experiments_own_salt(world: World) -> None:
    world.say(states.state(1, tone=TONE, other=OTHER))
    runtime = world.runtime()
    arms: dict[str, Mapping[str, str]] = {}
    for i in range(200):
        with runtime.task(f"u{i}") as task:
            arms[f"u{i}"] = task.arms
            assert task.config.temperature == (0.9 if task.arms["tone"] == "b" else 0.2)
            assert task.config.prompt_text == f"You help. {'1.10.0' if task.arms['tone'] == 'b' else '1.9.0'}"

    assert all((arm["tone"] == "b") == (bucket("tone-1", user) < 50_000) for user, arm in arms.items())
    both = sum(arm["tone"] == arm["other"] == "b" for arm in arms.values())
    assert both == pytest.approx(50, abs=25)


@pytest.mark.parametrize("default", ["stable", "backup"])
def test_who_is_nobody_or_served_by_the_backup_is_in_no_arm(world: World, default: str) -> None:
    world.say(states.state(1, default=default, tone=TONE))
    runtime = world.runtime(records=world.folder / "records")

    with runtime.task(None if default == "stable" else "u1") as task:
        assert task.arms == {}


def test_a_stopped_experiment_changes_nothing(world: World) -> None:
    world.say(states.state(1, tone=Experiment(False, {}, {"temperature": 0.9}, 100_000, {"salt": "x"})))

    with world.runtime().task("u1") as task:
        assert (task.arms, task.config.temperature) == ({}, 0.2)


def test_an_arm_whose_prompt_is_missing_is_none(world: World) -> None:
    world.say(states.state(1, tone=Experiment(True, {}, {"prompt_version": "7.0"}, 100_000, {"salt": "x"})))

    with world.runtime().task("u1") as task:
        assert (task.arms, task.config.prompt_version) == ({}, "1.9.0")
    assert world.metric("agent_prompt_errors", agent="support") == 1


def test_arms_are_no_label_of_any_span(world: World) -> None:
    world.say(states.state(1, tone=TONE))

    with world.runtime().task("u1"):
        pass

    assert {key for key in world.span("agent.task") if key.startswith("oncall.")} == {"oncall.agent", "oncall.variant"}


def test_each_task_is_recorded_with_all_that_is_to_be_known(world: World) -> None:
    world.say(states.state(1, tone=TONE))
    runtime = world.runtime(records=world.folder / "records", user_key=b"key", now=lambda: 1_767_225_600.0)
    with runtime.task("u1", task_id="t1") as task, task.iteration() as iteration:
        world.wait(1.5)
        iteration.answered(cost_usd=0.02)
        task.finish(success=True)
    with runtime.task("u2", task_id="t2"):
        pass
    with pytest.raises(ValueError, match="x"), runtime.task("u3", task_id="t3"):
        raise ValueError("x")
    assert runtime.records is not None
    runtime.records.close()

    first, second, third = lines(world.folder / "records")
    assert first == {
        "experiment_id": "tone",
        "user_id": hash_user(b"key", "u1"),
        "variant": "b" if bucket("tone-1", "u1") < 50_000 else "a",
        "task_id": "t1",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "success": True,
        "cost_usd": 0.02,
        "iterations": 1,
        "latency_ms": 1500.0,
    }
    assert (second["success"], second["cost_usd"], third["success"]) == (None, None, False)
    assert world.metric("agent_ab_records_lost", agent="support") == 0


def test_files_are_for_their_owners_eyes_and_a_users_hash_stays_the_same(tmp_path: Path) -> None:
    for _ in range(2):
        records = Records(tmp_path / "ab", "support", lambda _: None)
        records.put(record())
        records.close()

    first, second = lines(tmp_path / "ab")
    assert first["user_id"] == second["user_id"]
    assert "u0" not in records_file(tmp_path / "ab", "support", "tone").read_text("utf-8").replace("tone", "")
    for path, mode in ((tmp_path / "ab", 0o700), *((file, 0o600) for file in (tmp_path / "ab").iterdir())):
        assert path.stat().st_mode & 0o777 == mode, path
    assert sorted(os.listdir(tmp_path / "ab")) == ["support.tone.jsonl", KEY_FILE]


def test_ids_may_be_written_as_they_are(tmp_path: Path) -> None:
    records = Records(tmp_path, "support", lambda _: None, plain_users=True)
    records.put(record(7))
    records.close()

    assert lines(tmp_path)[0]["user_id"] == "u7"


def test_agents_do_not_share_a_file(tmp_path: Path) -> None:
    assert records_file(tmp_path, "a/b", "tone") != records_file(tmp_path, "c", "tone")
    assert records_file(tmp_path, "a/../b", "tone").parent == tmp_path


def test_what_can_not_be_written_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    lost: list[int] = []
    records = Records(tmp_path / "file", "support", lost.append)
    for i in range(5):
        records.put(record(i))
    records.close()

    assert sum(lost) == 5


def test_a_record_that_can_not_be_json_takes_no_other_with_it(tmp_path: Path) -> None:
    lost: list[int] = []
    records = Records(tmp_path, "support", lost.append)
    for i in range(5):
        records.put(record(i) if i != 3 else replace(record(i), task_id=object()))  # type: ignore[arg-type]
    records.close()

    assert [line["task_id"] for line in lines(tmp_path)] == ["t0", "t1", "t2", "t4"]
    assert sum(lost) == 1


def test_a_task_id_may_be_a_uuid(world: World) -> None:
    world.say(states.state(1, tone=TONE))
    runtime = world.runtime(records=world.folder / "records")
    name = uuid.uuid4()
    with runtime.task("u1", task_id=name):  # type: ignore[arg-type]
        pass
    assert runtime.records is not None
    runtime.records.close()

    assert [line["task_id"] for line in lines(world.folder / "records")] == [str(name)]


def test_a_disk_that_hangs_holds_up_nobody_and_costs_no_memory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / KEY_FILE)  # whoever reads it, waits
    lost: list[int] = []
    records = Records(tmp_path, "support", lost.append)
    for i in range(30_000):
        records.put(record(i))

    assert sum(lost) >= 19_000
    with (tmp_path / KEY_FILE).open("wb") as key:
        key.write(b"key")
    records.close(30)
    assert len(lines(tmp_path)) + sum(lost) == 30_000


def test_many_threads_and_writers_lose_and_mix_nothing(tmp_path: Path) -> None:
    writers = [Records(tmp_path, "support", lambda _: None) for _ in range(4)]

    def work(records: Records) -> None:
        for i in range(500):
            records.put(record(i))

    threads = [threading.Thread(target=work, args=(records,)) for records in writers for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for records in writers:
        records.close()

    assert len(lines(tmp_path)) == 4_000
    assert len({line["user_id"] for line in lines(tmp_path)}) == 500
