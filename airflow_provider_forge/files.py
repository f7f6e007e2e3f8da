"""Files that every user of a machine shares."""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["open_shared"]


def open_shared(path: Path) -> int:
    """Open a file for reading and writing that every user of the machine may use; make it where missing.

    Raises:
        OSError: It cannot be made or opened.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    if not path.parent.exists():
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o1777)
    # Made under another name and linked, so that nobody ever meets it with the wrong mode.
    fresh = path.with_name(f".{uuid.uuid4().hex}")
    os.close(os.open(fresh, flags | os.O_CREAT | os.O_EXCL))
    try:
        fresh.chmod(0o666)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()
    return os.open(path, flags)
