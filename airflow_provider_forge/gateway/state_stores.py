"""Small JSON objects stored next to the budget, where every process that makes calls can write."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import RateLimitUnavailable
from airflow_provider_forge.files import open_locked, read_at_most, write_all
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_forge.redis_client import RedisClient

__all__ = ["FileStateStore", "RedisStateStore"]

log = get_logger(__name__)

MAX_SIZE = 1 << 20
"""Bytes; an app with thousands of environments needs less."""

LOCK_TIMEOUT = 5.0
"""Seconds to wait for the file, which is locked for a millisecond at a time."""

LOOK_UP_TIMEOUT = 60.0
"""Seconds to wait for another process that looks up the same; after that, both do."""


class FileStateStore:
    """One JSON object in a file that all processes of a machine share.

    The object is a cache: if the file cannot be used, nothing is stored, and a warning is logged.

    Args:
        path: The file. Created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one if nothing is stored."""
        content = b""
        with self._locked(self._path, LOCK_TIMEOUT) as descriptor:
            if descriptor is not None:
                content = read_at_most(descriptor, MAX_SIZE) or b""
        return _parse_object(content)

    def save(self, content: dict[str, Any]) -> None:
        """Store the object."""
        with self._locked(self._path, LOCK_TIMEOUT) as descriptor:
            if descriptor is not None:
                write_all(descriptor, json.dumps(content).encode())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other processes that look up the same, for a minute at most."""
        with self._locked(self._path.with_suffix(".lock"), LOOK_UP_TIMEOUT):
            yield

    @contextlib.contextmanager
    def _locked(self, path: Path, patience: float) -> Iterator[int | None]:
        try:
            descriptor = open_locked(path, patience=patience)
        except OSError as error:
            log.warning("%s cannot be used (%s); nothing is stored there", path, error.strerror)
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class RedisStateStore:
    """One JSON object in the Redis of the budget.

    The object is a cache: if the Redis does not answer, nothing is stored, and a warning is logged.

    Args:
        server: The Redis.
        name: Last part of its key.
    """

    def __init__(self, server: RedisClient, name: str) -> None:
        self._server = server
        self._key = f"airflow-provider-forge:{name}"
        self._get = server.script("return redis.pcall('GET', KEYS[1])")
        self._set = server.script("redis.call('SET', KEYS[1], ARGV[1])")

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one if nothing is stored."""
        try:
            text = self._server.run(self._get, [self._key], [])
        except RateLimitUnavailable as error:
            log.warning("%s. Nothing is stored there", error)
            return {}
        return _parse_object(text or "")

    def save(self, content: dict[str, Any]) -> None:
        """Store the object."""
        try:
            self._server.run(self._set, [self._key], [json.dumps(content)])
        except RateLimitUnavailable as error:
            log.warning("%s. Nothing is stored there", error)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Exclude nobody: machines that start at the same moment make one look-up each."""
        return contextlib.nullcontext()


def _parse_object(text: bytes | str) -> dict[str, Any]:
    """Return the JSON object of a text; an empty one if the text is anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(text)
        return content if isinstance(content, dict) else {}
    return {}
