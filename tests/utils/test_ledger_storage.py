"""What a ledger_url opens, and what is said where it opens nothing."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable, SecretsUnavailable
from airflow_provider_forge.utils.ledger import open_storage


@pytest.fixture
def storage(monkeypatch):
    """Put a path of object storage in the place of Airflow's."""
    import airflow.providers.common.compat.sdk as sdk

    def put(path: type) -> None:
        monkeypatch.setattr(sdk, "ObjectStoragePath", path)

    return put


@pytest.mark.parametrize("url", ["s3://conn_id@bucket/path", "memory://bucket/path"])
def test_a_url_names_a_bucket_and_a_connection(url, storage):
    """Without reading: only its file system is made."""

    class Path:
        def __init__(self, url: str) -> None:
            self.url = url
            self.fs = object()

    storage(Path)
    assert open_storage(url).url == url


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("nosuch://bucket/path", "cannot open nosuch://.*install the Airflow provider"),
        ("gs://bucket/path", "cannot open gs://.*install the Airflow provider"),
        (
            "s3://aws_default@bucket",
            r"cannot open s3://.*pip install 'apache-airflow-providers-amazon\[s3fs\]'",
        ),
    ],
)
def test_a_file_system_that_is_not_there_is_refused_with_the_remedy(url, remedy):
    with pytest.raises(ConfigurationError, match=remedy) as caught:
        open_storage(url)
    assert caught.value.field == "ledger_url"


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ImportError("s3fs"), ConfigurationError, r"^ledger_url: .*s3fs.*providers-amazon\[s3fs\]"),
        (AirflowNotFoundException("no conn_id"), ConfigurationError, "^ledger_url: names a Connection"),
        (TimeoutError("secrets"), LedgerUnavailable, "TimeoutError: secrets.*ledger_url"),
    ],
)
def test_the_cause_of_a_failing_file_system_is_in_the_error(storage, error, kind, said):
    class Path:
        def __init__(self, url: str) -> None:
            pass

        @property
        def fs(self) -> None:
            raise error

    storage(Path)
    with pytest.raises(kind, match=said):
        open_storage("s3://conn_id@bucket")


def test_a_url_that_this_airflow_cannot_open_is_refused_with_the_remedy(storage):
    def refuse(url):  # as that of Airflow 3.0 does beside universal-pathlib 0.3
        raise TypeError("ObjectStoragePath(...) detected protocol file which is incompatible")

    storage(refuse)
    with pytest.raises(ConfigurationError) as caught:
        open_storage("file:///somewhere")
    assert caught.value.field == "ledger_url"
    assert 'pip install "universal-pathlib<0.3"' in str(caught.value)


class PathOfAnUndefinedConnection:
    """A path whose file system needs a Connection that Airflow does not find."""

    def __init__(self, url: str) -> None:
        pass

    @property
    def fs(self) -> None:
        raise AirflowNotFoundException("The conn_id `aws_away` isn't defined")


def test_a_connection_found_at_the_second_attempt_is_a_retryable_error(storage, monkeypatch):
    """Airflow says that there is none while a secrets backend is away."""
    storage(PathOfAnUndefinedConnection)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_AWAY", '{"conn_type": "aws"}')
    with pytest.raises(LedgerUnavailable, match="'aws_away'"):
        open_storage("s3://aws_away@bucket/path")


def test_a_connection_that_cannot_be_read_is_a_retryable_error(storage, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise SecretsUnavailable("the secrets backend is away")

    storage(PathOfAnUndefinedConnection)
    monkeypatch.setattr("airflow_provider_forge.utils.ledger.read_connection", fail)
    with pytest.raises(SecretsUnavailable):
        open_storage("s3://aws_away@bucket/path")
