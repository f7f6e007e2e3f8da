"""The operator: one data interval of Forge metrics, from Atlassian's gateway to an OTLP endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_forge.exceptions import (
    BrokenAnswer,
    ConfigurationError,
    FinalError,
    PointsRejected,
    WindowExpired,
)
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_forge.gateway.client import AppMetrics
    from airflow_provider_forge.gateway.windows import Window
    from airflow_provider_forge.otlp.client import OtlpClient
    from airflow_provider_forge.otlp.encode import Export

__all__ = ["ForgeMetricsToOtlpOperator"]


class _Delivered(NamedTuple):
    """What is left of a window once it is delivered: a long interval has many, and each can be large."""

    points: int
    request_id: str | None


class ForgeMetricsToOtlpOperator(BaseOperator):
    """Sends the metrics of one interval to an OTLP endpoint, oldest first, one gateway call per quarter hour.

    The interval is the one given, else the run's data interval, else (a manual run without a logical date)
    the last settled quarter hour before the run. It returns a summary::

        {"window": "2026-11-23T05:00:00Z/2026-11-23T05:15:00Z", "calls": 1, "points": 812,
         "sent": 812, "rejected": 0, "expired": 0, "request_ids": ["…"]}

    A task that comes before its interval has settled is deferred until then, which uses up no retry. Errors
    that trying again cannot mend fail the task without a retry: bad input, refused credentials, a
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
        """Run the task; defer it until the interval has settled, should it be too early.

        Raises:
            AirflowFailException: An error that trying again cannot mend.
            AirflowSkipException: All of the interval is older than 14 days, and `on_expired` is `skip`.
            RetryableError: Anything else that went wrong.
        """
        return self._run(context, wait_until_settled=True)

    def resume(self, context: Context, event: Any = None) -> dict[str, Any]:  # noqa: ARG002 - Airflow's signature
        """Go on after a deferral: the triggerer's clock says that it is time, whatever the worker's does."""
        return self._run(context, wait_until_settled=False)

    def _run(self, context: Context, *, wait_until_settled: bool) -> dict[str, Any]:
        import pendulum

        from airflow_provider_forge.operators.interval import find_interval, settled_at

        try:
            interval = find_interval(context, self.interval_start, self.interval_end)
            settled = settled_at(interval, context, now := pendulum.now("UTC"))
            if wait_until_settled and settled > now:
                self.log.info("%s has settled at %s: deferred until then", interval, settled)
                self.defer(trigger=_wake_at(settled), method_name="resume")
            return self._deliver(interval, now)
        except FinalError as error:
            # The message says it all; a second traceback would only bury it.
            raise AirflowFailException(str(error)) from None

    def _deliver(self, interval: Window, now: dt.datetime) -> dict[str, Any]:
        from airflow_provider_forge.operators.interval import windows_alive
        from airflow_provider_forge.otlp.conform import check_attributes

        check_attributes(self.resource_attributes or {})
        windows, expired = windows_alive(interval, now, self.on_expired)
        delivered: list[_Delivered] = []
        rejections: list[PointsRejected] = []
        forge = ForgeMetricsHook(self.forge_conn_id, app_id=self.app_id or None)
        with OtlpHook(self.otlp_conn_id).get_conn() as receiver:
            for window in windows:
                try:
                    delivered.append(self._deliver_window(window, forge, receiver))
                except PointsRejected as rejection:
                    # OTLP forbids to send them again, and they must not hold back later windows.
                    self.log.warning("%s", rejection)
                    rejections.append(rejection)
                except WindowExpired as error:  # while it waited for the rate limit
                    if self.on_expired == "fail":
                        raise
                    self.log.warning("Left out: %s", error)
                    expired += 1
        if rejections:
            raise _all_of(rejections)
        if expired and not delivered:
            raise AirflowSkipException(f"All of {interval} is older than the 14 days that Atlassian keeps")
        points = sum(window.points for window in delivered)
        return {
            "window": str(interval),
            "calls": len(delivered),
            "points": points,
            "sent": points,
            "rejected": 0,
            "expired": expired,
            "request_ids": [window.request_id for window in delivered],
        }

    def _deliver_window(self, window: Window, forge: ForgeMetricsHook, receiver: OtlpClient) -> _Delivered:
        metrics = forge.fetch(window.start, window.end, self.environments, self.metrics)
        export = self._export(metrics, forge.service_name, receiver.endpoint.protocol)
        if export.metrics:
            receiver.export(export)
        self.log.info(
            "%s: %d points sent (call %.2f s, waited %.1f s for the rate limit, request id %s)",
            window,
            export.points,
            metrics.elapsed,
            metrics.waited,
            metrics.request_id,
        )
        return _Delivered(export.points, metrics.request_id)

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


def _wake_at(moment: dt.datetime) -> BaseTrigger:
    from airflow.providers.standard.triggers.temporal import DateTimeTrigger

    return DateTimeTrigger(moment)


def _all_of(rejections: list[PointsRejected]) -> PointsRejected:
    if len(rejections) == 1:
        return rejections[0]
    return PointsRejected(
        " | ".join(rejection.message for rejection in rejections),
        rejected=sum(rejection.rejected for rejection in rejections),
    )
