"""Reads the gateway's payload of one window: the only way into this package.

Three classes read it. `FastPayload` supports only the usual shape of OTLP/JSON. `DictPayload` supports any
shape with the same result, and takes about 35 times as long. `PassthroughPayload` serves payloads that are
sent unchanged and not recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.payload.dict_payload import DictPayload
from airflow_provider_forge.payload.fast_payload import FastPayload
from airflow_provider_forge.payload.passthrough_payload import PassthroughPayload
from airflow_provider_forge.payload.structs import REFUSALS
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from airflow_provider_forge.payload.source import GatewayPayload, Payload

__all__ = ["read"]

log = get_logger(__name__)


def read(source: GatewayPayload) -> Payload:
    """Read a payload of the gateway.

    Raises:
        MalformedOtlp: The payload is not OTLP/JSON.
    """
    try:
        return PassthroughPayload(source) if source.passes_through else FastPayload(source)
    except REFUSALS as refusal:
        log.info("Unusual OTLP/JSON, read by the slower fallback: %.200s", refusal)
    return DictPayload(source)
