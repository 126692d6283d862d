"""Something on a port that answers, but not by HTTP."""

import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"220 mail.example ESMTP\r\n")


@contextmanager
def babbler() -> Iterator[str]:
    """Its URL."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
