"""docker-compose.yml against the Compose specification, and what it mounts by the servers' own tools."""

import re
import stat
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack import compose, credentials
from stack.collector import collector_config
from stack.servers import AMTOOL, COLLECTOR, PROMTOOL, find, get

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "provisioning"


def dotenv(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


SETTINGS = dotenv(".env")


def resolved(text: str, settings: dict[str, str]) -> str:
    """Compose's own interpolation, of which only the plain form is used here."""
    return re.sub(r"\$\{(\w+)\}", lambda match: settings[match[1]], text)


def services(settings: dict[str, str] = SETTINGS) -> dict[str, dict[str, Any]]:
    text = resolved((ROOT / "docker-compose.yml").read_text(encoding="utf-8"), settings)
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def test_the_file_keeps_to_the_compose_specification() -> None:
    command = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")]
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_image_is_pinned_by_a_version() -> None:
    for name, service in services().items():
        image = service["image"]
        assert image == "agent-oncall:local" or re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w-]*", image), name
    assert re.search(r":\d+\.\d+\.\d+-", SETTINGS["PYTHON_IMAGE"])


def test_the_image_is_built_of_exactly_the_packages_of_the_project() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*"
    let_through = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert let_through == {*packages, "pyproject.toml", "uv.lock", "README.md"}


def test_a_scenario_that_has_come_to_its_end_is_not_begun_again() -> None:
    assert services()["demo"]["restart"] == "on-failure"


def test_every_port_is_published_on_the_loopback_interface_alone() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", services())
def test_every_service_is_confined(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert service.get("user", "") not in ("0", "root", "0:0")


def test_what_is_waited_for_can_tell_its_health() -> None:
    all_services = services()
    for name, service in all_services.items():
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in all_services[other], f"{name} waits for {other}"


def test_no_service_has_a_password_in_its_environment() -> None:
    for service in services().values():
        for key, value in service.get("environment", {}).items():
            assert key.endswith("__FILE") or not re.search("PASSWORD|TOKEN|SECRET", key), f"{key}={value}"


@pytest.mark.parametrize("files", [(".env",), (".env", "scale.env")])
def test_every_mounted_file_is_there(files: tuple[str, ...]) -> None:
    settings = {key: value for file in files for key, value in dotenv(file).items()}
    for service in services(settings).values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source


def test_every_secret_is_made_on_the_first_start(tmp_path: Path) -> None:
    declared = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["secrets"]
    credentials.ensure(tmp_path)
    assert {Path(secret["file"]).name for secret in declared.values()} == {path.name for path in tmp_path.iterdir()}


def test_secrets_differ_from_start_to_start_and_are_never_overwritten(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        credentials.ensure(tmp_path / folder)
    before = (tmp_path / "one" / "grafana_admin_password").read_text()
    assert before != (tmp_path / "two" / "grafana_admin_password").read_text()
    assert len(before) >= 24
    assert credentials.ensure(tmp_path / "one") == []
    assert (tmp_path / "one" / "grafana_admin_password").read_text() == before


def test_only_the_owner_gets_at_the_secrets(tmp_path: Path) -> None:
    credentials.ensure(tmp_path / "secrets")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_git_ignores_every_secret() -> None:
    names = [f"secrets/{name}" for name in ("grafana_admin_password", "controller_token", "anything")]
    done = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == names


@pytest.mark.parametrize("name", ["prometheus.yml", "scale.yml"])
def test_promtool_takes_the_prometheus_configuration(name: str) -> None:
    promtool = get([PROMTOOL])[PROMTOOL]
    done = subprocess.run(
        [promtool, "check", "config", PROVISIONING / "prometheus" / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["alertmanager.yml", "local.yml"])
def test_amtool_takes_the_alertmanager_configuration(name: str) -> None:
    amtool = get([AMTOOL])[AMTOOL]
    done = subprocess.run(
        [amtool, "check-config", PROVISIONING / "alertmanager" / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["config.yml", "scale.yml"])
def test_the_collector_takes_its_configuration(name: str, tmp_path: Path) -> None:
    collector = find(COLLECTOR)
    if collector is None:
        pytest.skip("no Collector here: tools/servers otelcol builds one")
    config = tmp_path / name
    text = (PROVISIONING / "otel-collector" / name).read_text(encoding="utf-8")
    config.write_text(text.replace("/var/lib/otelcol", str(tmp_path / "queues")), encoding="utf-8")
    done = subprocess.run(
        [collector, "validate", "--config", config],
        env={"TRACE_STORE": "tempo"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def for_an_existing_collector() -> str:
    page = (ROOT / "docs" / "existing-collector.md").read_text(encoding="utf-8")
    return textwrap.dedent(page.partition("```yaml\n")[2].partition("```")[0])


def test_the_collector_takes_what_the_documentation_adds_to_an_existing_one(tmp_path: Path) -> None:
    collector = find(COLLECTOR)
    if collector is None:
        pytest.skip("no Collector here: tools/servers otelcol builds one")
    config = tmp_path / "config.yml"
    added = for_an_existing_collector().replace("/var/lib/otelcol", str(tmp_path / "queues"))
    config.write_text(f"receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:0}}}}}}}}\n{added}")
    done = subprocess.run([collector, "validate", "--config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_existing_collector_keeps_as_much_for_the_exporter_as_our_own() -> None:
    own = yaml.safe_load(collector_config(exporters=["exporter:4317"], trace_stores={}))
    added = yaml.safe_load(for_an_existing_collector())
    queue, theirs = (
        one["exporters"][name]["sending_queue"]
        for one, name in ((own, "otlp_grpc/exporter"), (added, "otlp_grpc/oncall"))
    )
    for key in ("storage", "sizer", "queue_size", "num_consumers"):
        assert theirs[key] == queue[key], key
    assert added["extensions"]["file_storage"]["create_directory"] is True


def test_local_routes_are_the_real_ones_but_for_the_address_of_pagerduty() -> None:
    real, local = ((PROVISIONING / "alertmanager" / name).read_text() for name in ("alertmanager.yml", "local.yml"))
    assert local == real.replace("https://events.pagerduty.com/v2/enqueue", "http://pager:9095/v2/enqueue")


def test_what_an_exporter_has_to_get_waits_on_disk_without_end() -> None:
    for name in ("otel-collector/config.yml", "otel-collector/scale.yml"):
        config = yaml.safe_load(compose.files()[name])
        exporters = [value for key, value in config["exporters"].items() if key.startswith("otlp_grpc/exporter")]
        assert exporters
        for exporter in exporters:
            assert exporter["sending_queue"]["storage"] in config["service"]["extensions"]
            assert exporter["retry_on_failure"]["max_elapsed_time"] == 0
        assert not any(
            "batch" in pipeline.get("processors", ()) for pipeline in config["service"]["pipelines"].values()
        )


@pytest.mark.parametrize("count", [0, 257])
def test_a_number_of_exporters_that_traces_cannot_be_spread_over_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} exporters: there have to be 1 to 256"):
        collector_config(exporters=["exporter:4317"] * count, trace_stores={})
