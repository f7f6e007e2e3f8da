"""Entries that are too large for one value of a store: their marks are spread over values of their own.

Such an entry names its parts by their hashes, oldest minute first::

    {"version": 2, "revision": 3, "writer": "9f1c…", "asked": {…}, "parts": ["5e1f…", …]}

and a part, below `<key of the entry>-<hash>`, is whole by itself::

    {"acknowledged": {"forge_api_request_count": {"0": "<marks in base64>"}}, "in_flight": {}}

New parts are written first, then the entry, and the parts it no longer names are deleted last. So a task
that is killed in between leaves the entry before it or the one after it, and at worst values that nobody
names. A part never changes, so one late point costs one part and the entry.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, TypeGuard

from airflow_provider_forge.exceptions import LedgerUnavailable
from airflow_provider_forge.otlp.messages import canonical
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.delivery.stores import Store
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["MOST_PARTS", "Spread"]

log = get_logger(__name__)

VERSION = 2

MOST_PARTS = 25
"""Full parts of an entry, which is some 100,000 marks. Each costs a round trip to read and one to write."""

KINDS = ("acknowledged", "in_flight")

_LETTERS_PER_MARK = 16
_ENVELOPE = 64
"""Letters of a part besides its groups."""
_GROUP = 24
"""Letters of a group besides its metric's name and its marks."""
_TRIES = 3


class Spread:
    """Entries of any size in a store of small values.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # Parts that are known to be there, by the key of their entry. They never change.
        self._parts: dict[str, dict[str, Json]] = {}

    def is_too_large(self, entry: Json) -> bool:
        """Tell whether an entry does not fit into one value."""
        largest = self._store.largest
        return largest is not None and len(json.dumps(entry)) > largest

    def get(self, key: str) -> Json | None:
        """Return an entry as if it were in one value; None where there is none.

        An entry of which parts are missing has `torn` beside what is there, and is asked for by nobody.

        Raises:
            LedgerUnavailable: The store does not answer.
        """
        content = self._store.get(key)
        for _ in range(_TRIES):
            if content is None or "parts" not in content:
                self._parts.pop(key, None)
                return content
            parts = self._read_parts(key, content["parts"])
            if parts is not None and None not in parts:
                break
            # Another task may have replaced them just now.
            again = self._store.get(key)
            if again == content:
                break
            content = again
        return _joined(content, parts) if content else content

    def set(self, key: str, entry: Json) -> None:
        """Put an entry in place of the one that was read last.

        Raises:
            LedgerUnavailable: The store does not take it.
        """
        before = self._parts.get(key, {})
        if not self.is_too_large(entry):
            self._store.set(key, entry)
            self._parts.pop(key, None)
            self._delete_parts(key, before)
            return
        parts = {_name(part): part for part in self._cut(entry)}
        for name, part in parts.items():
            if name not in before:
                self._store.set(f"{key}-{name}", part)
        rest = {field: value for field, value in entry.items() if field not in KINDS}
        self._store.set(key, {**rest, "version": VERSION, "parts": list(parts)})
        self._parts[key] = parts
        self._delete_parts(key, before.keys() - parts.keys())

    def delete(self, key: str) -> None:
        """Remove an entry with its parts.

        Raises:
            LedgerUnavailable: The store does not do it.
        """
        content = self._store.get(key) or {}
        names = content.get("parts")
        for name in names if _are_names(names) else ():
            self._store.delete(f"{key}-{name}")
        self._store.delete(key)

    def _read_parts(self, key: str, names: Any) -> list[Json | None] | None:
        """Return the parts, None for one that is missing or another's; None for no list of parts."""
        if not _are_names(names):
            return None
        known = self._parts.get(key, {})
        found = {}
        for name in names:
            part = known.get(name) or self._store.get(f"{key}-{name}")
            if part is not None and _name(part) == name:
                found[name] = part
        self._parts[key] = found
        return [found.get(name) for name in names]

    def _delete_parts(self, key: str, names: Any) -> None:
        for name in names:
            try:
                self._store.delete(f"{key}-{name}")
            except LedgerUnavailable as error:  # no entry names it any more, so nothing depends on it
                log.info("A part of the ledger's entry %s is left over: %s", key, error)

    def _cut(self, entry: Json) -> Iterator[Json]:
        """Return an entry's parts: each of one minute, and small enough for the store."""
        room = (self._store.largest or 0) - _ENVELOPE
        part, minute, left = _empty(), "", room
        for offset, kind, metric, group in sorted(_groups(entry), key=lambda each: each[:3]):
            overhead = len(json.dumps(metric)) + _GROUP
            for piece in _pieces(group, room - overhead):
                size = overhead + len(json.dumps(piece))
                if any(part.values()) and (offset != minute or size > left):
                    yield part
                    part, left = _empty(), room
                part[kind].setdefault(metric, {})[offset] = piece
                minute, left = offset, left - size
        yield part


def _groups(entry: Json) -> Iterator[tuple[str, str, str, Any]]:
    for kind in KINDS:
        for metric, minutes in entry[kind].items():
            for offset, group in minutes.items():
                yield offset, kind, metric, group


def _pieces(group: Any, room: int) -> Iterator[Any]:
    """Cut the marks of a group where one ends; a digest is small."""
    if not isinstance(group, str):
        yield group
        return
    size = max(room // _LETTERS_PER_MARK, 1) * _LETTERS_PER_MARK
    for at in range(0, len(group), size):
        yield group[at : at + size]


def _joined(content: Json, parts: list[Json | None] | None) -> Json:
    """Return an entry with the marks of its parts."""
    joined: Json = {field: value for field, value in content.items() if field != "parts"}
    if content.get("version") == VERSION:
        joined["version"] = VERSION - 1
    joined |= _empty()
    for part in parts or ():
        for offset, kind, metric, group in _groups(part or _empty()):
            minutes = joined[kind].setdefault(metric, {})
            earlier = minutes.get(offset, "")
            minutes[offset] = earlier + group if isinstance(group, str) else group
    if parts is None or None in parts:
        joined |= {"torn": True, "lost": True, "asked": {}}
    return joined


def _empty() -> Json:
    return {kind: {} for kind in KINDS}


def _name(part: Json) -> str:
    return hashlib.blake2b(canonical(part), digest_size=8).hexdigest()


def _are_names(names: Any) -> TypeGuard[list[str]]:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)
