from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from airflow_provider_forge.otlp import client as module
from airflow_provider_forge.otlp.client import compress

LARGE = os.urandom(100_000)


@settings(max_examples=50, derandomize=True, database=None, deadline=None)
@given(
    chunks=st.lists(
        st.one_of(st.binary(max_size=9), st.sampled_from([b"a" * 2**16, LARGE, Raw(LARGE), b"b" * 40_000])),
        max_size=5,
    )
)
def test_the_standard_library_reads_it(chunks):
    compressed = compress(chunks)
    assert gzip.decompress(compressed) == b"".join(chunks)
    assert compressed == compress(chunks)


def test_chunks_are_never_put_together():
    piece = b"a" * 1000
    compress([piece])
    tracemalloc.start()
    compress([piece] * 10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


class Recorder:
    """A compressor that does nothing, and tells how it was made."""

    def __init__(self, level, wbits):
        self.made = f"level {level}, {wbits} bits: ".encode()

    def compress(self, piece):
        return bytes(piece)

    def flush(self):
        return self.made


def test_isal_is_used_if_it_is_installed(monkeypatch):
    monkeypatch.setattr(module, "isal_zlib", SimpleNamespace(compressobj=Recorder))
    assert compress([b"abc"]) == b"abclevel 2, 31 bits: "


def test_zlib_is_used_otherwise(monkeypatch):
    monkeypatch.setattr(module, "isal_zlib", None)
    monkeypatch.setattr(zlib, "compressobj", Recorder)
    assert compress([b"abc"]) == b"abclevel 6, 31 bits: "


def test_isal_itself():
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    assert module.isal_zlib is isal_zlib
