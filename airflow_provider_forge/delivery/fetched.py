"""The metrics of one window, wherever they were fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_forge.exceptions import FinalError
    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.windows import Window

__all__ = ["Fetched", "from_gateway"]


@dataclass(frozen=True)
class Fetched:
    """The metrics of one window.

    Attributes:
        responses: One from the gateway. From the archive, each version of the window, the latest first, and
            those of parts of the window.
        calls: Number of calls to the gateway, 0 if the responses are from the archive.
        unarchived: Number of responses that could not be written to the archive.
        problems: Errors of archived responses that cannot be used.
    """

    responses: tuple[AppMetrics, ...]
    calls: int = 0
    unarchived: int = 0
    problems: tuple[FinalError, ...] = ()


def from_gateway(fetch: Callable[[Window], AppMetrics]) -> Callable[[Window], Fetched]:
    """Return a source of windows that has no archive.

    Args:
        fetch: Fetches a window from the gateway.
    """
    return lambda window: Fetched((fetch(window),), calls=1)
