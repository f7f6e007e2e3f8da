"""Sends the points of usage; sending them again changes nothing, so there is no ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.attempts import Attempts
from airflow_provider_forge.exceptions import ReceiverUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.otlp.requests import ExportRequest

__all__ = ["send_requests"]


def send_requests(
    client: OtlpClient, requests: Iterable[ExportRequest], attempts: Attempts | None = None
) -> int:
    """Send the requests, each again while the receiver is briefly unavailable; return the number of points.

    Args:
        client: Client of the receiver.
        requests: The requests.
        attempts: The retries; by default those of a task.

    Raises:
        ForgeError: As for `OtlpClient.export`.
    """
    attempts = attempts or Attempts()
    points = 0
    for request in requests:
        _send(client, request, attempts)
        points += request.points
    return points


def _send(client: OtlpClient, request: ExportRequest, attempts: Attempts) -> None:
    retries = attempts.begin(client.endpoint.limits.export_timeout)
    while True:
        try:
            client.export(request, seconds=retries.seconds_left)
        except ReceiverUnavailable as error:
            retries.wait(error)
        else:
            return
