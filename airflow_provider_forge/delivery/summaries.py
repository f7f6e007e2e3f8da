"""The index of a ledger: summaries of its records, to read 14 days with 17 calls instead of 4,032.

It has sixteen pages. Records of one quarter hour share a page, with those of every sixteenth quarter hour
after it. A page in JSON, with the records' indexes as keys::

    {"version": 1, "records": {"5984710": {"points": 512, "attempts": 1, "first": 1795410000, "latest": 0,
                                           "asked": {"c0ffee00": [[0, 300, "delivered", 1795410000]]}}}}

**The index is never ahead of its records.** Only a settled record has a summary: its whole five minutes were
fetched, and it has no points in flight. The summary is removed before such a record is changed, and added
after the record is written. If a task is killed in between, the record has no summary, and readers read the
record itself. So they do with records of versions that had no index. A task that writes records holds the
leases of their pages (`page_leases`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery.records import (
    RECORD_SECONDS,
    CoveredSpan,
    covered_from_json,
    covered_to_json,
    number,
)
from airflow_provider_forge.delivery.stores import ValueReplaced
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_forge.delivery.records import LedgerRecord
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["RecordSummary", "SummaryIndex", "page_leases"]

log = get_logger(__name__)

VERSION = 1

PAGES = 16
RECORDS_PER_QUARTER = 3

_ENVELOPE = 64
"""Characters of a page besides its summaries."""
_ENTRY = 8
"""Characters of a summary besides its index and its JSON."""

MAX_TRIES = 10
"""Maximum number of times a page is read and written again because another task has written it first."""


@dataclass(frozen=True)
class RecordSummary:
    """A ledger record without its point hashes.

    Attributes:
        covered: Spans that were fetched, by the name of their selection.
        points: Number of points that the destination has acknowledged.
        attempts: Number of deliveries that have written the record; 0 if unknown.
        first: Time at which it was first fetched as far as it is covered, in seconds since the epoch; 0 if
            unknown.
        latest: Time at which the destination acknowledged its latest new points; 0 if unknown.
        begun: Whether points are in flight, or the record is damaged.
    """

    covered: Mapping[str, list[CoveredSpan]] = field(default_factory=dict)
    points: int = 0
    attempts: int = 0
    first: int = 0
    latest: int = 0
    begun: bool = False

    @classmethod
    def of(cls, record: LedgerRecord) -> RecordSummary:
        """Return the summary of a record."""
        return cls(
            {selection: _joined(spans) for selection, spans in record.covered.items()},
            record.points,
            record.attempts,
            record.first,
            record.latest,
            begun=record.damaged or any(record.in_flight.values()),
        )

    @property
    def is_settled(self) -> bool:
        """Whether the whole five minutes were fetched for some selection, and nothing is in flight."""
        return not self.begun and any(map(_is_whole, self.covered.values()))

    def to_json(self) -> Json:
        """Return the summary of a settled record as JSON."""
        return {
            "points": self.points,
            "attempts": self.attempts,
            "first": self.first,
            "latest": self.latest,
            "asked": covered_to_json(self.covered),
        }

    @classmethod
    def from_json(cls, content: Any) -> RecordSummary:
        """Return the summary of a JSON object.

        Raises:
            ValueError: `to_json` does not write such an object.
        """
        try:
            summary = cls(
                covered_from_json(content["asked"]),
                points=number(content["points"]),
                attempts=number(content["attempts"]),
                first=number(content["first"]),
                latest=number(content["latest"]),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if not summary.is_settled:
            raise ValueError("it is not the summary of a settled record")
        return summary


Summaries = dict[int, RecordSummary]
"""Summaries, by the indexes of their records."""


class SummaryIndex:
    """The summaries of one ledger's records.

    Args:
        store: Store of the ledger.
        name: Prefix of the ledger's keys.
        oldest: Returns the index of the oldest record whose summary is kept.
    """

    def __init__(self, store: Store, name: str, *, oldest: Callable[[], int]) -> None:
        self._store = store
        self._name = name
        self._oldest = oldest

    def read(self) -> Summaries:
        """Return all summaries, by the indexes of their records; 16 reads.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """
        return {index: summary for page in range(PAGES) for index, summary in self._read(page).items()}

    def add(
        self,
        written: Mapping[int, RecordSummary],
        missing: Iterable[int],
        load: Callable[[int], LedgerRecord],
    ) -> None:
        """Add the summaries of records that were just written; a record that is not settled has none.

        Args:
            written: Summaries of these records, by their indexes.
            missing: Indexes of other records, whose summaries are added if the index has none: a task was
                killed before it added them, or an earlier version wrote these records.
            load: Returns such a record.

        Raises:
            LedgerUnavailable: The store cannot be read or written.
        """
        settled = {index: summary for index, summary in written.items() if summary.is_settled}
        oldest = self._oldest()
        others = {index for index in missing if index >= oldest} - written.keys()
        for page in sorted({_page(index) for index in {*settled, *others}}):

            def changed(before: Summaries, page: int = page) -> Summaries:
                absent = [index for index in others if _page(index) == page and index not in before]
                loaded = {index: RecordSummary.of(load(index)) for index in absent}
                added = {index: summary for index, summary in settled.items() if _page(index) == page}
                return {**before, **{i: each for i, each in loaded.items() if each.is_settled}, **added}

            self._change(page, changed)

    def remove(self, index: int) -> None:
        """Remove the summary of a record that is about to change.

        Raises:
            LedgerUnavailable: The store cannot be read or written.
        """
        self._change(_page(index), lambda before: {each: before[each] for each in before if each != index})

    def _change(self, page: int, changed: Callable[[Summaries], Summaries]) -> None:
        for attempt in range(MAX_TRIES):
            before = self._read(page)
            oldest = self._oldest()
            after = {index: each for index, each in changed(before).items() if index >= oldest}
            if after == before:
                return
            try:
                self._store.set(self._key(page), self._fitting(after))
            except ValueReplaced:
                if attempt == MAX_TRIES - 1:
                    raise
            else:
                return

    def _fitting(self, summaries: Summaries) -> Json:
        """Return a page that fits into a value of the store; the oldest records then have no summary."""
        records = {str(index): summaries[index].to_json() for index in sorted(summaries)}
        if self._store.largest is not None:
            left = self._store.largest - _ENVELOPE
            sizes = {index: len(json.dumps(each)) + len(index) + _ENTRY for index, each in records.items()}
            for index in reversed(list(records)):
                left -= sizes[index]
                if left < 0:
                    del records[index]
        return {"version": VERSION, "records": records}

    def _read(self, page: int) -> Summaries:
        """Return the summaries of a page; a damaged one counts as missing, and its record is read instead."""
        content = self._store.get(self._key(page))
        if content is None:
            return {}
        records = content.get("records")
        if content.get("version") != VERSION or not isinstance(records, dict):
            log.warning("The page %s of the ledger's index is damaged, and is rebuilt", self._key(page))
            return {}
        found = {}
        for name, each in records.items():
            try:
                found[int(name)] = RecordSummary.from_json(each)
            except ValueError as error:
                log.warning(
                    "A summary on the page %s is damaged (%.200s), and is not used", self._key(page), error
                )
        return found

    def _key(self, page: int) -> str:
        return f"{self._name}/index/{page}"


def page_leases(indexes: Iterable[int]) -> set[int]:
    """Return the numbers to hold as leases, besides those of records, by a task that writes these records.

    They are indexes of records of 1970, which no ledger has. Lock files that records of a quarter hour share
    with them are held in any case.
    """
    return {RECORDS_PER_QUARTER * _page(index) for index in indexes}


def _page(index: int) -> int:
    return index // RECORDS_PER_QUARTER % PAGES


def _joined(spans: Iterable[CoveredSpan]) -> list[CoveredSpan]:
    """Return spans with adjacent ones of the same status joined: a record of windows of a minute has five."""
    joined: list[CoveredSpan] = []
    for span in spans:  # sorted by their starts
        last = joined[-1] if joined else None
        if last and last.end == span.start and last.status is span.status:
            joined[-1] = last._replace(end=span.end, at=max(last.at, span.at))
        else:
            joined.append(span)
    return joined


def _is_whole(spans: Iterable[CoveredSpan]) -> bool:
    reached = 0.0
    for span in spans:
        if span.start > reached:
            return False
        reached = max(reached, span.end)
    return reached >= RECORD_SECONDS
