from __future__ import annotations

from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent.parent / "data" / "sample_response.json"


@pytest.fixture
def sample() -> bytes:
    """Atlassian's published sample, byte for byte."""
    return SAMPLE.read_bytes()
