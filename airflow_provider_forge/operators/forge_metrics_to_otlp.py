"""The operator that exports a data interval of Forge metrics from Atlassian's gateway to an OTLP endpoint."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from typing import TYPE_CHECKING, Any, NoReturn

import pendulum
from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, conf

from airflow_provider_forge.exceptions import ConfigurationError, DeliveryBusy, RateLimited, RetryableError
from airflow_provider_forge.gateway.queries import parse_choice
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.operators import arguments
from airflow_provider_forge.operators.expired import report_expired
from airflow_provider_forge.operators.help import EXPORT_TASK_HELP, with_help
from airflow_provider_forge.operators.links import DeveloperConsoleLink
from airflow_provider_forge.operators.openings import (
    SOURCES,
    check_connections,
    open_destinations,
    open_receivers,
    open_source,
)
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.utils.ledger import delivery_asset
from airflow_provider_forge.utils.retries import final_errors, with_retry_policy
from airflow_provider_forge.utils.run_interval import find_interval, resume_at, settled_at
from airflow_provider_forge.utils.task_metrics import report_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Asset, Context

    from airflow_provider_forge.delivery.destination import Destination
    from airflow_provider_forge.delivery.exporter import Exporter
    from airflow_provider_forge.delivery.progress import Progress
    from airflow_provider_forge.delivery.sender import Policy
    from airflow_provider_forge.windows import Window

__all__ = ["ForgeMetricsToOtlpOperator"]

log = get_logger(__name__)

MIN_DEFERRAL = 15.0
"""Seconds; for a shorter wait the task keeps its worker, because starting another takes as long."""


class ForgeMetricsToOtlpOperator(BaseOperator):
    """Exports the metrics of one interval to an OTLP endpoint, oldest first, one gateway call per 15 minutes.

    The interval is the one given, else the run's data interval, else (a manual run without a logical date)
    the last settled quarter hour before the run.

    If the DAG's `params` are `trigger_form()`, a manual run's trigger form can set the interval,
    `environments`, `metrics` and `resend`. Its values override the arguments.

    Points that the receiver acknowledges are recorded one by one in a ledger. A re-run sends only points that
    are not on record, even if earlier runs had other windows. The ledger is stored at the OTLP Connection's
    `ledger_url`, else (Airflow 3.3 and later) in the state store of the asset that represents the pair of
    Connections. The task has that asset as inlet and outlet. The asset's event contains the summary, which
    the task also returns::

        {"window": "2026-11-23T05:00:00Z/2026-11-23T05:15:00Z", "calls": 2, "replayed": 0, "unarchived": 0,
         "empty": 0, "points": 1630, "sent": 812, "unchanged": 818, "changed": 0, "ambiguous": 0,
         "rejected": 0, "batches": 1, "warnings": 0, "expired": 0, "digested": False, "contended": False,
         "request_ids": ["…", "…"]}

    A task whose interval has not settled is deferred until it has. A task whose window another task is
    delivering is deferred until that one ends. Neither uses a retry, nor does a wait for the rate limit: the
    task sleeps for up to a minute, and beyond that is deferred or keeps sleeping, see `deferrable`. Errors
    that a retry cannot fix fail the task at once: wrong arguments, refused credentials, a refused query, an
    expired window, rejected points. All others are left to Airflow's retries. On Airflow 3.3 and later the
    next try starts when the gateway or the receiver has asked for it.

    Args:
        forge_conn_id: Connection to Atlassian's gateway.
        otlp_conn_id: Connection to the receiver, or a list of several. Each window is then fetched once for
            all of them, and each has its own ledger, batches and `max_age`. One that fails does not hold up
            the others: the task fails when they have all they need, and its retry delivers the missing
            points. The summary has their sums, and those of each under `destinations`.
        app_id: ARI or UUID of the app; default is the Forge Connection's. Templated.
        environments: Names, UUIDs or ARIs, as a list or comma-separated; default is the Connection's.
            Templated.
        metrics: Metric labels, likewise. Templated.
        interval_start: Start of the interval, an aware datetime or ISO 8601 text; empty for none. Templated.
        interval_end: End of the interval, exclusive. Templated.
        resource_attributes: Attributes for the resource of all points; they override Atlassian's and ours.
            Templated.
        conform: Whether to correct metadata that Atlassian sets wrongly, and to give each app and environment
            a resource with a stable identity. False passes Atlassian's metrics through unchanged.
        on_expired: For windows older than Atlassian's 14 days, or than the destination accepts: `skip` them,
            or `fail`.
        on_changed: For points that were delivered and now have another value: `skip` them with a warning,
            `send` them again, or `fail` the task once everything else is delivered.
        on_ambiguous: For points that an earlier try sent without a known response: `resend` them with a
            warning, because each may be duplicated once, or `fail` the task likewise.
        resend: Whether to send all points again, whether on record or not. Templated.
        revisit_after: A run whose interval ended no longer ago than this also fetches the interval that lies
            this far back, for points that arrived late. None to switch it off.
        live_first: Whether a run of a catchup first starts a run of its DAG for the newest settled interval,
            and a run whose predecessor the schedule has skipped starts runs for the skipped intervals. The
            DAG needs a `ForgeMetricsTimetable`.
        deferrable: Whether to release the worker if the account's calls are reserved for more than the next
            minute. Default is Airflow's setting `operators.default_deferrable`.
        telemetry: Whether to send the exporter's own metrics, `forge.exporter.*`, to the receiver as well.
        source: Where windows are taken from: `gateway`; `archive`, the Forge Connection's `archive_url`,
            without a call; or `auto`, the gateway while it has the window, and the archive after that.

    Raises:
        ConfigurationError: An option or the combination of arguments is wrong.
    """

    template_fields: Sequence[str] = (
        "app_id",
        "environments",
        "metrics",
        "interval_start",
        "interval_end",
        "resource_attributes",
        "resend",
    )
    template_fields_renderers = {"resource_attributes": "json"}  # noqa: RUF012 - as the base class has it
    ui_color = "#e9f2ff"
    operator_extra_links = (DeveloperConsoleLink(),)

    def __init__(
        self,
        *,
        forge_conn_id: str = ForgeMetricsHook.default_conn_name,
        otlp_conn_id: str | Sequence[str] = OtlpHook.default_conn_name,
        app_id: str | None = None,
        environments: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] | None = None,
        interval_start: dt.datetime | str | None = None,
        interval_end: dt.datetime | str | None = None,
        resource_attributes: Mapping[str, Any] | None = None,
        conform: bool = True,
        on_expired: str = "skip",
        on_changed: str = "skip",
        on_ambiguous: str = "resend",
        resend: bool | str = False,
        revisit_after: dt.timedelta | None = dt.timedelta(hours=1),
        live_first: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        telemetry: bool = True,
        source: str = "gateway",
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_retry_policy(self, with_help(EXPORT_TASK_HELP, kwargs)))
        parse_choice("source", source, SOURCES)
        parse_choice("on_expired", on_expired, ("fail", "skip"))
        parse_choice("on_changed", on_changed, ("skip", "send", "fail"))
        parse_choice("on_ambiguous", on_ambiguous, ("resend", "fail"))
        if resource_attributes and not conform:
            raise ConfigurationError(
                "resource_attributes", "need conform=True: without it metrics are passed through unchanged"
            )
        arguments.check_duration("revisit_after", revisit_after, optional=True)
        arguments.check_conn_id("forge_conn_id", forge_conn_id)
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
        self.on_changed = on_changed
        self.on_ambiguous = on_ambiguous
        self.resend = resend
        self.revisit_after = revisit_after
        self.live_first = live_first
        self.deferrable = deferrable
        self.telemetry = telemetry
        self.check_only = False
        self.source = source
        arguments.check_switches(self, "conform", "live_first", "deferrable", "telemetry")
        self.conn_ids = arguments.parse_conn_ids(otlp_conn_id)
        self.assets = [delivery_asset(forge_conn_id, each) for each in self.conn_ids]
        # An outlet alone loses its state whenever the DAG file cannot be imported for a minute.
        self.inlets = _with(self.inlets, self.assets)
        self.outlets = _with(self.outlets, self.assets)

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the task; defer it if its interval has not settled.

        Raises:
            AirflowFailException: An error that a retry cannot fix.
            AirflowSkipException: All of the interval is too old, and `on_expired` is `skip`.
            RetryableError: Any other error.
        """
        with final_errors():
            self._apply_form(context)
            if self.check_only:
                check_connections(self.forge_conn_id, self.app_id or None, self.conn_ids)
            interval = find_interval(context, self.interval_start, self.interval_end)
            settled = settled_at(interval, context, now := pendulum.now("UTC"))
        if settled > now:
            log.info("%s settles at %s: deferred until then", interval.humanize(), settled)
            self.defer(trigger=resume_at(settled), method_name="execute_complete")
        return self._export(context, interval)

    def execute_complete(
        self,
        context: Context,
        event: Any = None,  # noqa: ARG002 - Airflow's signature
        progress: list[dict[str, Any]] | None = None,
        limited_since: float | None = None,
    ) -> dict[str, Any]:
        """Continue after a deferral. The triggerer's clock has decided on the time, so the worker's does not.

        Args:
            context: The task's context.
            event: The trigger's event.
            progress: Checkpoints of the destinations; None if the task had not begun before the deferral.
            limited_since: Time at which the rate limit deferred the task, in seconds since the epoch.
        """
        with final_errors():
            self._apply_form(context)
            interval = find_interval(context, self.interval_start, self.interval_end)
        return self._export(context, interval, progress, limited_since)

    def _export(
        self,
        context: Context,
        interval: Window,
        so_far: Sequence[dict[str, Any]] | None = None,
        limited_since: float | None = None,
    ) -> dict[str, Any]:
        """Export the interval's windows, and report the task's statistics however it ends."""
        if self.live_first and so_far is None:
            from airflow_provider_forge.coverage.catchup import start_other_runs

            start_other_runs(context, interval, pendulum.now("UTC"))
        patience = MIN_DEFERRAL if self.deferrable else None
        forge = ForgeMetricsHook(self.forge_conn_id, app_id=self.app_id or None, patience=patience)
        with final_errors(), contextlib.ExitStack() as stack:
            reports = open_receivers(self.conn_ids, stack)
            for report in reports:
                report.stats.archives = self.source != "archive" and forge.archive_url is not None
                if limited_since is not None:
                    report.stats.deferred = max(report.stats.started / 1e9 - limited_since, 0.0)
            stack.enter_context(report_task(reports, forge, self.dag_id, to_receiver=self.telemetry))
            destinations = open_destinations(self.conn_ids, self.assets, reports, context, forge)
            exporter = self._exporter(context, forge, destinations)
            self._resume(context, interval, exporter, forge, so_far)
            try:
                exporter.export()
            except (DeliveryBusy, RateLimited) as error:
                if isinstance(error, RateLimited) and not self.deferrable:
                    raise
                self._defer(error, destinations)
            for destination in destinations:
                if destination.checkpoint:
                    destination.checkpoint.conclude(destination.progress)
            return self._report(context, interval, destinations)

    def _report(
        self, context: Context, interval: Window, destinations: Sequence[Destination]
    ) -> dict[str, Any]:
        """Log the summary, put it into the assets' events, and return it; fail or skip the task."""
        from airflow_provider_forge.delivery.destination import check_all, summarize

        summary = summarize(interval, destinations)
        if self.live_first:  # also if windows have failed
            from airflow_provider_forge.coverage.catchup import continue_healing

            continue_healing(context, interval, pendulum.now("UTC"))
        check_all(destinations)
        if summary["expired"] and not (summary["points"] or summary["empty"]):
            reason = "" if self.source == "gateway" else ", or not in the archive"
            raise AirflowSkipException(f"{interval.humanize()} is too old to be delivered{reason}")
        # A mapped task has the assets only if they are among its outlets.
        if (events := context.get("outlet_events")) is not None:
            for asset, destination in zip(self.assets, destinations, strict=True):
                if asset in (context.get("outlets") or ()):
                    events[asset].extra = summary.get("destinations", {}).get(destination.name, summary)
        return summary

    def _defer(self, error: RetryableError, destinations: Sequence[Destination]) -> NoReturn:
        """Defer the task until the time that the error gives."""
        now = pendulum.now("UTC")
        moment = now.add(seconds=error.retry_after or 0)
        log.info("%s: deferred until %s", error, moment)
        progress = [each.checkpoint.describe(each.progress) for each in destinations if each.checkpoint]
        kwargs: dict[str, Any] = {"progress": progress}
        if isinstance(error, RateLimited):
            kwargs["limited_since"] = now.timestamp()
        self.defer(trigger=resume_at(moment), method_name="execute_complete", kwargs=kwargs)

    def _apply_form(self, context: Context) -> None:
        """Override arguments with the values of the run's trigger form."""
        from airflow_provider_forge.operators.form import check_conf_is_taken, check_conf_names, read_form

        run, params = context.get("dag_run"), context.get("params") or {}
        in_backfill = getattr(run, "run_type", None) == "backfill"
        check_conf_is_taken(run_conf := getattr(run, "conf", None) or {}, params, in_backfill=in_backfill)
        check_conf_names(run_conf, self.params)
        form = read_form(params, pendulum.now("UTC"), in_backfill=in_backfill)
        for name, value in form.items():
            setattr(self, name, value)
        if self.live_first and form:
            from airflow_provider_forge.coverage.catchup import restore_scheduled

            restore_scheduled(context, form, pendulum.now("UTC"))

    def _exporter(
        self, context: Context, forge: ForgeMetricsHook, destinations: Sequence[Destination]
    ) -> Exporter:
        from airflow_provider_forge.delivery.exporter import Exporter, Resource
        from airflow_provider_forge.payload.conform import check_attributes

        attributes = self.resource_attributes or {}
        check_attributes(attributes)
        return Exporter(
            open_source(self.source, forge, self.environments, self.metrics, context),
            destinations,
            self._policy(context),
            Resource(forge.service_name, attributes) if self.conform else None,
        )

    def _policy(self, context: Context) -> Policy:
        from airflow_provider_forge.delivery.checkpoint import identify_run
        from airflow_provider_forge.delivery.sender import Policy

        # A template renders as text.
        resend = str(self.resend or False).strip().lower()
        parse_choice("resend", resend, ("true", "false"))
        run = context.get("dag_run")
        started = getattr(run, "start_date", None)
        return Policy(
            resend=resend == "true",
            on_changed=self.on_changed,
            on_ambiguous=self.on_ambiguous,
            on_expired=self.on_expired,
            since=started.timestamp() if started else None,
            run=str([getattr(run, "run_id", None), identify_run(run)]) if started else "",
        )

    def _resume(
        self,
        context: Context,
        interval: Window,
        exporter: Exporter,
        forge: ForgeMetricsHook,
        so_far: Sequence[dict[str, Any]] | None,
    ) -> None:
        """Give each destination its progress: from before the deferral, of an earlier try, or a new one."""
        from airflow_provider_forge.delivery.checkpoint import find_checkpoint

        selection = forge.selection(self.environments, self.metrics)
        for destination in exporter.destinations:
            options = {
                "selection": selection,
                "resend": exporter.policy.resend,
                "conform": self.conform,
                "resource_attributes": dict(self.resource_attributes or {}),
                "ledger": destination.ledger.name,
            }
            checkpoint = find_checkpoint(context, destination.ledger, interval, options, destination.name)
            destination.checkpoint = checkpoint
            with exporter.apart(destination):
                load = checkpoint.load if so_far is None else functools.partial(checkpoint.restore, so_far)
                stored = load(interval)
                destination.progress = stored or self._begin(context, interval, exporter, destination)

    def _begin(
        self, context: Context, interval: Window, exporter: Exporter, destination: Destination
    ) -> Progress:
        """Return the windows to deliver, and those to revisit for late points."""
        from airflow_provider_forge.delivery.progress import Progress, available_windows
        from airflow_provider_forge.windows import RETENTION

        now, endpoint = pendulum.now("UTC"), destination.receiver.endpoint
        retention = RETENTION if self.source == "gateway" else None
        windows, expired = available_windows(interval, now, self.on_expired, endpoint, retention)
        destination.stats.windows["expired"] += expired
        if expired:
            report_expired(
                context, interval, destination, now, others_delivered=bool(windows), may_start=self.live_first
            )
        late: list[Window] = []
        offset = self.revisit_after if self.source != "archive" else None
        if offset is not None and now - interval.end <= offset and not exporter.policy.resend:
            late, _ = available_windows(interval.shifted(-offset), now, "skip", endpoint, retention)
            # A long interval overlaps with its own shifted one.
            late = [window for window in late if window.end <= interval.start]
        return Progress.begin(windows, late, expired=expired)


def _with(assets: list[Any], ours: list[Asset]) -> list[Any]:
    return [*assets, *(asset for asset in ours if asset not in assets)]
