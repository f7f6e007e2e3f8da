"""A statsd server, as far as Airflow needs one: it adds up what comes."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

# Airflow's components send many, and what finds no room is lost.
BUFFER = 4 * 1024 * 1024


class Statsd:
    """Listens for UDP packets while it is open.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()
        self._kinds: dict[str, str] = {}
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def total(self, name: str) -> float:
        """Return the total of a counter, or of all values of a timer or gauge; 0 where none came."""
        with self._lock:
            return self._totals[name]

    def kinds(self) -> dict[str, str]:
        """Return statsd's letters, `c`, `ms` or `g`, of all names that came."""
        with self._lock:
            return dict(self._kinds)

    def _listen(self) -> None:
        while packet := self._socket.recv(65536):
            for line in packet.decode().splitlines():
                name, _, rest = line.partition(":")
                value, kind, *_ = rest.split("|")
                with self._lock:
                    self._totals[name] += float(value)
                    self._kinds[name] = kind
