from __future__ import annotations

import tracemalloc

import pytest

from airflow_provider_forge.otlp.replies import Reply, partial_success


@pytest.mark.parametrize("piece", [b"  ", b"\x0a\x00", b"\x12\x00"])
def test_a_body_of_many_fields_takes_a_small_multiple_of_its_size(piece):
    reply = Reply(200, {}, piece * 50_000)
    tracemalloc.start()
    partial_success(reply)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * len(reply.content)
