"""Leases: who holds one delivers alone; a second task of the same window waits for the first."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Protocol

from airflow_provider_forge.exceptions import ConfigurationError, DeliveryBusy, LedgerUnavailable
from airflow_provider_forge.files import is_lasting, open_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["FileLeases", "Leases", "busy"]

PATIENCE = 60.0
"""Seconds after which a task that waits is put off."""

SLOTS = 48
"""Cells share this many files: two windows four hours apart wait for each other, and no file is left over."""

_POLL = 0.2


def busy(patience: float) -> DeliveryBusy:
    """Return the error for who has waited for so many seconds."""
    return DeliveryBusy(
        f"Another task has been delivering the same minutes for {patience:g} s: this one tries again when it"
        " is done",
        retry_after=patience,
    )


class Leases(Protocol):
    """Hands out the right to deliver into cells."""

    def hold(self, cells: Iterable[int]) -> AbstractContextManager[None]:
        """Wait for the lease of all these cells, and hold it inside the `with` block.

        Raises:
            DeliveryBusy: Another task holds one of them for longer than a minute.
        """


class FileLeases:
    """Leases among all processes of one machine: locked files, which the system unlocks when a holder dies.

    Args:
        directory: For the files; made where missing, open to every user of the machine.
        name: Of the ledger, as a file name.
        patience: Seconds to wait at most.
        clock: Returns the present in seconds.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._directory = directory
        self._name = name
        self._patience = patience
        self._clock = clock
        self._sleep = sleep

    @contextlib.contextmanager
    def hold(self, cells: Iterable[int]) -> Iterator[None]:
        """Wait for the lease of all these cells, and hold it inside the `with` block.

        Raises:
            DeliveryBusy: Another task holds one of them for longer than a minute.
            ConfigurationError: The files cannot be used.
            LedgerUnavailable: The file system fails at this moment.
        """
        deadline = self._clock() + self._patience
        with contextlib.ExitStack() as held:
            # All processes in the same order, so that no two wait for each other.
            for slot in sorted({cell % SLOTS for cell in cells}):
                path = self._directory / f"{self._name}-{slot}.lease"
                held.callback(os.close, self._lock(path, deadline))
            yield

    def _lock(self, path: Path, deadline: float) -> int:
        left = max(0.0, deadline - self._clock())
        try:
            return open_locked(path, patience=left, every=_POLL, clock=self._clock, sleep=self._sleep)
        except TimeoutError as error:
            raise busy(self._patience) from error
        except OSError as error:
            if is_lasting(error):
                raise ConfigurationError(
                    "lease", f"cannot use {path} ({error.strerror}): make it writable, or set TMPDIR"
                ) from error
            raise LedgerUnavailable(
                f"The lease {path} cannot be taken ({error.strerror}). The task will be retried. If this"
                " persists, check the file system, or set TMPDIR to another directory"
            ) from error
