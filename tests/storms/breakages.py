"""Break the product on purpose, one way at a time: storms have to find each of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.delivery import stores
from airflow_provider_forge.delivery.deduplication import PointGroup
from airflow_provider_forge.delivery.exporter import Exporter
from airflow_provider_forge.delivery.leases import FileLeases
from airflow_provider_forge.delivery.session import LedgerSession
from airflow_provider_forge.exceptions import ExportRefused, ReceiverUnavailable
from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.utils.ledger import AssetStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["BREAKAGES"]


def _wrap(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Put a function in the place of a method; it gets the method first."""
    method = getattr(owner, name)

    def replace(function: Callable[..., Any]) -> None:
        def replaced(*args: Any, **kwargs: Any) -> Any:
            return function(method, *args, **kwargs)

        setattr(owner, name, replaced)

    return replace


def no_intent() -> None:
    """Points are sent with no word of it on record."""
    _wrap(LedgerSession, "mark_in_flight")(lambda intend, page, numbers: None)


def acknowledged_before_the_post() -> None:
    """The record has points as acknowledged before they are sent."""

    def intend(intend: Any, page: LedgerSession, numbers: Any) -> None:
        page.mark_acknowledged(numbers)

    _wrap(LedgerSession, "mark_in_flight")(intend)


def recorded_at_the_end() -> None:
    """Only the last record of a window is written."""
    done = set()
    _wrap(LedgerSession, "record_window")(lambda do, page, **kwargs: (done.add(id(page)), do(page, **kwargs)))
    _wrap(LedgerSession, "save")(lambda do, page: do(page) if id(page) in done else None)


def never_recorded_at_the_end() -> None:
    """What was acknowledged last is not recorded."""
    _wrap(LedgerSession, "record_window")(lambda do, page, **kwargs: page._dirty.clear())


def contention_is_ignored() -> None:
    """Nobody hears of another task without a common lease."""
    LedgerSession.contended = property(lambda page: False, lambda page, value: None)  # type: ignore[assignment]


def leases_for_all() -> None:
    """Every task gets the lease at once."""
    _wrap(FileLeases, "hold")(lambda hold, leases, cells: contextlib.nullcontext())


def files_written_in_place() -> None:
    """A file is emptied before it is written, with no look at what another process has written."""

    def replace(do: Any, path: Path, content: bytes, **more: Any) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        path.write_bytes(content)
        return True

    _wrap(stores, "replace_file")(replace)


def files_written_unseen() -> None:
    """A file is replaced whatever another process has written there since it was read."""
    _wrap(stores, "replace_file")(lambda do, path, content, still: do(path, content, still=lambda: True))


def sent_again_after_success() -> None:
    """A request is repeated once it has succeeded."""
    _wrap(OtlpClient, "export")(lambda do, *args, **more: (do(*args, **more), do(*args, **more))[0])


def no_answer_is_a_refusal() -> None:
    """A request without an answer counts as one that the receiver has not seen."""

    def export(do: Any, *args: Any, **more: Any) -> Any:
        try:
            return do(*args, **more)
        except (ReceiverUnavailable, ExportRefused) as error:
            error.maybe_stored = False
            raise

    _wrap(OtlpClient, "export")(export)


def busy_is_success() -> None:
    """A receiver that is busy counts as one that took all."""

    def export(do: Any, *args: Any, **more: Any) -> Any:
        with contextlib.suppress(ReceiverUnavailable):
            return do(*args, **more)

    _wrap(OtlpClient, "export")(export)


def doubt_is_forgotten() -> None:
    """What was on its way is read as never sent."""

    def begin(
        do: Any, entry: PointGroup, marks: Any, acknowledged: Any, in_flight: Any, **kwargs: Any
    ) -> None:
        do(entry, marks, acknowledged, Counter(), **kwargs)

    _wrap(PointGroup, "__init__")(begin)


def unreadable_is_absent() -> None:
    """A record that cannot be read for a moment counts as none."""

    def get(do: Any, store: Any, key: str) -> Any:
        try:
            return do(store, key)
        except Exception:  # noqa: BLE001 - that is what is wrong with it
            return None

    _wrap(AssetStore, "get")(get)


def unwritten_is_written() -> None:
    """A record that cannot be written is left at that."""

    def put(do: Any, store: Any, key: str, value: Any) -> None:
        with contextlib.suppress(Exception):
            do(store, key, value)

    _wrap(AssetStore, "set")(put)


def a_window_is_skipped() -> None:
    """A window that fails is left out, and the run succeeds."""

    def export_window(do: Any, exporter: Exporter, *args: Any) -> None:
        with contextlib.suppress(Exception):
            do(exporter, *args)

    _wrap(Exporter, "_export_window")(export_window)


def copies_are_one() -> None:
    """Points that are equal are sent once."""

    def numbers(do: Any, page: LedgerSession, *standings: Any) -> list[int]:
        first = {page._points[number]: number for number in reversed(do(page, *standings))}
        return sorted(first.values())

    _wrap(LedgerSession, "points_with")(numbers)


BREAKAGES = {
    function.__name__: function
    for function in (
        no_intent,
        acknowledged_before_the_post,
        recorded_at_the_end,
        never_recorded_at_the_end,
        contention_is_ignored,
        leases_for_all,
        files_written_in_place,
        files_written_unseen,
        sent_again_after_success,
        no_answer_is_a_refusal,
        busy_is_success,
        doubt_is_forgotten,
        unreadable_is_absent,
        unwritten_is_written,
        a_window_is_skipped,
        copies_are_one,
    )
}
