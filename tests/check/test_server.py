"""What `check` and `incident` ask over HTTP."""

import pytest

from check.server import NoAnswer, Server
from tests.controller.babbler import babbler


def test_what_is_no_server_of_http_is_an_answer_that_is_missing() -> None:
    with babbler() as url, pytest.raises(NoAnswer, match=r"does not answer in HTTP.*220 mail"):
        Server(url).text("/api/v1/labels")
