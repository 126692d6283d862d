import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticUndefined

from exporter.config import Address, ConfigError, Settings, keys, load, parse_address, unknown_variables

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "agent-oncall.example.yml"


@pytest.fixture(autouse=True)
def _no_variables_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AGENT_ONCALL_"):
            monkeypatch.delenv(name)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent-oncall.yml"
    path.write_text(text)
    return path


def refusal(path: Path | None = None, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        load(path, overrides)
    return str(refused.value)


def test_without_any_setting_everything_listens_on_this_machine_only() -> None:
    settings = load()
    assert [str(s.address) for s in (settings.otlp_grpc, settings.otlp_http, settings.metrics)] == [
        "127.0.0.1:4317",
        "127.0.0.1:4318",
        "127.0.0.1:9464",
    ]
    assert settings.journal is None


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, "cost_cap_usd: 1\nseen_spans: 1\nseen_hours: 1\n")
    monkeypatch.setenv("AGENT_ONCALL_COST_CAP_USD", "2")
    monkeypatch.setenv("AGENT_ONCALL_SEEN_SPANS", "2")
    settings = load(file, {"cost_cap_usd": 3})
    assert (settings.cost_cap_usd, settings.seen_spans, settings.seen_hours) == (3, 2, 1)


def test_sources_are_merged_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("t\n")
    file = written(tmp_path, f"metrics: {{address: '127.0.0.1:1', token_file: {token}}}\nmax_values: {{tool: 7}}")
    monkeypatch.setenv("AGENT_ONCALL_METRICS__ADDRESS", "[::1]:2")
    settings = load(file)
    assert settings.metrics.address == Address("::1", 2)
    assert settings.metrics.token_file == token
    assert settings.max_values["tool"] == 7
    assert settings.max_values["model"] == 100


def test_an_agent_can_be_set_by_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_ONCALL_AGENTS__CHECKOUT__LOOP_ITERATIONS", "80")
    monkeypatch.setenv("AGENT_ONCALL_AGENTS__CHECKOUT__POLLING_TOOLS", '["wait"]')
    limits = load().limits("checkout")
    assert (limits.loop_iterations, limits.polling_tools) == (80, ["wait"])


def test_an_agents_own_limits_override_those_of_every_agent_key_by_key(tmp_path: Path) -> None:
    settings = load(
        written(tmp_path, 'agents: {"*": {loop_iterations: 9, give_up_seconds: 60}, slow: {give_up_seconds: 7200}}')
    )
    assert (settings.limits("slow").loop_iterations, settings.limits("slow").give_up_seconds) == (9, 7200)
    assert (settings.limits("any").loop_iterations, settings.limits("any").give_up_seconds) == (9, 60)
    assert settings.limits("any").loop_failing_iterations == 3


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("cost_cap_usd: -1", "cost_cap_usd = -1"),
        ("cost_cap_usd: .nan", "cost_cap_usd = nan"),
        ("cost_cap_usd: true", "cost_cap_usd = True"),
        ("seen_spans: many", "seen_spans = 'many'"),
        ("bare_calls_are_tasks: sometimes", "bare_calls_are_tasks = 'sometimes'"),
        ('agents: {"*": {loop_iterations: 0}}', "agents.*.loop_iterations = 0"),
        ("agents: {a: {give_up_seconds: yes}}", "agents.a.give_up_seconds = True"),
        ("otlp_http: {address: 4318}", "otlp_http.address = 4318"),
        ("otlp_http: {address: 'localhost:99999'}", "otlp_http.address = 'localhost:99999'"),
        ("metrics: {address: ':9464'}", "metrics.address = ':9464'"),
        ("requests: {max_body_bytes: 12}", "requests.max_body_bytes = 12"),
        ("requests: {max_body_bytes: 2MiB, max_in_flight_bytes: 1MiB}", "requests"),
        ("max_values: {agnet: 3}", "max_values"),
        ("max_values: {agent: 0}", "max_values.agent = 0"),
        ("price_file: /nowhere/prices.yml", "price_file = '/nowhere/prices.yml'"),
        ("otlp_grpc: {tls: {key_file: /nowhere}}", "otlp_grpc.tls.certificate_file"),
        ("success: {refund: [{attribute: a}]}", "success.refund.0"),
        ("success: {refund: [{attribute: a, equals: 1, exists: true}]}", "success.refund.0"),
        ("success: {refund: [{attribute: a, equals: [1]}]}", "success.refund.0.equals = [1]"),
        ("senders: [{token_file: /nowhere, agents: []}]", "senders.0.agents = []"),
    ],
)
def test_a_bad_value_is_refused_with_the_keys_full_name_and_its_file(tmp_path: Path, text: str, key: str) -> None:
    file = written(tmp_path, text)
    lines = refusal(file).splitlines()
    assert any(line.startswith(f"{key} ({file}): ") for line in lines), lines


def test_every_bad_value_is_told_at_once(tmp_path: Path) -> None:
    assert len(refusal(written(tmp_path, "cost_cap_usd: -1\nseen_hours: 0\nwhat: 1")).splitlines()) == 3


def test_a_refusal_names_the_variable_or_the_option_that_the_value_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_ONCALL_SEEN_SPANS", "many")
    assert "seen_spans = 'many' (AGENT_ONCALL_SEEN_SPANS): " in refusal()
    assert "otlp_grpc.address = 'x' (--otlp-grpc): " in refusal(None, {"otlp_grpc": {"address": "x"}})


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("metrics: {adress: '127.0.0.1:1'}", "metrics.adress (FILE): unknown key; did you mean metrics.address?"),
        ("sucess: {}", "sucess (FILE): unknown key; did you mean success?"),
        ("agents: {a: {polling_tool: [x]}}", "did you mean agents.NAME.polling_tools?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path, text: str, hint: str) -> None:
    file = written(tmp_path, text)
    assert hint in refusal(file).replace(str(file), "FILE")


def test_an_unknown_key_below_a_known_one_is_refused_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_ONCALL_METRICS__ADRESS", "127.0.0.1:1")
    assert refusal().startswith("metrics.adress (AGENT_ONCALL_METRICS__ADRESS): unknown key")


def test_a_variable_that_is_no_setting_is_told_but_those_of_kubernetes_are_not() -> None:
    environment = {
        "AGENT_ONCALL_COST_CAP": "1",
        "AGENT_ONCALL_COST_CAP_USD": "1",
        "AGENT_ONCALL_METRICS__ADDRESS": "127.0.0.1:1",
        "AGENT_ONCALL_SERVICE_HOST": "10.0.0.1",
        "AGENT_ONCALL_SERVICE_PORT_OTLP": "4317",
        "AGENT_ONCALL_PORT": "tcp://10.0.0.1:4317",
        "AGENT_ONCALL_PORT_4317_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    assert unknown_variables(environment) == ["AGENT_ONCALL_COST_CAP"]


def test_a_token_that_was_put_where_its_file_belongs_is_not_shown(tmp_path: Path) -> None:
    text = refusal(written(tmp_path, "metrics: {token_file: s3cret}\nsenders: [{token_file: s3cret}]"))
    assert text.startswith("metrics.token_file")
    assert "s3cret" not in text


def test_a_file_that_is_missing_broken_or_no_mapping_is_refused_by_name(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yml"
    assert refusal(missing) == f"--config {missing}: No such file or directory"
    file = written(tmp_path, "a: 1\nb: [")
    assert refusal(file).startswith(f"--config {file}, line 2: not YAML")
    assert "has to be a mapping" in refusal(written(tmp_path, "- a"))


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "# nothing\n")).model_dump() == load().model_dump()


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:4317", ("::1", 4317)), ("localhost:1", ("localhost", 1))],
)
def test_an_address_is_read_and_written_the_same(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert str(parse_address(text)) == text


@pytest.mark.parametrize("text", ["", "4317", "host:", "host:-1", "host:65536", "::1:4317", "host:４３", ":1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_address(text)


def test_the_example_file_sets_nothing_until_its_lines_are_uncommented() -> None:
    assert yaml.safe_load(EXAMPLE.read_text()) is None


def uncommented(tmp_path: Path) -> Path:
    text = re.sub(r"^#(?! \w)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    for name in re.findall(r"/etc/agent-oncall/(\S+)", text):
        (tmp_path / name).write_text("x\n")
    return written(tmp_path, text.replace("/etc/agent-oncall", str(tmp_path)))


def test_the_example_file_shows_the_defaults(tmp_path: Path) -> None:
    settings = load(uncommented(tmp_path))
    defaults = load()
    examples = {"otlp_grpc", "otlp_http", "metrics", "senders", "journal", "agent_names", "price_file", "success"}
    for name in Settings.model_fields.keys() - examples - {"agents"}:
        assert getattr(settings, name) == getattr(defaults, name), name
    for name in ("otlp_grpc", "otlp_http", "metrics"):
        assert getattr(settings, name).address == getattr(defaults, name).address
    assert settings.limits("any") == defaults.limits("any")


def test_the_example_file_shows_every_setting(tmp_path: Path) -> None:
    shown = yaml.safe_load(uncommented(tmp_path).read_text())
    comparisons = {"equals", "not_equals", "at_least", "at_most", "one_of", "exists"}  # one of them at a time
    for key in keys():
        at: Any = shown
        for part in key.name.split("."):
            if isinstance(at, list):
                at = at[0]
            if part in comparisons:
                break
            at = next(iter(at.values())) if part == "NAME" else at[part]


def table() -> str:
    lines = ["| setting | default | is |", "| --- | --- | --- |"]
    for key in keys():
        default = key.default
        if default in (..., PydanticUndefined):
            shown = "has to be given"
        elif default is None or default == "":
            shown = "none"
        else:
            text = str(default) if isinstance(default, Address | str) else json.dumps(default)
            shown = f"`{text}`"
        lines.append(f"| `{key.name}` | {shown} | {key.description} |")
    return "\n".join(lines)


def test_the_documentation_lists_every_setting_as_it_is() -> None:
    page = (DOCS / "configuration.md").read_text()
    between = re.search(r"<!-- settings: .*? -->\n(.*)<!-- end -->", page, flags=re.DOTALL)
    assert between, "docs/configuration.md has lost the marks around its table of settings"
    assert between[1].strip() == table(), f"docs/configuration.md is out of date: put this table there\n{table()}"
