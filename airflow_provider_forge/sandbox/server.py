"""The HTTP server of the gateway and the sink: real sockets, with fault injection."""

from __future__ import annotations

import json
import logging
import socket
import struct
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from email.message import Message

    from typing_extensions import Self

__all__ = ["LocalServer", "Reply", "Request"]

log = logging.getLogger(__name__)

# Linger for 0 seconds: closing the socket then sends RST.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# Seconds that `stop` waits for handlers that are sending a response.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Request:
    """A request with its complete body. `query` is the part of the URL after the question mark."""

    method: str
    path: str
    query: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Reply:
    """A response and the way it is delivered.

    Attributes:
        headers: All headers except Content-Length.
        delivery: "reset" and "hang" send nothing; "truncate" and "reset_mid_body" half the body.
        delay: Seconds before anything is sent; for "hang", before the connection is closed (0 for never).
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    delivery: Literal["whole", "hang", "reset", "reset_mid_body", "truncate"] = "whole"
    delay: float = 0.0

    @classmethod
    def of_json(cls, data: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Return a reply with a JSON body."""
        body = json.dumps(data).encode()
        return cls(status, body, (("Content-Type", "application/json"), *headers))


class LocalServer(ABC):
    """A threaded HTTP/1.1 server with keep-alive. Subclasses implement `respond`.

    Args:
        host: Address to listen on.
        port: Port to listen on, 0 for a free one; kept when the server is stopped and restarted.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._port = port
        self._http: _HttpServer | None = None
        self._thread: threading.Thread | None = None

    @abstractmethod
    def respond(self, request: Request) -> Reply:
        """Return the reply to a request. Called from several threads."""

    @property
    def address(self) -> str:
        """The root URL without a trailing slash; known once the server has been started."""
        if not self._port:
            raise RuntimeError("the server has no port before start()")
        return f"http://{self._host}:{self._port}"

    def start(self) -> Self:
        """Listen and reply in the background, until `stop`."""
        if self._http is not None:
            raise RuntimeError("the server is running already")
        self._http = _HttpServer((self._host, self._port), self)
        self._port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening and close all connections, including hanging ones. Idempotent."""
        if self._http is None or self._thread is None:
            return
        self._http.stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._http.close_connections()
        self._http = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: LocalServer) -> None:
        self.owner = owner
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._connections_changed = threading.Condition()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        super().close_request(request)
        with self._connections_changed:
            self._connections.discard(request)
            self._connections_changed.notify_all()

    def shutdown_request(self, request: Any) -> None:
        # A shutdown would send FIN before the RST.
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == _RESET_ON_CLOSE:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def close_connections(self) -> None:
        """Wake all handlers that wait for their client, and wait for them to end."""
        with self._connections_changed:
            for connection in self._connections:
                _shut_down(connection)
            if not self._connections_changed.wait_for(lambda: not self._connections, timeout=_PATIENCE):
                log.warning("%d handlers have not ended", len(self._connections))

    def handle_error(self, *_: Any) -> None:
        # Clients may disconnect at any time; any other error is a bug in the sandbox.
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            log.error("failed to answer a request", exc_info=error)


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("the client had already disconnected: %s", error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise the body waits for the acknowledgement of the headers.
    disable_nagle_algorithm = True
    server: _HttpServer

    def _answer(self) -> None:
        url = urlsplit(self.path)
        request = Request(self.command, url.path, url.query, self.headers, self._read_body())
        self._deliver(self.server.owner.respond(request))

    do_GET = do_POST = do_DELETE = do_PUT = _answer  # noqa: N815 - names required by the base class

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """Print nothing per request."""

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _deliver(self, reply: Reply) -> None:
        if reply.delivery == "hang":
            self.server.stopping.wait(reply.delay or None)
        elif reply.delay:
            self.server.stopping.wait(reply.delay)
        if reply.delivery in {"reset", "reset_mid_body"}:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if reply.delivery != "whole":
            self.close_connection = True
        if reply.delivery not in {"hang", "reset"}:
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        length = len(reply.body) if reply.delivery == "whole" else len(reply.body) // 2
        self.wfile.write(reply.body[:length])
