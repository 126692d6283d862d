"""The exporter is killed by SIGKILL under load, again and again; in the end everything is counted exactly once."""

import gzip
import http.client
import random
import socket
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks import workload
from benchmarks.serving import EXPORT_TRACES, Labels, Serving, samples
from demo.spans import OPTIONAL
from exporter.config import load
from exporter.pipeline import Pipeline

SETTINGS: dict[str, Any] = {
    "parent_grace_seconds": 0.2,
    # Checkpoints as often as timers and scrapes allow, so that many a kill meets one.
    "checkpoint_seconds": 0.01,
}
MOST_ANSWERS_BETWEEN_KILLS = 30
SPANS_A_REQUEST = 64

# The codes after which OTLP has a client send the same again.
AGAIN = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


def bare_task(chance: random.Random, agent: str, start: int) -> Iterator[Span]:
    """The base schema without what is optional: no models, so this agent's tokens are priced by its own ended tasks."""
    for span in workload.base_task(chance, agent, start):
        kept = [pair for pair in span.attributes if pair.key not in OPTIONAL]
        del span.attributes[:]
        span.attributes.extend(kept)
        yield span


AGENTS = {"base": workload.base_task, "bare": bare_task, "genai": workload.genai_task, "by-http": workload.base_task}


class Answers:
    """How many requests have been answered, for whoever waits for more."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def add(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for(self, more: int) -> None:
        with self._changed:
            wanted = self._count + more
            assert self._changed.wait_for(lambda: self._count >= wanted, 60), "the exporter answers no more"


class Sender(threading.Thread):
    """Sends an agent's requests one after the other, each until it is answered."""

    def __init__(self, bodies: list[bytes], answers: Answers) -> None:
        super().__init__()
        self._bodies = bodies
        self._answers = answers
        self.sent_again = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for body in self._bodies:
                while not self._send(body):
                    self.sent_again += 1
                self._answers.add()
        except BaseException as error:
            self.error = error
            raise

    def _send(self, body: bytes) -> bool:
        raise NotImplementedError


class GrpcSender(Sender):
    def __init__(self, port: int, bodies: list[bytes], answers: Answers) -> None:
        super().__init__(bodies, answers)
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            options=[
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self._export = self._channel.unary_unary(EXPORT_TRACES)

    def _send(self, body: bytes) -> bool:
        try:
            assert self._export(body, timeout=20, wait_for_ready=True) == b"", "nothing is to be refused"
        except grpc.RpcError as error:
            if error.code() not in AGAIN:
                raise
            return False
        return True


class HttpSender(Sender):
    def __init__(self, port: int, bodies: list[bytes], answers: Answers) -> None:
        super().__init__([gzip.compress(body, 1) for body in bodies], answers)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def _send(self, body: bytes) -> bool:
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        try:
            self._connection.request("POST", "/v1/traces", body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            time.sleep(0.05)
            return False
        if answer.status in (429, 502, 503, 504):
            return False
        assert (answer.status, content) == (200, b"")
        return True


class Scraper(threading.Thread):
    """Reads /metrics all the while, and keeps the first page on which the sums are wrong."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._address = f"127.0.0.1:{port}"
        self._over = threading.Event()
        self.pages = 0
        self.wrong = ""

    def run(self) -> None:
        while not self._over.wait(0.02):
            connection = http.client.HTTPConnection(self._address, timeout=20)
            try:
                connection.request("GET", "/metrics")
                answer = connection.getresponse()
                page = answer.read().decode()
            except (OSError, http.client.HTTPException, urllib.error.URLError):
                continue
            finally:
                connection.close()
            if answer.status == 200:
                self.pages += 1
                self.wrong = self.wrong or unbalanced(page)

    def stop(self) -> None:
        self._over.set()
        self.join()


def unbalanced(page: str) -> str:
    """The agents for whom started is not ended + in flight, in words."""
    started, ended, in_flight = (
        sums(samples(page), name)
        for name in ("agent_tasks_started_total", "agent_tasks_total", "agent_tasks_in_flight")
    )
    return ", ".join(
        f"{agent}: {started[agent]:g} started, {ended[agent]:g} ended, {in_flight[agent]:g} in flight"
        for agent in started
        if started[agent] != ended[agent] + in_flight[agent]
    )


def sums(found: dict[tuple[str, Labels], float], name: str) -> Counter[str]:
    """A family's values, summed by agent."""
    by_agent: Counter[str] = Counter()
    for (sample, labels), value in found.items():
        if sample == name:
            by_agent[dict(labels)["agent"]] += value  # type: ignore[assignment]
    return by_agent


def counted(page: str) -> dict[tuple[str, Labels], float]:
    """What a page says of the agents, without what depends on the moment."""
    return {
        (name, labels): value
        for (name, labels), value in samples(page).items()
        if name.startswith("agent_")
        and not name.startswith("agent_exporter_")
        and not name.endswith("_created")
        and name != "agent_task_in_flight_seconds_max"
    }


def undisturbed(bodies: dict[str, list[bytes]]) -> dict[tuple[str, Labels], float]:
    """The same requests to a pipeline that lives through it all."""
    now = time.time()
    pipeline = Pipeline(load(None, SETTINGS), clock=lambda: now)
    for of_agent in bodies.values():
        for body in of_agent:
            pipeline.take_traces(body)
    now += 10 * SETTINGS["parent_grace_seconds"]
    pipeline.advance()
    return counted(pipeline.measures.exposition(openmetrics=False).decode())


def truth(bodies: list[bytes]) -> Counter[str]:
    """What the spans say, added up without the exporter."""
    found: Counter[str] = Counter()
    for body in bodies:
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for span in of_resource.scope_spans[0].spans:
                kind = span.name.partition(" ")[0]
                found["ended"] += kind in ("agent.task", "invoke_agent")
                found["iterations"] += kind in ("agent.iteration", "chat")
                found["tool calls"] += kind in ("tool.execute", "execute_tool")
                for pair in span.attributes:
                    if pair.key in TOKENS:
                        found["tokens"] += pair.value.int_value
    return found


TOKENS = {f"{of}.{direction}_tokens" for of in ("iteration", "gen_ai.usage") for direction in ("input", "output")}
TOLD = {
    "ended": ("agent_tasks_total", "agent_task_iterations_count", "agent_task_duration_seconds_count"),
    "iterations": ("agent_iterations_total", "agent_iteration_duration_seconds_count"),
    "tool calls": ("agent_tool_calls_total", "agent_tool_duration_seconds_count"),
    "tokens": ("agent_tokens_total",),
}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.parametrize(
    ("kills", "seed"), [(3, 1), pytest.param(50, 2, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_what_was_sent_is_counted_once_however_often_the_exporter_is_killed(
    kills: int, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    requests = (kills + 1) * MOST_ANSWERS_BETWEEN_KILLS // len(AGENTS) + 1
    bodies = {
        agent: workload.requests(
            task,
            requests * SPANS_A_REQUEST,
            seed=100 * seed + number,
            start=time.time() - 600,
            agents=[agent],
            spans_a_request=SPANS_A_REQUEST,
            side_by_side=20,
        )
        for number, (agent, task) in enumerate(AGENTS.items())
    }
    ports = free_ports(3)

    def start() -> Serving:
        return Serving(journal=tmp_path / "journal", settings=SETTINGS, ports=ports).wait()

    serving = start()
    answers = Answers()
    senders = [
        HttpSender(ports[1], of_agent, answers) if agent == "by-http" else GrpcSender(ports[0], of_agent, answers)
        for agent, of_agent in bodies.items()
    ]
    scraper = Scraper(ports[2])
    for thread in (*senders, scraper):
        thread.start()
    try:
        for _ in range(kills):
            answers.wait_for(chance.randint(1, MOST_ANSWERS_BETWEEN_KILLS))
            time.sleep(chance.uniform(0, 0.03))  # into the middle of a request or a checkpoint
            serving.kill()
            serving = start()
        for sender in senders:
            sender.join()
        assert [sender.error for sender in senders] == [None] * len(senders)
        assert sum(sender.sent_again for sender in senders) > 0, "no kill met a request"
    finally:
        for sender in senders:
            sender.join(60)
        scraper.stop()
        serving.stop()
    assert scraper.pages > kills
    assert scraper.wrong == ""

    expected = undisturbed(bodies)
    with start() as serving:
        deadline = time.monotonic() + 30
        while (found := counted(serving.page())) != pytest.approx(expected) and time.monotonic() < deadline:
            time.sleep(0.1)  # a task may wait for its grace time to be over
    assert {key: value for key, value in found.items() if value != pytest.approx(expected.get(key))} == {}
    assert found.keys() == expected.keys()
    for what, names in TOLD.items():
        for name in names:
            by_agent = sums(found, name)
            assert {agent: by_agent[agent] for agent in bodies} == {a: truth(b)[what] for a, b in bodies.items()}, name
