"""Labels: leaves out those that the gateway does not know, because one of them fails the whole query.

Atlassian adds labels from time to time, and a gateway of another realm may lag behind. The gateway names the
labels that it refuses. Only an answer without a label proves that it was the reason: then it is left out for
a day, and tried again. If the gateway names none, a query for the published labels alone shows whether the
others are the reason, and a second query for all whether they still are.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from airflow_provider_forge.exceptions import QueryRefused
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS, PUBLISHED_METRICS
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.windows import is_recent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from airflow_provider_forge.state_store import StateStore

__all__ = ["LabelDirectory"]

log = get_logger(__name__)

LEFT_OUT_FOR = dt.timedelta(days=1)
"""Time for which a label that the gateway does not know is left out, and for which nobody is warned again."""

SUSPECTED_FOR = dt.timedelta(hours=1)
"""Time for which a label that a refusal has named is left out without proof. The call that proves it may have
to wait for the rate limit in another task, which must not spend a call on the same refusal."""

Answer = TypeVar("Answer")
Times = dict[str, Annotated[dt.datetime, msgspec.Meta(tz=True)]]


class _Refused(msgspec.Struct):
    """The refused labels of a gateway, as stored.

    Attributes:
        unknown: Times at which it was proven that the gateway does not know them.
        suspected: Times at which a refusal named them.
    """

    unknown: Times = {}
    suspected: Times = {}


class LabelDirectory:
    """Remembers the labels that a gateway does not know.

    Args:
        store: Stores them across tasks.
        clock: Returns the current time, aware.
    """

    def __init__(
        self,
        store: StateStore,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.timezone.utc),
    ) -> None:
        self._store = store
        self._clock = clock

    def left_out(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the labels that the gateway did not know within the last day; makes no call."""
        unknown = self._load().unknown
        return tuple(label for label in labels if label in unknown)

    def fetch(self, labels: Sequence[str], fetch: Callable[[tuple[str, ...]], Answer]) -> Answer:
        """Return the answer for all labels that the gateway knows.

        Args:
            labels: Metric labels.
            fetch: Makes one call with some of them.

        Raises:
            QueryRefused: The gateway refused the query for another reason, or knows none of the labels.
            ForgeError: The call failed.
        """
        # If it knows none of them, the error of the query says so.
        chosen = self._without_refused(labels) or tuple(labels)
        while True:
            try:
                answer = fetch(chosen)
            except QueryRefused as error:
                refused = _named_labels(error, chosen)
                if not refused:
                    return self._fetch_published(chosen, fetch, error)
                self._suspect(refused)
                # Another task may have found out more in the meantime.
                left = self._without_refused([label for label in chosen if label not in refused])
                if not left:
                    raise _naming_known_labels(error, chosen) from None
                chosen = left
            else:
                self._prove([label for label in labels if label not in chosen])
                return answer

    def _fetch_published(
        self, chosen: Sequence[str], fetch: Callable[[tuple[str, ...]], Answer], error: QueryRefused
    ) -> Answer:
        """Return the answer for the published labels, if the others were refused without being named."""
        published = tuple(label for label in chosen if label in PUBLISHED_METRICS)
        # The refusal of a part of the query, such as an environment, is not about labels.
        if not error.reasons or len(published) in (0, len(chosen)):
            raise _naming_known_labels(error, chosen) from None
        answer = fetch(published)
        try:
            return fetch(tuple(chosen))
        except QueryRefused:
            self._suspect(others := [label for label in chosen if label not in published])
            self._prove(others, named=False)
            return answer

    def _without_refused(self, labels: Sequence[str]) -> tuple[str, ...]:
        known = self._load()
        return tuple(label for label in labels if label not in {*known.unknown, *known.suspected})

    def _suspect(self, labels: Collection[str]) -> None:
        known = self._load()
        known.suspected |= dict.fromkeys(labels, self._clock())
        self._store.save(msgspec.to_builtins(known))

    def _prove(self, left_out: Sequence[str], *, named: bool = True) -> None:
        """Remember the suspected ones of labels without which the gateway has answered, and warn of them.

        Args:
            left_out: The labels that were left out.
            named: Whether the refusal has named them.
        """
        known = self._load()
        proven = [label for label in left_out if label in known.suspected]
        if not proven:
            return
        known.suspected = {label: time for label, time in known.suspected.items() if label not in proven}
        known.unknown |= dict.fromkeys(proven, self._clock())
        self._store.save(msgspec.to_builtins(known))
        log.warning(
            "The gateway does not know the metrics %s: they are left out, and tried again in a day. All"
            " others are fetched. If they are misspelled, correct `metrics`%s",
            ", ".join(proven),
            "" if named else ". The gateway does not say which of them it refuses: list those that it knows",
        )

    def _load(self) -> _Refused:
        """Return the labels that are to be left out now."""
        try:
            known = msgspec.convert(self._store.load(), _Refused)
        except msgspec.ValidationError:
            log.warning("The record of unknown metrics is damaged; all metrics are tried again")
            known = _Refused()
        return _Refused(
            self._recent(known.unknown, LEFT_OUT_FOR), self._recent(known.suspected, SUSPECTED_FOR)
        )

    def _recent(self, times: Times, age: dt.timedelta) -> Times:
        now = self._clock()
        return {label: time for label, time in times.items() if is_recent(now - time, age)}


def _naming_known_labels(error: QueryRefused, labels: Sequence[str]) -> QueryRefused:
    """Return the refusal of a query, which lists Atlassian's labels if none of the query's is among them."""
    if not error.reasons or not set(labels).isdisjoint(DEFAULT_METRICS):
        return error
    message = f"{error.message}. Atlassian's metrics are {', '.join(DEFAULT_METRICS)}"
    return QueryRefused(message, request_id=error.request_id, reasons=error.reasons)


def _named_labels(error: QueryRefused, labels: Sequence[str]) -> set[str]:
    """Return the labels that a refusal names; none if it names all, which says nothing.

    Servers name the refused value first, and may suggest others.
    """
    firsts = (_first_label(reason, labels) for reason in error.reasons or (error.message,))
    found = {label for label in firsts if label}
    return found if len(found) < len(labels) else set()


def _first_label(reason: str, labels: Sequence[str]) -> str | None:
    """Return the label that a server's message names first; None if it names none, or all."""
    places = {label: match.start() for label in labels if (match := re.search(rf"\b{label}\b", reason))}
    if not places or len(places) == len(labels):
        return None
    return min(places, key=places.__getitem__)
