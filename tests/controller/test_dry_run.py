"""A controller that isn't to act yet: what it lacks for that is told, and is no failure."""

from pathlib import Path
from typing import Literal

import pytest

from controller.config import Modes, Settings
from controller.responder import Responder
from controller.store import Store
from tests.controller.test_responder import Site, alert

Mode = Literal["off", "dry-run", "confirm", "act"]


def without_state(folder: Path, mode: Mode) -> tuple[Site, Responder]:
    """A site, whose alerts go to a responder on a store that nobody has begun."""
    site = Site(folder, Modes(breaker=mode))
    store = Store(folder / "nothing" / "flags.json", clock=site.clock)
    settings = Settings(token_file=folder / "token", state=store.path, actions=site.settings.actions)
    return site, Responder(settings, store, site.counted)


@pytest.mark.parametrize(("mode", "why"), [("off", "off"), ("dry-run", "dry_run")])
def test_an_agent_nobody_knows_is_held_back_while_nothing_is_to_be_done(tmp_path: Path, mode: Mode, why: str) -> None:
    site = Site(tmp_path, Modes(breaker=mode))
    (outcome,) = site.responder.take([alert(site, agent="suport")])
    assert (outcome.result, outcome.error) == (mode, False)
    assert "did you mean support?" in outcome.text
    assert "agent-oncall state init --agent suport" in outcome.text
    assert site.counted.all == [("held back", "suport", "breaker", why)]


@pytest.mark.parametrize(("mode", "why"), [("off", "off"), ("dry-run", "dry_run")])
def test_a_state_that_nobody_has_made_is_held_back_while_nothing_is_to_be_done(
    tmp_path: Path, mode: Mode, why: str
) -> None:
    site, responder = without_state(tmp_path, mode)
    (outcome,) = responder.take([alert(site)])
    assert (outcome.result, outcome.error) == (mode, False)
    assert "agent-oncall state init" in outcome.text
    assert site.counted.all == [("held back", "support", "breaker", why)]


@pytest.mark.parametrize("mode", ["confirm", "act"])
def test_both_are_failures_once_it_is_to_act(tmp_path: Path, mode: Mode) -> None:
    site, responder = without_state(tmp_path, mode)
    assert responder.take([alert(site)])[0].error
    assert site.responder.take([alert(site, agent="suport")])[0].error
    assert site.counted.all == [("failed", "breaker", "state"), ("failed", "breaker", "unknown_agent")]


def test_a_state_that_is_broken_is_a_failure_in_a_dry_run_too(tmp_path: Path) -> None:
    site = Site(tmp_path, Modes(breaker="dry-run"))
    site.store.path.write_bytes(b"{")
    assert site.responder.take([alert(site)])[0].error


def test_what_is_held_back_for_want_of_a_state_is_counted_once_an_alert(tmp_path: Path) -> None:
    site, responder = without_state(tmp_path, "dry-run")
    one = alert(site)
    responder.take([one, one])
    responder.take([one])
    assert len(site.counted.all) == 1
