"""Stores of ledgers: JSON objects by key. A store only has to get, set and delete.

Local files are replaced atomically, durably, and only if they have not changed since they were read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_provider_forge.exceptions import LedgerUnavailable
from airflow_provider_forge.text import get_logger, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_forge.otlp.messages import Json

__all__ = ["InMemoryStore", "ObjectStore", "Store", "ValueReplaced"]

log = get_logger(__name__)

MAX_FILE_SIZE = 64 * 2**20
"""Maximum size in bytes of a local file, some 4 million points in five minutes. Larger ones are damaged."""

PATIENCE = 10.0
"""Maximum number of seconds to wait for the lock of a directory, which is held for milliseconds."""

_POLL = 0.02
# Some file systems have no locks, or none on directories (NFS). A writer then relies on having just compared
# the file.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})


class ValueReplaced(LedgerUnavailable):
    """Another writer has replaced the value since it was read: read it again, and merge."""


class Store(Protocol):
    """Stores JSON objects.

    Attributes:
        name: Name for logs and errors.
        largest: Maximum size of a value in bytes of JSON; None for no limit.
        lasting: Whether points are looked up in an earlier record. Values outlive the task, except in a dry
            run.
    """

    name: str
    largest: int | None
    lasting: bool

    def get(self, key: str) -> Json | None:
        """Return a value; None if there is none, and an empty object if it is damaged.

        Raises:
            LedgerUnavailable: The store cannot be read.
        """

    def set(self, key: str, value: Json) -> None:
        """Write a value, in place of an earlier one.

        Raises:
            LedgerUnavailable: The store cannot be written.
            ValueReplaced: The value is not the one that this thread read last. Only some stores detect this.
        """

    def delete(self, key: str) -> None:
        """Delete a value, if there is one.

        Raises:
            LedgerUnavailable: The store cannot be written.
        """


class InMemoryStore:
    """Keeps values in memory, for as long as the task runs.

    Args:
        below: Store from which values are read that have not been written here; nothing is written to it.
    """

    def __init__(self, below: Store | None = None) -> None:
        self.name = below.name if below else "the task's memory"
        self.largest = below.largest if below else None
        self.lasting = below is not None and below.lasting
        self._below = below
        self._values: dict[str, Json | None] = {}

    def get(self, key: str) -> Json | None:
        """Return a value; None if there is none."""
        if key in self._values or self._below is None:
            return self._values.get(key)
        return self._below.get(key)

    def set(self, key: str, value: Json) -> None:
        """Write a value."""
        self._values[key] = value

    def delete(self, key: str) -> None:
        """Delete a value."""
        self._values[key] = None


class _Seen(threading.local):
    """Digests of the values that each thread has read, by key, until it replaces them."""

    def __init__(self) -> None:
        self.digests: dict[str, bytes] = {}


class ObjectStore:
    """Stores JSON objects as files.

    A local file is replaced atomically, as an object of a bucket is, and only if no other process has written
    it since it was read.

    Args:
        root: Directory: an `ObjectStoragePath`, or any object with pathlib's methods.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.name = str(root)
        self.lasting = True
        self.largest: int | None = None
        self._seen = _Seen()

    def get(self, key: str) -> Json | None:
        """Return the content of a file; None if there is none, and an empty object if it is damaged."""
        path = self._path(key)
        content: bytes | None
        try:
            content = read_file(path, MAX_FILE_SIZE) if is_local(path) else path.read_bytes()
        except FileNotFoundError:
            content = None
        except NotReadable as error:
            log.warning("The ledger cannot be read at %s: %s", path, error)
            content = b""
        except Exception as error:
            raise self._unavailable("read", path, error) from error
        if is_local(path):
            self._seen.digests[key] = _digest(content)
        return None if content is None else _decode(content)

    def set(self, key: str, value: Json) -> None:
        """Write a file."""
        path = self._path(key)
        content = msgspec.json.encode(value)
        try:
            if is_local(path):
                self._replace(key, path, content)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except ValueReplaced:
            raise
        except Exception as error:
            raise self._unavailable("written", path, error) from error

    def _replace(self, key: str, path: Path, content: bytes) -> None:
        """Write a local file, unless it has changed since this thread read it."""
        expected = self._seen.digests.pop(key, None)

        def is_unchanged() -> bool:
            return expected is None or _digest(_content(path)) == expected

        if not replace_file(path, content, still=is_unchanged):
            raise ValueReplaced(
                f"Another task has written {path} since it was read. It will be read and written again"
            )

    def delete(self, key: str) -> None:
        """Delete a file."""
        path = self._path(key)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        except Exception as error:
            if is_local(path) and path.is_dir():
                log.warning("%s is a directory, and was not deleted", path)
                return
            raise self._unavailable("deleted", path, error) from error

    def _path(self, key: str) -> Any:
        """Return the path of a value; a local one as pathlib's, which can replace files."""
        path = self.root / f"{key}.json"
        return Path(path.path) if getattr(path, "protocol", "") in ("file", "local") else path

    def _unavailable(self, verb: str, path: Any, error: Exception) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"The ledger cannot be {verb} at {path} ({type(error).__name__}: {sanitize(error)})."
            " If this persists, check the OTLP Connection's extra ledger_url and the"
            " permissions of its credentials"
        )


def is_local(path: Any) -> bool:
    """Return whether a path is pathlib's own; in Airflow 3.0, an `ObjectStoragePath` is a subclass of it."""
    return type(path) is type(Path())


def _decode(content: bytes) -> Json:
    """Return the object; an empty one if the content is damaged."""
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _content(path: Path) -> bytes | None:
    try:
        return read_file(path, MAX_FILE_SIZE)
    except FileNotFoundError:
        return None
    except NotReadable:
        return b""


def _digest(content: bytes | None) -> bytes:
    """Return a digest of a file's content; an empty one if there is no file."""
    return b"" if content is None else hashlib.blake2b(content, digest_size=16).digest()


class NotReadable(Exception):
    """There is no regular file at the path, or one that is far too large."""


def read_file(path: Path, max_size: int) -> bytes:
    """Return the content of a file.

    Args:
        path: Path of the file.
        max_size: Maximum size in bytes.

    Raises:
        FileNotFoundError: There is nothing at the path.
        NotReadable: There is no regular file, or a larger one.
        OSError: The file cannot be read at the moment.
    """
    try:
        # Opening a named pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise NotReadable("it is a socket or a device") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotReadable("it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(max_size + 1)
    finally:
        os.close(descriptor)
    if len(content) > max_size:
        raise NotReadable(f"it has more than {max_size:,} bytes")
    return content


def replace_file(path: Path, content: bytes, *, still: Callable[[], bool]) -> bool:
    """Replace a file atomically, so that its content survives a power failure.

    Args:
        path: Path of the file; its directory is created if it is missing.
        content: New content.
        still: Returns whether the file may still be replaced; called while no other process can replace it.

    Returns:
        Whether the file was replaced.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with _locked(path.parent):
            if not still():
                return False
            if path.is_dir() and not path.is_symlink():
                path.rename(path.with_name(f"{path.name}.{uuid.uuid4().hex}.damaged"))
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory, so that no other process replaces a file in it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor)
        yield
        # A renamed file survives a power failure only once its directory is written.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT, f"another process has locked its directory for {PATIENCE:g} s"
                ) from None
            time.sleep(_POLL)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return
        else:
            return
