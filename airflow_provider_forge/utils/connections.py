"""Reading a Connection: each problem names the Connection and the field."""

from __future__ import annotations

import contextlib
import json
import math
import os
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.utils.secrets import read_connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow.providers.common.compat.sdk import BaseHook, Connection

__all__ = ["Extras", "find_connection", "host_of", "qualify_errors", "secret_of"]


_MOST = 24 * 60 * 60

MASK = "***"
"""What Airflow's forms, REST API and exports show in the place of a secret."""

_MASKED = f"is {MASK}, which Airflow shows in the place of a secret: give the value itself"

_INSTEAD = {
    "schema": "a path, which Airflow puts there from a URI, belongs into the host, which is a whole URL; in a"
    " URI, write that percent-encoded: <type>://user:password@https%3A%2F%2Fhost%2Fpath",
    "port": "write it into the host, which is a whole URL",
    "login": "for HTTP Basic, write the header Authorization into the extra headers",
}
"""What to do instead of setting a field that is not used."""


def find_connection(hook: type[BaseHook], argument: str, conn_id: str, kind: str) -> Connection:
    """Return the Connection.

    Raises:
        ConfigurationError: There is none of that id, or it is malformed.
        SecretsUnavailable: Airflow cannot read it at this moment.
    """
    if connection := read_connection(hook, conn_id):
        return connection
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if variable in os.environ:  # before 3.2, Airflow says nothing else of one that it cannot read
        raise ConfigurationError(
            argument,
            f"Airflow cannot read the Connection {conn_id!r} in {variable}: check that it is JSON or a"
            " URI, and its extra an object",
        )
    raise ConfigurationError(
        argument,
        f"there is no Connection {conn_id!r}: add one of type {kind!r} under Admin, Connections, or set"
        f" {variable}",
    )


def host_of(connection: Connection, unused: Iterable[str]) -> str:
    """Return the Connection's host, which is a whole URL; empty where there is none.

    Args:
        connection: The Connection. Airflow puts the port and the path of a URI into fields of their own.
        unused: Names of the fields that nothing reads.

    Raises:
        ConfigurationError: One of these is set.
    """
    for field in unused:
        if str(getattr(connection, field) or "").strip():
            raise ConfigurationError(f"{connection.conn_id}: {field}", f"is not used: {_INSTEAD[field]}")
    return (connection.host or "").strip()


def secret_of(connection: Connection) -> str | None:
    """Return the Connection's password.

    Raises:
        ConfigurationError: It is the mask that Airflow shows in its place.
    """
    if connection.password == MASK:
        raise ConfigurationError(f"{connection.conn_id}: password", _MASKED)
    return connection.password or None


@contextlib.contextmanager
def qualify_errors(conn_id: str) -> Iterator[None]:
    """Put the Connection's id before the field's name, in errors of what knows nothing of Connections."""
    try:
        yield
    except ConfigurationError as error:
        if error.field.startswith(f"{conn_id}: "):
            raise
        raise ConfigurationError(f"{conn_id}: {error.field}", error.problem) from None


class Extras:
    """The extra fields of a Connection, in any of the ways in which forms save them.

    An empty text counts as left out; a number or an object may come as text; and a name may have the prefix
    `extra__<connection type>__` of older forms, in whose place a name without it is taken if there are both.
    """

    def __init__(self, connection: Connection) -> None:
        self._conn_id = connection.conn_id
        self._prefix = f"extra__{connection.conn_type}__"
        extra: Any = connection.extra_dejson
        if not isinstance(extra, dict):
            self.refuse("extra", "is not a JSON object")
        if connection.extra and not extra and connection.extra.strip() not in ("{}", "null"):
            # Airflow logs that it cannot read it, and goes on without.
            self.refuse("extra", "is not JSON")
        self._extra: dict[str, Any] = extra

    def names(self) -> set[str]:
        """Return the names of the fields that are set."""
        fields = {field.removeprefix(self._prefix) for field in self._extra}
        return {field for field in fields if self.get(field) is not None}

    def get(self, field: str, default: Any = None) -> Any:
        """Return the field as it is."""
        for name in (field, self._prefix + field):
            value = self._extra.get(name)
            if value == MASK:
                self.refuse(field, _MASKED)
            if value is not None and not (isinstance(value, str) and not value.strip()):
                return value
        return default

    def text(self, field: str, default: str | None = None) -> str | None:
        """Return a text field without white space around it."""
        value = self.get(field, default)
        if value is not None and not isinstance(value, str):
            self.refuse(field, "is not text")
        return value.strip() if value else value

    def choice(self, field: str, choices: tuple[str, ...], default: str) -> str:
        """Return one of the choices."""
        value = self.text(field, default)
        if value not in choices:
            self.refuse(field, f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    def flag(self, field: str) -> bool:
        """Return whether a field is true: JSON's true, or the text; False if it is left out."""
        value = self.get(field, False)
        text = str(value).strip().lower()
        if text not in ("false", "true"):
            self.refuse(field, f"{value!r} is neither true nor false")
        return text == "true"

    def object(self, field: str) -> dict[str, Any]:
        """Return an object; an empty one where the field is left out."""
        value = self.get(field, {})
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = json.loads(value)
        if not isinstance(value, dict):
            self.refuse(field, "is not an object of names and texts")
        if masked := [name for name, text in value.items() if text == MASK]:
            self.refuse(field, f"{masked[0]} {_MASKED}")
        return value

    def number(self, field: str, default: float, most: float = _MOST) -> float:
        """Return a number above 0 and up to `most`, which is the seconds of a day."""
        value = self.get(field, default)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 < number <= most:
            self.refuse(field, f"{value!r} is not a number above 0 and up to {most}")
        return number

    def whole_number(self, field: str, default: int, most: int = _MOST) -> int:
        """Return a whole number above 0 and up to `most`."""
        number = self.number(field, default, most)
        if number != int(number):
            self.refuse(field, f"{number} is not a whole number")
        return int(number)

    def label(self, field: str) -> str:
        """Return what a field of this Connection is called in errors."""
        return f"{self._conn_id}: {field}"

    def refuse(self, field: str, problem: str) -> NoReturn:
        """Raise the error for a field of this Connection."""
        raise ConfigurationError(self.label(field), problem)
