"""Reads the fields of Connections. Each error names the Connection and the field."""

from __future__ import annotations

import contextlib
import json
import math
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_forge.connection_forms import FORGE, OTLP
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.text import did_you_mean, is_storable, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow_provider_forge.connections.runtime import Connection, Runtime

__all__ = [
    "Extras",
    "find_redis",
    "host_of",
    "problem_of_url",
    "qualify_errors",
    "secret_of",
]

MAX_NUMBER = 24 * 60 * 60
"""Default maximum of numbers: a day in seconds."""

MASK = "***"
"""Placeholder for a secret in Airflow's forms, REST API and exports."""

_MASKED = f"is {MASK}, which Airflow shows instead of a secret: enter the value itself"

_NOT_STORABLE = "contains half of a surrogate pair, or NUL, which cannot be sent or stored: enter it again"

_INSTEAD = {
    "schema": "Airflow stores the path of a URI there. Write it into the host, a full URL, which in a URI is"
    " percent-encoded: <type>://user:password@https%3A%2F%2Fhost%2Fpath",
    "port": "write it into the host, which is a full URL",
    "login": "for HTTP Basic, write the header Authorization into the extra headers",
}
"""Remedies for standard fields that are set but not used."""

_URL = re.compile("[a-z][a-z0-9+.:-]*://.", re.IGNORECASE)
# Up to the last @: a secret may contain slashes.
_PASSWORD_IN_URL = re.compile("://[^/@]*:.*@")

_FORMS = {"forge": FORGE, "otlp": OTLP}
"""Forms by type of Connection."""

STORE_FIELD = "rate_limit_store"

_CONNECTION = "redis_conn:"
_EXAMPLES = "redis://host:6379/0, rediss://host:6379/0 or redis_conn:<id of a Connection of type redis>"
_TLS_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")


def problem_of_url(url: str) -> str | None:
    """Return the problem with a URL of object storage; None if it is valid."""
    if _PASSWORD_IN_URL.search(url):
        return "contains a password; put it into a Connection, and name that: s3://conn_id@bucket/path"
    if not _URL.match(url) or not _can_be_split(url):
        # It may still contain a password.
        shown = "" if "@" in url else f"{url!r} "
        return f"{shown}is not a URL; give one such as s3://conn_id@bucket/path"
    return None


def _can_be_split(url: str) -> bool:
    """Return whether a URL has no malformed host, such as half an IPv6 address."""
    try:
        urllib.parse.urlsplit(url)
    except ValueError:
        return False
    return True


def host_of(connection: Connection, unused: Iterable[str]) -> str:
    """Return the Connection's host, which is a full URL; empty if there is none.

    Args:
        connection: The Connection. Airflow stores the port and the path of a URI in fields of their own.
        unused: Names of the standard fields that are not used.

    Raises:
        ConfigurationError: One of the unused fields is set.
    """
    for field in unused:
        if str(getattr(connection, field) or "").strip():
            raise ConfigurationError(f"{connection.conn_id}: {field}", f"is not used: {_INSTEAD[field]}")
    return (connection.host or "").strip()


def secret_of(connection: Connection) -> str | None:
    """Return the Connection's password.

    Raises:
        ConfigurationError: The password is Airflow's placeholder for it.
    """
    if connection.password == MASK:
        raise ConfigurationError(f"{connection.conn_id}: password", _MASKED)
    return connection.password or None


@contextlib.contextmanager
def qualify_errors(conn_id: str) -> Iterator[None]:
    """Prefix the field of a ConfigurationError with the Connection's id, unless it has that prefix."""
    try:
        yield
    except ConfigurationError as error:
        if error.field.startswith(f"{conn_id}: "):
            raise
        raise ConfigurationError(f"{conn_id}: {error.field}", error.problem) from None


class Extras:
    """The extra fields of a Connection, in any format in which forms save them.

    An empty text counts as unset. A number or an object may be saved as text. A name may have the prefix
    `extra__<connection type>__` of older forms; the name without the prefix takes precedence.
    """

    def __init__(self, connection: Connection) -> None:
        """Read the extra of a Connection.

        Raises:
            ConfigurationError: It is not a JSON object, a field is misspelled, or text in a field of the
                Connection cannot be sent.
        """
        self._conn_id = connection.conn_id
        self._prefix = f"extra__{connection.conn_type}__"
        self._known = (
            sorted(_FORMS[connection.conn_type].extra_names) if connection.conn_type in _FORMS else []
        )
        extra: Any = connection.extra_dejson
        if not isinstance(extra, dict):
            self.fail("extra", "is not a JSON object")
        if connection.extra and not extra and connection.extra.strip() not in ("{}", "null"):
            # Airflow logs the error, and continues with an empty object.
            self.fail("extra", "is not JSON")
        self._extra: dict[str, Any] = extra
        # Before anything is made of them: an error about the encoding of a text quotes it, secret or not.
        standard = {name: getattr(connection, name, None) for name in ("host", "schema", "login", "password")}
        for field, value in {**standard, **extra}.items():
            if not is_storable([field, value]):
                self.fail(field if is_storable(field) else "extra", _NOT_STORABLE)
        self._check_spelling()

    def names(self) -> set[str]:
        """Return the names of the fields that are set."""
        fields = {field.removeprefix(self._prefix) for field in self._extra}
        return {field for field in fields if self.get(field) is not None}

    def check_names(self) -> None:
        """Check that there are no fields but those of the form: others have no effect."""
        self._reject(self._unknown())

    def _check_spelling(self) -> None:
        """Check that no field resembles one of the form: another would be in effect than was meant."""
        self._reject({name: meant for name, meant in self._unknown().items() if meant})

    def _unknown(self) -> dict[str, str]:
        """Return the fields that the form lacks, each with a question for the one that was probably meant."""
        names = sorted(self.names() - {*self._known}) if self._known else []
        return {name: did_you_mean(name, self._known) for name in names}

    def _reject(self, unknown: Mapping[str, str]) -> None:
        problems = [
            f"{sanitize(name, most=40)} is not a field of this Connection.{meant}"
            for name, meant in unknown.items()
        ]
        if not all(unknown.values()):
            problems.append(f"The fields are {', '.join(self._known)}")
        if unknown:
            self.fail("extra", " ".join(problems))

    def get(self, field: str, default: Any = None) -> Any:
        """Return the field unchanged, or the default if it is unset."""
        for name in (field, self._prefix + field):
            value = self._extra.get(name)
            if value == MASK:
                self.fail(field, _MASKED)
            if value is not None and not (isinstance(value, str) and not value.strip()):
                return value
        return default

    def text(self, field: str, default: str | None = None) -> str | None:
        """Return a text field, stripped of whitespace."""
        value = self.get(field, default)
        if value is not None and not isinstance(value, str):
            self.fail(field, "is not text")
        return value.strip() if value else value

    def choice(self, field: str, choices: tuple[str, ...], default: str) -> str:
        """Return a field whose value is one of the choices."""
        value = self.text(field, default)
        if value not in choices:
            self.fail(field, f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    def flag(self, field: str) -> bool:
        """Return a boolean field, whose value is JSON's true or false, or that text; False if it is unset."""
        value = self.get(field, False)
        text = str(value).strip().lower()
        if text not in ("false", "true"):
            self.fail(field, f"{value!r} is neither true nor false")
        return text == "true"

    def object(self, field: str) -> dict[str, Any]:
        """Return an object field; an empty object if it is unset."""
        value = self.get(field, {})
        if isinstance(value, str):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(value)
        if not isinstance(value, dict):
            self.fail(field, "is not an object of names and strings")
        if masked := [name for name, text in value.items() if text == MASK]:
            self.fail(field, f"{masked[0]} {_MASKED}")
        if not is_storable(value):
            self.fail(field, _NOT_STORABLE)
        return value

    def number(self, field: str, default: float, maximum: float = MAX_NUMBER) -> float:
        """Return a number above 0 and up to `maximum`."""
        value = self.get(field, default)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 < number <= maximum:
            self.fail(field, f"{value!r} is not a number above 0 and up to {maximum}")
        return number

    def whole_number(self, field: str, default: int, maximum: int = MAX_NUMBER) -> int:
        """Return a whole number above 0 and up to `maximum`."""
        number = self.number(field, default, maximum)
        if number != int(number):
            self.fail(field, f"{number} is not a whole number")
        return int(number)

    def label(self, field: str) -> str:
        """Return the name of a field in errors, with the Connection's id."""
        return f"{self._conn_id}: {field}"

    def fail(self, field: str, problem: str) -> NoReturn:
        """Raise a ConfigurationError for a field of this Connection."""
        raise ConfigurationError(self.label(field), problem)


def find_redis(runtime: Runtime, extras: Extras, store: str) -> str | None:
    """Return the URL of the Redis that an extra names, including its password; None for `file`.

    Args:
        runtime: Reads a Connection that the extra names.
        extras: Extras of the Connection, for errors.
        store: Value of the extra: `file`, a URL without a password, or `redis_conn:<conn_id>`.

    Raises:
        ConfigurationError: The value has another form, or the Connection is missing or invalid. The message
            never quotes a URL.
    """
    if store == "file":
        return None
    if store.startswith(_CONNECTION):
        conn_id = store.removeprefix(_CONNECTION).strip()
        connection = runtime.connection(extras.label(STORE_FIELD), conn_id, "redis")
        return _url_of(connection, runtime.mask)
    try:
        parts = urllib.parse.urlsplit(store)
        usable = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        extras.fail(STORE_FIELD, f"is not one of file, {_EXAMPLES}")
    if parts.password or "password" in urllib.parse.parse_qs(parts.query):
        # Airflow does not mask extras of this name.
        extras.fail(
            STORE_FIELD,
            "contains a password; put it into a Connection of type redis, and write redis_conn:<its id> here",
        )
    return store


def _url_of(connection: Connection, mask: Callable[[str], None]) -> str:
    """Return the URL of a Connection with the fields of Airflow's Redis provider."""
    extras = Extras(connection)
    if not connection.host:
        extras.fail("host", "is missing: give the host of the Redis")
    database = str(extras.get("db", connection.schema or 0))
    if not database.isdecimal():
        extras.fail("db", "is not the number of a Redis database")
    user = urllib.parse.quote(connection.login or "", safe="")
    if connection.password:
        password = urllib.parse.quote(connection.password, safe="")
        # Airflow masks the password, but not its percent-encoded form.
        mask(password)
        user += f":{password}"
    scheme, query = "redis", ""
    if str(extras.get("ssl")).lower() == "true":
        options = {name: str(value) for name in _TLS_OPTIONS if (value := extras.get(name)) is not None}
        scheme, query = "rediss", "?" + urllib.parse.urlencode(options)
    return f"{scheme}://{user}{'@' * bool(user)}{connection.host}:{connection.port or 6379}/{database}{query}"
