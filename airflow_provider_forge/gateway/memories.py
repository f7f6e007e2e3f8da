"""Small JSON objects kept beside the budget, where every process that makes calls can write."""

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

    from airflow_provider_forge.redis_client import RedisServer

__all__ = ["FileMemory", "RedisMemory", "parse_object"]

log = get_logger(__name__)

MAX_SIZE = 1 << 20
"""Bytes; an app with thousands of environments needs less."""

LOCK_PATIENCE = 5.0
"""Seconds to wait for the file, which is held for a millisecond."""

TURN_PATIENCE = 60.0
"""Seconds to wait for another process that looks up the same; then both do."""


def parse_object(text: bytes | str) -> dict[str, Any]:
    """Return the JSON object of a text; an empty one if it is anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(text)
        return content if isinstance(content, dict) else {}
    return {}


class FileMemory:
    """One JSON object in a file that all processes of a machine share.

    It is a convenience: if the file cannot be used, nothing is remembered, and a log says so.

    Args:
        path: The file; made where missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one if there is none."""
        content = b""
        with self._locked(self._path, LOCK_PATIENCE) as descriptor:
            if descriptor is not None:
                content = read_at_most(descriptor, MAX_SIZE) or b""
        return parse_object(content)

    def save(self, content: dict[str, Any]) -> None:
        """Keep the object."""
        with self._locked(self._path, LOCK_PATIENCE) as descriptor:
            if descriptor is not None:
                write_all(descriptor, json.dumps(content).encode())

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Let the processes that want to find something out enter one after the other."""
        with self._locked(self._path.with_suffix(".lock"), TURN_PATIENCE):
            yield

    @contextlib.contextmanager
    def _locked(self, path: Path, patience: float) -> Iterator[int | None]:
        try:
            descriptor = open_locked(path, patience=patience)
        except OSError as error:
            log.warning("%s cannot be used (%s); nothing is remembered there", path, error.strerror)
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class RedisMemory:
    """One JSON object in the Redis that keeps the budget.

    Args:
        server: The Redis.
        name: Part of its key.
    """

    def __init__(self, server: RedisServer, name: str) -> None:
        self._server = server
        self._key = f"airflow-provider-forge:{name}"
        self._get = server.script("return redis.pcall('GET', KEYS[1])")
        self._set = server.script("redis.call('SET', KEYS[1], ARGV[1])")

    def load(self) -> dict[str, Any]:
        """Return the object; an empty one if there is none."""
        try:
            text = self._server.run(self._get, [self._key], [])
        except RateLimitUnavailable as error:
            log.warning("%s. Nothing is remembered there", error)
            return {}
        return parse_object(text or "")

    def save(self, content: dict[str, Any]) -> None:
        """Keep the object."""
        try:
            self._server.run(self._set, [self._key], [json.dumps(content)])
        except RateLimitUnavailable as error:
            log.warning("%s. Nothing is remembered there", error)

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Enter at once: machines that start at the same moment each find it out once."""
        return contextlib.nullcontext()
