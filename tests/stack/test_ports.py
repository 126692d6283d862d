import socket

import pytest

from stack.ports import Ports, PortsTaken


def test_a_port_in_use_is_named_with_the_option_that_moves_it() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        taken = Ports(prometheus=port).taken()
        assert ("prometheus", port) in taken
        assert f"port {port} (prometheus)" in str(PortsTaken([("prometheus", port)], 0))
        assert "--port-offset" in str(PortsTaken([("prometheus", port)], 0))


def test_an_offset_moves_every_port() -> None:
    moved = Ports().moved(10_000)
    assert (moved.otlp_grpc, moved.metrics, moved.prometheus) == (14317, 19464, 19090)


def test_an_offset_beyond_the_ports_is_refused() -> None:
    with pytest.raises(ValueError, match="the port of metrics would be 69464"):
        Ports().moved(60_000)
