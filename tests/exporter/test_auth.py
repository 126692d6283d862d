import base64
import logging
from pathlib import Path

import pytest

from exporter.auth import Readers, Senders, Unauthenticated, warn_of_open_files
from exporter.config import ConfigError, Sender, load
from tests.exporter.receiving import Certificates, token_file


def senders(*pairs: tuple[Path, list[str] | None]) -> Senders:
    return Senders([Sender(token_file=path, agents=agents) for path, agents in pairs])


def test_without_tokens_everyone_speaks_for_every_agent() -> None:
    assert Senders([]).may_speak_for(None) is None


def test_every_token_of_a_file_speaks_for_the_files_agents(tmp_path: Path) -> None:
    known = senders((token_file(tmp_path, "a", "# old one goes in May", "old", "", "  new  "), ["shop", "search"]))
    assert known.may_speak_for("Bearer old") == known.may_speak_for("Bearer new") == frozenset({"shop", "search"})


@pytest.mark.parametrize("authorization", [None, "", "Bearer ", "Bearer # old one", "Bearer olD", "Basic old", "old"])
def test_an_unknown_token_speaks_for_nobody(tmp_path: Path, authorization: str | None) -> None:
    known = senders((token_file(tmp_path, "a", "# old one", "old"), None))
    with pytest.raises(Unauthenticated):
        known.may_speak_for(authorization)


@pytest.mark.parametrize("content", ["", "\n# none\n", "two words\n", "schlüssel\n"])
def test_a_file_without_a_usable_token_is_refused_by_its_key_and_not_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"^senders\.0\.token_file: ") as error:
        senders((path, None))
    assert "words" not in str(error.value)
    assert "schl" not in str(error.value)


def test_a_token_of_two_senders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^senders\.1\.token_file: "):
        senders((token_file(tmp_path, "a", "same"), ["shop"]), (token_file(tmp_path, "b", "other", "same"), None))


def test_a_reader_gives_its_token_as_bearer_or_as_a_password(tmp_path: Path) -> None:
    readers = Readers(token_file(tmp_path, "a", "scrape", "scrape-2"))
    assert readers.admit("Bearer scrape-2")
    assert readers.admit("Basic " + base64.b64encode(b"anyone:scrape").decode())
    for wrong in (None, "Bearer x", "Basic !", "Basic " + base64.b64encode(b"scrape").decode(), "Basic c2NyYXBl"):
        assert not readers.admit(wrong)


def test_without_a_token_file_everyone_reads() -> None:
    assert Readers(None).admit(None)


def test_secret_files_that_others_can_read_are_warned_of_by_their_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(tmp_path)
    certificates.server[1].chmod(0o640)
    for name, mode in (("sender", 0o604), ("scrape", 0o600)):
        token_file(tmp_path, name, "s3cret").chmod(mode)
    settings = load(
        None,
        {
            "otlp_grpc": {"tls": certificates.tls},
            "senders": [{"token_file": str(tmp_path / "sender")}],
            "metrics": {"token_file": str(tmp_path / "scrape")},
        },
    )
    caplog.set_level(logging.WARNING)
    warn_of_open_files(settings)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "senders.0.token_file",
        "otlp_grpc.tls.key_file",
    ]
    assert "s3cret" not in caplog.text
