from pathlib import Path

import pytest

from stack import servers
from stack.debian import NoPackage


def program(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_server_named_by_the_user_comes_before_the_path(tmp_path: Path) -> None:
    mine = program(tmp_path / "mine", "prom3")
    program(tmp_path / "bin", "prometheus")
    environ = {"PATH": str(tmp_path / "bin"), "AGENT_ONCALL_PROMETHEUS": str(mine)}
    assert servers.find(servers.PROMETHEUS, environ=environ, cache=tmp_path / "cache") == mine


def test_a_server_on_the_path_comes_before_the_cache(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin", "prometheus-alertmanager")
    program(tmp_path / "cache/usr/bin", "prometheus-alertmanager")
    environ = {"PATH": str(tmp_path / "bin")}
    assert servers.find(servers.ALERTMANAGER, environ=environ, cache=tmp_path / "cache") == on_path


def test_a_wrong_name_is_refused_and_not_replaced_by_another_server(tmp_path: Path) -> None:
    program(tmp_path / "bin", "prometheus")
    environ = {"PATH": str(tmp_path / "bin"), "AGENT_ONCALL_PROMETHEUS": "/no/such/prometheus"}
    with pytest.raises(servers.MissingServer, match="AGENT_ONCALL_PROMETHEUS=/no/such/prometheus"):
        servers.find(servers.PROMETHEUS, environ=environ, cache=tmp_path / "cache")


def test_only_missing_packages_are_fetched(tmp_path: Path) -> None:
    program(tmp_path / "bin", "prometheus")
    program(tmp_path / "bin", "promtool")
    fetched: list[str] = []

    def fetch(packages: list[str], cache: Path) -> None:
        fetched.extend(packages)
        program(cache / "usr/bin", "prometheus-alertmanager")
        program(cache / "usr/bin", "amtool")

    found = servers.get(environ={"PATH": str(tmp_path / "bin")}, cache=tmp_path / "cache", fetch=fetch)
    assert fetched == ["prometheus-alertmanager"]
    assert found[servers.AMTOOL] == tmp_path / "cache/usr/bin/amtool"


def test_a_cached_server_is_not_fetched_again(tmp_path: Path) -> None:
    for name in ("prometheus", "promtool", "prometheus-alertmanager", "amtool"):
        program(tmp_path / "cache/usr/bin", name)

    def fetch(packages: list[str], cache: Path) -> None:
        pytest.fail(f"fetched {packages}")

    assert len(servers.get(environ={"PATH": ""}, cache=tmp_path / "cache", fetch=fetch)) == 4


def test_a_machine_without_apt_is_told_how_to_name_a_server(tmp_path: Path) -> None:
    def fetch(packages: list[str], cache: Path) -> None:
        raise NoPackage("this machine has no apt-get")

    with pytest.raises(servers.MissingServer, match=r"(?s)no apt-get.*AGENT_ONCALL_PROMETHEUS=/path/to/prometheus"):
        servers.get(environ={"PATH": ""}, cache=tmp_path / "cache", fetch=fetch)


def test_what_debian_lacks_is_found_where_it_is_built(tmp_path: Path) -> None:
    built = program(tmp_path / "servers-new" / "bin", "otelcol")
    assert servers.find(servers.COLLECTOR, environ={"PATH": ""}, cache=tmp_path / "servers") == built


def test_what_debian_lacks_is_not_fetched_but_told_how_to_build(tmp_path: Path) -> None:
    def fetch(packages: list[str], cache: Path) -> None:
        pytest.fail(f"fetched {packages}")

    with pytest.raises(servers.MissingServer, match="tools/servers otelcol"):
        servers.get([servers.COLLECTOR], environ={"PATH": ""}, cache=tmp_path / "servers", fetch=fetch)
