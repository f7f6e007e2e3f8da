"""Whatever bytes the gateway sends: a typed error, or what the complete way of reading makes of them.

`make fuzz` runs it for longer, with other examples each time and a limit on memory.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_forge.exceptions import ForgeError
from airflow_provider_forge.gateway.responses import MetricsData, read_resource_metrics, read_response
from airflow_provider_forge.otlp.endpoint import PROTOCOLS
from airflow_provider_forge.otlp.messages import MalformedOtlp
from airflow_provider_forge.payload.conform import Identity
from airflow_provider_forge.payload.dict_payload import DictPayload
from airflow_provider_forge.payload.passthrough_payload import PassthroughPayload
from airflow_provider_forge.payload.payload import ReadOptions
from airflow_provider_forge.payload.reader import read
from tests.delivery.requests import said
from tests.otlp.building import APP, PRODUCTION, almost_otlp, any_json, otlp_json, usual

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
fuzzing = settings(
    max_examples=EXAMPLES or 100,
    derandomize=not EXAMPLES,
    database=None,
    deadline=5000,
    suppress_health_check=list(HealthCheck),
)
NOW = datetime(2026, 11, 23, tzinfo=timezone.utc)
DAMAGE = [
    b"",
    b"\0",
    b'"',
    b"\xff",
    b"\\ud800",
    b"1e999",
    b"NaN",
    b"\n",
    b"-0",
    b"9" * 5000,
    b"[" * 100_000,
    b'{"a":' * 5000,
]


def response(resource_metrics) -> bytes:
    app_metrics = {"resourceMetrics": resource_metrics}
    return json.dumps({"data": {"ecosystem": {"forgeMetrics": {"appMetrics": app_metrics}}}}).encode()


@st.composite
def damaged(draw) -> bytes:
    """A response of which some bytes are lost, doubled or replaced."""
    whole = response(draw(otlp_json.map(usual)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(whole)))
        end = min(len(whole), start + draw(st.integers(0, 40)))
        whole = whole[:start] + draw(st.sampled_from([*DAMAGE, 2 * whole[start:end]])) + whole[end:]
    return whole


@st.composite
def with_another_value(draw) -> bytes:
    """A response in which one number or text is another one, so that it is still JSON."""
    whole = response(draw(otlp_json.map(usual)))
    values = [place for place, byte in enumerate(whole) if byte == ord(":")]
    start = draw(st.sampled_from(values)) + 1
    end = min(at for at in (whole.find(mark, start) for mark in (b",", b"}", b"]")) if at > 0)
    other = draw(
        st.sampled_from(
            [
                *(
                    b"-0",
                    b"9" * 5000,
                    b"1e308",
                    b"1e999",
                    b"-1.0",
                    b"1.5",
                    b"-Infinity",
                    b"true",
                    b"[]",
                    b"{}",
                ),
                *(b'"\\ud800"', b'"\\u0031"', b" 7 ", b"null", b'""', b'"2026-11-27T16:00:00Z"', b"[null]"),
                *(
                    b'"1e3"',
                    b'"\xff"',
                    b"[[" + b"{}" + b"]]",
                    str(2**64).encode(),
                    b'{"a":' * 60 + b"1" + b"}" * 60,
                ),
            ]
        )
    )
    return whole[:start] + other + whole[end:]


bodies = st.one_of(
    st.binary(),
    any_json.map(json.dumps).map(str.encode),
    almost_otlp().map(response),
    damaged(),
    with_another_value(),
)


def outcome(content):
    numbers = range(len(content.fingerprints))
    requests = [said(content.build_request(chosen)) for chosen in (numbers, numbers[1:])]
    return content.count, content.fingerprints, content.anomalies, content.left_out, requests


def passed(content) -> bytes:
    """Return what is passed through, which may hold numbers that no reader of ours takes."""
    numbers = range(len(content.fingerprints))
    assert content.build_request(numbers[1:]).points <= content.count
    return content.build_request(numbers).body


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("conform", [True, False], ids=["conform", "raw"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@fuzzing
@given(body=bodies)
def test_any_bytes_end_in_a_typed_error_or_in_requests(protocol, conform, recorded, body):
    identity = Identity(APP, environments={PRODUCTION: None}) if conform else None
    try:
        answer = read_response(
            httpx.Response(200, content=body), MetricsData, now=NOW, secrets=(), splittable=True
        )
        source = read_resource_metrics(answer), ReadOptions([PRODUCTION], 0, identity, protocol, recorded)
        content = read(*source)
        is_unread = isinstance(content, PassthroughPayload)
        found = passed(content) if is_unread else outcome(content)
    except (ForgeError, MalformedOtlp):
        return
    if is_unread:
        assert found == b'{"resourceMetrics":%b}' % bytes(source[0])
    else:
        assert found == outcome(DictPayload(*source))
