"""`agent-oncall up` where a Docker engine answers: here, a program of that name which notes what it is asked."""

import asyncio
import os
from pathlib import Path

import pytest

from alert_rules.thresholds import load
from stack import docker
from stack.local import Plan
from stack.ports import Ports
from stack.processes import Died
from stack.status import PlainView


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the stand-in for docker notes its arguments in."""
    asked = tmp_path / "asked.txt"
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\n[ ! -e {tmp_path}/broken ] || {{ echo no space left; exit 1; }}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return asked


def test_an_engine_that_does_not_answer_is_none(engine: Path, tmp_path: Path) -> None:
    assert docker.engine_answers()
    (tmp_path / "broken").touch()
    assert not docker.engine_answers()


def test_without_docker_there_is_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not docker.engine_answers()


@pytest.fixture
def stack(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> docker.DockerStack:
    monkeypatch.setattr("stack.docker.FOLDER", tmp_path / "secrets")
    plan = Plan(servers={}, ports=Ports().moved(20_000), data=tmp_path, thresholds=load(None), demo=False)
    return docker.DockerStack(plan, PlainView((tmp_path / "output.txt").open("w")))


async def test_compose_is_started_with_secrets_made_and_stopped_at_the_end(
    stack: docker.DockerStack, engine: Path, tmp_path: Path
) -> None:
    running = asyncio.create_task(stack.run())
    while "ready: agents send OTLP" not in (tmp_path / "output.txt").read_text():
        assert not running.done()
        await asyncio.sleep(0.02)
    assert (tmp_path / "secrets" / "grafana_admin_password").exists()
    stack.stop()
    await running
    assert [line.split()[3] for line in engine.read_text().splitlines()] == ["up", "stop"]
    assert "grafana: http://127.0.0.1:3000" in (tmp_path / "output.txt").read_text()


async def test_with_the_simulated_agents_they_are_entered_in_the_controllers_state(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stack.docker.FOLDER", tmp_path / "secrets")
    plan = Plan(servers={}, ports=Ports().moved(20_000), data=tmp_path, thresholds=load(None), break_after=None)
    running = asyncio.create_task(docker.DockerStack(plan, PlainView((tmp_path / "output.txt").open("w"))).run())
    while not engine.exists() or "run --rm -T demo-state" not in engine.read_text():
        assert not running.done()
        await asyncio.sleep(0.02)
    running.cancel()


async def test_what_compose_says_of_a_failure_is_told(stack: docker.DockerStack, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(Died, match=r"(?s)docker compose up --detach --build failed.*no space left"):
        await stack.run()
