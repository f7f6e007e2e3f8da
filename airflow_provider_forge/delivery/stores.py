"""Where a ledger is kept: small JSON objects by key. No store is trusted to do more than get, set, delete."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_provider_forge.exceptions import LedgerUnavailable

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.model import Json

__all__ = ["ObjectStore", "OverlayStore", "Store", "TransientStore"]


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
        """Return the value; None where there is none.

        Raises:
            LedgerUnavailable: The store does not answer, or what is there cannot be read.
        """

    def set(self, key: str, value: Json) -> None:
        """Put a value there, in place of the one before it.

        Raises:
            LedgerUnavailable: The store does not take it.
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


class ObjectStore:
    """JSON files below a path.

    Args:
        root: An `ObjectStoragePath`, or anything that has pathlib's methods; a local file is replaced at
            once or not at all, as objects of a bucket are.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.name = str(root)
        self.lasting = True
        self.largest: int | None = None

    def get(self, key: str) -> Json | None:
        """Read a file."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unavailable("read", path, error) from error
        try:
            value = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._unavailable("read", path, error) from error
        return value if isinstance(value, dict) else {}

    def set(self, key: str, value: Json) -> None:
        """Write a file."""
        path = self._path(key)
        content = msgspec.json.encode(value)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(path, Path):
                _replace(path, content)
            else:
                path.write_bytes(content)
        except Exception as error:
            raise self._unavailable("written", path, error) from error

    def delete(self, key: str) -> None:
        """Remove a file."""
        path = self._path(key)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._unavailable("deleted", path, error) from error

    def _path(self, key: str) -> Any:
        """Return the file of an entry; of a local one as pathlib has it, which can replace files."""
        path = self.root / f"{key}.json"
        return Path(path.path) if getattr(path, "protocol", "") in ("file", "local") else path

    def _unavailable(self, verb: str, path: Any, error: Exception) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"The record of deliveries cannot be {verb} at {path} ({type(error).__name__}: {error}). It is"
            " tried again; should that not end, check the OTLP Connection's extra ledger_url and the rights"
            " of its credentials"
        )


def _replace(path: Path, content: bytes) -> None:
    """Write a local file at once or not at all, whatever happens to the process."""
    draft = path.with_name(f".{uuid.uuid4().hex}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
