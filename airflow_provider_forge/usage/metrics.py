"""The metrics of usage: gauges with the time of the observation.

OTLP cannot take a value back, and Atlassian revises days. Each point therefore has the time at which it was
observed, and its day or month is an attribute. A later observation has a later time, so that the latest value
of a series is the valid one. No backend has to choose between two values of the same time.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_forge.delivery.telemetry import Instrument
from airflow_provider_forge.otlp.messages import Json, any_value
from airflow_provider_forge.otlp.requests import ExportRequest, encode_request
from airflow_provider_forge.payload.conform import SCHEMA_URL, Identity
from airflow_provider_forge.usage.months import FORECAST_METHOD

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from decimal import Decimal

    from airflow_provider_forge.usage.months import Usage

__all__ = ["INSTRUMENTS", "UsagePoint", "encode_points", "points_of_usage"]

SCOPE_NAME = "atlassian.forge.app_usage"

RESOURCE, SITE = "forge.usage.resource", "forge.usage.site"
DATE, MONTH = "forge.usage.date", "forge.usage.month"

MAX_POINTS = 5000
"""Points of one request: about 1 MB. Usage by site can have hundreds of thousands."""

_UNIT, _USD = "{unit}", "{USD}"
_OF_MONTH = "of a calendar month (UTC)"

DAILY = Instrument("forge.usage.daily", _UNIT, "Usage of a day (UTC) in an environment.")
MONTHLY = Instrument("forge.usage.monthly", _UNIT, f"Usage {_OF_MONTH} in an environment, so far.")
SITE_DAILY = Instrument("forge.usage.site.daily", _UNIT, "Usage of a day (UTC) by a site.")
SITE_MONTHLY = Instrument("forge.usage.site.monthly", _UNIT, f"Usage {_OF_MONTH} by a site, so far.")
COST = Instrument("forge.usage.cost", _USD, f"Cost {_OF_MONTH}, so far.")
ALLOWANCE = Instrument("forge.usage.allowance", _UNIT, "Free usage of an app in a calendar month.")
UTILIZATION = Instrument("forge.usage.allowance.utilization", "1", "Used part of this month's allowance.")
EXHAUSTION = Instrument(
    "forge.usage.allowance.exhaustion", "s", "Unix time at which this month's allowance is used up."
)
FORECAST = Instrument("forge.usage.forecast", _UNIT, f"Expected usage of this month: {FORECAST_METHOD}.")
COST_FORECAST = Instrument(
    "forge.usage.cost.forecast", _USD, f"Expected cost of this month: {FORECAST_METHOD}."
)
BUDGET = Instrument("forge.usage.budget", _USD, "The configured budget of a month.")
REFRESH = Instrument("forge.usage.refresh", "s", "Unix time at which usage was last read.")
DATA_END = Instrument("forge.usage.data.end", "s", "Unix time until which Atlassian has usage of the app.")

INSTRUMENTS = (
    *(DAILY, MONTHLY, SITE_DAILY, SITE_MONTHLY, COST, ALLOWANCE, UTILIZATION, EXHAUSTION),
    *(FORECAST, COST_FORECAST, BUDGET, REFRESH, DATA_END),
)


@dataclass(frozen=True)
class UsagePoint:
    """One point.

    Attributes:
        time: Time of the observation, aware.
        environment_id: UUID of the environment whose resource has the point; None for the app's.
    """

    instrument: Instrument
    value: float
    time: dt.datetime
    attributes: Mapping[str, str]
    environment_id: str | None = None


def points_of_usage(usages: Iterable[Usage], budget: Decimal | None = None) -> Iterator[UsagePoint]:
    """Yield the points of all resources that were read.

    Args:
        usages: One for each resource.
        budget: The budget of a month in US dollars; None without one.
    """
    usages = list(usages)
    for usage in usages:
        yield from _points_of_groups(usage)
        yield from _points_of_app(usage)
    if not usages:
        return
    now = max(usage.observed_at for usage in usages)
    if budget is not None:
        yield UsagePoint(BUDGET, float(budget), now, {})
    if newest := max((usage.newest for usage in usages if usage.newest), default=None):
        end = dt.datetime.combine(newest, dt.time(), dt.timezone.utc) + dt.timedelta(days=1)
        # The running day is known until now at the most.
        yield UsagePoint(DATA_END, int(min(end, now).timestamp()), now, {})


def _points_of_groups(usage: Usage) -> Iterator[UsagePoint]:
    for group, days in usage.days.items():
        daily, monthly, attributes = DAILY, MONTHLY, {RESOURCE: usage.resource}
        if group.site is not None:
            daily, monthly = SITE_DAILY, SITE_MONTHLY
            attributes[SITE] = group.site
        periods = [
            *((daily, amount, DATE, day.isoformat()) for day, amount in days.items()),
            *((monthly, usage.used(month, group), MONTH, month) for month in usage.months()),
        ]
        for instrument, value, name, period in periods:
            yield UsagePoint(
                instrument,
                float(value),
                usage.observed_at,
                {**attributes, name: period},
                group.environment_id,
            )


def _points_of_app(usage: Usage) -> Iterator[UsagePoint]:
    def point(instrument: Instrument, value: Decimal | float, **attributes: str) -> UsagePoint:
        named = {RESOURCE: usage.resource, **({MONTH: attributes["month"]} if attributes else {})}
        return UsagePoint(instrument, float(value), usage.observed_at, named)

    price, forecast = usage.price, usage.forecast()
    for month in usage.months():
        yield point(COST, usage.cost(month), month=month)
    yield point(ALLOWANCE, price.allowance)
    if price.allowance:
        yield point(UTILIZATION, usage.used(usage.month) / price.allowance)
    if forecast.exhausted_at is not None:
        yield point(EXHAUSTION, int(forecast.exhausted_at.timestamp()))
    yield point(FORECAST, forecast.used)
    yield point(COST_FORECAST, forecast.cost)
    yield point(REFRESH, int(usage.observed_at.timestamp()))


def encode_points(
    points: Sequence[UsagePoint], identity: Identity, protocol: str, max_bytes: int
) -> Iterator[ExportRequest]:
    """Yield OTLP requests with the points, each of at most `max_bytes`.

    Args:
        points: The points.
        identity: Identity of the app, with the names of its environments.
        protocol: `http/protobuf` or `http/json`.
        max_bytes: Maximum size of a request before compression; exceeded by a single point only.
    """
    for first in range(0, len(points), MAX_POINTS):
        yield from _encode(points[first : first + MAX_POINTS], identity, protocol, max_bytes)


def _encode(
    points: Sequence[UsagePoint], identity: Identity, protocol: str, max_bytes: int
) -> Iterator[ExportRequest]:
    request = encode_request(_resource_metrics(points, identity), protocol)
    if request.size <= max_bytes or len(points) < 2:
        yield request
        return
    middle = len(points) // 2
    for part in (points[:middle], points[middle:]):
        yield from _encode(part, identity, protocol, max_bytes)


def _resource_metrics(points: Iterable[UsagePoint], identity: Identity) -> list[Json]:
    # Prometheus tells resources apart by this attribute and the service alone.
    of_app = replace(identity, environments={}, attributes={"service.instance.id": identity.app_id})
    resources: dict[str | None, dict[str, Json]] = {}
    for point in points:
        metrics = resources.setdefault(point.environment_id, {})
        instrument = point.instrument
        metric = metrics.setdefault(
            instrument.name,
            {
                "name": instrument.name,
                "unit": instrument.unit,
                "description": instrument.description,
                "gauge": {"dataPoints": []},
            },
        )
        metric["gauge"]["dataPoints"].append(_data_point(point))
    return [
        {
            "resource": (identity if environment_id else of_app).resource({}, None, environment_id),
            "schemaUrl": SCHEMA_URL,
            "scopeMetrics": [{"scope": {"name": SCOPE_NAME}, "metrics": list(metrics.values())}],
        }
        for environment_id, metrics in resources.items()
    ]


def _data_point(point: UsagePoint) -> Json:
    value = point.value
    return {
        **({"asInt": str(value)} if isinstance(value, int) else {"asDouble": value}),
        "timeUnixNano": str(_nanoseconds(point.time)),
        "attributes": [
            {"key": key, "value": any_value(text)} for key, text in sorted(point.attributes.items())
        ],
    }


def _nanoseconds(moment: dt.datetime) -> int:
    return round(moment.timestamp() * 1e6) * 1000
