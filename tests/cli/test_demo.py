import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.main import main
from tests.demo.receiver import Receiver
from tests.stack.ports import free_ports


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.stop(None)


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", "demo", *arguments]


def test_the_incident_is_sent_and_summed_up(receiver: Receiver) -> None:
    command = demo("incident", "--otlp", receiver.target, "--speed", "30", "--seconds", "60", "--bare")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    spans = receiver.spans().values()
    iterations = [span for span in spans if span.name == "agent.iteration"]
    assert len(iterations) > 200 * 3
    assert f"{len(iterations)} iterations" in done.stderr
    assert not any(pair.key == "iteration.model" for span in iterations for pair in span.attributes)


def test_under_control_it_breaks_when_told_and_ends_with_its_input(receiver: Receiver) -> None:
    command = demo(
        *(
            "normal",
            "--control",
            "--otlp",
            receiver.target,
            "--speed",
            "20",
            "--runaway-tasks",
            "3",
            "--loop-seconds",
            "2",
        )
    )
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write("break\n")
    process.stdin.flush()
    loops: dict[bytes, int] = {}
    while sum(count >= 5 for count in loops.values()) < 3:
        assert process.poll() is None
        loops = {}
        for span in receiver.spans().values():
            if any(pair.key == "iteration.input_tokens" and pair.value.int_value == 7922 for pair in span.attributes):
                loops[span.trace_id] = loops.get(span.trace_id, 0) + 1
    process.communicate()
    assert process.returncode == 0


def test_a_receiver_that_is_not_there_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(demo("normal", "--otlp", f"127.0.0.1:{free_ports(1)[0]}"), check=False)
    assert done.returncode == 2
    assert "nothing takes OTLP at 127.0.0.1:" in capfd.readouterr().err


@pytest.mark.parametrize("wrong", ["4317", "localhost:", "localhost:99999"])
def test_an_address_that_is_none_is_refused(wrong: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert subprocess.run(demo("normal", "--otlp", wrong), check=False).returncode == 2
    assert "is not HOST:PORT" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("normal", "--backfill", "8d"), "--backfill DAYS and --tsdb DIR go together"),
        (("normal", "--tsdb", "somewhere"), "--backfill DAYS and --tsdb DIR go together"),
        (("incident", "--backfill", "8d", "--tsdb", "somewhere"), "incident is no week"),
        (("normal", "--backfill", "8 weeks", "--tsdb", "somewhere"), "'8 weeks' is not a number of days"),
    ],
)
def test_a_history_that_cannot_be_made_is_refused(arguments: tuple[str, ...], told: str) -> None:
    done = subprocess.run(demo(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_mistyped_folder_for_history_is_not_made(tmp_path: Path) -> None:
    tsdb = tmp_path / "none" / "deep"
    done = subprocess.run(
        demo("normal", "--backfill", "8d", "--tsdb", str(tsdb)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"--tsdb {tsdb}: there is no folder {tsdb.parent}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_history_that_is_new_is_said_to_be_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stack.history.fill", lambda *arguments, **options: None)
    assert main(["demo", "normal", "--backfill", "8d", "--tsdb", str(tmp_path / "data")]) == 0
    assert f"{tmp_path / 'data'} is created" in capsys.readouterr().err
