import io

from rich.console import Console

from exporter.contract import series_labels
from stack.pager import Message
from stack.processes import Program
from stack.status import Event, PlainView, Status, render
from stack.watch import QUERIES, AgentNow, AlertNow, Now

NOW = Now(
    agents={"bot": AgentNow(in_flight=41, looping=40, ended=7, usd_per_minute=12.5, usd=20.25)},
    alerts=(AlertNow("AgentCostAnomaly", "bot", "P1", True, "bot spends 217 USD an hour"),),
)
PAGE = Message(0.0, "pagerduty", "trigger", "k", "critical", "bot spends too much", "", ())


def shown(status: Status, height: int = 40) -> str:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(render(status, "b break", height))
    return console.export_text()


def test_the_status_shows_agents_alerts_and_pages() -> None:
    text = shown(Status(now=NOW, open_pages=[PAGE], services=[Program("pager", (), url="http://127.0.0.1:9095")]))
    for expected in ("12.50", "20.25", "AgentCostAnomaly", "firing", "bot spends too much", "http://127.0.0.1:9095"):
        assert expected in text


def test_an_empty_status_can_be_shown() -> None:
    assert "waiting for the first spans" in shown(Status())


def test_a_low_terminal_shows_the_newest_events_and_all_the_rest() -> None:
    events = [Event(0.0, f"event {number}") for number in range(20)]
    services = [Program(name, (), url=f"http://127.0.0.1/{name}") for name in ("a", "b", "c", "d")]
    text = shown(Status(now=NOW, events=events, open_pages=[PAGE], services=services), height=24)
    assert len(text.splitlines()) < 24
    assert "event 19" in text
    assert "event 15" not in text
    assert "b break" in text


def test_plain_output_tells_each_event_once() -> None:
    out = io.StringIO()
    view = PlainView(out)
    events = [Event(0.0, "starting prometheus")]
    view.show(Status(events=events))
    events.append(Event(1.0, "ready"))
    view.show(Status(events=events))
    view.show(Status(events=events))
    assert out.getvalue().count("starting prometheus") == 1
    assert out.getvalue().count("ready") == 1


def test_the_status_asks_for_series_of_the_contract() -> None:
    for query in QUERIES.values():
        assert any(name in query for name in series_labels())
