import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from agent_oncall.schema import State, loads
from cli.main import main
from controller import actions, rollouts
from controller.config import ACTIONS, Listener, Settings
from controller.follow import Follower, FollowError
from controller.plan import DEFAULT
from controller.rollouts import Rollout
from controller.server import Server
from controller.store import Store
from controller.verdict import Decision, Verdict
from exporter.config import Address, ConfigError, keys, load_as
from tests.controller.babbler import babbler
from tests.controller.states import BUNDLE, START, Clock, new_store

WRITER, READER = {"Authorization": "Bearer writer"}, {"Authorization": "Bearer reader"}


class Site:
    """A running controller."""

    def __init__(self, server: Server, store: Store, http: aiohttp.ClientSession, folder: Path) -> None:
        self.server, self.store, self.http, self.folder = server, store, http, folder
        self.url = f"http://127.0.0.1:{server.address.port}"

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        async with self.http.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def post(self, path: str, body: object, headers: dict[str, str] | None = WRITER) -> tuple[int, str]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.url + path, data=content, headers=headers) as answer:
            return answer.status, await answer.text()

    async def sample(self, series: str) -> float | None:
        _, text = await self.get("/metrics")
        found = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == series]
        return float(found[0]) if found else None

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(20):
            while not await condition():
                await asyncio.sleep(0.05)

    def breaker(self) -> str:
        breaker = self.store.read().agents["support"].breaker
        assert breaker is not None
        return breaker.state


@asynccontextmanager
async def site(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    """A controller whose breaker acts, with nothing else around it."""
    store = new_store(folder, Clock(START + 1000))
    for name in ("writer", "reader"):
        (folder / name).write_text(f"{name}\n")
    given: dict[str, Any] = {
        "listen": Listener(address=Address("127.0.0.1", 0)),
        "token_file": folder / "writer",
        "state_token_file": folder / "reader",
        "state": store.path,
        "actions": {"breaker": "act"},
        "prometheus": {"url": None},
    }
    async with AsyncExitStack() as stack:
        server = Server(Settings(**(given | settings)), store)
        await server.start()
        stack.push_async_callback(server.stop)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Site(server, store, http, folder)


def body(*, agent: str = "support", status: str = "firing") -> Any:
    alert = {
        "status": status,
        "labels": {"alertname": "AgentRunawayLoop", "agent": agent, "action": "breaker"},
        "annotations": {"summary": "tasks loop"},
        "startsAt": "2026-01-01T01:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "0123456789abcdef",
    }
    return {"version": "4", "status": status, "receiver": "controller", "alerts": [alert]}


async def test_an_alert_opens_the_breaker_and_the_next_reader_of_the_state_sees_it(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        status, text = await at.post("/alerts", body())
        assert (status, json.loads(text)["alerts"][0]["result"]) == (200, "done")
        status, text = await at.get("/state", READER)
        breaker = loads(text).agents["support"].breaker
        assert breaker is not None
        assert breaker.state == "open"
        assert (
            await at.sample(
                'agent_controller_actions_total{action="breaker",agent="support",trigger="AgentRunawayLoop"}'
            )
            == 1
        )


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, READER, {"Authorization": "Basic d3JpdGVy"}]
)
async def test_without_its_token_no_alert_is_taken(tmp_path: Path, headers: dict[str, str]) -> None:
    async with site(tmp_path) as at:
        status, _ = await at.post("/alerts", body(), headers)
        assert status == 401
        assert at.breaker() == "closed"


async def test_the_state_needs_a_token_and_the_writers_will_do(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        assert (await at.get("/state"))[0] == 401
        assert (await at.get("/state", READER))[0] == 200
        assert (await at.get("/state", WRITER))[0] == 200


async def test_metrics_and_health_need_none(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        assert (await at.get("/healthz"))[0] == 200
        assert (await at.get("/metrics"))[0] == 200


async def test_what_is_not_there_says_what_is(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        assert (await at.get("/"))[0] == 404
        assert (await at.get("/alerts", WRITER))[0] == 405


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"alerts": 1}', b"\xff", b"1" * 5_000_000])
async def test_a_body_that_is_none_is_refused_and_counted(tmp_path: Path, content: bytes) -> None:
    async with site(tmp_path) as at:
        assert (await at.post("/alerts", content))[0] == 400
        assert await at.sample('agent_controller_failures_total{action="alerts",why="bad_body"}') == 1
        assert (await at.post("/alerts", body()))[0] == 200


async def test_a_body_that_is_too_large_is_told_so(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        assert await at.post("/alerts", b"1" * 5_000_000) == (400, "more than 4194304 bytes\n")


async def test_an_alert_forges_no_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with site(tmp_path) as at:
        await at.post("/alerts", body(agent="x\nforged\x1b[2K", status="resolved"))
        (said,) = [record.getMessage() for record in caplog.records if "forged" in record.getMessage()]
        assert said.startswith("AgentRunawayLoop: x forged [2K: resolved")


async def test_an_agent_nobody_knows_fails_at_alertmanager_and_is_counted(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        assert (await at.post("/alerts", body(agent="suport")))[0] == 422
        assert await at.sample('agent_controller_failures_total{action="breaker",why="unknown_agent"}') == 1


async def test_a_state_that_is_broken_makes_alertmanager_try_again(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        good = at.store.path.read_bytes()
        at.store.path.write_bytes(b"{")
        assert (await at.post("/alerts", body()))[0] == 503
        at.store.path.write_bytes(good)
        assert (await at.post("/alerts", body()))[0] == 200
        assert at.breaker() == "open"


async def test_resolved_closes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        await at.post("/alerts", body())
        assert (await at.post("/alerts", body(status="resolved")))[0] == 200
        assert at.breaker() == "open"


async def test_an_unchanged_state_is_not_sent_again(tmp_path: Path) -> None:
    async with site(tmp_path) as at, at.http.get(f"{at.url}/state", headers=READER) as first:
        tag = {"If-None-Match": first.headers["ETag"]}
        assert (await at.get("/state", READER | tag))[0] == 304
        await at.post("/alerts", body())
        assert (await at.get("/state", READER | tag))[0] == 200


@pytest.mark.parametrize("broken", [b"", b"{}", b'{"flags"', None])
async def test_a_broken_or_missing_file_leaves_the_last_good_state_served(tmp_path: Path, broken: bytes | None) -> None:
    async with site(tmp_path) as at:
        await at.post("/alerts", body())
        await at.get("/state", READER)
        if broken is None:
            at.store.path.unlink()
        else:
            at.store.path.write_bytes(broken)
        status, text = await at.get("/state", READER)
        breaker = loads(text).agents["support"].breaker
        assert breaker is not None
        assert (status, breaker.state) == (200, "open")

        async def unreadable() -> bool:
            return await at.sample("agent_state_read_ok") == 0

        await at.until(unreadable)


async def test_before_there_is_a_state_nothing_is_unreadable(tmp_path: Path) -> None:
    async with site(tmp_path, actions={}) as at:
        empty = Server(at.server._settings, Store(tmp_path / "none" / "flags.json"))
        await empty.start()
        try:
            there = Site(empty, at.store, at.http, tmp_path)
            assert await there.sample("agent_state_read_ok") == 1
            assert (await there.get("/state", READER))[0] == 503
            assert (await there.post("/alerts", body()))[0] == 200
        finally:
            await empty.stop()


async def test_the_state_is_served_as_metrics(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        at.store.change(
            lambda state: rollouts.start(state, "support", replace(BUNDLE, max_iter=9), DEFAULT, now=START),
            action="x", agent="support", who="ann", why="x",
        )  # fmt: skip
        await at.post("/alerts", body())
        generation = at.store.read().generation

        async def seen() -> bool:
            return await at.sample("agent_state_generation") == generation

        await at.until(seen)
        assert await at.sample('agent_breaker_state{agent="support"}') == 2
        assert await at.sample('agent_rollout_stage_percent{agent="support",rollout="r3"}') == 5

        async def tripped() -> bool:
            return await at.sample('agent_breaker_trips_total{agent="support",why="fleet"}') == 1

        await at.until(tripped)


async def test_an_action_waits_to_be_confirmed(tmp_path: Path) -> None:
    async with site(tmp_path, actions={"breaker": "confirm"}) as at:
        await at.post("/alerts", body())
        assert at.breaker() == "closed"
        (waiting,) = json.loads((await at.get("/pending", WRITER))[1])
        assert (waiting["agent"], waiting["action"]) == ("support", "breaker")
        assert (await at.get("/pending", READER))[0] == 401
        assert (await at.post("/confirm", {"id": waiting["id"], "who": "bob"}, READER))[0] == 401
        assert (await at.post("/confirm", {"id": "nothing", "who": "bob"}))[0] == 404
        assert (await at.post("/confirm", {"id": waiting["id"], "who": "bob"}))[0] == 200
        assert at.breaker() == "open"


async def by_hand(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """What `agent-oncall controller` with these words ends with and prints."""
    code = await asyncio.to_thread(main, ["controller", *words])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


async def test_who_is_on_call_confirms_an_action_without_naming_the_token_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENT_ONCALL_CONTROLLER_TOKEN_FILE", str(tmp_path / "writer"))
    async with site(tmp_path, actions={"breaker": "confirm"}) as at:
        await at.post("/alerts", body())

        code, text = await by_hand(capsys, "pending", "--url", at.url)
        assert (code, text.split()[1:]) == (0, ["support", "breaker", "AgentRunawayLoop"])
        code, _ = await by_hand(capsys, "confirm", text.split()[0], "--url", at.url)
        assert code == 0
        assert at.breaker() == "open"


@pytest.mark.parametrize("before", [True, False])
async def test_a_token_that_is_named_goes_before_that_of_the_environment(
    before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENT_ONCALL_CONTROLLER_TOKEN_FILE", str(tmp_path / "reader"))
    async with site(tmp_path) as at:
        token = ["--token-file", str(tmp_path / "writer")]
        words = [*token, "pending"] if before else ["pending", *token]

        assert await by_hand(capsys, *words, "--url", at.url) == (0, "nothing waits\n")


def test_what_is_no_controller_is_told_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("t")
    with babbler() as url:
        assert main(["controller", "pending", "--url", url, "--token-file", str(tmp_path / "token")]) == 2
    assert "no answer of HTTP" in capsys.readouterr().err


def test_a_token_file_that_is_not_there_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENT_ONCALL_CONTROLLER_TOKEN_FILE", raising=False)

    assert main(["controller", "pending"]) == 2

    assert (
        "controller.token: No such file or directory; name the token's file by --token-file" in capsys.readouterr().err
    )


class Judged:
    """A judge that says what it is told to."""

    def __init__(self, verdict: Verdict) -> None:
        self.says = verdict

    def verdict(self, rollout: Rollout, now: float) -> Verdict:
        return self.says


@pytest.mark.parametrize(
    ("verdict", "settings", "rolls_back"),
    [
        (Verdict(Decision.ROLL_BACK, ("x3.5",), hard=True), {}, True),
        (Verdict(Decision.ROLL_BACK, ("6 % worse",)), {}, False),
        (Verdict(Decision.ROLL_BACK, ("6 % worse",)), {"auto_rollback": "any"}, True),
        (Verdict(Decision.ROLL_BACK, ("x3.5",), hard=True), {"auto_rollback": "off"}, False),
        (Verdict(Decision.HOLD, ("wait",)), {}, False),
        (Verdict(Decision.NO_DATA, ("nothing",)), {"auto_promote": True}, False),
    ],
)
async def test_a_rollout_is_rolled_back_by_itself_where_its_settings_say_so(
    tmp_path: Path, verdict: Verdict, settings: dict[str, Any], rolls_back: bool
) -> None:
    async with site(tmp_path) as at:
        canary = replace(BUNDLE, max_iter=9)
        at.store.change(
            lambda state: rollouts.start(state, "support", canary, DEFAULT, now=START, **settings),
            action="x", agent="support", who="ann", why="x",
        )  # fmt: skip
        at.server._judge = Judged(verdict)  # type: ignore[assignment]
        at.server.judge()
        config = actions.config_of(at.store.read(), "support")
        assert ("canary" not in config.variants) is rolls_back
        series = 'agent_rollout_verdict{agent="support",rollout="r3",stage="5"}'
        assert await at.sample(series) == verdict.decision.sample


async def test_a_rollback_that_a_person_took_back_is_not_repeated_and_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with site(tmp_path) as at:
        at.store.change(
            lambda state: rollouts.start(state, "support", replace(BUNDLE, max_iter=9), DEFAULT, now=START),
            action="rollout start", agent="support", who="ann", why="x",
        )  # fmt: skip
        at.server._judge = Judged(Verdict(Decision.ROLL_BACK, ("x3.5",), hard=True))  # type: ignore[assignment]
        at.server.judge()
        back = at.store.entries()[-1]
        undo = at.store.undo(back.id, who="ann", why="the cost is of another team's test")
        at.server.judge()
        assert "canary" in actions.config_of(at.store.read(), "support").variants
        where = ["--state", str(at.store.path), "--prometheus", "http://127.0.0.1:9"]
        await asyncio.to_thread(main, ["rollout", "status", "--agent", "support", *where])
        assert f"since ann took that back by {undo.id}" in capsys.readouterr().out


def two_rollouts(state: State) -> State:
    """A rollout of `support`, and one of a second agent, `other`."""
    state = actions.add_agent(state, "other", BUNDLE)
    for name in ("other", "support"):
        state = rollouts.start(state, name, replace(BUNDLE, max_iter=9), DEFAULT, now=START)
    return state


class Failing(Judged):
    """A judge that one agent's rollout is too much for."""

    def verdict(self, rollout: Rollout, now: float) -> Verdict:
        if rollout.agent == "other":
            raise ZeroDivisionError
        return self.says


async def test_a_rollout_that_can_not_be_judged_holds_up_no_other(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        at.store.change(two_rollouts, action="x", agent="", who="ann", why="x")
        at.server._judge = Failing(Verdict(Decision.ROLL_BACK, ("x3.5",), hard=True))  # type: ignore[assignment]
        at.server.judge()
        assert "canary" not in actions.config_of(at.store.read(), "support").variants
        assert await at.sample('agent_controller_failures_total{action="verdicts",why="fault"}') == 1


async def test_a_rollout_whose_metadata_was_spoilt_by_hand_holds_up_no_other(tmp_path: Path) -> None:
    async with site(tmp_path) as at:

        def spoilt(state: State) -> State:
            state = two_rollouts(state)
            config = actions.config_of(state, "other")
            return actions.with_config(state, "other", replace(config, metadata={**config.metadata, "plan": "5,x"}))

        at.store.change(spoilt, action="x", agent="", who="ann", why="x")
        at.server._judge = Judged(Verdict(Decision.HOLD, ("wait",)))  # type: ignore[assignment]
        at.server.judge()
        assert await at.sample('agent_rollout_verdict{agent="support",rollout="r3",stage="5"}') == 0
        assert await at.sample('agent_controller_failures_total{action="verdicts",why="metadata"}') == 1


@pytest.mark.parametrize("auto", [False, True])
async def test_a_rollout_goes_on_by_itself_only_where_that_was_turned_on(tmp_path: Path, auto: bool) -> None:
    async with site(tmp_path) as at:
        at.store.change(
            lambda state: rollouts.start(
                state, "support", replace(BUNDLE, max_iter=9), DEFAULT, now=START, auto_promote=auto
            ),
            action="x", agent="support", who="ann", why="x",
        )  # fmt: skip
        at.server._judge = Judged(Verdict(Decision.PROMOTE, ("good",)))  # type: ignore[assignment]
        at.server.judge()
        assert actions.config_of(at.store.read(), "support").stage == ("10" if auto else "5")


async def test_every_change_becomes_an_annotation(tmp_path: Path) -> None:
    taken: list[tuple[str | None, dict[str, Any]]] = []
    arrived = asyncio.Event()

    async def annotations(request: web.Request) -> web.Response:
        taken.append((request.headers.get("Authorization"), await request.json()))
        arrived.set()
        return web.json_response({"id": 1})

    grafana = web.Application()
    grafana.router.add_post("/api/annotations", annotations)
    runner = web.AppRunner(grafana)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (tmp_path / "grafana").write_text("secret\n")
    port = runner.addresses[0][1]
    settings = {"grafana": {"url": f"http://127.0.0.1:{port}/", "token_file": tmp_path / "grafana"}}
    try:
        async with site(tmp_path, **settings) as at:
            await at.post("/alerts", body())
            await asyncio.wait_for(arrived.wait(), 20)
    finally:
        await runner.cleanup()
    ((authorization, annotation),) = taken
    assert authorization == "Bearer secret"
    assert annotation["tags"] == ["agent-oncall", "agent:support", "breaker open"]
    assert annotation["time"] == (START + 1000) * 1000


# -- following --------------------------------------------------------------------------------------------------------


async def test_a_follower_keeps_a_copy(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        copy = tmp_path / "copy" / "flags.json"
        follower = Follower(at.url, tmp_path / "reader", copy)
        assert "generation 2" in await asyncio.to_thread(follower.step)
        assert await asyncio.to_thread(follower.step) == ""
        await at.post("/alerts", body())
        assert "generation 3" in await asyncio.to_thread(follower.step)
        assert copy.read_bytes() == at.store.path.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o600


async def test_a_follower_without_a_controller_keeps_what_it_has(tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "flags.json"
    async with site(tmp_path) as at:
        await at.post("/alerts", body())
        follower = Follower(at.url, tmp_path / "reader", copy)
        await asyncio.to_thread(follower.step)
    with pytest.raises(FollowError, match="can't be reached"):
        await asyncio.to_thread(follower.step)
    breaker = loads(copy.read_bytes()).agents["support"].breaker
    assert breaker is not None
    assert breaker.state == "open"


async def test_a_follower_takes_no_older_state_than_its_own(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        old = at.store.path.read_bytes()
        await at.post("/alerts", body())
        copy = tmp_path / "copy.json"
        await asyncio.to_thread(Follower(at.url, tmp_path / "reader", copy).step)
        at.store.path.write_bytes(old)
        with pytest.raises(FollowError, match=r"older than 3 here.*state init --recover --generation 4.*last_good"):
            await asyncio.to_thread(Follower(at.url, tmp_path / "reader", copy).step)


async def test_a_follower_whose_token_is_missing_for_a_moment_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        token = tmp_path / "reader"
        follower = Follower(at.url, token, tmp_path / "copy.json")
        token.rename(tmp_path / "away")
        with pytest.raises(FollowError, match="reader: can't be read: No such file"):
            await asyncio.to_thread(follower.step)
        (tmp_path / "away").rename(token)
        assert await asyncio.to_thread(follower.step)


def test_a_follower_of_something_that_is_no_controller_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    with babbler() as url, pytest.raises(FollowError, match=r"no answer of HTTP.*220 mail"):
        Follower(url, tmp_path / "token", tmp_path / "copy.json").step()


async def test_a_follower_with_a_wrong_token_is_told_so(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        (tmp_path / "wrong").write_text("wrong\n")
        follower = Follower(at.url, tmp_path / "wrong", tmp_path / "copy.json")
        with pytest.raises(FollowError, match="token is not known"):
            await asyncio.to_thread(follower.step)


# -- settings ---------------------------------------------------------------------------------------------------------


def settings(tmp_path: Path, text: str = "", **overrides: Any) -> Settings:
    (tmp_path / "token").write_text("t\n")
    file = tmp_path / "controller.yml"
    file.write_text(f"token_file: {tmp_path / 'token'}\n{text}")
    return load_as(Settings, file, overrides)


def test_without_any_setting_it_listens_on_this_machine_and_acts_on_nothing(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert str(found.listen.address) == "127.0.0.1:9465"
    assert {found.mode("any", action) for action in ACTIONS} == {"dry-run"}


def test_the_documented_example_and_page_name_every_setting(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    example = docs / "controller.example.yml"
    page = (docs / "controller.md").read_text()
    text = re.sub(r"(?m)^#(?=[a-z ]*[a-z_]+:| {2})", "", example.read_text())
    for path in set(re.findall(r"/etc/agent-oncall/[\w.-]+", text)):
        file = tmp_path / Path(path).name
        file.write_text("t\n")
        text = text.replace(path, str(file))
    (tmp_path / "all.yml").write_text(text)
    found = load_as(Settings, tmp_path / "all.yml").model_dump(exclude_unset=True)
    for key in keys(Settings):
        at: Any = found
        for part in key.name.replace("NAME", "support").split("."):
            assert part in at, f"{key.name} is not in {example.name}"
            at = at[part]
        assert f"`{key.name}`" in page or key.name.startswith("agents."), f"{key.name} is not in controller.md"


def test_a_token_is_required() -> None:
    with pytest.raises(ConfigError, match="token_file: has to be given"):
        load_as(Settings)


def test_off_is_taken_as_it_is_written_in_yaml(tmp_path: Path) -> None:
    found = settings(tmp_path, "actions: {breaker: off, prompt: act}\nagents: {support: {prompt: off, breaker: act}}")
    assert [found.mode("support", action) for action in ("breaker", "prompt", "model")] == ["act", "off", "dry-run"]
    assert found.mode("other", "breaker") == "off"


def test_a_mistyped_setting_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"actions\.braker.*did you mean actions\.breaker"):
        settings(tmp_path, "actions: {braker: act}")


def test_the_environment_sets_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_ONCALL_CONTROLLER_ACTIONS__BREAKER", "act")
    assert settings(tmp_path).mode("support", "breaker") == "act"


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    from exporter.listen import ListenError

    async def start(port: int) -> None:
        async with site(tmp_path, listen=Listener(address=Address("127.0.0.1", port))):
            pass

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ListenError, match="--listen HOST:PORT"):
            asyncio.run(start(taken.getsockname()[1]))
