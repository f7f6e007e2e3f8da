"""A day on which usage is read twice: an allowance is used up, a day is revised, a budget is exceeded."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_provider_forge.gateway.usage import ResourceUsage, UsagePeriod
from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.otlp.endpoint import Endpoint, metrics_url
from airflow_provider_forge.payload.conform import Identity
from airflow_provider_forge.usage.metrics import UsagePoint, encode_points, points_of_usage
from airflow_provider_forge.usage.months import Usage, interval_to_read
from airflow_provider_forge.usage.prices import load_prices
from tests.dashboards.truth import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.delivery.telemetry import Instrument

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
# Exceeded by the second reading only, whatever the day of the month.
BUDGET = Decimal(1)
MEGABYTES = 4 * 2**20
# Parts of the allowance that are used at each reading, or amounts of what has none.
USED = {
    "FUNCTION_COMPUTE": ("0.85", "1.3"),
    "KVS_READ": ("0.5", "0.9"),
    "LOGS_WRITE": ("0.1", "0.1"),
    "LLM_INPUT": ("3", "4.25"),
}
# Shares of production and staging, by sites of the former.
SHARES = {"production": ("0.7", "0.2"), "staging": ("0.1",)}
EARLIER = Decimal("0.25")


def readings(start: datetime, app: str, environments: dict[str, str]) -> list[UsagePoint]:
    """Return the points of all readings of the day that begins at `start`.

    Args:
        start: Midnight, aware.
        app: UUID of the app.
        environments: Names by UUID.
    """
    points: list[UsagePoint] = []
    for number, hours in enumerate((0.4, 12.4)):
        now = start + hours * HOUR
        for by_site in (False, True):
            usages = [
                _usage(resource, parts[number], start, now, app, environments, by_site=by_site)
                for resource, parts in USED.items()
                if not by_site or resource == "FUNCTION_COMPUTE"
            ]
            # The app's metrics are the same by site.
            points += [
                point
                for point in points_of_usage(usages, BUDGET)
                if not by_site or point.instrument.name.startswith("forge.usage.site")
            ]
    return points


def _usage(
    resource: str,
    part: str,
    start: datetime,
    now: datetime,
    app: str,
    environments: dict[str, str],
    *,
    by_site: bool,
) -> Usage:
    price = load_prices().resources[resource]
    amount = Decimal(part) * (price.allowance or 1)
    # The day before is of the month before, if that day is the first.
    amounts = {start - DAY: amount * EARLIER, start: amount * (1 - EARLIER)}
    periods = [
        UsagePeriod(f"{day:%Y-%m-%d}", day, "ONE_DAY", of_day * share, price.unit, *group)
        for day, of_day in amounts.items()
        for group, share in _groups(environments, by_site=by_site)
    ]
    source = ResourceUsage(app, resource, tuple(periods), now, ())
    return Usage(source, price, interval_to_read(now, 7 * DAY)[0])


def _groups(
    environments: dict[str, str], *, by_site: bool
) -> Iterator[tuple[tuple[str | None, str | None], Decimal]]:
    for uuid, name in environments.items():
        for number, share in enumerate(map(Decimal, SHARES.get(name, ()))):
            if by_site:
                yield (None, f"ari:cloud:jira::site/{name}-{number}"), share
            elif not number:
                yield (uuid, None), sum(map(Decimal, SHARES[name]), Decimal(0))


def send(points: list[UsagePoint], url: str, app: str, environments: dict[str, str]) -> None:
    """Send the points to an OTLP receiver as the operator does, one reading after the other."""
    endpoint = Endpoint(metrics_url(url))
    identity = Identity(app, None, environments)
    with OtlpClient(endpoint) as client:
        for time in sorted({point.time for point in points}):
            of_time = [point for point in points if point.time == time]
            for request in encode_points(of_time, identity, endpoint.protocol, MEGABYTES):
                client.export(request)


def name_of(instrument: Instrument) -> str:
    """Return Prometheus' name for a metric of usage."""
    return instrument.name.replace(".", "_") + {"s": "_seconds", "1": "_ratio"}.get(instrument.unit, "")


def samples_of(points: list[UsagePoint], app: str, environments: dict[str, str]) -> dict[str, list[Sample]]:
    """Return the points, by their names in Prometheus."""
    samples = defaultdict(list)
    for point in points:
        labels = {key.replace(".", "_"): text for key, text in point.attributes.items()}
        labels["atlassian_forge_app_id"] = app
        if point.environment_id:
            labels["deployment_environment_name"] = environments[point.environment_id]
        time = point.time.astimezone(timezone.utc).timestamp()
        samples[name_of(point.instrument)].append(Sample(time, labels, point.value))
    return samples
