"""Where the files are that tasks share."""

from __future__ import annotations

import os
import stat
import tempfile

import pytest

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.files import prepare_shared_directory, shared_directory
from airflow_provider_forge.plugin import ForgePlugin


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The directory of a user who shares none."""
    monkeypatch.delenv("TMPDIR")
    return tmp_path / f"airflow-provider-forge-{os.geteuid()}"


def test_users_with_the_same_tmpdir_share_a_directory(tmp_path):
    assert shared_directory() == tmp_path / "airflow-provider-forge"


def test_otherwise_each_user_has_a_private_directory(own):
    for _ in range(2):
        assert shared_directory() == own
        assert stat.S_IMODE(own.stat().st_mode) == 0o700


def test_a_path_taken_by_another_user_is_refused(own, tmp_path):
    own.symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="TMPDIR") as caught:
        shared_directory()
    assert str(own) in str(caught.value)


@pytest.mark.parametrize("shared", [True, False])
def test_airflow_creates_it_when_it_starts(own, tmp_path, monkeypatch, shared):
    """A first call made a minute later then knows that no other call was made."""
    if shared:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        shared_directory().rmdir()
    ForgePlugin.on_load()
    assert shared_directory().is_dir()
    before = shared_directory().stat()
    ForgePlugin.on_load()
    assert shared_directory().stat() == before


@pytest.mark.parametrize("obstacle", ["a file", "no parent"])
def test_a_start_of_airflow_does_not_depend_on_it(own, tmp_path, monkeypatch, obstacle):
    if obstacle == "a file":
        own.write_text("")
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))
    prepare_shared_directory()
