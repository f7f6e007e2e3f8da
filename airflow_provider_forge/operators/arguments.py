"""Checks of the operators' arguments, made when a DAG is parsed."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_conn_id", "check_duration", "check_switches", "parse_conn_ids"]


def check_conn_id(name: str, value: Any) -> None:
    """Check that an argument is the id of one Connection.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(value, str) or not value:
        several = ", one for each operator" if isinstance(value, (list, tuple)) else ""
        raise ConfigurationError(name, f"{value!r:.100} is not the id of a Connection: give its id{several}")


def parse_conn_ids(value: str | Sequence[str]) -> tuple[str, ...]:
    """Return the ids of the Connections to the destinations.

    Raises:
        ConfigurationError: There is none, or one is named twice.
    """
    ids: tuple[Any, ...] = (value,) if isinstance(value, str) else ()
    if isinstance(value, (list, tuple)):  # a set has another order in each process
        ids = tuple(value)
    if not ids or not all(isinstance(each, str) and each for each in ids):
        raise ConfigurationError(
            "otlp_conn_id",
            "give the id of a Connection, or a list of ids; it is needed when the DAG is parsed, so no other"
            " task can return it",
        )
    if len(set(ids)) < len(ids):
        raise ConfigurationError("otlp_conn_id", f"{', '.join(ids)} names a Connection twice")
    return ids


def check_duration(name: str, value: Any, *, optional: bool = False) -> None:
    """Check that an argument is a timedelta above 0, or None if it is optional.

    Raises:
        ConfigurationError: It is not.
    """
    if optional and value is None:
        return
    if not isinstance(value, dt.timedelta) or value <= dt.timedelta(0):
        remedy = "; None switches it off" if optional else ""
        raise ConfigurationError(name, f"{value!r:.100} is not a timedelta above 0{remedy}")


def check_switches(operator: object, *names: str) -> None:
    """Check that attributes of an operator are True or False: any text would count as True.

    Raises:
        ConfigurationError: One is not.
    """
    for name in names:
        value = getattr(operator, name)
        if not isinstance(value, bool):
            raise ConfigurationError(name, f"{value!r:.100} is neither True nor False")
