"""Files that several processes, and several users of a machine, share.

A directory such as `/tmp` is open to every user, so nothing found in it is trusted: a file is opened without
following a symbolic link and without waiting, it has to be a regular file, its lock is waited for with a
time-out, and the caller reads no more than it expects.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import random
import stat
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "is_permanent",
    "make_private",
    "missing_for",
    "open_locked",
    "open_shared",
    "read_at_most",
    "write_all",
]

POLL = 0.01
"""Mean seconds between two tries to lock a file, which is held for a millisecond or so."""

MAKING = 5.0
"""Seconds for which a directory that cannot be entered may still be one that another process is making."""

_PERMANENT = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOENT),
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.EXDEV, errno.ENOSYS),
    *(errno.ENOTSUP, errno.EOPNOTSUPP),
}

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_permanent(error: OSError) -> bool:
    """Return whether trying again is of no use: permissions, a read-only file system, a wrong kind of file.

    A full disk, too many open files, an I/O error and the like may be over in a moment.
    """
    return error.errno in _PERMANENT


def open_shared(path: Path, initial: Callable[[], bytes] | None = None) -> int:
    """Open a file for reading and writing that every user of the machine may use; make it where missing.

    The file has a second name beside it, which begins with a dot. If only the first name is removed, the file
    is found by the second, with its content and with the locks that others hold on it.

    Args:
        path: The file; the directory that it is in is made, too.
        initial: Returns the content of a new file, before anybody else can see it; default is none.

    Raises:
        OSError: It cannot be made or opened, or is not a regular file.
    """
    with contextlib.suppress(FileNotFoundError):
        return _open_regular(path)
    _make_directory(path.parent)
    spare = path.with_name(f".{path.name}")
    if not spare.exists():
        _make_file(spare, initial)
    with contextlib.suppress(FileExistsError):
        os.link(spare, path, follow_symlinks=False)
    return _open_regular(path)


def open_locked(
    path: Path,
    *,
    patience: float,
    initial: Callable[[], bytes] | None = None,
    every: float = POLL,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Open a file as `open_shared` does and lock it exclusively; closing the descriptor unlocks it.

    The file that is locked is the one that has the path: a locked file that was removed protects nothing.

    Args:
        path: As in `open_shared`.
        patience: Seconds, 0 or more, to wait for the lock.
        initial: As in `open_shared`.
        every: Mean seconds between two tries.
        clock: Returns the present in seconds.
        sleep: Waits that many seconds.

    Raises:
        TimeoutError: Another process holds the lock; `strerror` names it as far as the system does.
        OSError: As in `open_shared`.
    """
    deadline = clock() + patience
    while (descriptor := _try_lock(path, initial)) is None:
        if clock() >= deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"locked by {_find_holder(path)}", str(path))
        # Callers that came at the same moment must not try again at the same moment.
        sleep(every * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
    with contextlib.suppress(OSError):
        os.utime(descriptor)  # what cleans a directory by age leaves what is in use
    return descriptor


def missing_for(path: Path) -> float:
    """Return for how many wall-clock seconds there was certainly no such file; 0 if unknown.

    Removing a file changes the time of its directory. A directory that is missing itself tells nothing.
    """
    try:
        return max(0.0, time.time() - path.parent.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def read_at_most(descriptor: int, size: int) -> bytes | None:
    """Return the whole content of a file, from its beginning; None if that is more than `size` bytes."""
    content = b""
    while len(content) <= size and (part := os.pread(descriptor, size + 1 - len(content), len(content))):
        content += part
    return content if len(content) <= size else None


def write_all(descriptor: int, content: bytes) -> None:
    """Make `content` the whole content of a file.

    Raises:
        OSError: Not all of it could be written.
    """
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)
    os.ftruncate(descriptor, len(content))


def make_private(path: Path) -> None:
    """Make a directory that only this user may use, or make sure that it is one.

    Raises:
        OSError: It cannot be made, is not a directory, or belongs to another user.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"belongs to {_user(status.st_uid)}", str(path))
    if stat.S_IMODE(status.st_mode) != 0o700:
        path.chmod(0o700)


def _open_regular(path: Path) -> int:
    # Opening a FIFO waits for its other end, unless told not to.
    descriptor = os.open(path, _OPEN)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def _make_file(path: Path, initial: Callable[[], bytes] | None) -> None:
    """Make a file for every user of the machine, unless another process is faster."""
    content = initial() if initial else b""
    # Made under another name and linked, so that nobody ever meets it with the wrong mode, or half written.
    fresh = path.with_name(f".{uuid.uuid4().hex}")
    descriptor = os.open(fresh, _OPEN | os.O_CREAT | os.O_EXCL)
    try:
        try:
            write_all(descriptor, content)
        finally:
            os.close(descriptor)
        fresh.chmod(0o666)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()


def _make_directory(path: Path) -> None:
    """Make a directory for every user of the machine, whatever the umask."""
    if path.exists():
        return
    # Made under another name, because between mkdir and chmod another user could not enter it.
    fresh = path.with_name(f".{uuid.uuid4().hex}")
    fresh.mkdir()
    try:
        fresh.chmod(0o1777)
        fresh.rename(path)
    except OSError:
        fresh.rmdir()
        # Another process may have been faster.
        if not path.is_dir():
            raise


def _try_lock(path: Path, initial: Callable[[], bytes] | None) -> int | None:
    """Return the descriptor of the locked file; None if it has to be tried again."""
    try:
        descriptor = open_shared(path, initial)
    except PermissionError:
        if _is_being_made(path.parent):
            return None
        raise
    locked = False
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = _has_path(descriptor, path)
    finally:
        if not locked:
            os.close(descriptor)
    return descriptor if locked else None


def _is_being_made(directory: Path) -> bool:
    """Return whether another user's process may be about to open its new directory for all."""
    try:
        status = directory.stat()
    except OSError:
        return False
    return status.st_uid != os.geteuid() and abs(time.time() - status.st_ctime) < MAKING


def _has_path(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _find_holder(path: Path) -> str:
    """Return words for the process that holds the lock of a file, as Linux tells it."""
    try:
        status = path.stat()
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            _, kind, _, _, pid, file, *_ = line.split()
            if (kind, file) == ("FLOCK", device) and int(pid) > 0:
                return f"process {pid} of {_user(Path(f'/proc/{pid}').stat().st_uid)}"
    except (OSError, ValueError):
        pass  # not Linux, or a process that has ended meanwhile
    return "another process"


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
