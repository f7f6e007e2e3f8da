"""Reads the gateway's payload of one window.

Three classes read it. `FastPayload` reads point by point, and takes long for an unusual point only.
`DictPayload` reads any shape of OTLP/JSON with the same result, in up to 70 times the time.
`PassthroughPayload` serves payloads that are sent unchanged and not recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.payload.dict_payload import DictPayload
from airflow_provider_forge.payload.fast_payload import FastPayload
from airflow_provider_forge.payload.passthrough_payload import PassthroughPayload
from airflow_provider_forge.payload.structs import REFUSALS
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from msgspec import Raw

    from airflow_provider_forge.payload.payload import Payload, ReadOptions

__all__ = ["read"]

log = get_logger(__name__)


def read(text: bytes | Raw, options: ReadOptions) -> Payload:
    """Read a payload of the gateway.

    Args:
        text: JSON text of an array of `ResourceMetrics`.
        options: The options that decide how it is read.

    Raises:
        MalformedOtlp: The payload is not OTLP/JSON.
    """
    for reader in (PassthroughPayload, FastPayload) if options.passes_through else (FastPayload,):
        try:
            return reader(text, options)
        except REFUSALS as refusal:
            log.info("Unusual OTLP/JSON, so a slower reader is used: %.200s", refusal)
    return DictPayload(text, options)
