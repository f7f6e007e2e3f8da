"""What all receivers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from demo.processes import ManagedProcess, clean_environment
from demo.waiting import wait_for
from tests.receivers.programs import program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

START_TIMEOUT = 30.0


class Receiver(ManagedProcess):
    """A receiver of OTLP that nobody here has written: ready inside the `with` block, and gone after it.

    Args:
        name: The program's name.
        options: Its command line.
        directory: For its files.
        url: What to put into the host of the OTLP Connection.
        health: A URL that answers, with any status below 500, once the receiver is ready.
        variables: Added to its environment.
    """

    def __init__(
        self,
        name: str,
        options: Sequence[str],
        *,
        directory: Path,
        url: str,
        health: str,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.url = url
        self._health = health
        log_file = directory / f"{name}.log"
        env = {**clean_environment(), **(variables or {})}
        super().__init__([program(name), *options], env=env, log_file=log_file)

    def __enter__(self) -> Receiver:
        try:
            wait_for(
                self._is_ready, timeout=START_TIMEOUT, what=f"{self.name}, see {self.log_file}", every=0.05
            )
        except BaseException:
            self.stop()
            raise
        return self

    def _is_ready(self) -> bool:
        if self.returncode is not None:
            raise RuntimeError(f"{self.name} ended with status {self.returncode}:\n{self.log()}")
        try:
            return httpx.get(self._health, trust_env=False).status_code < httpx.codes.INTERNAL_SERVER_ERROR
        except httpx.TransportError:
            return False
