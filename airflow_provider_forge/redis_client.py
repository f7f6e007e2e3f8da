"""A Redis shared by several machines. Its URL may hold a password, so errors name only host and port."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_forge.exceptions import RetryableError

__all__ = ["RedisClient", "Script"]

TIMEOUT = 5.0
"""Seconds; a script takes far less than one, so a server that needs longer is unavailable."""

ATTEMPTS = 3

Script = Any
"""redis-py's script; its type differs between versions."""

Result = TypeVar("Result")


class RedisClient:
    """Runs scripts on a Redis.

    Args:
        url: `redis://` or `rediss://`, as redis-py takes it.
        content: Description of the data stored in it, for errors.
        error_type: Type of the error raised if the server fails.

    Attributes:
        name: Host and port.

    Raises:
        ConfigurationError: The URL is malformed, or the package redis is missing.
    """

    def __init__(self, url: str, content: str, error_type: Callable[[str], RetryableError]) -> None:
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
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                # Every script is idempotent.
                retry=Retry(ExponentialBackoff(cap=1.0, base=0.1), ATTEMPTS - 1),
            )
            # Otherwise redis-py checks the URL's options only when it connects.
            pool = self._redis.connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (ValueError, TypeError, redis.RedisError):
            raise ConfigurationError(
                "rate_limit_store",
                "is not a URL that redis-py can use; give one such as redis://host:6379/0 or rediss://host:6379/0",
            ) from None
        secrets = (parts.password or "", urllib.parse.unquote(parts.password or ""))
        self._secrets = tuple(secret for secret in secrets if secret)
        self._content = content
        self._error_type = error_type

    def script(self, text: str) -> Script:
        """Return a script for `run`; sends nothing."""
        return self._redis.register_script(text)

    def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str | bytes | float],
        read: Callable[[Any], Result],
    ) -> Result:
        """Run a script and return its result.

        Args:
            script: The script.
            keys: Its keys.
            arguments: Its arguments.
            read: Converts its reply, and raises an error if it is not the script's. Texts are bytes, because
                another program may have put anything into a key.

        Raises:
            RetryableError: The server did not answer, refused or failed; of the type given to the client.
        """
        try:
            return read(script(keys=keys, args=arguments))
        except Exception as error:  # noqa: BLE001 - redis-py raises any on a reply that is not a Redis's
            # Not chained: some versions of redis-py include the whole command, or the URL.
            raise self._error_type(
                f"The Redis at {self.name}, which stores {self._content}, cannot be used now"
                f" ({type(error).__name__}: {sanitize(str(error), self._secrets)})."
                " If this persists, check that server, and rate_limit_store of the Forge Connection"
            ) from None
