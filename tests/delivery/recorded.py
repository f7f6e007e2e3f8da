"""Fingerprints as the first version took them: a ledger in use must know its points again, for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.otlp.building import PRODUCTION, STAGING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.payload.fingerprints import Fingerprint

ENVIRONMENTS = [PRODUCTION, STAGING]
MINUTE = 29_923_500

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "fingerprints.json").read_bytes())
"""`answers` with their points, null where it found them malformed, and the points of the published `sample`.
To write it anew would make every ledger in use one of other points."""


def in_words(found: Iterable[Fingerprint]) -> list[list[Any]]:
    """Return fingerprints as they are recorded."""
    return [[each.metric, each.minute, each.point_hash.hex()] for each in found]
