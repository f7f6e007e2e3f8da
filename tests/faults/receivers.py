"""Receivers with a mind of their own."""

from __future__ import annotations

import gzip
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.sandbox import OtlpSink
from airflow_provider_forge.sandbox.server import Reply

if TYPE_CHECKING:
    from airflow_provider_forge.sandbox.server import Request

__all__ = ["Gate", "HoldingSink", "PickySink"]

PATIENCE = 30.0


@dataclass
class Gate:
    """A place where another thread waits until a test lets it go on."""

    _reached: threading.Event = field(default_factory=threading.Event)
    _open: threading.Event = field(default_factory=threading.Event)

    def wait_here(self) -> None:
        """Wait, as the other thread."""
        self._reached.set()
        assert self._open.wait(PATIENCE), "nobody has opened the gate"

    def await_arrival(self) -> None:
        """Wait until the other thread is here."""
        assert self._reached.wait(PATIENCE), "nobody has come to the gate"

    def open(self) -> None:
        """Let it go on."""
        self._open.set()


class PickySink(OtlpSink):
    """Refuses requests for what is in them.

    Args:
        most_bytes: Larger bodies, before compression, are answered with 413.
        poison: Bodies that hold this text are refused.
        status: With which they are.

    Attributes:
        most_bytes, poison, status: As above; to be changed at will.
        refused: The bodies refused.
    """

    def __init__(
        self, *, most_bytes: int | None = None, poison: str | None = None, status: int = 400
    ) -> None:
        super().__init__()
        self.most_bytes = most_bytes
        self.poison = poison
        self.status = status
        self.refused: list[bytes] = []

    def respond(self, request: Request) -> Reply:
        body = gzip.decompress(request.body)
        if self.most_bytes is not None and len(body) > self.most_bytes:
            return self._refuse(body, 413, "too large")
        if self.poison is not None and self.poison.encode() in body:
            return self._refuse(body, self.status, "invalid")
        return super().respond(request)

    def _refuse(self, body: bytes, status: int, message: str) -> Reply:
        self.refused.append(body)
        return Reply.of_json({"message": message}, status)


class HoldingSink(OtlpSink):
    """Lets a test hold back requests before they are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._gates: list[Gate] = []
        self._next: deque[Gate] = deque()

    def hold_next(self) -> Gate:
        """Return where the next request that is not held yet will wait."""
        gate = Gate()
        self._gates.append(gate)
        self._next.append(gate)
        return gate

    def let_go(self) -> None:
        """Open all gates, for the sake of a test that failed before it did."""
        for gate in self._gates:
            gate.open()

    def respond(self, request: Request) -> Reply:
        if self._next:
            self._next.popleft().wait_here()
        return super().respond(request)
