"""A Redis that several machines share. Its URL may hold a password: only host and port are ever shown."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.http import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_forge.exceptions import RetryableError

__all__ = ["RedisServer", "Script"]

TIMEOUT = 5.0
"""Seconds; a script takes far less than one, and who waits for longer has lost the server."""

TRIES = 3

Script = Any
"""redis-py's; its types differ from version to version."""


class RedisServer:
    """Runs scripts on a Redis.

    Args:
        url: `redis://` or `rediss://`, as redis-py takes it.
        what: What is kept there, for errors.
        failure: What an error of the server's becomes.

    Attributes:
        name: Host and port.

    Raises:
        ConfigurationError: The URL is malformed, or the package redis is missing.
    """

    def __init__(self, url: str, what: str, failure: Callable[[str], RetryableError]) -> None:
        try:
            import redis
            from redis.backoff import ExponentialBackoff
            from redis.retry import Retry
        except ImportError:
            raise ConfigurationError(
                "rate_limit_store", "needs redis-py: pip install 'airflow-provider-forge[redis]'"
            ) from None
        try:
            parts = urllib.parse.urlsplit(url)
            self.name = f"{parts.hostname}:{parts.port or 6379}"
            self._redis = redis.Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                # Every script may run twice: it finds what it did the first time.
                retry=Retry(ExponentialBackoff(cap=1.0, base=0.1), TRIES - 1),
            )
            # Options in the URL are looked at only when a connection is made.
            pool = self._redis.connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (ValueError, TypeError, redis.RedisError):
            raise ConfigurationError(
                "rate_limit_store",
                "is not a URL that redis-py can use; give one such as redis://host:6379/0 or rediss://host:6379/0",
            ) from None
        secrets = (parts.password or "", urllib.parse.unquote(parts.password or ""))
        self._secrets = tuple(secret for secret in secrets if secret)
        self._what = what
        self._failure = failure
        self._error = redis.RedisError

    def script(self, text: str) -> Script:
        """Return a script for `run`; nothing is sent yet."""
        return self._redis.register_script(text)

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | float]) -> Any:
        """Run a script, and return what it returns.

        Raises:
            RetryableError: The server is not there, refuses, or fails; of the kind that was asked for.
        """
        try:
            return script(keys=keys, args=arguments)
        except self._error as error:
            # Not chained: some versions of redis-py put the whole command, or the URL, into theirs.
            raise self._failure(
                f"The Redis at {self.name}, which keeps {self._what}, did not answer"
                f" ({type(error).__name__}: {sanitize(str(error), self._secrets)}). The call will be retried."
                " If this persists, check that server, and rate_limit_store of the Forge Connection"
            ) from None
