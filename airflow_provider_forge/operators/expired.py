"""Windows too old for a destination: reported once, and those that soon will be are delivered first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.text import get_logger
from airflow_provider_forge.utils.run_interval import is_oldest
from airflow_provider_forge.windows import MAX_WINDOW, RETENTION, ceil, humanize_duration

if TYPE_CHECKING:
    import datetime as dt

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_forge.delivery.destination import Destination
    from airflow_provider_forge.otlp.endpoint import Endpoint
    from airflow_provider_forge.windows import Window

__all__ = ["report_expired"]

log = get_logger(__name__)


def report_expired(
    context: Context,
    interval: Window,
    destination: Destination,
    now: dt.datetime,
    *,
    others_delivered: bool,
    may_start: bool,
) -> None:
    """Log why windows are skipped, and start a run for those that a catchup would reach too late.

    Args:
        context: The task's context.
        interval: The interval that the run delivers.
        destination: The destination that windows of the interval are too old for.
        now: Current time, aware.
        others_delivered: Whether other windows of the interval are delivered.
        may_start: Whether the run may start other runs of its DAG.
    """
    from airflow_provider_forge.coverage.catchup import start_accepted

    endpoint = destination.receiver.endpoint
    # A catchup has a run for each of 1,344 windows: only the first says how many of them are skipped.
    if not (others_delivered or is_oldest(interval, context, now)):
        log.info("%s", destination.label(_describe_skipped(interval, endpoint)))
        return
    for line in _describe_age_limit(endpoint, now):
        log.warning("%s", destination.label(line))
    if may_start and not others_delivered and endpoint.limits.max_age is not None:
        start_accepted(context, interval, now, endpoint.limits.max_age)


def _describe_age_limit(endpoint: Endpoint, now: dt.datetime) -> list[str]:
    """Return lines for the log: which windows are too old, their number, and how to deliver them."""
    max_age = _age_limit(endpoint)
    if max_age is None:
        return ["Windows older than Atlassian's 14 days are skipped: their metrics no longer exist"]
    first = ceil(now - max_age, MAX_WINDOW)
    windows = (RETENTION - max_age) // MAX_WINDOW
    skipped = f"{windows:,} of the windows of Atlassian's 14 days are skipped"
    remedy = f'{endpoint.age_remedy}. To have no runs for them, set "catchup": False in the DAG\'s entry'
    return [
        f"{skipped}, those before {first.day} {first:%b %H:%M} UTC",
        f"The destination discards points older than {humanize_duration(max_age)}. {remedy}",
    ]


def _describe_skipped(window: Window, endpoint: Endpoint) -> str:
    """Return why a window is too old to be delivered."""
    max_age = _age_limit(endpoint)
    if max_age is None:
        return f"{window.humanize()} is skipped: Atlassian keeps metrics for 14 days"
    age = humanize_duration(max_age)
    return f"{window.humanize()} is skipped: the destination discards points older than {age} (max_age)"


def _age_limit(endpoint: Endpoint) -> dt.timedelta | None:
    """Return the destination's age limit; None if Atlassian's retention ends first."""
    max_age = endpoint.limits.max_age
    return max_age if max_age is not None and max_age < RETENTION else None
