"""Free ports for servers that must be told theirs before they start."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> list[int]:
    """`count` ports of the loopback interface that nothing listens on now."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
