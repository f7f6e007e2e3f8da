"""Decides which records to delete: 15 days after their windows, or after a replay has written them.

Most records are written soon after their windows, so the head only has the index of the oldest one. A replay
writes records of old windows, which must outlast it: it may take days, and be started again. The indexes of
these are kept as ranges of whole days, with the day on which they were written::

    [[first, end, day], …]

All functions are pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Range", "are_ranges", "due_records", "is_kept", "with_record", "without_records"]

RECORDS_PER_DAY = 24 * 12

Range = tuple[int, int, int]
"""Index of the first record of a range, the one after its last, and the day on which they were written."""


def with_record(ranges: Iterable[Range], index: int, day: int) -> list[Range]:
    """Return the ranges with the UTC day of a record, written on a day.

    Args:
        ranges: Ranges, sorted.
        index: Index of the record.
        day: Day of writing, in days since the epoch.
    """
    first = index // RECORDS_PER_DAY * RECORDS_PER_DAY
    merged: list[Range] = []
    for start, end, written in sorted([*ranges, (first, first + RECORDS_PER_DAY, day)], key=_by_day):
        if merged and merged[-1][2] == written and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]), written)
        else:
            merged.append((start, end, written))
    return merged


def is_kept(ranges: Iterable[Range], index: int, today: int, keep_days: int) -> bool:
    """Return whether a replay has written a record less than `keep_days` ago.

    Args:
        ranges: Ranges.
        index: Index of the record.
        today: Current day, in days since the epoch.
        keep_days: Number of days for which to keep it.
    """
    return any(first <= index < end and today - day <= keep_days for first, end, day in ranges)


def due_records(ranges: Iterable[Range], today: int, keep_days: int, limit: int) -> list[int]:
    """Return the indexes of records that were replayed longer ago than `keep_days`, `limit` at most.

    They are the first ones of one range. Those that a later replay has written again are among them, so that
    the range can be shortened: ask `is_kept` before deleting one.
    """
    for first, end, day in ranges:
        if today - day > keep_days:
            return list(range(first, min(end, first + limit)))
    return []


def without_records(ranges: Iterable[Range], indexes: list[int], today: int, keep_days: int) -> list[Range]:
    """Return the ranges without records that `due_records` has returned."""
    left: list[Range] = []
    for first, end, day in ranges:
        if today - day > keep_days and first == indexes[0]:
            first = indexes[-1] + 1
        if first < end:
            left.append((first, end, day))
    return left


def are_ranges(value: Any, latest: int) -> bool:
    """Return whether a value of the head is a list of ranges, none of them later than record `latest`."""
    return isinstance(value, list) and all(
        isinstance(each, (list, tuple))
        and len(each) == 3
        and all(type(number) is int and number >= 0 for number in each)
        and each[0] <= each[1] <= latest + 2 * RECORDS_PER_DAY
        for each in value
    )


def _by_day(each: Range) -> tuple[int, int]:
    return each[2], each[0]
