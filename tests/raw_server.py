"""A server that answers with the bytes it is given, and nothing else: what no HTTP library would say."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["RawRequest", "RawServer", "raw_server", "response"]


@dataclass(frozen=True)
class RawRequest:
    """A request, and the connection to answer it on.

    Attributes:
        line: The request line.
        headers: Names in lower case.
        body: As sent.
        number: Counted from 1.
        connection: To be written to.
    """

    line: str
    headers: dict[str, str]
    body: bytes
    number: int
    connection: socket.socket

    @property
    def plain(self) -> bytes:
        """The body without its content coding."""
        return gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body


@dataclass
class RawServer:
    """Where it listens, and what has come.

    Attributes:
        port: On 127.0.0.1.
        requests: In the order of their arrival.
        released: Set when the test is over: what waits for it must not outlive the test.
    """

    port: int
    requests: list[RawRequest] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"


def response(status: int, body: bytes = b"", *headers: str) -> bytes:
    """Return a whole answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@contextlib.contextmanager
def raw_server(answer: Callable[[RawRequest], bytes | None]) -> Iterator[RawServer]:
    """Run a server.

    Args:
        answer: Returns the bytes to send; None where the connection is to be closed, after whatever it has
            written itself.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RawServer(listener.getsockname()[1])
        threading.Thread(target=_accept, args=(listener, server, answer), daemon=True).start()
        try:
            yield server
        finally:
            server.released.set()
            # close() alone leaves a thread in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, server: RawServer, answer: Callable[[RawRequest], bytes | None]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, server, answer), daemon=True).start()


def _serve(
    connection: socket.socket, server: RawServer, answer: Callable[[RawRequest], bytes | None]
) -> None:
    with contextlib.suppress(OSError), connection, connection.makefile("rb") as file:
        while line := file.readline():
            headers = {}
            while (header := file.readline().strip()) != b"":
                name, _, value = header.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            body = file.read(int(headers.get("content-length", "0")))
            request = RawRequest(
                line.decode("latin-1").strip(), headers, body, len(server.requests) + 1, connection
            )
            server.requests.append(request)
            said = answer(request)
            if said is None:
                return
            connection.sendall(said)
