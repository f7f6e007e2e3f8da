"""Airflow's secrets masker, wherever this version of Airflow has it.

The one name that is not taken from common-compat: the versions of it that have it need Python 3.11.
"""

from __future__ import annotations

try:
    from airflow.sdk.log import mask_secret
except ImportError:  # Airflow 3.0
    from airflow.sdk.execution_time.secrets_masker import mask_secret  # type: ignore[no-redef]

__all__ = ["mask_secret"]
