"""Object storage, as Airflow opens it: a URL of fsspec's with the id of a Connection in it."""

from __future__ import annotations

import urllib.parse
from typing import Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable
from airflow_provider_forge.hooks.secrets import read_connection
from airflow_provider_forge.text import quote

__all__ = ["open_storage"]

_PACKAGES = {
    "s3": "pip install 'apache-airflow-providers-amazon[s3fs]'",
}
"""What to do where the file systems of a scheme are missing; they come with providers of Airflow's."""


def open_storage(url: str) -> Any:
    """Return Airflow's `ObjectStoragePath` of a URL, with its file system made; nothing is read yet.

    Raises:
        ConfigurationError: A package that Airflow needs for it is missing or has a version of no use, or
            there is no Connection of the name in the URL.
        LedgerUnavailable: The file system cannot be made for another reason.
        SecretsUnavailable: Airflow cannot read the Connection at this moment.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        path = ObjectStoragePath(url)
        _ = path.fs  # else a missing package is found with the first entry that is read
    except TypeError as error:  # universal-pathlib 0.3 does not know the class of Airflow 3.0
        raise ConfigurationError(
            "ledger_url",
            f"this Airflow cannot open it ({quote(error)}): Airflow 3.0 needs universal-pathlib before 0.3,"
            ' as its constraints say: pip install "universal-pathlib<0.3"',
        ) from error
    except (ImportError, ValueError) as error:
        scheme = urllib.parse.urlsplit(url).scheme
        remedy = _PACKAGES.get(scheme, "install the provider of Airflow's that has file systems of this kind")
        raise ConfigurationError(
            "ledger_url", f"this Airflow cannot open {scheme}:// ({quote(error)}): {remedy}"
        ) from error
    except AirflowNotFoundException as error:
        conn_id = urllib.parse.unquote(urllib.parse.urlsplit(url).username or "")
        if conn_id and read_connection(BaseHook, conn_id):
            raise LedgerUnavailable(
                f"Airflow did not find the Connection {conn_id!r} of the extra ledger_url a moment ago. It is"
                " tried again"
            ) from error
        raise ConfigurationError(
            "ledger_url", f"names a Connection that is not there ({quote(error)}): add it, or name another"
        ) from error
    except Exception as error:  # what looks a Connection or credentials up can fail in any way
        raise LedgerUnavailable(
            f"The record of deliveries cannot be opened ({type(error).__name__}: {quote(error)}). It is tried"
            " again; should that not end, check the OTLP Connection's extra ledger_url and the Connection it"
            " names"
        ) from error
    return path
