from collections.abc import Iterator, Sequence
from threading import Event

import pytest

from demo.fleet import Fleet
from demo.otlp import RawSender, request
from demo.play import Sender, play
from demo.scenarios import normal
from demo.sdk import SdkSender
from demo.spans import Span
from tests.demo.receiver import Receiver, flat

START = 1_700_000_000.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.stop(None)


def spans() -> list[Span]:
    return Fleet(normal(), seed=5, start=START).spans(START + 300)


@pytest.mark.parametrize("kind", [RawSender, SdkSender])
def test_both_senders_put_the_same_spans_on_the_wire(
    receiver: Receiver, kind: type[RawSender] | type[SdkSender]
) -> None:
    sender: Sender = kind(receiver.target)
    sender.send(spans())
    sender.close()
    assert receiver.spans() == flat([request(spans())])


def test_each_agent_is_a_resource_of_its_own(receiver: Receiver) -> None:
    sender = SdkSender(receiver.target)
    sender.send(spans())
    sender.close()
    names = {
        pair.value.string_value
        for body in receiver.requests
        for resource in body.resource_spans
        for pair in resource.resource.attributes
        if pair.key == "service.name"
    }
    assert names == {"support-agent", "research-agent", "summarizer"}


class Kept:
    """A sender that keeps."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def send(self, spans: Sequence[Span]) -> None:
        self.spans.extend(spans)

    def close(self) -> None: ...


def test_played_fast_everything_comes_in_a_fraction_of_the_time_and_nothing_from_the_future() -> None:
    moments = iter([START + 0.1 * i for i in range(1000)])
    seen: list[float] = []
    kept = Kept()

    def clock() -> float:
        seen.append(next(moments))
        return seen[-1]

    fleet = Fleet(normal(), seed=5, start=START)
    play(fleet, kept, start=START, speed=10, seconds=300, step=0, clock=clock)
    assert len(kept.spans) == len(spans())
    assert seen[-1] == pytest.approx(START + 30, abs=0.2)
    assert max(span.end for span in kept.spans) <= START + 30


def test_play_stops_when_told() -> None:
    stop = Event()
    stop.set()
    play(Fleet(normal(), start=START), Kept(), start=START, stop=stop, clock=lambda: START)
