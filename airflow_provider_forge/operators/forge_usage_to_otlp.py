"""The operator that exports usage and cost."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_forge.exceptions import AccessForbidden, ConfigurationError, QueryRefused
from airflow_provider_forge.gateway.queries import GROUPINGS, RESOURCES, parse_choice, parse_list
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.operators import arguments
from airflow_provider_forge.operators.links import DeveloperConsoleLink
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.usage.prices import parse_amount
from airflow_provider_forge.utils.retries import final_errors, with_retry_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.payload.conform import Identity
    from airflow_provider_forge.usage.metrics import UsagePoint
    from airflow_provider_forge.usage.reading import Reading

__all__ = ["ForgeUsageToOtlpOperator"]

log = get_logger(__name__)

MAX_LOOKBACK = dt.timedelta(days=28)
"""Atlassian keeps about 60 days, and the month in which the lookback begins is read as a whole."""


class ForgeUsageToOtlpOperator(BaseOperator):
    """Exports an app's usage and cost: days, months, share of the allowance, cost, forecast.

    Each run reads the present state of all days since the first of the month in which `lookback` begins, at
    one call per resource or more, within a rate limit of its own. The points are gauges with the time of the
    observation, so a revised day replaces its earlier value, and a re-run changes nothing.

    A resource that the account may not read, or that the gateway does not know, is left out with a warning.
    If another resource fails, the task sends all others, fails, and is retried.

    It returns::

        {"month": "2026-11", "cost": "5.75275", "forecast": "8.10", "points": 512, "calls": 12,
         "resources": ["FUNCTION_COMPUTE", "…"], "refused": []}

    `cost` and `forecast` are those of the running month in US dollars, of all resources that were read.

    Args:
        forge_conn_id: Connection to Atlassian's gateway.
        otlp_conn_id: Connection to the receiver.
        app_id: ARI or UUID of the app; default is the Forge Connection's. Templated.
        usage_resources: Resources to read, as a list or comma-separated; default is all twelve. Templated.
        group_by: `environment` or `site`.
        lookback: How far back days may still be revised; 28 days at most.
        prices: Prices that differ from Atlassian's, see `load_prices`; default is the Forge Connection's
            `usage_prices`. Templated.
        budget: Budget of a month in US dollars, for alerts; None without one.
        export_sites: Whether to send `forge.site` as well, with the host name and the edition of each site on
            which the app is installed. It names customers. The calls that it takes are limited like those for
            metrics, which go before them.

    Raises:
        ConfigurationError: An option is wrong.
    """

    template_fields: Sequence[str] = ("app_id", "usage_resources", "prices")
    ui_color = "#e9f2ff"
    operator_extra_links = (DeveloperConsoleLink(),)

    def __init__(
        self,
        *,
        forge_conn_id: str = ForgeMetricsHook.default_conn_name,
        otlp_conn_id: str = OtlpHook.default_conn_name,
        app_id: str | None = None,
        usage_resources: str | Sequence[str] | None = None,
        group_by: str = "environment",
        lookback: dt.timedelta = dt.timedelta(days=7),
        prices: Mapping[str, Any] | str | None = None,
        budget: float | str | None = None,
        export_sites: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_retry_policy(self, kwargs))
        parse_choice("group_by", group_by, tuple(GROUPINGS))
        arguments.check_conn_id("forge_conn_id", forge_conn_id)
        arguments.check_conn_id("otlp_conn_id", otlp_conn_id)
        if not isinstance(lookback, dt.timedelta) or not dt.timedelta(0) < lookback <= MAX_LOOKBACK:
            raise ConfigurationError("lookback", f"{lookback!r} is not a timedelta above 0 and up to 28 days")
        if budget is not None:
            parse_amount("budget", budget)
        self.forge_conn_id = forge_conn_id
        self.otlp_conn_id = otlp_conn_id
        self.app_id = app_id
        self.usage_resources = usage_resources
        self.group_by = group_by
        self.lookback = lookback
        self.prices = prices
        self.budget = budget
        self.export_sites = export_sites
        arguments.check_switches(self, "export_sites")

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - Airflow's signature
        """Read and send the usage.

        Raises:
            AirflowFailException: An error that a retry cannot fix.
            RetryableError: Any other error.
        """
        from airflow_provider_forge.usage.metrics import points_of_usage

        forge = ForgeMetricsHook(self.forge_conn_id, app_id=self.app_id or None)
        with final_errors(), OtlpHook(self.otlp_conn_id).get_conn() as receiver:
            reading = self._read(forge)
            budget = None if self.budget is None else parse_amount("budget", self.budget)
            identity = self._identity(forge, reading)
            sent = _send(receiver, list(points_of_usage(reading.usages, budget)), identity)
            # Last, so that an error of the sites does not hold back the usage.
            sent += _send(receiver, self._points_of_sites(forge), identity)
            summary = self._report(reading, sent)
            reading.check()
        return summary

    def _read(self, forge: ForgeMetricsHook) -> Reading:
        from airflow_provider_forge.usage.months import interval_to_read
        from airflow_provider_forge.usage.prices import load_prices
        from airflow_provider_forge.usage.reading import read_resources

        resources = parse_list("usage_resources", self.usage_resources or RESOURCES)
        for resource in resources:
            parse_choice("usage_resources", resource, RESOURCES)
        prices = load_prices(self.prices) if self.prices else forge.usage_prices
        start, end = interval_to_read(pendulum.now("UTC"), self.lookback)
        log.info("Reading the usage of %d resources since %s", len(resources), start.date())
        reading = read_resources(
            lambda resource: forge.fetch_usage(resource, start, end, None, GROUPINGS[self.group_by]),
            resources,
            prices,
            start,
        )
        for resource, error in reading.left_out.items():
            log.warning("The usage of %s is left out: %s", resource, error)
        return reading

    def _points_of_sites(self, forge: ForgeMetricsHook) -> list[UsagePoint]:
        """Return the points of `forge.site`; none if it is switched off, or refused by the gateway."""
        if not self.export_sites:
            return []
        from airflow_provider_forge.gateway.sites import find_sites
        from airflow_provider_forge.usage.sites import points_of_sites

        try:
            sites = find_sites(forge.get_conn(), forge.app_id)
        except (AccessForbidden, QueryRefused) as error:
            log.warning("The series forge.site is left out: %s", error)
            return []
        unnamed = sum(site.host is None for site in sites)
        log.info(
            "The app is installed on %d sites; Atlassian names %d of them", len(sites), len(sites) - unnamed
        )
        return list(points_of_sites(sites, pendulum.now("UTC")))

    def _identity(self, forge: ForgeMetricsHook, reading: Reading) -> Identity:
        """Return the identity of the app, with the names of the environments that have usage."""
        from airflow_provider_forge.payload.conform import Identity

        ids = {group.environment_id for usage in reading.usages for group in usage.days}
        found = forge.find_environments(sorted(each for each in ids if each))
        names = {environment.id: environment.name for environment in found}
        return Identity(forge.app_id, forge.service_name, names)

    def _report(self, reading: Reading, points: int) -> dict[str, Any]:
        """Log a line for each resource, and return the summary."""
        from airflow_provider_forge.usage.report import rows_of, total_of

        month = max((usage.month for usage in reading.usages), default=None)
        rows = rows_of(reading.usages, month) if month else []
        for row in rows:
            log.info("%s", row.describe())
        cost, forecast = total_of(rows)
        log.info("Usage of %s: cost so far $%s, forecast $%s, %d points sent", month, cost, forecast, points)
        return {
            "month": month,
            "cost": str(cost),
            "forecast": str(forecast),
            "points": points,
            "calls": reading.calls,
            "resources": [row.resource for row in rows],
            "refused": sorted(reading.refused),
        }


def _send(receiver: OtlpClient, points: Sequence[UsagePoint], identity: Identity) -> int:
    """Send points, if there are any; return their number."""
    from airflow_provider_forge.usage.metrics import encode_points
    from airflow_provider_forge.usage.sending import send_requests

    if not points:
        return 0
    endpoint = receiver.endpoint
    requests = encode_points(points, identity, endpoint.protocol, endpoint.limits.max_body_bytes)
    return send_requests(receiver, requests)
