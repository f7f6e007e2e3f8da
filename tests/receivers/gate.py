"""A gate in front of a receiver: closed, it is what a receiver is that went away, at the same address."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from types import TracebackType


class Gate:
    """Passes connections on to a receiver while it is open, and drops them while it is closed.

    Args:
        url: Where the receiver listens.

    Attributes:
        url: The same through the gate.
        is_open: Whether it is open.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.is_open = True
        gate, target = self, (parts.hostname, parts.port)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                if gate.is_open:
                    with socket.create_connection(target) as behind:
                        back = threading.Thread(target=gate._pump, args=(behind, self.request), daemon=True)
                        back.start()
                        gate._pump(self.request, behind)
                        back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{self._server.server_address[1]}"))

    def __enter__(self) -> Gate:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            # Clients keep connections for their next requests: these must not get through a closed gate.
            while (data := source.recv(65536)) and self.is_open:
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
