"""The ports of the local stack. All are on the loopback interface."""

import socket
from dataclasses import dataclass, fields, replace

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each service listens: the usual port of each.

    Agents send to `otlp_grpc` and `otlp_http`. That is the Collector where there is one, which sends on to
    `exporter_grpc` and `jaeger_otlp`; else the exporter itself.
    """

    otlp_grpc: int = 4317
    otlp_http: int = 4318
    metrics: int = 9464
    prometheus: int = 9090
    alertmanager: int = 9093
    pager: int = 9095
    controller: int = 9465
    exporter_grpc: int = 4319
    exporter_http: int = 4320
    collector_health: int = 13133
    jaeger_otlp: int = 4321
    jaeger: int = 16686

    def moved(self, offset: int) -> "Ports":
        """Each port plus `offset`. Raises ValueError where one would be no port."""
        moved = {field.name: getattr(self, field.name) + offset for field in fields(self)}
        for name, port in moved.items():
            if not 1 <= port <= 65535:
                raise ValueError(
                    f"with --port-offset {offset} the port of {name} would be {port}: choose another offset"
                )
        return replace(self, **moved)

    def taken(self) -> list[tuple[str, int]]:
        """The ports that something listens on already, as (name, port)."""
        return [(field.name, port) for field in fields(self) if not _is_free(port := getattr(self, field.name))]


class PortsTaken(Exception):
    """Some ports are in use; the text names them and the option that moves all."""

    def __init__(self, taken: list[tuple[str, int]], offset: int) -> None:
        ports = ", ".join(f"{port} ({name.replace('_', ' ')})" for name, port in taken)
        free = next((other for other in range(offset + 1000, 48000, 1000) if not Ports().moved(other).taken()), None)
        hint = (
            f"start with --port-offset {free}, which moves all of them" if free else "start with another --port-offset"
        )
        super().__init__(f"in use on {LOOPBACK}: port {ports}. Stop what listens there, or {hint}.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: what a server just left behind (TIME_WAIT) is no one listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
