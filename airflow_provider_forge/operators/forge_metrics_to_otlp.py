"""The operator: one data interval of Forge metrics, from Atlassian's gateway to an OTLP endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_forge.exceptions import (
    BrokenAnswer,
    ConfigurationError,
    FinalError,
    WindowExpired,
    WindowNotOver,
)
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    import pendulum
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.gateway.windows import Window
    from airflow_provider_forge.otlp.encode import Export

__all__ = ["ForgeMetricsToOtlpOperator"]


class ForgeMetricsToOtlpOperator(BaseOperator):
    """Sends the metrics of one interval to an OTLP endpoint, oldest first, one gateway call per quarter hour.

    The interval is the one given, else the run's data interval, else (a manual run without a logical date)
    the last settled quarter hour before the run. It returns a summary::

        {"window": "2026-11-23T05:00:00Z/2026-11-23T05:15:00Z", "calls": 1, "points": 812,
         "sent": 812, "rejected": 0, "expired": 0, "request_ids": ["…"]}

    Errors that trying again cannot mend fail the task without a retry: bad input, refused credentials, a
    refused query, an expired window, rejected points. All others leave it to Airflow's retries.

    Args:
        forge_conn_id: Connection to Atlassian's gateway.
        otlp_conn_id: Connection to the receiver.
        app_id: ARI or UUID of the app; default is the Forge Connection's. Templated.
        environments: Names, UUIDs or ARIs, as a list or comma-separated; default is the Connection's.
            Templated.
        metrics: Metric labels, likewise. Templated.
        interval_start: First moment of the interval, aware, as a datetime or ISO 8601 text; empty text counts
            as not given. Templated.
        interval_end: First moment after it. Templated.
        resource_attributes: Attributes for the resource of all points; they win over Atlassian's and ours.
            Templated.
        conform: Put right what Atlassian labels wrongly, and give each app and environment a resource with a
            stable identity. False passes Atlassian's metrics through as they are.
        on_expired: What to do about windows that are older than Atlassian's 14 days: `fail`, or `skip` them.

    Raises:
        ConfigurationError: `on_expired` or the combination of arguments is wrong.
    """

    template_fields: Sequence[str] = (
        "app_id",
        "environments",
        "metrics",
        "interval_start",
        "interval_end",
        "resource_attributes",
    )
    template_fields_renderers = {"resource_attributes": "json"}  # noqa: RUF012 - as the base class has it
    ui_color = "#e9f2ff"

    def __init__(
        self,
        *,
        forge_conn_id: str = ForgeMetricsHook.default_conn_name,
        otlp_conn_id: str = OtlpHook.default_conn_name,
        app_id: str | None = None,
        environments: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] | None = None,
        interval_start: dt.datetime | str | None = None,
        interval_end: dt.datetime | str | None = None,
        resource_attributes: Mapping[str, Any] | None = None,
        conform: bool = True,
        on_expired: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_expired not in ("fail", "skip"):
            raise ConfigurationError("on_expired", f"{on_expired!r} is neither 'fail' nor 'skip'")
        if resource_attributes and not conform:
            raise ConfigurationError(
                "resource_attributes", "need conform=True: without it nothing is changed"
            )
        self.forge_conn_id = forge_conn_id
        self.otlp_conn_id = otlp_conn_id
        self.app_id = app_id
        self.environments = environments
        self.metrics = metrics
        self.interval_start = interval_start
        self.interval_end = interval_end
        self.resource_attributes = resource_attributes
        self.conform = conform
        self.on_expired = on_expired

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the task.

        Raises:
            AirflowFailException: An error that trying again cannot mend.
            AirflowSkipException: All of the interval is older than 14 days, and `on_expired` is `skip`.
            RetryableError: Anything else that went wrong.
        """
        try:
            return self._execute(context)
        except FinalError as error:
            raise AirflowFailException(str(error)) from error

    def _execute(self, context: Context) -> dict[str, Any]:
        import pendulum

        from airflow_provider_forge.otlp.conform import check_attributes

        check_attributes(self.resource_attributes or {})
        interval = self._interval(context)
        windows, expired = self._windows(interval, pendulum.now("UTC"))
        forge = ForgeMetricsHook(self.forge_conn_id, app_id=self.app_id or None)
        points = 0
        request_ids = []
        with OtlpHook(self.otlp_conn_id).get_conn() as receiver:
            for window in windows:
                try:
                    metrics = forge.fetch(window.start, window.end, self.environments, self.metrics)
                except WindowExpired as error:  # while it waited for the rate limit
                    if self.on_expired == "fail":
                        raise
                    self.log.warning("Left out: %s", error)
                    expired += 1
                    continue
                export = self._export(metrics, forge.service_name, receiver.endpoint.protocol)
                if export.metrics:
                    receiver.export(export)
                self._tell(metrics, export)
                points += export.points
                request_ids.append(metrics.request_id)
        if not request_ids:
            raise AirflowSkipException(f"All of {interval} is older than the 14 days that Atlassian keeps")
        return {
            "window": str(interval),
            "calls": len(request_ids),
            "points": points,
            "sent": points,
            "rejected": 0,
            "expired": expired,
            "request_ids": request_ids,
        }

    def _interval(self, context: Context) -> Window:
        """Return what the run is to deliver; only here does it matter what kind of run it is."""
        from airflow_provider_forge.gateway.windows import Window, parse_time

        start, end = self.interval_start or None, self.interval_end or None
        if start is not None and end is not None:
            return Window(parse_time("interval_start", start), parse_time("interval_end", end))
        if start is not None or end is not None:
            missing, given = ("interval_end", "start") if start is not None else ("interval_start", "end")
            raise ConfigurationError(missing, f"is missing beside interval_{given}")
        start, end = context.get("data_interval_start"), context.get("data_interval_end")
        if start is None or end is None:
            return Window.last_settled(context["dag_run"].run_after)
        if start == end:
            raise ConfigurationError(
                "schedule",
                "gives the run an empty data interval, as cron texts do: use ForgeMetricsTimetable()",
            )
        return Window(start, end)

    def _windows(self, interval: Window, now: pendulum.DateTime) -> tuple[list[Window], int]:
        """Return the windows to ask for, oldest first, and how many are left out because they expired."""
        from airflow_provider_forge.gateway.windows import too_old

        if interval.end > now:
            raise WindowNotOver(
                f"The window {interval} is not over: what it would deliver now would be incomplete. It is"
                " tried again; should that not help, set this machine's clock",
                retry_after=(interval.end - now).total_seconds(),
            )
        windows = list(interval.split())
        alive = [window for window in windows if not window.expired(now)]
        expired = len(windows) - len(alive)
        if expired and self.on_expired == "fail":
            raise too_old(f"The interval {interval}", now)
        if expired:
            self.log.warning("Left out %d windows older than the 14 days that Atlassian keeps", expired)
        return alive, expired

    def _export(self, metrics: AppMetrics, service_name: str | None, protocol: str) -> Export:
        """Make the request to the receiver out of the gateway's answer."""
        from airflow_provider_forge.otlp.conform import Identity, conform
        from airflow_provider_forge.otlp.encode import encode
        from airflow_provider_forge.otlp.model import MalformedOtlp, decode
        from airflow_provider_forge.otlp.oddities import find_oddities

        try:
            resource_metrics = decode(metrics.resource_metrics)
            if odd := str(find_oddities(resource_metrics)):
                self.log.warning("%s: %s; sent as they are", metrics.window, odd)
            if not self.conform:
                return encode(resource_metrics, protocol, verbatim=metrics.resource_metrics)
            identity = Identity(
                metrics.app_id,
                service_name,
                {environment.id: environment.name for environment in metrics.environments},
                self.resource_attributes or {},
            )
            return encode(conform(resource_metrics, identity), protocol)
        except MalformedOtlp as error:
            raise BrokenAnswer(
                f"The gateway's metrics for {metrics.window} are not OTLP ({error}). They are asked for"
                " again; should that not end, please open an issue with airflow-provider-forge",
                request_id=metrics.request_id,
            ) from error

    def _tell(self, metrics: AppMetrics, export: Export) -> None:
        self.log.info(
            "%s: %d points sent (call %.2f s, waited %.1f s for the rate limit, request id %s)",
            metrics.window,
            export.points,
            metrics.elapsed,
            metrics.waited,
            metrics.request_id,
        )
