from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from email.message import Message


@dataclass
class Receiver:
    """A receiver that gives one answer, whatever it is sent."""

    url: str
    requests: list[tuple[str, Message, bytes]] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, *_: object) -> None:
        """Clients may hang up, and end a handshake, as they like."""


@pytest.fixture
def start_receiver() -> Iterator[Callable[..., Receiver]]:
    """Starts receivers; `headers` are all there are beside Content-Length."""
    started: list[tuple[_Server, threading.Thread]] = []

    def start(
        status: int = 200,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Receiver:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, self.headers, sent))
                self.send_response_only(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing per request."""

        server = _Server(("127.0.0.1", 0), Handler)
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver = Receiver(f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        started.append((server, thread))
        return receiver

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()
