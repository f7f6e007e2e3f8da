"""Connections in environment variables, read as Airflow reads them, but without it."""

from __future__ import annotations

import json
import os
import urllib.parse
from dataclasses import dataclass
from typing import Any

from airflow_provider_forge.connections.runtime import variable_of

__all__ = ["PlainConnection", "connection_from_environ"]

_NAMED_EXTRA = "__extra__"
"""Parameter of a URI that contains the whole extra."""

_FIELDS = {"conn_type", "description", "host", "login", "password", "schema", "port", "extra"}


@dataclass
class PlainConnection:
    """The fields of a Connection."""

    conn_id: str
    conn_type: str | None = None
    host: str | None = None
    schema: str | None = None
    login: str | None = None
    password: str | None = None
    port: int | None = None
    extra: str | None = None

    @property
    def extra_dejson(self) -> Any:
        """The extra, decoded."""
        return json.loads(self.extra) if self.extra else {}


def connection_from_environ(conn_id: str) -> PlainConnection | None:
    """Return the Connection in `AIRFLOW_CONN_<ID>`; None if there is none, or if only Airflow can read it.

    Anything malformed or unusual is left to Airflow, so that it has one reader and one error message.
    """
    text = os.environ.get(variable_of(conn_id), "").strip()
    if not text:
        return None
    try:
        found = _from_json(conn_id, text) if text.startswith("{") else _from_uri(conn_id, text)
        return found if found and isinstance(found.extra_dejson, dict) else None
    except (ValueError, RecursionError):
        return None


def _from_json(conn_id: str, text: str) -> PlainConnection | None:
    fields = json.loads(text)
    port, extra = fields.pop("port", None), fields.pop("extra", None)
    if fields.keys() - _FIELDS or not all(isinstance(each, (str, type(None))) for each in fields.values()):
        return None
    fields.pop("description", None)
    if not isinstance(port, (int, str, type(None))):
        return None
    if extra:
        fields["extra"] = extra if isinstance(extra, str) else json.dumps(extra)
    if conn_type := fields.pop("conn_type", None):
        fields["conn_type"] = _type_of(conn_type)
    return PlainConnection(conn_id, **fields, port=int(port) if port else None)


def _from_uri(conn_id: str, text: str) -> PlainConnection | None:
    """Read a URI. Its host may begin with a scheme of its own: `otlp://https://host`."""
    schemes = text.count("://")
    has_protocol = schemes == 2
    conn_type = urllib.parse.urlsplit(text).scheme
    rest = text.replace(f"{conn_type}://", "" if has_protocol else "//")
    if schemes not in (1, 2) or (has_protocol and set("@:") & set(rest.split("://", 1)[0])):
        return None
    parts = urllib.parse.urlsplit(rest)
    host = _host_of(parts)
    query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    extra = query.get(_NAMED_EXTRA, json.dumps(query)) if parts.query else None
    return PlainConnection(
        conn_id,
        _type_of(conn_type),
        f"{parts.scheme}://{host}" if has_protocol and host else host,
        urllib.parse.unquote(parts.path[1:]),
        _unquote(parts.username),
        _unquote(parts.password),
        parts.port,
        extra,
    )


def _host_of(parts: urllib.parse.SplitResult) -> str:
    """Return the decoded host; `hostname` is in lower case, which a host with a path in it must not be."""
    host = urllib.parse.unquote(parts.hostname or "")
    if "/" in host:
        host = urllib.parse.unquote(parts.netloc.rsplit("@", 1)[-1].split(":", 1)[0])
    return host


def _unquote(text: str | None) -> str | None:
    return urllib.parse.unquote(text) if text else text


def _type_of(conn_type: str) -> str:
    return "postgres" if conn_type == "postgresql" else conn_type.replace("-", "_")
