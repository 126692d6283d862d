"""The commands that change the state, through the command line's own door."""

import json
import re
from pathlib import Path

import pytest

from agent_oncall.experiments import records_file
from agent_oncall.runtime import Config
from agent_oncall.schema import loads
from agent_oncall.state import StateReader
from cli.main import main

VERSION = ["--model", "gpt-4o-2024-08-06", "--provider", "openai", "--prompt", "support@1.9.0"]
AGENT = ["--agent", "support"]
WHY = ["--reason", "a test"]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A state with one agent, which the environment names."""
    path = tmp_path / "state" / "flags.json"
    monkeypatch.setenv("AGENT_ONCALL_STATE", str(path))
    assert main(["state", "init", *AGENT, *VERSION, *WHY]) == 0
    capsys.readouterr()
    return path


def model(path: Path, variant: str = "stable") -> str:
    config = loads(path.read_bytes()).agents["support"].config
    assert config is not None
    return config.variants[variant].model  # type: ignore[index]


def test_init_makes_a_state_that_is_valid(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", "check"]) == 0
    assert "valid, generation 2, 1 agents" in capsys.readouterr().out
    assert state.stat().st_mode & 0o777 == 0o600


def test_init_assumes_the_runtimes_own_defaults_and_says_so(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(model="gpt-4o-2024-08-06", provider="openai")
    assert main(["state", "init", "--agent", "other", *VERSION, "--max-iter", "12", *WHY]) == 0
    found = loads(state.read_bytes()).agents["other"].config
    assert found is not None
    assert (found.variants["stable"].temperature, found.variants["stable"].max_iter) == (config.temperature, 12)
    printed = capsys.readouterr().out
    assert "assumed, by the runtime's own defaults: --temperature 1.0\n" in printed


@pytest.mark.parametrize("begun", [False, True])
def test_a_state_made_anew_is_taken_by_agents_that_saw_another(state: Path, tmp_path: Path, begun: bool) -> None:
    for version in ("1.8.0", "1.7.0"):
        assert main(["rollback", "prompt", *AGENT, "--to", version, *WHY]) == 0
    last_good = tmp_path / "last_good.json"
    seen = StateReader(state, last_good).current().generation
    (state.parent / "audit.jsonl").unlink()
    state.unlink()
    generation = ["--generation", str(seen + 1)]
    if begun:
        assert main(["state", "init", "--agent", "new", *VERSION, *WHY]) == 0
        assert set(StateReader(state, last_good).current().agents) == {"support"}
        assert main(["state", "init", "--agent", "new", *VERSION, *generation, *WHY]) == 2
        assert main(["state", "init", "--recover", *generation, *WHY]) == 0
    else:
        assert main(["state", "init", "--agent", "new", *VERSION, *generation, *WHY]) == 0
    assert set(StateReader(state, last_good).current().agents) == {"new"}


def test_init_refuses_an_alias(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = ["--model", "gpt-4o-latest", "--provider", "openai", "--prompt", "x@1"]
    assert main(["state", "init", "--agent", "other", *version, *WHY]) == 2
    assert "alias" in capsys.readouterr().err


def test_init_says_what_is_missing(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state", "init", "--agent", "other", "--model", "gpt-4o-2024-08-06", *WHY]) == 2
    assert "--provider, --prompt: needed" in capsys.readouterr().err


def test_a_reason_is_required_and_not_empty(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["breaker", "open", *AGENT])
    assert main(["breaker", "open", *AGENT, "--reason", " "]) == 2
    assert "write why" in capsys.readouterr().err


def test_the_breaker_is_opened_half_opened_and_closed_by_hand(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, word in (("open", "open"), ("half-open", "half-open, 2 % of users"), ("close", "closed")):
        share = ["--share", "2"] if name == "half-open" else []
        assert main(["breaker", name, *AGENT, *WHY, *share]) == 0
        capsys.readouterr()
        assert main(["breaker", "status"]) == 0
        assert capsys.readouterr().out.startswith(f"support: {word}")


def test_what_was_done_says_how_to_take_it_back_and_that_works(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["rollback", "off", *AGENT, *WHY])
    found = re.search(r"agent-oncall rollback undo (c\d+)", capsys.readouterr().out)
    assert found is not None
    assert main(["rollback", "undo", found[1], *WHY]) == 0
    enabled = loads(state.read_bytes()).agents["support"].enabled
    assert enabled is not None
    assert enabled.on


def test_a_model_goes_back_and_forth(state: Path) -> None:
    assert (
        main(["rollout", "start", *AGENT, "--model", "gpt-4o-2024-11-20", "--prometheus", "http://127.0.0.1:9", *WHY])
        == 0
    )
    assert main(["rollout", "override", *AGENT, "--to", "100", "--prometheus", "http://127.0.0.1:9", *WHY]) == 0
    assert model(state) == "gpt-4o-2024-11-20"
    assert main(["rollback", "model", *AGENT, *WHY]) == 0
    assert model(state) == "gpt-4o-2024-08-06"


def test_a_model_of_the_backup_comes_with_the_backups_provider(state: Path) -> None:
    backup = ["--model", "claude-sonnet-4-5-20250929", "--provider", "anthropic", "--max-iter", "9"]
    assert main(["state", "backup", *AGENT, *backup, *WHY]) == 0
    assert main(["rollback", "model", *AGENT, "--to", "claude-sonnet-4-5-20250929", *WHY]) == 0
    config = loads(state.read_bytes()).agents["support"].config
    assert config is not None
    assert (config.variants["stable"].provider, config.variants["stable"].max_iter) == ("anthropic", 25)


def test_a_model_that_never_ran_comes_with_the_provider_and_the_word_that_are_given(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["rollback", "model", *AGENT, "--to", "my-deployment", *WHY]
    assert main(to) == 2
    assert main([*to, "--pinned"]) == 0
    assert "its provider is openai; --provider names another" in capsys.readouterr().out
    assert main([*to, "--pinned", "--provider", "azure"]) == 0
    config = loads(state.read_bytes()).agents["support"].config
    assert config is not None
    bundle = config.variants["stable"]
    assert (bundle.model, bundle.provider, bundle.pinned) == ("my-deployment", "azure", True)
    assert main(["rollback", "model", *AGENT, "--provider", "azure", *WHY]) == 2


def test_the_backup_is_set_and_used(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollback", "provider", *AGENT, *WHY]) == 2
    assert "agent-oncall state backup" in capsys.readouterr().err
    backup = ["--model", "claude-sonnet-4-5-20250929", "--provider", "anthropic"]
    assert main(["state", "backup", *AGENT, *backup, *WHY]) == 0
    assert main(["rollback", "provider", *AGENT, *WHY]) == 0
    config = loads(state.read_bytes()).agents["support"].config
    assert config is not None
    assert config.default == "backup"


def on_backup(capsys: pytest.CaptureFixture[str], *, rollout: bool) -> None:
    backup = ["--model", "claude-sonnet-4-5-20250929", "--provider", "anthropic"]
    assert main(["state", "backup", *AGENT, *backup, *WHY]) == 0
    if rollout:
        assert main(["rollout", "start", *AGENT, "--prompt-version", "2.0", "--tasks-per-day", "50000", *WHY]) == 0
    assert main(["rollback", "provider", *AGENT, *WHY]) == 0
    capsys.readouterr()


def test_off_the_backup_again_a_canary_that_was_taken_back_meanwhile_stays_away(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_backup(capsys, rollout=True)
    assert main(["rollout", "back", *AGENT, *WHY]) == 0
    assert main(["rollback", "provider", "--back", *AGENT, *WHY]) == 0
    config = loads(state.read_bytes()).agents["support"].config
    assert config is not None
    assert (config.default, config.canary_below, set(config.variants)) == ("stable", 0, {"stable", "backup"})


def test_off_the_backup_again_the_rollout_that_waited_goes_on(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on_backup(capsys, rollout=True)
    assert main(["rollback", "provider", "--back", *AGENT, *WHY]) == 0
    config = loads(state.read_bytes()).agents["support"].config
    assert config is not None
    assert (config.default, config.canary_below) == ("stable", 5000)
    assert main(["rollback", "provider", "--back", *AGENT, *WHY]) == 0
    assert "does not run on its backup provider" in capsys.readouterr().out


def test_a_prompt_that_goes_back_while_the_backup_runs_says_when_it_will_be_used(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_backup(capsys, rollout=False)
    assert main(["rollback", "prompt", *AGENT, "--to", "1.8.0", *WHY]) == 0
    assert "agent-oncall rollback provider --back --agent support" in capsys.readouterr().out


def test_start_says_what_can_not_be_decided_at_this_traffic(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["rollout", "start", *AGENT, "--prompt-version", "2.0", "--tasks-per-day", "50", *WHY]
    assert main(start) == 0
    assert "at 50 tasks a day the stage of 5 % takes about" in capsys.readouterr().err


def test_start_says_that_a_prompt_is_in_no_registry(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["--prompts", str(tmp_path / "prompts")]
    start = ["rollout", "start", *AGENT, "--tasks-per-day", "50000", *prompts, *WHY, "--prompt-version"]
    (tmp_path / "text").write_text("You help.")
    assert main(["prompt", "add", "support", "2.0", str(tmp_path / "text"), *prompts]) == 0
    assert main([*start, "9.9.9"]) == 0
    assert "prompt support 9.9.9 is not in" in capsys.readouterr().err
    assert main(["rollout", "back", *AGENT, *WHY]) == 0
    assert main([*start, "2.0"]) == 0
    assert capsys.readouterr().err == ""


def test_a_rollout_without_a_difference_is_refused(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "start", *AGENT, "--prompt-version", "1.9.0", "--tasks-per-day", "50", *WHY]) == 2
    assert "say what is different" in capsys.readouterr().err


def test_without_prometheus_check_says_no_data(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["rollout", "start", *AGENT, "--prompt-version", "2.0", "--tasks-per-day", "50000", *WHY])
    assert main(["rollout", "check", *AGENT, "--prometheus", "http://127.0.0.1:9"]) == 12
    assert main(["rollout", "advance", *AGENT, "--prometheus", "http://127.0.0.1:9", *WHY]) == 12
    assert "no data" in capsys.readouterr().out


def test_back_without_a_rollout_is_told(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "back", *AGENT, *WHY]) == 2
    assert "no rollout runs" in capsys.readouterr().err


def test_the_log_says_who_changed_what_and_why(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["breaker", "open", *AGENT, "--reason", "they loop", "--who", "ann"])
    capsys.readouterr()
    assert main(["state", "log", "-n", "1"]) == 0
    text = capsys.readouterr().out
    assert "ann  breaker open  support: they loop" in text
    assert "support.breaker.defaultVariant: closed → open" in text
    assert main(["state", "log", "-n", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["why"] == "they loop"


def test_a_broken_state_is_told_and_made_anew(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["breaker", "open", *AGENT, *WHY])
    state.write_text("{")
    assert main(["state", "check"]) == 1
    assert main(["breaker", "status"]) == 2
    assert "--recover" in capsys.readouterr().err
    assert main(["state", "init", "--recover", *WHY]) == 0
    assert "support: on, breaker open" in capsys.readouterr().out
    breaker = loads(state.read_bytes()).agents["support"].breaker
    assert breaker is not None
    assert breaker.state == "open"


def test_models_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", "gpt-4o-2024-08-06"]) == 0
    assert main(["model", "check", "gpt-4o"]) == 1
    assert main(["model", "check", "my-deployment", "--pinned"]) == 0


def test_prompts_are_added_listed_in_order_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, folder = tmp_path / "text", ["--prompts", str(tmp_path / "prompts")]
    text.write_text("You help.")
    for version in ("1.10.0", "1.9.0"):
        assert main(["prompt", "add", "support", version, str(text), *folder]) == 0
    capsys.readouterr()
    assert main(["prompt", "list", *folder]) == 0
    assert capsys.readouterr().out == "support 1.9.0\nsupport 1.10.0\n"
    assert main(["prompt", "verify", *folder]) == 0
    text.write_text("You help a lot.")
    assert main(["prompt", "add", "support", "1.9.0", str(text), *folder]) == 2
    (tmp_path / "prompts" / "support" / "1.9.0.txt").write_text("changed")
    assert main(["prompt", "verify", *folder]) == 1


# -- A/B tests --------------------------------------------------------------------------------------------------------

AB = [*AGENT, "--experiment", "warm"]


def recorded(folder: Path, users: int, *, b: int | None = None) -> None:
    folder.mkdir(exist_ok=True)
    lines = []
    for arm, count in (("a", users), ("b", users if b is None else b)):
        for user in range(count):
            for task in range(2):
                record = {
                    "experiment_id": "warm", "user_id": f"{arm}{user}", "variant": arm,
                    "task_id": f"{arm}{user}.{task}",
                    "timestamp": "2026-01-01T00:00:00.000Z", "success": user % 10 < (7 if arm == "a" else 9),
                    "cost_usd": 0.02 + 0.001 * (user % 7), "iterations": 3, "latency_ms": 900.0,
                }  # fmt: skip
                lines.append(json.dumps(record) + "\n")
    records_file(folder, "support", "warm").write_text("".join(lines))


@pytest.fixture
def two_hundred_users(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A running A/B test; the folder of its records."""
    folder = tmp_path / "ab"
    start = ["ab", "start", *AB, "--temperature", "0.7", "--users", "200", "--records", str(folder), *WHY]
    assert main(start) == 0
    capsys.readouterr()
    return folder


def test_the_size_is_told_in_tasks_and_users(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "size", "--base", "0.8", "--tasks-per-user", "1", "--variation", "0", "--correlation", "0"]) == 0
    assert "each arm: 906 tasks of 906 users" in capsys.readouterr().out
    assert main(["ab", "size", "--base", "80"]) == 2


def test_nothing_is_concluded_before_the_planned_size(
    two_hundred_users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(two_hundred_users, 150)
    assert main(["ab", "analyze", *AB]) == 11
    text = capsys.readouterr().out
    assert "too early" in text
    assert "success rate" not in text


def test_a_peek_shows_an_interval_alone_and_is_logged(
    two_hundred_users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(two_hundred_users, 150)
    assert main(["ab", "analyze", *AB, "--peek", "b seems to fail"]) == 11
    text = capsys.readouterr().out
    assert "success rate, b less a: between" in text
    assert "p =" not in text
    main(["state", "log", "-n", "1"])
    assert "ab peek  support: b seems to fail" in capsys.readouterr().out


def test_at_the_planned_size_the_difference_is_told(
    two_hundred_users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(two_hundred_users, 200)
    assert main(["ab", "analyze", *AB, "--json"]) == 0
    success, cost = json.loads(capsys.readouterr().out)["comparisons"]
    assert success["difference"] == pytest.approx(0.2)
    assert success["p"] < 1e-4
    assert cost["difference"] == pytest.approx(0)


def test_a_broken_split_gives_no_result(two_hundred_users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(two_hundred_users, 400, b=250)
    assert main(["ab", "analyze", *AB]) == 11
    text = capsys.readouterr().out
    assert "the split is broken" in text
    assert "success rate" not in text


def test_without_records_there_is_no_data(two_hundred_users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "analyze", *AB]) == 12


def test_a_file_of_records_that_is_named_has_to_be_there(
    two_hundred_users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(two_hundred_users, 200)
    there = records_file(two_hundred_users, "support", "warm")
    assert main(["ab", "analyze", *AB, "--records", str(there), str(there.with_name("typo.jsonl"))]) == 2
    assert "typo.jsonl: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("users", ["-5", "0", "1"])
def test_a_test_of_fewer_than_two_users_is_refused(state: Path, capsys: pytest.CaptureFixture[str], users: str) -> None:
    assert main(["ab", "start", *AB, "--temperature", "0.7", "--users", users, *WHY]) == 2
    assert f"--users {users}: 2 or more" in capsys.readouterr().err


def test_of_users_who_all_do_alike_nothing_is_concluded(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["ab", "start", *AB, "--temperature", "0.7", "--users", "2", "--records", str(tmp_path / "ab"), *WHY]
    assert main(start) == 0
    recorded(tmp_path / "ab", 2)
    capsys.readouterr()
    assert main(["ab", "analyze", *AB]) == 0
    assert "success can't be compared" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option",
    ["--variation=inf", "--tasks-per-user=inf", "--tasks-per-user=nan", "--variation=1e300", "--difference=nan",
     "--difference=1e-200", "--difference=1e-12", "--base=nan", "--alpha=nan", "--correlation=nan", "--power=1e-400"],
)  # fmt: skip
def test_a_size_of_numbers_that_are_none_is_refused(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["ab", "size", "--base", "0.8", option]) == 2
    assert capsys.readouterr().err.startswith("agent-oncall ab size: ")


def test_a_name_is_used_once(two_hundred_users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "stop", *AB, *WHY]) == 0
    assert main(["ab", "start", *AB, "--temperature", "0.9", "--users", "10", *WHY]) == 2
    assert "there was one of that name" in capsys.readouterr().err


def test_a_test_without_a_planned_size_is_refused(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "start", *AB, "--temperature", "0.7", *WHY]) == 2
    assert "--users N" in capsys.readouterr().err


def test_what_is_planned_from_the_base_rate_is_in_the_state(state: Path) -> None:
    assert main(["ab", "start", *AB, "--temperature", "0.7", "--base", "0.8", *WHY]) == 0
    experiment = loads(state.read_bytes()).agents["support"].experiments["warm"]
    assert experiment.b == {"temperature": 0.7}
    assert int(experiment.metadata["planned_tasks"]) > 906


SHORT = ["ab", "start", *AGENT, "--experiment", "short", "--prompt-version", "1.10.0-short", "--users", "200"]


def test_a_rollout_and_a_test_that_set_the_same_do_not_run_at_once(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout = ["rollout", "start", *AGENT, "--stages", "50", "--tasks-per-day", "10000"]
    assert main([*SHORT, *WHY]) == 0
    assert main([*rollout, "--prompt-version", "1.10.0", *WHY]) == 2
    assert "agent-oncall ab stop --agent support --experiment short" in capsys.readouterr().err
    assert main([*rollout, "--temperature", "0.3", *WHY]) == 0

    assert main(["ab", "start", *AB, "--temperature", "0.7", "--users", "200", *WHY]) == 2
    assert "agent-oncall rollout back --agent support" in capsys.readouterr().err


def test_two_tests_that_set_the_same_do_not_run_at_once(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, *WHY]) == 0
    assert main(["ab", "start", *AB, "--prompt-version", "1.11.0", "--users", "200", *WHY]) == 2
    assert "agent-oncall ab stop --agent support --experiment short" in capsys.readouterr().err

    assert main(["ab", "stop", *AGENT, "--experiment", "short", *WHY]) == 0
    assert main(["ab", "start", *AB, "--prompt-version", "1.11.0", "--users", "200", *WHY]) == 0


@pytest.mark.parametrize("to", [[], ["--to", "1.9.0"], ["--to", "1.8.0"]])
def test_a_rollback_of_the_prompt_reaches_the_users_of_a_test_of_prompts(
    state: Path, capsys: pytest.CaptureFixture[str], to: list[str]
) -> None:
    assert main([*SHORT, *WHY]) == 0
    assert main(["ab", "start", *AB, "--temperature", "0.7", "--users", "200", *WHY]) == 0
    capsys.readouterr()

    assert main(["rollback", "prompt", *AGENT, *to, *WHY]) == 0

    assert "experiment short set the prompt of its users and is stopped" in capsys.readouterr().out
    experiments = loads(state.read_bytes()).agents["support"].experiments
    assert (experiments["short"].running, experiments["warm"].running) == (False, True)


def test_a_name_is_used_once_also_where_its_start_was_undone(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, *WHY]) == 0
    assert main(["rollback", "undo", last(capsys), *WHY]) == 0
    assert main([*SHORT, *WHY]) == 2
    assert "there was one of that name" in capsys.readouterr().err


def test_an_undo_does_not_bring_back_a_test_beside_a_rollout_of_the_same(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SHORT, *WHY]) == 0
    capsys.readouterr()
    assert main(["ab", "stop", *AGENT, "--experiment", "short", *WHY]) == 0
    stop = last(capsys)
    rollout = ["rollout", "start", *AGENT, "--stages", "50", "--tasks-per-day", "10000", "--prompt-version", "1.10.0"]
    assert main([*rollout, *WHY]) == 0

    assert main(["rollback", "undo", stop, *WHY]) == 2
    assert "experiment short would run at once and set the same" in capsys.readouterr().err


def last(capsys: pytest.CaptureFixture[str]) -> str:
    """The id of the change that was told of."""
    return capsys.readouterr().out.split()[0]
