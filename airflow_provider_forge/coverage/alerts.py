"""Decides which gaps and which token expiry deserve an alert: each cause is reported once."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.coverage.healing import HealRun, can_be_filled, is_being_healed
from airflow_provider_forge.windows import is_recent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.coverage.coverage import Coverage, Gap

__all__ = ["AlertState", "due_threshold", "gaps_to_report", "unattended_gaps"]

CONFIRMED_AFTER = dt.timedelta(minutes=30)
"""A gap counts as lasting if it is still there this much later; catchup always has gaps ahead. A catchup is
trusted if it gains this much on the clock between two checks."""

ONE_ALERT = dt.timedelta(days=1)
"""Gaps that would raise an alert within this time of each other share one: the gaps of one bad night begin to
expire one after the other."""

TOKEN_DAYS = (30, 7, 1, -1)
"""Days before a token's last day at which an alert is raised; -1 is the day after."""

Span = tuple[dt.datetime, dt.datetime]


@dataclass
class AlertState:
    """The state that a coverage task keeps between runs.

    Attributes:
        ledger: Name of the store in which the last run found one; None if it found none.
        observed_at: Time of `observed`; None if there was no observation yet.
        observed: The gaps at that time.
        catchup: Time to which a catchup had come then; None without a catchup.
        trusted: Whether that catchup was expected to deliver the windows after it.
        reported: Gaps of earlier alerts that are still there.
        tried: Runs that were started to heal gaps that are still there.
    """

    ledger: str | None = None
    observed_at: dt.datetime | None = None
    observed: list[Span] = field(default_factory=list)
    catchup: dt.datetime | None = None
    trusted: bool = True
    reported: list[Span] = field(default_factory=list)
    tried: list[HealRun] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AlertState:
        """Return the state of a JSON object.

        Raises:
            ValueError: It is malformed.
        """
        try:
            observed_at, catchup = content.get("seen_at"), content.get("catchup")
            return cls(
                ledger=content.get("record"),
                observed_at=_moment(observed_at) if observed_at else None,
                observed=[(_moment(start), _moment(end)) for start, end in content.get("seen", ())],
                catchup=_moment(catchup) if catchup else None,
                trusted=bool(content.get("trusted", True)),
                reported=[(_moment(start), _moment(end)) for start, end in content.get("told", ())],
                tried=[HealRun(*map(_moment, each)) for each in content.get("tried", ())],
            )
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return {
            "record": self.ledger,
            "seen_at": self.observed_at.isoformat() if self.observed_at else None,
            "seen": [[moment.isoformat() for moment in span] for span in self.observed],
            "catchup": self.catchup.isoformat() if self.catchup else None,
            "trusted": self.trusted,
            "told": [[moment.isoformat() for moment in span] for span in self.reported],
            "tried": [
                [moment.isoformat() for moment in (run.start, run.end, run.tried)] for run in self.tried
            ],
        }

    def trusts(self, catchup: dt.datetime, now: dt.datetime) -> bool:
        """Return whether a catchup that has come to this time is expected to deliver the windows after it.

        It is trusted at first. From then on, it has to gain more than `CONFIRMED_AFTER` on the clock from one
        observation to the next. In between, the last answer holds.
        """
        age = self.observed_for(now)
        if self.catchup is None or age is None:
            self.trusted = True
        elif age >= CONFIRMED_AFTER:
            self.trusted = (catchup - self.catchup) - age > CONFIRMED_AFTER
        return self.trusted

    def observed_for(self, now: dt.datetime) -> dt.timedelta | None:
        """Return the age of the observation; None without one, or if a clock that was ahead made it."""
        age = None if self.observed_at is None else now - self.observed_at
        return age if age is not None and is_recent(age, dt.timedelta.max) else None

    def has_reported(self, gap: Gap) -> bool:
        """Return whether a part of the gap was reported before."""
        return any(_overlap(gap, span) for span in self.reported)

    def update(self, coverage: Coverage, now: dt.datetime, catchup: dt.datetime | None) -> None:
        """Record the current gaps and catchup, and drop runs whose gaps are healed or have expired."""
        gaps = coverage.gaps()
        age = self.observed_for(now)
        if age is None or age >= CONFIRMED_AFTER:
            self.observed_at, self.observed = now, [(gap.start, gap.end) for gap in gaps]
            self.catchup = catchup
        undelivered = [quarter for gap in gaps for quarter in gap.quarters]
        self.tried = [run for run in self.tried if any(map(run.has, undelivered))]


def unattended_gaps(coverage: Coverage, now: dt.datetime, state: AlertState, *, is_active: bool) -> list[Gap]:
    """Return the gaps that no run is about to fill, and that can still be filled at least in part.

    Args:
        coverage: The coverage with the gaps.
        now: Current time, aware.
        state: The state that the last run left.
        is_active: Whether a catchup, a backfill or a healing run is active.
    """
    return [
        gap
        for gap in _gaps_in_time(coverage, now)
        if not is_being_healed(gap, state.tried, now) and (not is_active or _lasts(gap, state, now))
    ]


def gaps_to_report(
    coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta, state: AlertState, *, is_active: bool
) -> list[Gap]:
    """Return the gaps to report now, and add them to the state's reported gaps; none if no gap is new.

    A reported gap stays the same gap while any of it is left, even if it grows.

    Args:
        coverage: The coverage with the gaps.
        now: Current time, aware.
        alert_before: Time before a gap begins to expire at which it is reported.
        state: The state that the last run left.
        is_active: Whether a catchup, a backfill or a healing run is active.
    """
    known = [gap for gap in _gaps_in_time(coverage, now) if state.has_reported(gap)]
    others = [gap for gap in unattended_gaps(coverage, now, state, is_active=is_active) if gap not in known]
    due = [gap for gap in others if gap.expires - now <= alert_before]
    new = [gap for gap in others if gap.expires - now <= alert_before + ONE_ALERT] if due else []
    state.reported = [(gap.start, gap.end) for gap in (*known, *new)]
    return new


def due_threshold(days: int, reported: int | None) -> int | None:
    """Return the threshold of `TOKEN_DAYS` that a token has reached; None if it was reported before.

    Args:
        days: Days until the token's last day; negative once it has passed.
        reported: The threshold of the last alert; None if there was none.
    """
    reached = min((threshold for threshold in TOKEN_DAYS if days <= threshold), default=None)
    return None if reached is None or (reported is not None and reported <= reached) else reached


def _gaps_in_time(coverage: Coverage, now: dt.datetime) -> list[Gap]:
    """Return the gaps that can still be filled at least in part."""
    return [gap for gap in coverage.gaps() if can_be_filled(gap, now)]


def _lasts(gap: Gap, state: AlertState, now: dt.datetime) -> bool:
    """Return whether a gap was there before and is not being filled from its start."""
    age = state.observed_for(now)
    if age is None or age < CONFIRMED_AFTER:
        return False
    before = [start for start, end in state.observed if _overlap(gap, (start, end))]
    # Its start also moves as windows expire.
    return bool(before) and (gap.start - min(before)) - age <= CONFIRMED_AFTER


def _overlap(gap: Gap, span: Span) -> bool:
    return gap.start < span[1] and span[0] < gap.end


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError(f"{text!r} has no UTC offset")
    return moment
