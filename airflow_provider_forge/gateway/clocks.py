"""Clock steps: notices that the clock of a server that several machines share was set forward.

The budget's times are the server's. If its clock is set forward, calls look older than they are, and more
would be made than allowed. Each machine therefore leaves the difference between the server's clock and its
own in the record. Nobody sets a machine's own clock, which counts from its start. If the difference has grown
since, the server's clock was set forward.

A machine that uses the record for the first time since its start cannot compare, and trusts the server.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ClockOffsets", "MachineClock", "Reading", "parse_seconds"]

DRIFT = 500e-6
"""Seconds per second by which the difference of two good clocks may grow: NTP adjusts none faster."""

MAX_TIME = float(1 << 40)
"""Seconds, 35,000 years. Up to it, a float resolves a quarter of a millisecond, so that no time is lost."""

MAX_MACHINES = 64
"""Number of machines in a record: those that have used it last."""


class Reading(NamedTuple):
    """The time of a server, as a machine has read it.

    Attributes:
        machine: Id of the machine.
        before: The machine's own time in seconds, before it asked.
        after: The same, when it had the answer.
        server: The server's time in seconds.
    """

    machine: str
    before: float
    after: float
    server: float


class MachineClock(NamedTuple):
    """A clock that nobody sets, the same for all processes and containers of a machine.

    Attributes:
        machine: Id of the machine since its last start.
        now: Returns the seconds since then.
    """

    machine: str
    now: Callable[[], float]

    @classmethod
    def find(cls, proc: Path = Path("/proc")) -> MachineClock:
        """Return the clock of this machine; on a system other than Linux, one of this process only."""
        try:
            identity = (proc / "sys/kernel/random/boot_id").read_bytes()
        except OSError:
            return cls(uuid.uuid4().hex[:8], time.monotonic)
        with contextlib.suppress(OSError):  # an old kernel has no such namespaces
            identity += bytes((proc / "self/ns/time").readlink())
        # Unlike the monotonic clock, this one runs on while the machine is suspended, as the server's does.
        return cls(
            hashlib.blake2b(identity, digest_size=4).hexdigest(),
            lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        )


@dataclass
class ClockOffsets:
    """The differences between a server's clock and those of the machines that use it.

    Attributes:
        known: By machine, the server's time less the machine's, at most, and the machine's time then. Those
            that were read last are at the end.
    """

    known: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ClockOffsets:
        """Return the offsets of a JSON object, `known`; raises as `parse_seconds` does."""
        return cls(
            {name: (parse_seconds(offset), parse_seconds(at)) for name, (offset, at) in content.items()}
        )

    def step(self, reading: Reading, tolerance: float) -> float:
        """Add a reading; return the seconds by which the server's clock was set forward since the last one.

        Args:
            reading: The reading.
            tolerance: Maximum seconds that count as none.
        """
        most, least = reading.server - reading.before, reading.server - reading.after
        offset, at = self.known.pop(reading.machine, (most, reading.before))
        step = 0.0
        # A clock that has gone back is another machine's, such as a copy that has the same id.
        if at <= reading.after:
            allowed = offset + max(0.0, reading.before - at) * DRIFT
            if least - allowed > tolerance:
                step = least - allowed
                self._shift(step)
            else:
                # Not the difference of now: or else it could grow a little each time.
                most = min(most, allowed)
        self.known[reading.machine] = (most, reading.before)
        self.known = dict(list(self.known.items())[-MAX_MACHINES:])
        return step

    def set_back(self, seconds: float) -> None:
        """Take into account that the server's clock was set back, by these seconds or more."""
        self._shift(-seconds)

    def _shift(self, seconds: float) -> None:
        # It is the same step for all machines.
        self.known = {machine: (offset + seconds, at) for machine, (offset, at) in self.known.items()}


def parse_seconds(value: Any) -> float:
    """Return a stored time.

    Raises:
        TypeError: It is no text and no number.
        ValueError: It is too large to calculate with, or not a number.
    """
    moment = float(value)
    if not abs(moment) <= MAX_TIME:  # or not a number
        raise ValueError(f"{moment:g} is not a time")
    return moment
