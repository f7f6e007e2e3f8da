"""Where a ledger is kept: small JSON objects by key. No store is trusted to do more than get, set, delete."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_provider_forge.delivery import localfile
from airflow_provider_forge.exceptions import LedgerUnavailable
from airflow_provider_forge.text import get_logger, quote

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.model import Json

__all__ = ["ObjectStore", "OverlayStore", "Store", "TransientStore", "ValueReplaced"]

log = get_logger(__name__)

LARGEST_FILE = 64 * 2**20
"""Bytes of a local file above which it is no value of ours: some 4 million points in five minutes."""


class ValueReplaced(LedgerUnavailable):
    """Another writer has replaced the value since this one read it: read it again, and merge."""


class Store(Protocol):
    """A place for JSON objects.

    Attributes:
        name: What people call it, for logs and errors.
        largest: How many bytes of JSON fit well into one value; None for any number.
        lasting: Whether what is put there outlives the task.
    """

    name: str
    largest: int | None
    lasting: bool

    def get(self, key: str) -> Json | None:
        """Return the value; None where there is none, and an empty object where it is damaged.

        Raises:
            LedgerUnavailable: The store does not answer.
        """

    def set(self, key: str, value: Json) -> None:
        """Put a value there, in place of the one before it.

        Raises:
            LedgerUnavailable: The store does not take it.
            ValueReplaced: It is not what this thread read there last; only stores that can tell raise it.
        """

    def delete(self, key: str) -> None:
        """Take a value away, if there is one.

        Raises:
            LedgerUnavailable: The store does not do it.
        """


class TransientStore:
    """What stands in where there is no store: it lasts as long as the task."""

    def __init__(self) -> None:
        self.name = "the task's memory"
        self.lasting = False
        self.largest: int | None = None
        self._values: dict[str, Json] = {}

    def get(self, key: str) -> Json | None:
        """Return the value; None where there is none."""
        return self._values.get(key)

    def set(self, key: str, value: Json) -> None:
        """Keep a value."""
        self._values[key] = value

    def delete(self, key: str) -> None:
        """Take a value away."""
        self._values.pop(key, None)


class OverlayStore:
    """Keeps what is written to itself, in front of a store that is only read.

    Args:
        below: That store.
    """

    def __init__(self, below: Store) -> None:
        self.name = below.name
        self.largest = below.largest
        self.lasting = below.lasting
        self._below = below
        self._values: dict[str, Json | None] = {}

    def get(self, key: str) -> Json | None:
        """Return the value, as it would be."""
        return self._values[key] if key in self._values else self._below.get(key)

    def set(self, key: str, value: Json) -> None:
        """Keep a value."""
        self._values[key] = value

    def delete(self, key: str) -> None:
        """Hide a value."""
        self._values[key] = None


class _Seen(threading.local):
    """What each thread has read, by key, until it writes in its place."""

    def __init__(self) -> None:
        self.digests: dict[str, bytes] = {}


class ObjectStore:
    """JSON files below a path.

    Args:
        root: An `ObjectStoragePath`, or anything that has pathlib's methods; a local file is replaced at
            once or not at all, as objects of a bucket are, and never over what another process wrote since
            it was read.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.name = str(root)
        self.lasting = True
        self.largest: int | None = None
        self._seen = _Seen()

    def get(self, key: str) -> Json | None:
        """Read a file."""
        path = self._path(key)
        content: bytes | None
        try:
            content = localfile.read(path, LARGEST_FILE) if isinstance(path, Path) else path.read_bytes()
        except FileNotFoundError:
            content = None
        except localfile.NotReadable as error:
            log.warning("The record of deliveries cannot be read at %s: %s", path, error)
            content = b""
        except Exception as error:
            raise self._unavailable("read", path, error) from error
        if isinstance(path, Path):
            self._seen.digests[key] = _digest(content)
        return None if content is None else _decode(content)

    def set(self, key: str, value: Json) -> None:
        """Write a file."""
        path = self._path(key)
        content = msgspec.json.encode(value)
        try:
            if isinstance(path, Path):
                self._replace(key, path, content)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except ValueReplaced:
            raise
        except Exception as error:
            raise self._unavailable("written", path, error) from error

    def _replace(self, key: str, path: Path, content: bytes) -> None:
        """Write a local file, unless it is another one than this thread has read."""
        expected = self._seen.digests.pop(key, None)

        def is_as_read() -> bool:
            return expected is None or _digest(_content(path)) == expected

        if not localfile.replace(path, content, still=is_as_read):
            raise ValueReplaced(f"Another task has written {path} since it was read. It is tried again")

    def delete(self, key: str) -> None:
        """Remove a file."""
        path = self._path(key)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        except Exception as error:
            if isinstance(path, Path) and path.is_dir():
                log.warning("%s is a directory, and left where it is", path)
                return
            raise self._unavailable("deleted", path, error) from error

    def _path(self, key: str) -> Any:
        """Return the file of an entry; of a local one as pathlib has it, which can replace files."""
        path = self.root / f"{key}.json"
        return Path(path.path) if getattr(path, "protocol", "") in ("file", "local") else path

    def _unavailable(self, verb: str, path: Any, error: Exception) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"The record of deliveries cannot be {verb} at {path} ({type(error).__name__}: {quote(error)})."
            " It is tried again; should that not end, check the OTLP Connection's extra ledger_url and the"
            " rights of its credentials"
        )


def _decode(content: bytes) -> Json:
    """Return the object; an empty one where it is none, which is damage as well."""
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _content(path: Path) -> bytes | None:
    try:
        return localfile.read(path, LARGEST_FILE)
    except FileNotFoundError:
        return None
    except localfile.NotReadable:
        return b""


def _digest(content: bytes | None) -> bytes:
    """Return what tells one content from another, and from none."""
    return b"" if content is None else hashlib.blake2b(content, digest_size=16).digest()
