"""`agent-oncall replay`: recorded files through the exporter's own path, on their own times."""

import json
import struct
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cli.main import main
from exporter.config import Settings
from exporter.pipeline import Pipeline
from exporter.replay import ReplayError, replay
from tests.exporter.otlp import PRICING, SECOND, START, agent, chat, evaluation, iteration, task, traces, traces_json


def recording(path: Path, *requests: tuple[float, bytes]) -> Path:
    """A file of frames; arrivals are seconds after START."""
    path.write_bytes(
        b"".join(struct.pack(">QI", int((START + at) * SECOND), len(body)) + body for at, body in requests)
    )
    return path


def json_lines(path: Path, *requests: tuple[Span, ...]) -> Path:
    path.write_bytes(b"\n".join(traces_json(*spans) for spans in requests) + b"\n\n")
    return path


def counted(*paths: Path) -> Pipeline:
    return replay(list(paths), Settings(), PRICING)


def test_a_recording_of_protobuf_requests_is_counted(tmp_path: Path) -> None:
    file = recording(tmp_path / "requests.bin", (1, traces(chat(2, 1))), (2, traces(agent(1, at=(0, 2)))))
    assert counted(file).measures.value("agent_tasks_total", "shop", "helper", "stable", "success", "") == 1


def test_the_collectors_json_lines_are_counted(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "traces.jsonl", (chat(2, 1),), (agent(1, at=(0, 2)),))
    assert counted(file).measures.value("agent_tasks_total", "shop", "helper", "stable", "success", "") == 1


def test_time_passes_between_requests_as_it_did(tmp_path: Path) -> None:
    late = traces(iteration(3, 1, at=(4000, 4001)))
    file = recording(tmp_path / "requests.bin", (1, traces(iteration(2, 1))), (4001, late))
    assert counted(file).measures.value("agent_tasks_resumed_total", "shop") == 1


def test_in_json_lines_a_request_arrives_when_the_last_of_its_spans_ended(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "traces.jsonl", (iteration(2, 1),), (iteration(3, 1, at=(4000, 4001)),))
    assert counted(file).measures.value("agent_tasks_resumed_total", "shop") == 1


def test_after_the_last_request_every_time_out_has_passed(tmp_path: Path) -> None:
    file = recording(tmp_path / "requests.bin", (1, traces(iteration(2, 1))))
    measures = counted(file).measures
    assert measures.value("agent_tasks_total", "shop", "unknown", "stable", "abandoned", "never_finished") == 1
    assert measures.value("agent_tasks_in_flight", "shop") == 0


def test_several_files_are_one_run_in_the_order_of_arrival(tmp_path: Path) -> None:
    score = {"gen_ai.evaluation.name": "goal_alignment", "gen_ai.evaluation.score.value": 0.9}
    logs = recording(tmp_path / "logs.bin", (3, evaluation(score, span_id=1)))
    spans = recording(tmp_path / "requests.bin", (1, traces(iteration(2, 1))), (2, traces(task(1, at=(0, 2)))))
    assert counted(logs, spans).measures.value("agent_task_goal_alignment", "shop", "order", "stable") == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (struct.pack(">QI", START * SECOND, 100) + b"short", "in the middle of a request"),
        (struct.pack(">QI", START * SECOND, 0) + b"end", "in the middle of a frame"),
        (b"hello\n", "line 1: neither a recording nor OTLP/JSON"),
        (b'{"metrics": []}\n', "line 1: no OTLP request"),
        (struct.pack(">QI", START * SECOND, 3) + b"\xff\xff\xff", "not an ExportTraceServiceRequest"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_what_is_wrong(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    file = tmp_path / "requests.bin"
    file.write_bytes(content)
    with pytest.raises(ReplayError, match=complaint):
        counted(file)


def test_the_command_prints_the_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recording(tmp_path / "requests.bin", (1, traces(chat(2, 1), agent(1))))
    assert main(["replay", str(file)]) == 0
    assert 'agent_tasks_started_total{agent="shop",variant="stable"} 1.0' in capsys.readouterr().out


def test_each_prints_an_object_a_file_with_a_fresh_exporter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [recording(tmp_path / f"{name}.bin", (1, traces(chat(2, 1), agent(1)))) for name in "ab"]
    assert main(["replay", "--each", *map(str, files)]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["recording"] for one in told] == [str(file) for file in files]
    assert all('agent_tasks_started_total{agent="shop",variant="stable"} 1.0' in one["metrics"] for one in told)


def test_explain_prints_each_span_and_what_it_was_taken_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recording(tmp_path / "requests.bin", (1, traces(chat(2, 1), agent(1))), (2, traces(chat(2, 1))))
    assert main(["replay", "--explain", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("my.agent")[1].strip() for line in lines] == [
        "counted as an iteration",
        "counted as a task, or as part of one",
        "duplicate: this span was counted before",
    ]


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "nothing.bin")]) == 2
    assert "nothing.bin: No such file" in capsys.readouterr().err


def test_the_configuration_holds_for_a_replay_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yml"
    config.write_text("agent_names: {shop: renamed}\n")
    file = recording(tmp_path / "requests.bin", (1, traces(chat(2, 1))))
    assert main(["replay", "--config", str(config), str(file)]) == 0
    assert 'agent="renamed"' in capsys.readouterr().out
