"""Reads the gateway's payload of one window: the only way into this package.

Three classes read it, with the same result: `FastPayload` supports the usual shape of OTLP/JSON only, and
`DictPayload` any shape, in twenty times as long. `PassthroughPayload` is for a text that is sent unchanged
and not recorded.
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
    """Read an answer.

    Raises:
        MalformedOtlp: It is not OTLP/JSON.
    """
    try:
        return PassthroughPayload(source) if source.passes_through else FastPayload(source)
    except REFUSALS as refusal:
        log.info("Read in the slow way, which knows everything: %.200s", refusal)
    return DictPayload(source)
