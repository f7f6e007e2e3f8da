"""Windows that are too old for a destination: told once, and those that soon will be are delivered first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.text import get_logger
from airflow_provider_forge.utils.run_interval import is_oldest

if TYPE_CHECKING:
    import datetime as dt

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_forge.delivery.destination import Destination
    from airflow_provider_forge.windows import Window

__all__ = ["report_expired"]

log = get_logger(__name__)


def report_expired(
    context: Context,
    interval: Window,
    destination: Destination,
    now: dt.datetime,
    *,
    partly: bool,
    ahead: bool,
) -> None:
    """Log why windows are skipped, and start a run for those that a catchup would reach too late.

    Args:
        context: The task's context.
        interval: The interval that the run delivers.
        destination: The destination that windows of the interval are too old for.
        now: Current time, aware.
        partly: Whether other windows of the interval are delivered.
        ahead: Whether the run may start other runs of its DAG.
    """
    from airflow_provider_forge.coverage.catchup import start_accepted
    from airflow_provider_forge.delivery.progress import describe_age_limit, describe_skipped

    endpoint = destination.receiver.endpoint
    # A catchup has a run for each of 1,344 windows: only the first says how many of them are skipped.
    if not (partly or is_oldest(interval, context, now)):
        log.info("%s", destination.label(describe_skipped(interval, endpoint)))
        return
    for line in describe_age_limit(endpoint, now):
        log.warning("%s", destination.label(line))
    if ahead and not partly and endpoint.limits.max_age is not None:
        start_accepted(context, interval, now, endpoint.limits.max_age)
