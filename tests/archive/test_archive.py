"""The archive of one place: what is written, what is not, and what a damaged object says."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
import hashlib
import json
import stat
import uuid

import pendulum
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_forge.archive.archive import Archive
from airflow_provider_forge.archive.layout import ABOUT, DATA, parse_name
from airflow_provider_forge.archive.sources import ArchiveSource
from airflow_provider_forge.archive.storage import Storage
from airflow_provider_forge.exceptions import ArchiveDamaged, ArchiveUnavailable
from airflow_provider_forge.windows import Window
from tests.archive.conftest import APP, LABELS, PRODUCTION, STAGING, WINDOW, a_response

METRICS = b'[{"resource":{"attributes":[]},"scopeMetrics":[]}]'


def files(archive):
    root = archive.storage._root
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def only(archive):
    [archived] = archive.list_day(APP, WINDOW.start.date())
    return archived


def path_of(archive, kind):
    return archive.storage._root / (only(archive).key + kind)


def test_a_response_becomes_plain_otlp_and_a_description_beside_it(archive):
    assert archive.write(a_response(METRICS))
    data, about = (path_of(archive, kind) for kind in (DATA, ABOUT))
    assert files(archive) == sorted(str(each.relative_to(archive.storage._root)) for each in (data, about))
    content = gzip.decompress(data.read_bytes())
    assert content == b'{"resourceMetrics":' + METRICS + b"}\n"
    assert data.name.startswith("0500-0515_")
    assert str(data.parent).endswith(f"{APP}/2026/11/23")
    assert json.loads(about.read_text()) == {
        "version": 1,
        "app_id": APP,
        "window": "2026-11-23T05:00:00Z/2026-11-23T05:15:00Z",
        "environments": [{"id": PRODUCTION.id, "name": "production"}],
        "metrics": list(LABELS),
        "request_id": "r-1",
        "fetched": "2026-11-23T05:21:00.000Z",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "left_out": [],
    }


def test_it_is_read_as_it_was_written(archive):
    written = a_response(METRICS, environments=(PRODUCTION, STAGING))
    archive.write(written)
    metrics, fetched = archive.read(only(archive))
    assert metrics.resource_metrics == METRICS
    assert (metrics.app_id, metrics.window, metrics.environments, metrics.metrics, metrics.request_id) == (
        written.app_id,
        written.window,
        written.environments,
        written.metrics,
        written.request_id,
    )
    assert fetched == pendulum.datetime(2026, 11, 23, 5, 21)


def test_line_breaks_between_tokens_become_spaces_because_a_line_is_a_message(archive):
    archive.write(a_response(b'[\r\n  {"resource": {"a": "\\n"}}\n]'))
    lines = gzip.decompress(path_of(archive, DATA).read_bytes()).splitlines()
    assert lines == [b'{"resourceMetrics":[    {"resource": {"a": "\\n"}} ]}']


def test_the_same_content_writes_nothing_and_more_content_keeps_both_versions(archive):
    assert archive.write(a_response(METRICS))
    before = {name: (archive.storage._root / name).stat().st_mtime_ns for name in files(archive)}
    assert not archive.write(a_response(METRICS, request_id="r-2"))
    assert {name: (archive.storage._root / name).stat().st_mtime_ns for name in files(archive)} == before
    assert archive.write(a_response(METRICS.replace(b"]}]", b"{}]}]"), request_id="r-3"))
    assert len(files(archive)) == 4
    assert {archive.describe(each).request_id for each in archive.list_day(APP, WINDOW.start.date())} == {
        "r-1",
        "r-3",
    }


def test_other_environments_or_metrics_are_another_object_and_their_order_is_not(archive):
    for environments, metrics in [
        ((PRODUCTION, STAGING), LABELS),
        ((STAGING, PRODUCTION), LABELS[::-1]),
        ((STAGING,), LABELS),
        ((PRODUCTION, STAGING), LABELS[:1]),
    ]:
        archive.write(a_response(METRICS, environments=environments, metrics=metrics))
    assert len({each.entry.selection for each in archive.list_day(APP, WINDOW.start.date())}) == 3


def test_an_interrupted_write_leaves_nothing_that_is_read_and_the_next_one_completes_it(archive, monkeypatch):
    write, storage = Storage.write, archive.storage

    def killed_before_the_description(self, key, content):
        if key.endswith(ABOUT):
            raise KeyboardInterrupt
        write(self, key, content)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "write", killed_before_the_description)
        with pytest.raises(KeyboardInterrupt):
            archive.write(a_response(METRICS))
    assert not only(archive).is_described
    assert Archive(storage).write(a_response(METRICS))
    assert archive.read(only(archive)).metrics.resource_metrics == METRICS


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "fetched", ["0001-01-01T00:00:00+14:00", "2026-11-28/P1D", "2026-11-23T05:21:00", ""]
)
def test_a_time_of_the_response_that_cannot_be_shown_is_damage(archive, fetched):
    archive.write(a_response(METRICS))
    path = path_of(archive, ABOUT)
    path.write_text(path.read_text().replace("2026-11-23T05:21:00.000Z", fetched))
    with pytest.raises(ArchiveDamaged, match="fetched"):
        archive.read(only(archive))


@pytest.mark.parametrize(
    ("kind", "damage", "says"),
    [
        (DATA, flip, "cannot be used"),
        (DATA, lambda path: path.write_bytes(path.read_bytes()[:-9]), "cut off"),
        (DATA, lambda path: path.write_bytes(b""), "cut off after 0 bytes"),
        (DATA, lambda path: path.unlink(), "missing"),
        (DATA, lambda path: path.write_bytes(gzip.compress(b'{"resourceMetrics":[]}\n')), "SHA-256"),
        (ABOUT, lambda path: path.unlink(), "missing"),
        (ABOUT, lambda path: path.write_text('{"version": 2, "other": []}'), "version 2 has written it"),
        (ABOUT, lambda path: path.write_text('{"version": 1}'), "app_id"),
        (ABOUT, lambda path: path.write_text("[half"), "cannot be used"),
    ],
    ids=["flipped", "truncated", "empty", "missing", "other", "no description", "later", "lacks", "no JSON"],
)
def test_damage_is_named_with_its_object(archive, kind, damage, says):
    archive.write(a_response([{"resource": {"attributes": [{"key": str(n)}]}} for n in range(50)]))
    archived = only(archive)
    damage(path_of(archive, kind))
    with pytest.raises(ArchiveDamaged, match=says) as error:
        archive.read(archived)
    assert archived.key + kind in str(error.value)


def test_days_apps_and_ranges(archive):
    late = Window(pendulum.datetime(2026, 11, 23, 23, 45), pendulum.datetime(2026, 11, 24))
    odd = Window(pendulum.datetime(2026, 11, 24, 0, 0, 30), pendulum.datetime(2026, 11, 24, 0, 7, 30, 500000))
    for window in (odd, late, WINDOW):
        archive.write(a_response(METRICS, window))
    (archive.storage._root / APP / "2026" / "11" / "notes").mkdir()
    (archive.storage._root / APP / "2026" / "11" / "23" / ".draft").write_text("")
    assert archive.apps() == [APP]
    assert [f"{day}" for day in archive.days(APP)] == ["2026-11-23", "2026-11-24"]
    assert [each.entry.window for each in archive.list_between(APP, late.start, odd.end)] == [late, odd]
    assert [each.entry.window for each in archive.list_between(APP, WINDOW.start, late.end)] == [WINDOW, late]
    assert list(archive.list_between(APP, WINDOW.end, late.start)) == []


@pytest.mark.parametrize("name", ["2500-2515_00000000_0000000000000000.json.gz", "0515-0500_x", "a.json.gz"])
def test_other_names_are_not_ours(name):
    assert parse_name(name, WINDOW.start.date()) is None


def test_deleting_takes_both_objects(archive):
    archive.write(a_response(METRICS))
    archive.delete(only(archive))
    assert files(archive) == []


def test_a_store_that_is_no_directory_is_a_clear_error(tmp_path):
    (tmp_path / "archive").write_text("a file in its place")
    archive = Archive(Storage(tmp_path / "archive"))
    with pytest.raises(ArchiveUnavailable, match="extra archive_url"):
        archive.write(a_response(METRICS))
    assert archive.list_day(APP, WINDOW.start.date()) == []


def test_a_full_store_leaves_no_half_object(archive, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("airflow_provider_forge.delivery.stores.os.fsync", full)
    with pytest.raises(ArchiveUnavailable, match="No space left on device"):
        archive.write(a_response(METRICS))
    assert files(archive) == []


def test_objects_are_not_readable_for_more_users_than_the_directory_allows(archive):
    archive.write(a_response(METRICS))
    assert not stat.S_IMODE(path_of(archive, DATA).stat().st_mode) & 0o022


def test_any_file_system_of_fsspec_will_do():
    attach("memory", fs=MemoryFileSystem())  # which Airflow before 3.2 does not know by itself
    archive = Archive(Storage(ObjectStoragePath(f"memory://{uuid.uuid4().hex}/archive")))
    archive.write(a_response(METRICS))
    assert not archive.write(a_response(METRICS))
    assert archive.read(only(archive)).metrics.resource_metrics == METRICS
    assert [f"{day}" for day in archive.days(APP)] == ["2026-11-23"]
    archive.delete(only(archive))
    assert archive.list_day(APP, WINDOW.start.date()) == []


def test_a_retry_takes_a_response_that_lacks_only_labels_unknown_to_the_gateway(archive):
    source = ArchiveSource(archive, APP, ["production"], LABELS)
    since = dt.datetime(2026, 11, 23, tzinfo=dt.timezone.utc)
    archive.write(a_response(metrics=LABELS[:1]))
    assert source.fetch_since(WINDOW, since) is None
    archive.write(dataclasses.replace(a_response([{}], metrics=LABELS[:1]), left_out=LABELS[1:]))
    found = source.fetch_since(WINDOW, since)
    assert (found.metrics, found.left_out) == (LABELS[:1], LABELS[1:])
