from pathlib import Path

from agent_oncall.schema import loads
from controller.config import Settings
from controller.responder import Responder, parse_alerts
from controller.store import Store
from demo.scenarios import AGENTS
from stack import demo_state


class Counted(list[str]):
    def acted(self, agent: str, action: str, trigger: str) -> None:
        self.append("acted")

    def held_back(self, agent: str, action: str, why: str) -> None:
        self.append(why)

    def failed(self, action: str, why: str) -> None:
        self.append("failed")


def test_the_state_has_every_simulated_agent_and_is_not_made_twice(tmp_path: Path) -> None:
    path = tmp_path / "state" / "flags.json"
    assert demo_state.make(path)
    body = path.read_bytes()
    assert set(loads(body).agents) == {agent.name for agent in AGENTS}
    assert not demo_state.make(path)
    assert path.read_bytes() == body


def test_a_persons_state_that_was_lost_is_not_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path / "flags.json")
    store.create(who="ann", why="first")
    store.path.unlink()
    assert not demo_state.make(store.path)
    assert not store.path.exists()


def test_a_dry_run_says_what_it_would_do_about_a_simulated_agent(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    demo_state.make(path)
    counted = Counted()
    (tmp_path / "token").write_text("t")
    responder = Responder(Settings(token_file=tmp_path / "token", state=path), Store(path), counted)
    for action in ("breaker", "provider"):
        labels = {"alertname": "AgentRunawayLoop", "agent": AGENTS[0].name, "action": action}
        body = {"alerts": [{"labels": labels, "startsAt": "2030-01-01T00:00:00Z", "status": "firing"}]}
        (outcome,) = responder.take(parse_alerts(body))
        assert outcome.result == "dry-run"
        assert "would be done now; by hand: agent-oncall" in outcome.text
    assert counted == ["dry_run", "dry_run"]
