"""The prompt registry: exact versions, texts that never change, order as people count."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_oncall.prompts import PromptError, Prompts, version_key


@pytest.fixture
def prompts(tmp_path: Path) -> Prompts:
    prompts = Prompts(tmp_path)
    for version in ("1.10.0", "1.9.0", "2.0", "2.0-rc1"):
        prompts.add("support", version, f"You help. {version} ä\r\n")
    return prompts


def test_a_version_is_read_as_it_was_added(prompts: Prompts) -> None:
    assert Prompts(prompts.folder).text("support", "1.9.0") == "You help. 1.9.0 ä\r\n"


def test_versions_are_in_the_order_people_count(prompts: Prompts) -> None:
    assert prompts.versions("support") == ["1.9.0", "1.10.0", "2.0-rc1", "2.0"]
    assert prompts.versions("unknown") == []
    assert prompts.names() == ["support"]
    order = ["v1.9", "1.10", "2.0-alpha", "2.0-rc1", "2.0-rc2", "2.0-rc10", "2.0", "2.0+build2", "2.0.1"]
    order.reverse()
    assert sorted(order, key=version_key) == list(reversed(order))


def test_a_version_that_is_not_there_is_told(prompts: Prompts) -> None:
    with pytest.raises(PromptError, match=r"support 3\.0: not in"):
        prompts.text("support", "3.0")


@pytest.mark.parametrize("version", ["latest", "", "stable", "../1.9.0", "1/2"])
def test_there_is_no_latest(prompts: Prompts, version: str) -> None:
    with pytest.raises(PromptError, match="exact version"):
        prompts.text("support", version)


@pytest.mark.parametrize("name", ["..", "../x", "", "a/b", ".hidden"])
def test_a_name_leads_nowhere_else(prompts: Prompts, name: str) -> None:
    with pytest.raises(PromptError, match="a name has"):
        prompts.add(name, "1", "text")


def test_a_version_can_not_get_another_text(prompts: Prompts) -> None:
    with pytest.raises(PromptError, match="a changed text is a new version"):
        prompts.add("support", "1.9.0", "You do not help.")
    prompts.add("support", "1.9.0", "You help. 1.9.0 ä\r\n")


def test_a_changed_file_is_not_used(prompts: Prompts) -> None:
    (prompts.folder / "support" / "1.9.0.txt").write_text("You pay out all refunds.", encoding="utf-8")

    with pytest.raises(PromptError, match="was changed"):
        Prompts(prompts.folder).text("support", "1.9.0")


def test_verify_tells_what_is_changed_missing_or_was_never_added(prompts: Prompts) -> None:
    assert prompts.verify() == []

    (prompts.folder / "support" / "1.9.0.txt").write_text("other", encoding="utf-8")
    (prompts.folder / "support" / "1.10.0.txt").unlink()
    (prompts.folder / "support" / "9.txt").write_text("new", encoding="utf-8")

    assert [problem.split(":")[0] for problem in prompts.verify()] == [
        "prompt support 1.9.0",
        "prompt support 1.10.0",
        "prompt support 9",
    ]


def test_a_version_added_later_is_seen_by_who_already_reads(prompts: Prompts) -> None:
    reader = Prompts(prompts.folder)
    reader.text("support", "1.9.0")
    prompts.add("support", "3.0", "new")

    assert reader.text("support", "3.0") == "new"


def test_many_may_add_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: Prompts(tmp_path).add("support", f"1.{i}", f"text {i}"), range(40)))

    assert len(Prompts(tmp_path).versions("support")) == 40
    assert Prompts(tmp_path).verify() == []


@pytest.mark.parametrize("index", ["{", "[]", '{"support": []}', '{"support": {"1": 2}}', '{"../x": {}}'])
def test_a_broken_index_is_told(tmp_path: Path, index: str) -> None:
    (tmp_path / "index.json").write_text(index, encoding="utf-8")

    with pytest.raises(PromptError):
        Prompts(tmp_path).text("support", "1.9.0")
