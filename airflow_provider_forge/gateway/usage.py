"""The usage of one resource by an app: all pages, as typed periods with exact amounts."""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.exceptions import BrokenAnswer
from airflow_provider_forge.gateway.queries import GROUPINGS, USAGE, Query, app_ari
from airflow_provider_forge.gateway.responses import MetricsData, read_usage_page
from airflow_provider_forge.text import printable
from airflow_provider_forge.windows import find_moment, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_forge.gateway.client import GatewayClient
    from airflow_provider_forge.gateway.responses import GatewayResponse, UsagePage
    from airflow_provider_forge.windows import Window

__all__ = ["ResourceUsage", "UsagePeriod", "UsageQuery", "read_usage"]

MAX_PAGES = 200
"""Pages of one query. Each costs a call, so a list without end would exhaust the budget."""

ONE_DAY = dt.timedelta(days=1)
LONGEST_PERIOD = dt.timedelta(days=31)
"""The longest resolution is a month, and the first period may have begun before the time asked for."""

MAX_DIGITS = 18
"""Maximum exponent of an amount: no app uses more, and sums of larger ones are not exact."""

MAX_DECIMALS = 30
"""Maximum negative exponent of an amount."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class UsageQuery:
    """A query for usage.

    Attributes:
        app_id: UUID of the app.
        resource: One of `RESOURCES`.
        interval: Time range; the gateway keeps about 60 days.
        environment_ids: UUIDs of environments, each for calls of its own; empty for all together.
        group_by: A value of `GROUPINGS`; None for totals.
    """

    app_id: str
    resource: str
    interval: Window
    environment_ids: tuple[str, ...] = ()
    group_by: str | None = None

    def variables(self, environment_id: str | None, page: int) -> dict[str, Any]:
        """Return the variables of `USAGE` for an environment, None for all, and a page, from 1."""
        start, end = (format_time(each, "milliseconds") for each in (self.interval.start, self.interval.end))
        filters: dict[str, Any] = {
            "resource": self.resource,
            "interval": {"start": start, "end": end},
            "page": page,
        }
        if environment_id:
            filters["environment"] = environment_id
        return {"appId": app_ari(self.app_id), "filters": filters, "groupBy": self.group_by}


@dataclass(frozen=True)
class UsagePeriod:
    """The usage of a resource in one period, as a whole or by one environment or site.

    Attributes:
        period: The period as Atlassian writes it, such as `2026-11-26`.
        start: Start of the period in UTC.
        resolution: Length of the period: `ONE_HOUR`, `ONE_DAY`, `ONE_WEEK` or `ONE_MONTH`.
        amount: The usage, exactly as received.
        unit: Unit of the amount, such as `GB-seconds`.
        environment_id: UUID of the environment; None if the usage is not grouped or limited by environment.
        site: ARI of the site; None if the usage is not grouped by site.
    """

    period: str
    start: dt.datetime
    resolution: str
    amount: Decimal
    unit: str
    environment_id: str | None = None
    site: str | None = None

    @property
    def key(self) -> tuple[str, str, str | None, str | None]:
        """The identity of the period in a response."""
        return self.period, self.resolution, self.environment_id, self.site


@dataclass(frozen=True)
class ResourceUsage:
    """The usage of one resource.

    Attributes:
        app_id: UUID of the app.
        resource: The requested resource.
        periods: Its periods, in the order received.
        observed_at: Time at which the first page was requested; aware. The usage is at least as new.
        request_ids: The gateway's ids of the requests.
    """

    app_id: str
    resource: str
    periods: tuple[UsagePeriod, ...]
    observed_at: dt.datetime
    request_ids: tuple[str, ...]


def read_usage(client: GatewayClient, query: UsageQuery, observed_at: dt.datetime) -> ResourceUsage:
    """Fetch all pages of a query.

    Args:
        client: Client of the account, with the rate limit of usage.
        query: The query.
        observed_at: The present, aware.

    Raises:
        BrokenAnswer: Pages repeat each other or have no end, or an amount or a period is malformed.
        ForgeError: The gateway cannot be reached or reports a failure.
    """
    periods: list[UsagePeriod] = []
    request_ids: list[str] = []
    for environment_id in query.environment_ids or (None,):
        for page, request_id in _pages(client, query, environment_id):
            periods += page
            request_ids += [request_id] if request_id else []
    return ResourceUsage(query.app_id, query.resource, tuple(periods), observed_at, tuple(request_ids))


def _pages(
    client: GatewayClient, query: UsageQuery, environment_id: str | None
) -> Iterator[tuple[list[UsagePeriod], str | None]]:
    """Yield the periods of each page, and the id of its request."""
    seen: set[Any] = set()
    for number in range(1, MAX_PAGES + 1):
        call = Query(USAGE, query.variables(environment_id, number), MetricsData)
        page, periods, request_id = client.request(call, functools.partial(_read_page, query, environment_id))
        keys = [each.key for each in periods]
        if len(seen) + len(keys) != len(seen.union(keys)):
            raise BrokenAnswer(
                f"The gateway's pages of {query.resource} repeat each other, so none of them is used: periods"
                " would be counted twice",
                request_id=request_id,
            )
        seen.update(keys)
        yield periods, request_id
        if _is_last(page, periods):
            return
    raise BrokenAnswer(
        f"The gateway's list of the usage of {query.resource} has no end: {MAX_PAGES} pages were read. Ask"
        " for a shorter time, or for one environment"
    )


def _read_page(
    query: UsageQuery, environment_id: str | None, response: GatewayResponse[MetricsData]
) -> tuple[UsagePage, list[UsagePeriod], str | None]:
    """Return a page, its periods, and the id of its request."""
    page = read_usage_page(response)
    return page, list(_periods(page, query, environment_id, response)), response.request_id


def _is_last(page: UsagePage, periods: list[UsagePeriod]) -> bool:
    """Return whether there are no further pages; Atlassian sends no total.

    Whether a page's size counts periods or their groups is not published. So only a page that is short by
    both counts is the last one; after any other, the next page decides, which may be empty.
    """
    size = page.pagination.page_size if page.pagination else 1
    return len(periods) < size and len(page.resource_usage or ()) < size


def _periods(
    page: UsagePage,
    query: UsageQuery,
    environment_id: str | None,
    response: GatewayResponse[MetricsData],
) -> Iterator[UsagePeriod]:
    by_site = query.group_by == GROUPINGS["site"]
    for node in page.resource_usage or ():
        start = _start(node.period)
        if start is None:
            response.broken(f"{node.period!r} as a period, which is not a date")
        if not query.interval.start - LONGEST_PERIOD <= start <= query.interval.end + ONE_DAY:
            response.broken(f"the period {node.period!r}, which is outside of {query.interval}")
        if node.groups is None:
            amount = _amount(node.tokens_consumed, query.resource, response)
            yield UsagePeriod(node.period, start, node.resolution, amount, node.token_unit, environment_id)
        for group in node.groups or ():
            # An environment is named by its UUID or its ARI.
            environment = environment_id if by_site else group.group_value.rsplit("/", 1)[-1].lower()
            yield UsagePeriod(
                node.period,
                start,
                node.resolution,
                _amount(group.tokens_consumed, query.resource, response),
                group.token_unit,
                environment and printable(environment),
                printable(group.group_value) if by_site else None,
            )


def _start(period: str) -> dt.datetime | None:
    """Return the start of a period: a date, or a time that is UTC unless it has an offset."""
    return find_moment(period) if _DATE.match(period) else None


def _amount(text: str | None, resource: str, response: GatewayResponse[MetricsData]) -> Decimal:
    try:
        amount = Decimal(text or "")
    except InvalidOperation:
        amount = Decimal("NaN")
    if amount == 0:
        return Decimal(0)  # whatever its exponent
    if not amount.is_finite() or not -MAX_DECIMALS <= amount.adjusted() <= MAX_DIGITS:
        response.broken(f"{text!r} as the usage of {resource}, which is not a number of that size")
    return amount
