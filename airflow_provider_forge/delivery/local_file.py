"""Local files, replaced atomically, durably, and only if they have not changed since they were read."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["NotReadable", "read", "replace"]

PATIENCE = 10.0
"""Maximum number of seconds to wait for the lock of a directory, which is held for milliseconds."""

_POLL = 0.02
# Some file systems have no locks, or none on directories (NFS). A writer then relies on having just compared
# the file.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})


class NotReadable(Exception):
    """There is no regular file at the path, or one that is far too large."""


def read(path: Path, max_size: int) -> bytes:
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


def replace(path: Path, content: bytes, *, still: Callable[[], bool]) -> bool:
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
