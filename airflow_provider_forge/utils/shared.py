"""What tasks share: the processes of a machine files, several machines a Redis."""

from __future__ import annotations

import os
import tempfile
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.files import make_private
from airflow_provider_forge.utils.connections import Extras, find_connection
from airflow_provider_forge.utils.masking import mask_secret

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

__all__ = ["find_redis", "named_connection", "shared_directory"]

FIELD = "rate_limit_store"

_CONNECTION = "redis_conn:"
_EXAMPLES = "redis://host:6379/0, rediss://host:6379/0 or redis_conn:<id of a Connection of type redis>"
_TLS_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")


def shared_directory() -> Path:
    """Return the directory for the files of the rate limit and of the leases.

    If `TMPDIR` is set, it is below it, and users who have the same share it on purpose. Otherwise it is this
    user's own, in which nobody else can put anything.

    Raises:
        ConfigurationError: There is something else in its place, such as a directory of another user.
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


def named_connection(store: str) -> str | None:
    """Return the id in `redis_conn:<id>`; None for any other text of the extra."""
    return store.removeprefix(_CONNECTION).strip() if store.startswith(_CONNECTION) else None


def find_redis(extras: Extras, store: str) -> str | None:
    """Return the URL of the Redis that an extra names, with its password; None for files.

    Args:
        extras: Those of the Connection, for errors.
        store: The extra's text: `file`, a URL without a password, or `redis_conn:<conn_id>`.

    Raises:
        ConfigurationError: It is none of these, or the Connection is missing or of no use. The message never
            repeats a URL.
    """
    if store == "file":
        return None
    if (conn_id := named_connection(store)) is not None:
        return _url_of(find_connection(BaseHook, extras.label(FIELD), conn_id, "redis"))
    try:
        parts = urllib.parse.urlsplit(store)
        usable = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        extras.refuse(FIELD, f"is not one of file, {_EXAMPLES}")
    if parts.password or "password" in urllib.parse.parse_qs(parts.query):
        # Airflow masks no extra of this name.
        extras.refuse(
            FIELD,
            "carries a password; put it into a Connection of type redis, and write redis_conn:<its id> here",
        )
    return store


def _url_of(connection: Connection) -> str:
    """Return the URL of a Connection that has the fields of Airflow's Redis provider."""
    extras = Extras(connection)
    if not connection.host:
        extras.refuse("host", "is missing: give the host of the Redis")
    database = str(extras.get("db", connection.schema or 0))
    if not database.isdecimal():
        extras.refuse("db", "is not the number of a database of that Redis")
    user = urllib.parse.quote(connection.login or "", safe="")
    if connection.password:
        password = urllib.parse.quote(connection.password, safe="")
        # Airflow masks the password itself, but not what a URL makes of it.
        mask_secret(password)
        user += f":{password}"
    scheme, query = "redis", ""
    if str(extras.get("ssl")).lower() == "true":
        options = {name: str(value) for name in _TLS_OPTIONS if (value := extras.get(name)) is not None}
        scheme, query = "rediss", "?" + urllib.parse.urlencode(options)
    return f"{scheme}://{user}{'@' * bool(user)}{connection.host}:{connection.port or 6379}/{database}{query}"
