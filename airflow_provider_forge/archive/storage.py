"""The objects of the archive: read, written whole or not at all, listed and deleted, in any file system."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_forge.delivery.stores import is_local, read_file, replace_file
from airflow_provider_forge.exceptions import ArchiveUnavailable
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Storage"]

MAX_OBJECT_SIZE = 512 * 2**20
"""Maximum size in bytes of an object: the largest response that is accepted from the gateway."""

Result = TypeVar("Result")


class Storage:
    """Objects by key, below one directory.

    A local file is replaced atomically and durably, as an object of a bucket is.

    Args:
        root: Directory: an `ObjectStoragePath`, or any object with pathlib's methods.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self.name = str(root)

    def read(self, key: str) -> bytes | None:
        """Return the content of an object; None if there is none.

        Raises:
            ArchiveUnavailable: The store cannot be read.
        """
        path = self._path(key)
        try:
            return read_file(path, MAX_OBJECT_SIZE) if is_local(path) else bytes(path.read_bytes())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unavailable("read", path, error) from error

    def exists(self, key: str) -> bool:
        """Return whether there is an object.

        Raises:
            ArchiveUnavailable: The store cannot be read.
        """
        path = self._path(key)
        try:
            return bool(path.exists())
        except Exception as error:
            raise self._unavailable("read", path, error) from error

    def write(self, key: str, content: bytes) -> None:
        """Write an object.

        Raises:
            ArchiveUnavailable: The store cannot be written.
        """
        path = self._path(key)
        try:
            if is_local(path):
                replace_file(path, content, still=lambda: True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except Exception as error:
            raise self._unavailable("written", path, error) from error

    def names(self, directory: str) -> list[tuple[str, int]]:
        """Return the names in a directory with their sizes in bytes, sorted; none if it does not exist.

        Drafts of interrupted writes, whose names begin with a full stop, are left out.

        Raises:
            ArchiveUnavailable: The store cannot be read.
        """
        path = self._path(directory) if directory else self._base()
        try:
            if fs := getattr(path, "fs", None):
                fs.invalidate_cache()  # another task may have written since it was listed
            found = [(each.name, int(each.stat().st_size or 0)) for each in path.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except Exception as error:
            raise self._unavailable("read", path, error) from error
        return sorted((name, size) for name, size in found if name and not name.startswith("."))

    def delete(self, key: str) -> None:
        """Delete an object, if there is one.

        Raises:
            ArchiveUnavailable: The store cannot be written.
        """
        path = self._path(key)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._unavailable("deleted", path, error) from error

    def _path(self, key: str) -> Any:
        return self._base() / key

    def _base(self) -> Any:
        """Return the root; a local one as pathlib's, which can replace files."""
        root = self._root
        return Path(root.path) if getattr(root, "protocol", "") in ("file", "local") else root

    def _unavailable(self, verb: str, path: Any, error: Exception) -> ArchiveUnavailable:
        return ArchiveUnavailable(
            f"The archive cannot be {verb} at {path} ({type(error).__name__}: {sanitize(error)}). Check the"
            " Forge Connection's extra archive_url, the space there, and the permissions of its credentials"
        )


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return the result of a call; raise TimeoutError if it takes longer, and leave it to itself.

    Args:
        seconds: Maximum duration.
        call: Called in a thread of its own, which ends with the process.
    """
    outcome: list[Callable[[], Result]] = []

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
            failure = error
            outcome.append(lambda: _throw(failure))
        else:
            outcome.append(lambda: result)

    thread = threading.Thread(target=run, name="forge-archive", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no response within {seconds:g} s")
    return outcome[0]()


def _throw(error: BaseException) -> Any:
    raise error
