"""Local files that are replaced whole: durable once written, and never replaced over what was not read."""

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
"""Seconds to wait for the lock of a directory, which is held for milliseconds."""

_POLL = 0.02
# File systems without locks, or without those of directories (NFS): a writer then relies on what it read
# just before.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})


class NotReadable(Exception):
    """What is at the path is no file of ours: a directory, a pipe, or far too large."""


def read(path: Path, most: int) -> bytes:
    """Return a file's content.

    Args:
        path: The file.
        most: Bytes that are read at most.

    Raises:
        FileNotFoundError: There is nothing at the path.
        NotReadable: It is no regular file, or a larger one.
        OSError: It cannot be read at this moment.
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
            content = file.read(most + 1)
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise NotReadable(f"it has more than {most:,} bytes")
    return content


def replace(path: Path, content: bytes, *, still: Callable[[], bool]) -> bool:
    """Write a file whole or not at all, so that it outlives a loss of power.

    Args:
        path: The file; its directory is made if it is missing.
        content: Its new content.
        still: Tells, while no other process can replace it, whether it may be replaced.

    Returns:
        Whether it was.

    Raises:
        OSError: It cannot be written.
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
    """Hold the lock of a directory: no file of it is replaced by another process meanwhile."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor)
        yield
        # The new name of a file outlives a loss of power only once its directory is written.
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
