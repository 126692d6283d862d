import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_oncall.schema import Agent, BreakerState, Bundle, Experiment, State
from controller import actions, rollouts
from controller.config import Modes, Settings
from controller.plan import DEFAULT, Plan
from controller.prom import PrometheusError
from controller.responder import Alert, BadBody, Outcome, Responder, parse_alerts
from controller.store import iso
from tests.controller.states import BACKUP, BUNDLE, START, Clock, new_store

ALL_ACT = Modes(breaker="act", off="act", prompt="act", model="act", provider="act", rollout="act")
NEXT = replace(BUNDLE, prompt_version="1.10.0", model="gpt-4o-2024-11-20")


class Counted:
    """What the responder counted."""

    def __init__(self) -> None:
        self.all: list[tuple[str, ...]] = []

    def acted(self, agent: str, action: str, trigger: str) -> None:
        self.all.append(("acted", agent, action, trigger))

    def held_back(self, agent: str, action: str, why: str) -> None:
        self.all.append(("held back", agent, action, why))

    def failed(self, action: str, why: str) -> None:
        self.all.append(("failed", action, why))


class Site:
    """A responder on a store, with a clock, counters, and what Prometheus would say of loops."""

    def __init__(self, folder: Path, modes: Modes = ALL_ACT, **settings: Any) -> None:
        self.clock = Clock(START + 100)
        self.store = new_store(folder, self.clock)
        self.clock.now += 100
        self.counted = Counted()
        self.loops = False
        (folder / "token").write_text("t\n")
        self.settings = Settings(token_file=folder / "token", state=self.store.path, actions=modes, **settings)
        self.responder = self.restarted()

    def restarted(self) -> Responder:
        return Responder(self.settings, self.store, self.counted, lambda agent, now_only: self.loops)

    def take(self, *alerts: Alert) -> list[str]:
        return [outcome.result for outcome in self.responder.take(alerts)]

    def agent(self) -> Agent:
        return self.store.read().agents["support"]

    def breaker(self) -> str:
        breaker = self.agent().breaker
        assert breaker is not None
        return breaker.state

    def stable(self) -> Bundle:
        return actions.config_of(self.store.read(), "support").variants["stable"]

    def by_hand(self, to: BreakerState) -> None:
        self.clock.now += 10
        self.store.change(
            lambda state: actions.set_breaker(state, "support", to, since=iso(self.clock.now), why="by hand"),
            action="breaker",
            agent="support",
            who="ann",
            why="by hand",
        )
        self.clock.now += 10

    def change(self, to: State) -> None:
        self.store.change(
            lambda state: replace(to, generation=state.generation), action="x", agent="support", who="ann", why="x"
        )

    def release(self, bundle: Bundle) -> None:
        state = rollouts.start(self.store.read(), "support", bundle, Plan.parse("50"), now=START)
        self.change(rollouts.advance(state, "support", now=START, to=100))
        self.clock.now += 100


def alert(
    site: Site,
    action: str = "breaker",
    name: str = "AgentRunawayLoop",
    *,
    agent: str = "support",
    firing: bool = True,
    began: float | None = None,
    variant: str = "",
    model: str = "",
) -> Alert:
    moment = site.clock.now if began is None else began
    return Alert(name, agent, action, f"{name}-{agent}", iso(moment), moment, firing, variant, model, "tasks loop")


def test_a_runaway_loop_opens_the_breaker(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert site.take(alert(site)) == ["done"]
    assert site.breaker() == "open"
    assert site.counted.all == [("acted", "support", "breaker", "AgentRunawayLoop")]
    entry = site.store.entries()[-1]
    assert (entry.who, entry.action, entry.why) == ("controller", "breaker open", "AgentRunawayLoop: tasks loop")


def test_the_same_alert_again_does_nothing_more(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = alert(site)
    site.take(one)
    lines = site.store.audit_path.read_bytes()
    assert site.take(one, one) == ["done before", "done before"]
    assert site.store.audit_path.read_bytes() == lines
    assert len(site.counted.all) == 1


def test_nor_after_a_restart(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.release(NEXT)
    site.release(replace(NEXT, prompt_version="1.11.0"))
    one = alert(site, "prompt", "AgentSuccessRateCritical")
    site.take(one)
    site.responder = site.restarted()
    assert site.take(one) == ["done before"]
    assert site.stable() == NEXT


def test_resolved_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = alert(site)
    site.take(one)
    assert site.take(replace(one, firing=False)) == ["resolved"]
    assert site.breaker() == "open"


@pytest.mark.parametrize(
    ("action", "name"), [("off", "AgentErrorRateCritical"), ("agent off", "AgentErrorRateCritical")]
)
def test_too_many_errors_switch_the_agent_off(tmp_path: Path, action: str, name: str) -> None:
    site = Site(tmp_path)
    assert site.take(alert(site, action, name)) == ["done"]
    enabled = site.agent().enabled
    assert enabled is not None
    assert not enabled.on


@pytest.mark.parametrize("action", ["backup provider", "provider", "backup_provider"])
def test_an_outage_switches_to_the_backup_provider(tmp_path: Path, action: str) -> None:
    site = Site(tmp_path)
    assert site.take(alert(site, action, "AgentProviderOutage")) == ["done"]
    assert actions.config_of(site.store.read(), "support").default == "backup"


def test_an_outage_of_the_canarys_model_takes_back_the_canary(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.change(rollouts.start(site.store.read(), "support", NEXT, DEFAULT, now=START))
    site.clock.now += 10
    assert site.take(alert(site, "provider", "AgentProviderOutage", model=NEXT.model)) == ["done"]
    config = actions.config_of(site.store.read(), "support")
    assert (config.default, set(config.variants)) == ("stable", {"stable", "backup"})


def test_an_outage_of_the_backup_does_not_switch_to_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert site.take(alert(site, "provider", "AgentProviderOutage", model=BACKUP.model)) == ["refused"]


@pytest.mark.parametrize("action", ["prompt", "model"])
def test_a_drop_brings_back_the_earlier_version(tmp_path: Path, action: str) -> None:
    site = Site(tmp_path)
    site.release(NEXT)
    assert site.take(alert(site, action, "AgentCostPerTaskHigh")) == ["done"]
    assert site.stable() == BUNDLE


def test_a_drop_of_success_ends_the_test_of_prompts_too(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.release(NEXT)
    short = Experiment(True, {}, {"prompt_version": "1.10.0-short"}, 50_000, {"salt": "short"})
    site.change(actions.start_experiment(site.store.read(), "support", "short", short, []))
    site.clock.now += 10
    assert site.take(alert(site, "prompt", "AgentSuccessRateCritical")) == ["done"]
    assert not actions.agent_of(site.store.read(), "support").experiments["short"].running


@pytest.mark.parametrize("action", ["prompt", "model", "rollout back"])
def test_while_a_canary_runs_it_is_what_is_taken_back(tmp_path: Path, action: str) -> None:
    site = Site(tmp_path)
    site.change(rollouts.start(site.store.read(), "support", NEXT, DEFAULT, now=START))
    site.clock.now += 10
    assert site.take(alert(site, action, "AgentSuccessRateCritical")) == ["done"]
    assert "canary" not in actions.config_of(site.store.read(), "support").variants
    assert site.stable() == BUNDLE
    assert site.store.entries()[-1].action == "rollout back"


def test_but_stables_own_alert_takes_back_stable(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.release(NEXT)
    later = replace(NEXT, prompt_version="1.11.0")
    site.change(rollouts.start(site.store.read(), "support", later, DEFAULT, now=START))
    site.clock.now += 10
    site.take(alert(site, "prompt", "AgentSuccessRateCritical", variant="stable"))
    assert site.stable() == BUNDLE


@pytest.mark.parametrize(
    ("mode", "result", "why"),
    [("dry-run", "dry-run", "dry_run"), ("off", "off", "off"), ("confirm", "pending", "confirm")],
)
def test_what_may_not_act_changes_nothing_and_is_counted_once(tmp_path: Path, mode: str, result: str, why: str) -> None:
    site = Site(tmp_path, Modes.model_validate({"breaker": mode}))
    one = alert(site)
    assert site.take(one, one) == [result, result]
    assert site.breaker() == "closed"
    assert site.counted.all == [("held back", "support", "breaker", why)]


def test_everything_is_a_dry_run_unless_it_is_set(tmp_path: Path) -> None:
    site = Site(tmp_path, Modes())
    site.change(rollouts.start(site.store.read(), "support", NEXT, DEFAULT, now=START))
    site.clock.now += 10
    for action in ("breaker", "off", "prompt", "model", "provider", "rollout back"):
        assert site.take(alert(site, action, f"Agent{action}")) == ["dry-run"]


def test_one_agent_may_be_set_otherwise(tmp_path: Path) -> None:
    site = Site(tmp_path, Modes(), agents={"support": {"breaker": "act"}})
    assert site.take(alert(site)) == ["done"]


def test_a_confirmed_action_is_done_and_says_by_whom(tmp_path: Path) -> None:
    site = Site(tmp_path, Modes(breaker="confirm"))
    site.take(alert(site))
    (waiting,) = site.responder.pending()
    assert site.responder.confirm(waiting.id, "bob").result == "done"
    assert site.breaker() == "open"
    assert site.store.entries()[-1].who == "controller, confirmed by bob"
    assert site.responder.pending() == []


def test_an_action_waits_only_so_long_to_be_confirmed(tmp_path: Path) -> None:
    site = Site(tmp_path, Modes(breaker="confirm"), confirm_minutes=5)
    site.take(alert(site))
    (waiting,) = site.responder.pending()
    site.clock.now += 301
    assert site.responder.confirm(waiting.id, "bob").error
    assert site.breaker() == "closed"


def test_an_agent_nobody_knows_is_an_error(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (outcome,) = site.responder.take([alert(site, agent="suport")])
    assert outcome == Outcome(
        "unknown agent",
        "agent 'suport': nobody of that name is in the state; did you mean support?",
        error=True,
    )
    assert site.counted.all == [("failed", "breaker", "unknown_agent")]


def test_an_action_that_is_none_is_an_error(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert site.take(alert(site, "restart the moon")) == ["unknown action"]
    assert site.counted.all == [("failed", "unknown", "unknown_action")]


def test_what_can_not_be_done_is_an_error(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert site.take(alert(site, "prompt", "AgentSuccessRateCritical")) == ["refused"]
    assert site.counted.all == [("failed", "prompt", "refused")]


def test_a_state_that_can_not_be_read_is_to_be_tried_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.store.path.write_text("{")
    (outcome,) = site.responder.take([alert(site)])
    assert outcome.error
    assert outcome.retry


def test_an_action_that_could_not_be_written_is_done_when_the_alert_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    one = alert(site)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("controller.store.os.replace", full)
        assert site.take(one) == ["state"]
    assert site.take(one) == ["done"]
    assert site.breaker() == "open"


def test_only_so_many_actions_are_taken_in_an_hour(tmp_path: Path) -> None:
    site = Site(tmp_path, most_actions_per_hour=2)
    for _ in range(2):
        assert site.take(alert(site)) == ["done"]
        site.by_hand("closed")
        site.clock.now += 60
    late = alert(site)
    assert site.take(late) == ["limit"]
    assert site.breaker() == "closed"
    assert site.counted.all[-1] == ("failed", "breaker", "limit")
    site.clock.now += 3600
    assert site.take(late) == ["done"]


# -- the breaker waits for agreement ----------------------------------------------------------------------------------


def anomaly(site: Site) -> Alert:
    return alert(site, name="AgentCostAnomaly")


def test_spending_alone_does_not_open_the_breaker(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert site.take(anomaly(site)) == ["waiting"]
    assert site.breaker() == "closed"
    assert site.counted.all == [("held back", "support", "breaker", "agreement")]


def test_spending_and_loops_in_one_message_do(tmp_path: Path) -> None:
    site = Site(tmp_path, most_actions_per_hour=1)
    assert sorted(site.take(anomaly(site), alert(site))) == ["already", "done"]
    assert site.breaker() == "open"


def test_spending_opens_it_once_the_agents_own_counters_agree(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.take(anomaly(site))
    site.responder.again()
    assert site.breaker() == "closed"
    site.loops = True
    site.responder.again()
    assert site.breaker() == "open"


def test_a_resolved_anomaly_waits_no_longer(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = anomaly(site)
    site.take(one)
    site.take(replace(one, firing=False))
    site.loops = True
    site.responder.again()
    assert site.breaker() == "closed"


def test_agreement_need_not_be_asked_for(tmp_path: Path) -> None:
    site = Site(tmp_path, breaker_needs_agreement=False)
    assert site.take(anomaly(site)) == ["done"]


def test_where_prometheus_can_not_be_asked_the_breaker_waits_and_that_is_counted(tmp_path: Path) -> None:
    site = Site(tmp_path)

    def unknown(agent: str, now_only: bool) -> bool:
        raise PrometheusError("down")

    site.responder = Responder(site.settings, site.store, site.counted, unknown)
    assert site.take(anomaly(site)) == ["waiting"]
    assert ("failed", "breaker", "prometheus") in site.counted.all


def test_an_alert_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    site = Site(tmp_path)

    def fault(agent: str, now_only: bool) -> bool:
        raise ZeroDivisionError

    site.responder = Responder(site.settings, site.store, site.counted, fault)
    site.change(actions.add_agent(site.store.read(), "other", BUNDLE))
    found = site.responder.take([replace(anomaly(site), agent="other"), alert(site)])
    assert [(outcome.result, outcome.retry) for outcome in found] == [("fault", True), ("done", False)]
    assert site.breaker() == "open"


# -- people win -------------------------------------------------------------------------------------------------------


def test_a_breaker_that_a_person_closed_stays_closed_for_the_same_alert(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first, second = alert(site), alert(site, name="AgentOther")
    site.take(first)
    site.by_hand("closed")
    site.responder = site.restarted()
    assert site.take(first, second) == ["done before", "left"]
    assert site.breaker() == "closed"


def test_and_opens_for_a_new_one(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.take(alert(site))
    site.by_hand("closed")
    assert site.take(alert(site)) == ["done"]


def test_a_state_that_was_made_anew_is_no_decision_on_its_breaker(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = alert(site)
    site.clock.now += 10
    site.store.path.write_bytes(b"")
    site.store.recover(who="ann", why="torn")
    assert site.take(one) == ["done"]


def test_nor_is_an_agent_that_was_added(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = alert(site, agent="other")
    site.clock.now += 10
    site.change(actions.add_agent(site.store.read(), "other", BUNDLE))
    assert site.take(one) == ["done"]


def test_nor_is_the_backup_that_an_outage_waits_for(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = alert(site, "provider", "AgentProviderOutage")
    site.clock.now += 10
    site.change(actions.set_backup(site.store.read(), "support", replace(BACKUP, temperature=0.5)))
    assert site.take(one) == ["done"]


def test_an_undone_action_is_not_done_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = alert(site)
    site.take(one)
    site.clock.now += 10
    site.store.undo(site.store.entries()[-1].id, who="ann", why="false alarm")
    assert site.take(one) == ["done before"]
    assert site.breaker() == "closed"


def test_a_half_open_breaker_opens_again_only_while_tasks_loop(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = alert(site)
    site.take(one)
    site.by_hand("half_open")
    assert site.take(one) == ["waiting"]
    assert site.breaker() == "half_open"
    site.loops = True
    assert site.take(one) == ["done"]
    assert site.breaker() == "open"


# -- the webhook's body -----------------------------------------------------------------------------------------------


def test_alertmanagers_body_is_read() -> None:
    (found,) = parse_alerts(
        {
            "version": "4",
            "alerts": [
                {
                    "status": "firing",
                    "labels": {"alertname": "AgentRunawayLoop", "agent": "support", "action": "breaker"},
                    "annotations": {"summary": "tasks loop"},
                    "startsAt": "2026-01-01T00:00:00.123456789Z",
                    "fingerprint": "0123456789abcdef",
                }
            ],
        }
    )
    assert (found.name, found.agent, found.action, found.firing) == ("AgentRunawayLoop", "support", "breaker", True)
    assert found.starts_at == pytest.approx(START + 0.123, abs=0.001)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"alerts": {}},
        {"alerts": [1]},
        {"alerts": [{"labels": {}}]},
        {"alerts": [{"labels": {"alertname": "A"}, "startsAt": "soon"}]},
    ],
)
def test_another_body_is_refused(body: object) -> None:
    with pytest.raises(BadBody):
        parse_alerts(body)
