"""What is worth an alert: each cause once, however often it is found again."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.coverage.healing import MIN_TIME_LEFT, HealRun, is_being_healed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_forge.coverage.coverage import Coverage, Gap

__all__ = ["AlertState", "due_threshold", "gaps_to_report", "unattended_gaps"]

CONFIRMED_AFTER = dt.timedelta(minutes=30)
"""While a catchup or a backfill is under way there are gaps at all times: one that lasts is there so much
later as well."""

ONE_ALERT = dt.timedelta(days=1)
"""What would give an alert within so long of another is part of that one: the gaps of one bad night begin to
expire one after the other."""

TOKEN_DAYS = (30, 7, 1, -1)
"""How many days before a token's last one there is an alert, and that it has passed."""

Span = tuple[dt.datetime, dt.datetime]


@dataclass
class AlertState:
    """What a task remembers from run to run.

    Attributes:
        record: Where the last run found a record of deliveries; None where it found none.
        seen_at: When `seen` was noted; None for never.
        seen: The gaps that there were then.
        told: The gaps of which an alert has told, as far as they are still there.
        tried: What runs were started for to heal it, as far as it is still open.
    """

    record: str | None = None
    seen_at: dt.datetime | None = None
    seen: list[Span] = field(default_factory=list)
    told: list[Span] = field(default_factory=list)
    tried: list[HealRun] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AlertState:
        """Read it back.

        Raises:
            ValueError: It is something else.
        """
        try:
            seen_at = content.get("seen_at")
            return cls(
                record=content.get("record"),
                seen_at=_moment(seen_at) if seen_at else None,
                seen=[(_moment(start), _moment(end)) for start, end in content.get("seen", ())],
                told=[(_moment(start), _moment(end)) for start, end in content.get("told", ())],
                tried=[HealRun(*map(_moment, each)) for each in content.get("tried", ())],
            )
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error

    def to_json(self) -> dict[str, Any]:
        """Return it as an Airflow Variable can keep it."""
        return {
            "record": self.record,
            "seen_at": self.seen_at.isoformat() if self.seen_at else None,
            "seen": [[moment.isoformat() for moment in span] for span in self.seen],
            "told": [[moment.isoformat() for moment in span] for span in self.told],
            "tried": [
                [moment.isoformat() for moment in (piece.start, piece.end, piece.tried)]
                for piece in self.tried
            ],
        }

    def look(self, coverage: Coverage, now: dt.datetime) -> None:
        """Note the gaps that there are, and forget what is healed or has expired."""
        gaps = coverage.gaps()
        if self.seen_at is None or now - self.seen_at >= CONFIRMED_AFTER:
            self.seen_at, self.seen = now, [(gap.start, gap.end) for gap in gaps]
        self.tried = [
            piece
            for piece in self.tried
            if any(piece.has(quarter) for gap in gaps for quarter in gap.quarters)
        ]


def unattended_gaps(coverage: Coverage, now: dt.datetime, notes: AlertState, *, under_way: bool) -> list[Gap]:
    """Return the gaps that nobody is about to fill, and of which something can still be filled.

    Args:
        coverage: With the gaps.
        now: The present, aware.
        notes: As the last run has left them.
        under_way: Whether a catchup, a backfill or a healing is at work.
    """
    return [
        gap
        for gap in _gaps_in_time(coverage, now)
        if not is_being_healed(gap, notes.tried, now) and (not under_way or _lasts(gap, notes, now))
    ]


def gaps_to_report(
    coverage: Coverage, now: dt.datetime, alert_before: dt.timedelta, notes: AlertState, *, under_way: bool
) -> list[Gap]:
    """Return the gaps of which an alert is to tell now, and note that it does; nothing where none is new.

    A gap of which an alert has told stays the same one while any of it is left, however it grows.

    Args:
        coverage: With the gaps.
        now: The present, aware.
        alert_before: How long before they begin to expire.
        notes: As the last run has left them.
        under_way: Whether a catchup, a backfill or a healing is at work.
    """
    told = [gap for gap in _gaps_in_time(coverage, now) if any(_overlap(gap, span) for span in notes.told)]
    others = [gap for gap in unattended_gaps(coverage, now, notes, under_way=under_way) if gap not in told]
    due = [gap for gap in others if gap.expires - now <= alert_before]
    telling = [gap for gap in others if gap.expires - now <= alert_before + ONE_ALERT] if due else []
    notes.told = [(gap.start, gap.end) for gap in (*told, *telling)]
    return telling


def due_threshold(days: int, told: int | None) -> int | None:
    """Return the threshold of `TOKEN_DAYS` that a token has reached; None where an alert has told of it.

    Args:
        days: Until its last one; negative once it has passed.
        told: The threshold that the last alert was about; None where there was none.
    """
    reached = min((threshold for threshold in TOKEN_DAYS if days <= threshold), default=None)
    return None if reached is None or (told is not None and told <= reached) else reached


def _gaps_in_time(coverage: Coverage, now: dt.datetime) -> list[Gap]:
    """Return the gaps of which something can still be filled."""
    return [gap for gap in coverage.gaps() if gap.quarters[-1].start + coverage.keep > now + MIN_TIME_LEFT]


def _lasts(gap: Gap, notes: AlertState, now: dt.datetime) -> bool:
    """Tell whether a gap was there before, and nobody is filling it from its beginning."""
    if notes.seen_at is None or now - notes.seen_at < CONFIRMED_AFTER:
        return False
    before = [start for start, end in notes.seen if _overlap(gap, (start, end))]
    # Its beginning moves with what expires as well.
    return bool(before) and (gap.start - min(before)) - (now - notes.seen_at) <= CONFIRMED_AFTER


def _overlap(gap: Gap, span: Span) -> bool:
    return gap.start < span[1] and span[0] < gap.end


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError(f"{text!r} has no UTC offset")
    return moment
