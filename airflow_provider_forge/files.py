"""Files shared by several processes, and several users, of a machine.

A directory such as `/tmp` is open to every user, so nothing in it is trusted: a file is opened without
following symbolic links and without blocking, it must be a regular file, waiting for its lock has a timeout,
and the caller reads no more than it expects.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import pwd
import random
import stat
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "is_permanent",
    "make_private",
    "missing_for",
    "open_locked",
    "open_shared",
    "prepare_shared_directory",
    "read_at_most",
    "shared_directory",
    "write_all",
]

POLL = 0.01
"""Mean seconds between two attempts to lock a file, which is locked for about a millisecond."""

CREATION_TIME = 5.0
"""Seconds within which another process may still be creating a directory that cannot be entered."""

_PERMANENT = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOENT),
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.EXDEV, errno.ENOSYS),
    *(errno.ENOTSUP, errno.EOPNOTSUPP),
}

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_permanent(error: OSError) -> bool:
    """Return whether a retry is pointless: permissions, a read-only file system, a wrong kind of file.

    A full disk, too many open files, an I/O error and the like may be gone in a moment.
    """
    return error.errno in _PERMANENT


def open_shared(path: Path, initial: Callable[[], bytes] | None = None) -> int:
    """Open a file for reading and writing that every user of the machine may use; create it if missing.

    The file has a second name in the same directory, which begins with a dot. If only the first name is
    removed, the file is found by the second, with its content and with the locks that others hold on it.

    Args:
        path: The file. Its directory is created, too.
        initial: Returns the content of a new file, which no process sees without it; default is none.

    Raises:
        OSError: The file cannot be created or opened, or is not a regular file.
    """
    with contextlib.suppress(FileNotFoundError):
        return _open_regular(path)
    _create_directory(path.parent)
    spare = path.with_name(f".{path.name}")
    with _unchanged_time(path.parent):
        if not spare.exists():
            _create_file(spare, initial)
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

    The locked file is the one at the path: a lock on a file that has been removed protects nothing.

    Args:
        path: As in `open_shared`.
        patience: Seconds, 0 or more, to wait for the lock.
        initial: As in `open_shared`.
        every: Mean seconds between two attempts.
        clock: Returns the current time in seconds.
        sleep: Sleeps for a number of seconds.

    Raises:
        TimeoutError: Another process holds the lock; `strerror` names it if the system does.
        OSError: As in `open_shared`.
    """
    deadline = clock() + patience
    while (descriptor := _try_lock(path, initial)) is None:
        if clock() >= deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"locked by {_find_holder(path)}", str(path))
        # Jitter: callers that collided must not collide again.
        sleep(every * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
    with contextlib.suppress(OSError):
        os.utime(descriptor)  # programs that clean a directory by age leave files in use
    return descriptor


def missing_for(path: Path) -> float:
    """Return for how many seconds the file has certainly been missing; 0 if unknown.

    Removing a file changes the time of its directory. That proves nothing for the time before a container was
    started: its directory may come from the image, and the files of the container before it are gone.
    """
    try:
        unchanged = time.time() - path.parent.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    return max(0.0, min(unchanged, _system_age()))


def _system_age(stat_file: Path = Path("/proc/1/stat")) -> float:
    """Return the age of process 1, which a container starts with; infinity on a system without `/proc`."""
    try:
        # The name of the program, in parentheses, may contain spaces.
        started = int(stat_file.read_text(errors="replace").rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except FileNotFoundError:
        return math.inf
    except (OSError, ValueError, IndexError):
        return 0.0


def read_at_most(descriptor: int, size: int) -> bytes | None:
    """Return the entire content of a file; None if it is larger than `size` bytes."""
    content = b""
    while len(content) <= size and (chunk := os.pread(descriptor, size + 1 - len(content), len(content))):
        content += chunk
    return content if len(content) <= size else None


def write_all(descriptor: int, content: bytes) -> None:
    """Replace the content of a file; if there is no space for more, the old content remains.

    Raises:
        OSError: The content could not be written completely.
    """
    size = os.fstat(descriptor).st_size
    try:
        # The part beyond the old content first, because only that needs space.
        _write_at(descriptor, content, size)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    _write_at(descriptor, content[:size], 0)
    os.ftruncate(descriptor, len(content))


def _write_at(descriptor: int, content: bytes, position: int) -> None:
    """Write the content from this position on, at the same position."""
    while position < len(content):
        position += os.pwrite(descriptor, content[position:], position)


def shared_directory() -> Path:
    """Return the directory for the files of the rate limit and of the leases.

    If `TMPDIR` is set, the directory is below it, and all users with the same `TMPDIR` share it. Otherwise it
    belongs to this user, and nobody else can write to it.

    Raises:
        ConfigurationError: The path is taken, for example by a directory of another user.
    """
    name = "airflow-provider-forge"
    if os.environ.get("TMPDIR"):
        return Path(tempfile.gettempdir()) / name
    path = Path(tempfile.gettempdir()) / f"{name}-{os.geteuid()}"
    try:
        make_private(path)
    except OSError as error:
        raise ConfigurationError(
            "rate limit",
            f"cannot use {path} ({error.strerror}): remove it, or set TMPDIR to another directory",
        ) from error
    return path


def prepare_shared_directory() -> None:
    """Create the shared directory now, if possible.

    A file that is missing from a directory as old as the rate limit's period has not been removed within it.
    The earlier the directory exists, the sooner an account's first call need not wait for that period.
    """
    with contextlib.suppress(ConfigurationError, OSError):
        _create_directory(shared_directory())


def make_private(path: Path) -> None:
    """Create a directory that only this user may use, or check an existing one.

    Raises:
        OSError: The directory cannot be created, is not a directory, or belongs to another user.
    """
    if not path.exists():
        _create_directory(path, mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path))
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"belongs to {_user(status.st_uid)}", str(path))
    if stat.S_IMODE(status.st_mode) != 0o700:
        path.chmod(0o700)


def _open_regular(path: Path) -> int:
    # Without O_NONBLOCK, opening a FIFO would wait for its other end.
    descriptor = os.open(path, _OPEN)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def _create_file(path: Path, initial: Callable[[], bytes] | None) -> None:
    """Create a file for every user of the machine, unless another process is faster."""
    content = initial() if initial else b""
    # Created under another name and linked, so that no process sees it with the wrong mode or incomplete.
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


@contextlib.contextmanager
def _unchanged_time(directory: Path) -> Iterator[None]:
    """Restore the time of the directory, which tells how long no file has been removed, after creating files.

    Another user's directory keeps the later time. Then the first call of the next account waits.
    """
    before = directory.stat().st_mtime_ns
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.utime(directory, ns=(before, before))


def _create_directory(path: Path, mode: int = 0o1777) -> None:
    """Create a directory regardless of the umask, by default for every user of the machine.

    It gets the time at which its parent was last changed: it has been missing since then at least, because
    removing it would have changed the parent.
    """
    if path.exists():
        return
    missing_since = path.parent.stat().st_mtime_ns
    # Created under another name, because another user could not enter it between mkdir and chmod.
    fresh = path.with_name(f".{uuid.uuid4().hex}")
    fresh.mkdir()
    try:
        fresh.chmod(mode)
        os.utime(fresh, ns=(missing_since, missing_since))
        fresh.rename(path)
    except OSError:
        fresh.rmdir()
        # Another process may have been faster.
        if not path.is_dir():
            raise


def _try_lock(path: Path, initial: Callable[[], bytes] | None) -> int | None:
    """Return the descriptor of the locked file; None if another attempt is necessary."""
    try:
        descriptor = open_shared(path, initial)
    except PermissionError:
        if _is_being_created(path.parent):
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


def _is_being_created(directory: Path) -> bool:
    """Return whether another user's process may be about to open its new directory for everyone."""
    try:
        status = directory.stat()
    except OSError:
        return False
    return status.st_uid != os.geteuid() and abs(time.time() - status.st_ctime) < CREATION_TIME


def _has_path(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _find_holder(path: Path) -> str:
    """Describe the process that holds the lock of a file, as Linux reports it."""
    try:
        status = path.stat()
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            _, kind, _, _, pid, file, *_ = line.split()
            if (kind, file) == ("FLOCK", device) and int(pid) > 0:
                return f"process {pid} of {_user(Path(f'/proc/{pid}').stat().st_uid)}"
    except (OSError, ValueError):
        pass  # not Linux, or the process has ended in the meantime
    return "another process"


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
