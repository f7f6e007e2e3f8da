"""The index of a ledger: summaries of its records, to read 14 days with 17 calls instead of 4,032.

It has sixteen pages. Records of one quarter hour share a page, with those of every sixteenth quarter hour
after it. A page in JSON, with the records' indexes as keys::

    {"version": 1, "complete": true, "open": [5984711],
     "records": {"5984710": {"points": 512, "attempts": 1, "first": 1795410000, "latest": 0,
                             "asked": {"c0ffee00": [[0, 300, "delivered", 1795410000]]}}}}

**The index is never ahead of its records.** Before a record is written, the page opens it: `open` lists it in
place of its summary, which is added after the record is written for the last time. If a task is killed in
between, the record remains open, and readers read the record itself.

**A record that a complete page does not list does not exist.** The pages of a new ledger are complete. Those
of versions that had no index, and pages that were damaged or lost, are not: readers read every record that
such a page does not list, and the next task that writes to it completes it. The ledger's head lists the pages
that were never written (`blank`), so that a lost page is not taken for a new one.

A task that writes records holds the leases of their pages (`page_leases`).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery.head import PAGES
from airflow_provider_forge.delivery.records import CoveredSpan, covered_from_json, covered_to_json, number
from airflow_provider_forge.delivery.stores import ValueReplaced
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from airflow_provider_forge.delivery.head import Head
    from airflow_provider_forge.delivery.records import LedgerRecord
    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["RecordSummary", "Summaries", "SummaryIndex", "page_leases"]

log = get_logger(__name__)

VERSION = 1

RECORDS_PER_QUARTER = 3

_ENVELOPE = 64
"""Characters of a page besides its records."""
_ENTRY = 8
"""Characters of a summary besides its index and its JSON."""
_OPEN = 12
"""Characters of an open record."""

MAX_TRIES = 10
"""Maximum number of times a page is read and written again because another task has written it first."""


@dataclass(frozen=True)
class RecordSummary:
    """A ledger record without its point hashes; that of a record that does not exist is empty.

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

    def to_json(self) -> Json:
        """Return the summary as JSON."""
        return {
            "points": self.points,
            "attempts": self.attempts,
            "first": self.first,
            "latest": self.latest,
            "asked": covered_to_json(self.covered),
            **({"begun": True} if self.begun else {}),
        }

    @classmethod
    def from_json(cls, content: Any) -> RecordSummary:
        """Return the summary of a JSON object.

        Raises:
            ValueError: `to_json` does not write such an object.
        """
        try:
            return cls(
                covered_from_json(content["asked"]),
                points=number(content["points"]),
                attempts=number(content["attempts"]),
                first=number(content["first"]),
                latest=number(content["latest"]),
                begun=bool(content.get("begun")),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


Summaries = dict[int, RecordSummary]
"""Summaries, by the indexes of their records."""


@dataclass(frozen=True)
class Page:
    """A page of the index.

    Attributes:
        summaries: The summaries.
        open: Indexes of records that are being written, or were when their task was killed.
        is_complete: Whether records that are in neither do not exist.
    """

    summaries: Summaries = field(default_factory=dict)
    open: frozenset[int] = frozenset()
    is_complete: bool = False

    def opened(self, indexes: Collection[int]) -> Page:
        """Return the page with these records open."""
        summaries = {index: each for index, each in self.summaries.items() if index not in indexes}
        return Page(summaries, self.open.union(indexes), self.is_complete)

    def completed(self, summaries: Summaries) -> Page:
        """Return the page with these summaries in addition, which make it complete."""
        return Page({**self.summaries, **summaries}, self.open - summaries.keys(), is_complete=True)

    def since(self, oldest: int) -> Page:
        """Return the page without records before that index."""
        return Page(
            {index: each for index, each in self.summaries.items() if index >= oldest},
            frozenset(index for index in self.open if index >= oldest),
            self.is_complete,
        )


class SummaryIndex:
    """The summaries of one ledger's records.

    Args:
        store: Store of the ledger.
        head: Head of the ledger.
        oldest: Returns the index of the oldest record whose summary is kept.
        latest: Returns the index of the current record.
        load: Returns the summaries of records, by their indexes.
    """

    def __init__(
        self,
        store: Store,
        head: Head,
        *,
        oldest: Callable[[], int],
        latest: Callable[[], int],
        load: Callable[[Collection[int]], Summaries],
    ) -> None:
        self._store = store
        self._head = head
        self._oldest = oldest
        self._latest = latest
        self._load = load

    def read(self, indexes: Iterable[int]) -> Summaries:
        """Return the summaries of these records, with one read for each page and each record that is open.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """
        oldest = self._oldest()
        pages = [self._read(page).since(oldest) for page in range(PAGES)]
        found, unknown = {}, []
        for index in indexes:
            page = pages[_page_of(index)]
            if index in page.summaries:
                found[index] = page.summaries[index]
            elif page.is_complete and index not in page.open and index >= oldest:
                found[index] = RecordSummary()
            else:
                unknown.append(index)
        return found | self._load(unknown)

    def open(self, indexes: Collection[int]) -> None:
        """Open records that are about to be written.

        Raises:
            LedgerUnavailable: The store cannot be read or written.
        """
        for page, members in _by_page(indexes).items():
            self._change(page, functools.partial(Page.opened, indexes=members))

    def add(self, written: Summaries, others: Collection[int]) -> None:
        """Add the summaries of records that were just written, and what their pages lack.

        Args:
            written: Summaries of these records, by their indexes.
            others: Indexes of other records of the window, which a killed task may have left open.

        Raises:
            LedgerUnavailable: The store cannot be read or written.
        """
        for page, members in _by_page({*written, *others}).items():
            known = {index: written[index] for index in members & written.keys()}
            self._change(page, functools.partial(self._completed, page, known, members))

    def _completed(self, number: int, written: Summaries, members: set[int], page: Page) -> Page:
        """Return a page with the summaries of written records, of other open ones, and of those it lacks."""
        left_open = page.open & members - written.keys()
        lacking: set[int] = set()
        if not page.is_complete:
            records = {
                index for index in range(self._oldest(), self._latest() + 1) if _page_of(index) == number
            }
            lacking = records - page.summaries.keys() - page.open - written.keys()
        loaded = self._load(left_open | lacking)
        found = {i: each for i, each in loaded.items() if i in left_open or each != RecordSummary()}
        return page.completed({**found, **written})

    def _change(self, number: int, changed: Callable[[Page], Page]) -> None:
        for attempt in range(MAX_TRIES):
            before = self._read(number)
            after = changed(before).since(self._oldest())
            if after == before:
                return
            if number in self._head.read().get("blank", ()):
                self._head.change(lambda head: {**head, "blank": _without(head.get("blank", ()), number)})
            try:
                self._store.set(self._key(number), self._fitting(after))
            except ValueReplaced:
                if attempt == MAX_TRIES - 1:
                    raise
            else:
                return

    def _fitting(self, page: Page) -> Json:
        """Return a page that fits into a value of the store; the oldest records are then left open."""
        records = {index: page.summaries[index].to_json() for index in sorted(page.summaries)}
        if self._store.largest is not None:
            left = self._store.largest - _ENVELOPE - _OPEN * (len(page.open) + len(records))
            for index in sorted(records, reverse=True):
                left -= len(json.dumps(records[index])) + _ENTRY
                if left < 0:
                    del records[index]
        return {
            "version": VERSION,
            "complete": page.is_complete,
            "open": sorted(page.open | page.summaries.keys() - records.keys()),
            "records": {str(index): each for index, each in records.items()},
        }

    def _read(self, number: int) -> Page:
        """Return a page; one that is damaged, in whole or in part, is not complete."""
        content = self._store.get(self._key(number))
        if content is None:
            return Page(is_complete=number in self._head.read().get("blank", ()))
        if not _is_valid(content):
            log.warning("The page %s of the ledger's index is damaged, and is rebuilt", self._key(number))
            return Page()
        found, is_complete = {}, content.get("complete") is True
        for name, each in content["records"].items():
            try:
                found[int(name)] = RecordSummary.from_json(each)
            except ValueError as error:
                is_complete = False
                log.warning(
                    "A summary on the page %s is damaged (%.200s), and is not used", self._key(number), error
                )
        return Page(found, frozenset(content.get("open", [])), is_complete)

    def _key(self, number: int) -> str:
        return f"{self._head.name}/index/{number}"


def page_leases(indexes: Iterable[int]) -> set[int]:
    """Return the numbers to hold as leases, besides those of records, by a task that writes these records.

    They are indexes of records of 1970, which no ledger has. Lock files that records of a quarter hour share
    with them are held in any case.
    """
    return {RECORDS_PER_QUARTER * _page_of(index) for index in indexes}


def _page_of(index: int) -> int:
    return index // RECORDS_PER_QUARTER % PAGES


def _by_page(indexes: Iterable[int]) -> dict[int, set[int]]:
    """Return the indexes by the numbers of their pages, in order."""
    pages: dict[int, set[int]] = {}
    for index in sorted(indexes, key=_page_of):
        pages.setdefault(_page_of(index), set()).add(index)
    return pages


def _is_valid(page: Json) -> bool:
    opened = page.get("open", [])
    return (
        page.get("version") == VERSION
        and isinstance(page.get("records"), dict)
        and isinstance(opened, list)
        and all(type(index) is int for index in opened)
    )


def _without(numbers: Iterable[int], number: int) -> list[int]:
    return [each for each in numbers if each != number]


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
