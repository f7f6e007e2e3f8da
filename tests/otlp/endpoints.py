"""An endpoint from fields named as those of a Connection."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from airflow_provider_forge.otlp.endpoint import Endpoint, Limits, TlsFiles

__all__ = ["endpoint_of"]


def endpoint_of(url: str, **settings: Any) -> Endpoint:
    """Return the endpoint with these fields, its own or those of its limits and TLS files."""
    parts: dict[str, Any] = {}
    for name, part in (("limits", Limits), ("tls", TlsFiles)):
        parts[name] = part(
            **{field.name: settings.pop(field.name) for field in fields(part) if field.name in settings}
        )
    return Endpoint(url, **settings, **parts)
