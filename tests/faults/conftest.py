from __future__ import annotations

import certifi
import pytest

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from tests.faults.lines import LITTLE_TRAFFIC, Line


@pytest.fixture(autouse=True)
def one_authority(tmp_path, monkeypatch):
    """Nothing in here speaks TLS, and to read all authorities takes longer than anything else does."""
    end = "-----END CERTIFICATE-----\n"
    file = tmp_path / "authority.pem"
    file.write_text(certifi.contents().partition(end)[0] + end)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


@pytest.fixture
def gateway():
    with SandboxGateway(LITTLE_TRAFFIC, rate_limit_calls=0) as running:
        yield running


@pytest.fixture
def line(gateway: SandboxGateway, sink: OtlpSink, tmp_path, connect) -> Line:
    """A line that works."""
    made = Line(gateway, sink, tmp_path, connect)
    made.connect()
    return made
