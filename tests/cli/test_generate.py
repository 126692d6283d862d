"""`agent-oncall generate`: the same settings give the same bytes, and what is checked in is what it writes."""

from pathlib import Path

import pytest
import yaml

from cli.main import main

CHECKED_IN = Path(__file__).parents[2] / "provisioning"


def written(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()
    }


def test_what_is_checked_in_is_what_generate_writes(tmp_path: Path) -> None:
    assert main(["generate", "--out", str(tmp_path)]) == 0

    assert written(tmp_path) == written(CHECKED_IN), "stale: run `agent-oncall generate`"


def test_a_second_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "--out", str(tmp_path)])
    capsys.readouterr()

    assert main(["generate", "--out", str(tmp_path)]) == 0

    assert "0 of them written" in capsys.readouterr().out


def test_check_names_the_stale_file_and_leaves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "--out", str(tmp_path)])
    stale = tmp_path / "prometheus" / "rules" / "agent-cost.yml"
    stale.write_text("groups: []\n", encoding="utf-8")
    capsys.readouterr()

    assert main(["generate", "--out", str(tmp_path), "--check"]) == 1

    assert capsys.readouterr().out == f"stale: {stale}\n"
    assert stale.read_text(encoding="utf-8") == "groups: []\n"


def test_check_of_what_was_generated_is_content(tmp_path: Path) -> None:
    main(["generate", "--out", str(tmp_path)])

    assert main(["generate", "--out", str(tmp_path), "--check"]) == 0


def test_check_names_a_file_that_was_generated_once_and_is_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["generate", "--out", str(tmp_path)])
    rules = tmp_path / "prometheus" / "rules"
    (rules / "agent-old.yml").write_bytes((rules / "agent-cost.yml").read_bytes())
    (rules / "mine.yml").write_text("groups: []\n", encoding="utf-8")
    capsys.readouterr()

    assert main(["generate", "--out", str(tmp_path), "--check"]) == 1

    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"not generated any more: {rules / 'agent-old.yml'}")


def test_check_of_one_format_leaves_another_in_the_same_folder_alone(tmp_path: Path) -> None:
    formats = ("prometheus-operator", "alertmanager-fragment")
    for name in formats:
        main(["generate", "--format", name, "--out", str(tmp_path)])

    assert [main(["generate", "--format", name, "--out", str(tmp_path), "--check"]) for name in formats] == [0, 0]


def test_thresholds_of_a_file_reach_the_rules(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yml"
    mine.write_text("support-bot: {error_rate: 0.4}", encoding="utf-8")

    main(["generate", "--out", str(tmp_path / "out"), "--thresholds", str(mine)])

    limits = (tmp_path / "out" / "prometheus" / "rules" / "agent-limits.yml").read_text(encoding="utf-8")
    assert '"agent", "support-bot"' in limits


def test_a_threshold_nobody_can_mean_is_refused_by_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.yml"
    mine.write_text("support-bot: {error_rate: 120}", encoding="utf-8")

    assert main(["generate", "--out", str(tmp_path / "out"), "--thresholds", str(mine)]) == 2

    assert "mine.yml.support-bot.error_rate: 120 is not a ratio" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_links_of_alerts_are_the_users(tmp_path: Path) -> None:
    main(
        [
            "generate",
            "--out",
            str(tmp_path),
            "--runbook-url",
            "https://wiki.example/runbooks/",
            "--grafana-url",
            "https://grafana.example",
            "--traces-url",
            "https://jaeger.example/search?service={agent}",
        ]
    )

    rules = (tmp_path / "prometheus" / "rules" / "agent-cost.yml").read_text(encoding="utf-8")
    assert "runbook_url: https://wiki.example/runbooks/AgentCostAnomaly.md" in rules
    assert "dashboard_url: https://grafana.example/d/agent-oncall-overview" in rules
    assert "https://jaeger.example/search?service={{ . | urlquery }}{{ end }}" in rules


def test_addresses_of_ones_own_reach_the_servers_configurations(tmp_path: Path) -> None:
    options = {
        "--exporter": "one:9464",
        "--alertmanager": "am:9093",
        "--secrets-dir": "/run/secrets",
        "--slack-channel": "#ai",
        "--controller-url": "http://ctl:1/alerts",
        "--watchdog-url": "http://switch/beat",
        "--prometheus-url": "http://prom:9090",
        "--tempo-url": "http://traces:3200",
    }
    main(["generate", "--out", str(tmp_path), *(word for pair in options.items() for word in pair)])

    text = "".join(written(tmp_path).values())
    assert [value for value in options.values() if value not in text] == []


def test_without_a_controller_there_is_no_route_to_it_and_no_scrape(tmp_path: Path) -> None:
    main(["generate", "--out", str(tmp_path), "--controller-url", ""])

    assert "controller" not in (tmp_path / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
    assert "controller" not in (tmp_path / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")


def test_all_that_serves_series_of_the_contract_is_scraped(tmp_path: Path) -> None:
    main(
        [
            *("generate", "--out", str(tmp_path), "--exporter", "e:1", "--controller-url", "http://c:2/alerts"),
            *("--agent", "a:3", "--agent", "b:3"),
        ]
    )

    config = yaml.safe_load((tmp_path / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"agent-exporter": ["e:1"], "agent-controller": ["c:2"], "agent-library": ["a:3", "b:3"]}


def test_the_files_stand_where_servers_and_users_look_for_them() -> None:
    assert {
        "prometheus/prometheus.yml",
        "prometheus/rules/agent-cost.yml",
        "alertmanager/alertmanager.yml",
        "grafana/dashboards/overview.json",
        "grafana/datasources/agent-oncall.yml",
    } <= set(written(CHECKED_IN))


def test_resources_for_the_operator_go_to_the_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--format", "prometheus-operator", "--namespace", "m", "--label", "release=p"]) == 0

    resources = list(yaml.safe_load_all(capsys.readouterr().out))
    assert {resource["kind"] for resource in resources} == {"PrometheusRule"}
    assert {resource["metadata"]["namespace"] for resource in resources} == {"m"}
    assert {resource["metadata"]["labels"]["release"] for resource in resources} == {"p"}


def test_resources_for_the_operator_go_to_a_folder_that_is_named(tmp_path: Path) -> None:
    assert main(["generate", "--format", "prometheus-operator", "--out", str(tmp_path)]) == 0

    assert "agent-cost.yml" in written(tmp_path)
    assert main(["generate", "--format", "prometheus-operator", "--out", str(tmp_path), "--check"]) == 0


def test_a_fragment_is_the_routes_receivers_and_inhibitions_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--format", "alertmanager-fragment", "--slack-channel", "#ai"]) == 0

    fragment = yaml.safe_load(capsys.readouterr().out)
    assert fragment.keys() == {"route", "inhibit_rules", "receivers"}
    assert fragment["route"].keys() == {"routes"}
    assert all(receiver["name"].startswith("agent-oncall-") for receiver in fragment["receivers"])


def test_what_goes_to_the_standard_output_cannot_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--format", "alertmanager-fragment", "--check"]) == 2

    assert "--check needs --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--runbook-url", "wiki/runbooks"),
        ("--grafana-url", "grafana.example:3000"),
        ("--grafana-url", "https://grafana.example/{{ .Values }}"),
        ("--grafana-url", "https://grafana.example/x?orgId=2"),
        ("--grafana-url", "https://grafana.example/x#f"),
        ("--grafana-url", "https://grafana.example/?"),
        ("--runbook-url", "https://wiki.example/runbooks?page="),
        ("--runbook-url", "https://wiki.example/#runbooks"),
        ("--traces-url", "https://jaeger.example/search"),
        ("--traces-url", "jaeger/{agent}"),
        ("--exporter", "exporter"),
        ("--exporter", "http://exporter:9464"),
        ("--alertmanager", "alertmanager:99999"),
        ("--controller-url", "controller"),
        ("--watchdog-url", "ftp://switch"),
        ("--prometheus-url", "http://"),
        ("--tempo-url", "http://tempo:0"),
        ("--secrets-dir", ""),
        ("--slack-channel", " "),
        ("--namespace", "My_Space"),
        ("--label", "release"),
        ("--label", "release=a b"),
        ("--format", "helm"),
    ],
)
def test_a_value_nobody_can_mean_is_refused_with_its_option(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["generate", "--out", str(tmp_path / "out"), option, value])

    assert stopped.value.code == 2
    assert f"argument {option}:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_folder_that_is_none_is_refused(check: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--out", "/dev/null", *check]) == 2

    assert "generate: --out /dev/null cannot be used: [Errno 20] Not a directory" in capsys.readouterr().err


def test_a_folder_in_a_files_place_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prometheus" / "prometheus.yml").mkdir(parents=True)

    assert main(["generate", "--out", str(tmp_path)]) == 2

    assert str(tmp_path / "prometheus" / "prometheus.yml") in capsys.readouterr().err


def test_a_file_that_is_no_text_is_stale(tmp_path: Path) -> None:
    rules = tmp_path / "prometheus" / "rules" / "agent-cost.yml"
    rules.parent.mkdir(parents=True)
    rules.write_bytes(b"\xff")

    assert main(["generate", "--out", str(tmp_path)]) == 0

    assert rules.read_bytes().startswith(b"# ")
