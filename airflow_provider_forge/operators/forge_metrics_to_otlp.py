"""The operator: one data interval of Forge metrics, from Atlassian's gateway to an OTLP endpoint."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSkipException,
    BaseOperator,
    conf,
)

from airflow_provider_forge.exceptions import (
    ConfigurationError,
    DeliveryBusy,
    RateLimited,
    RetryableError,
)
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.ledger import delivery_asset
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.operators.links import DeveloperConsoleLink
from airflow_provider_forge.operators.retries import final_errors, with_retry_policy
from airflow_provider_forge.operators.telemetry import Tally, telling
from airflow_provider_forge.text import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Asset, Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_forge.delivery.delivery import Policy
    from airflow_provider_forge.gateway.windows import Window
    from airflow_provider_forge.operators.checkpoint import Checkpoint
    from airflow_provider_forge.operators.exporter import Exporter
    from airflow_provider_forge.operators.progress import Progress
    from airflow_provider_forge.otlp.client import OtlpClient

__all__ = ["ForgeMetricsToOtlpOperator"]

log = get_logger(__name__)

WORTH_A_DEFERRAL = 15.0
"""Seconds: who waits for less before it has a place keeps its worker, because starting anew takes as long."""


class ForgeMetricsToOtlpOperator(BaseOperator):
    """Sends the metrics of one interval to an OTLP endpoint, oldest first, one gateway call per quarter hour.

    The interval is the one given, else the run's data interval, else (a manual run without a logical date)
    the last settled quarter hour before the run.

    A DAG whose `params` are `trigger_form()` lets a run by hand say what to deliver: what is filled in wins
    over the arguments.

    What the receiver acknowledges is recorded, point by point. A re-run sends what is not on record and
    nothing else, whatever windows it was first asked in. The record is kept at the OTLP Connection's
    `ledger_url`, else (Airflow 3.3 and later) in the state store of the asset that stands for the pair of
    Connections. The task has that asset as inlet and outlet; the event carries the summary, which is also
    what the task returns::

        {"window": "2026-11-23T05:00:00Z/2026-11-23T05:15:00Z", "calls": 2, "empty": 0,
         "points": 1630, "sent": 812, "unchanged": 818, "changed": 0, "ambiguous": 0, "rejected": 0,
         "batches": 1, "warnings": 0, "expired": 0, "digested": False, "contended": False,
         "request_ids": ["…", "…"]}

    A task that comes before its interval has settled is deferred until then, and one whose window another
    task delivers at this moment until that is done; neither uses up a retry. Nor does the wait for the rate
    limit, for which a task sleeps up to a minute; beyond that it is deferred or sleeps on, see `deferrable`.
    Errors that trying again cannot mend fail the task without a retry: bad input, refused credentials, a
    refused query, an expired window, rejected points. All others leave it to Airflow's retries; on Airflow
    3.3 and later the next try comes when the gateway or the receiver has asked for it.

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
        on_expired: What to do about windows that are older than Atlassian's 14 days, or than the destination
            keeps points: `fail`, or `skip` them.
        on_changed: What to do about points that were delivered and now have another value: `skip` them with
            a warning, `send` them again, or `fail` the task once everything else is delivered.
        on_ambiguous: What to do about points that a former try sent without getting an answer: `resend` them
            with a warning, because one duplicate is possible, or `fail` the task likewise.
        resend: Send all points again, whatever is on record. Templated.
        revisit_after: A live run (one whose interval ended no longer ago than this) also looks again at what
            lies so far back, for points that came late. None not to.
        deferrable: Whether to give up the worker while the account's calls are taken for more than the next
            minute. Default is Airflow's setting `operators.default_deferrable`.
        telemetry: Whether to send the exporter's own metrics, `forge.exporter.*`, to the receiver, too.

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
        otlp_conn_id: str = OtlpHook.default_conn_name,
        app_id: str | None = None,
        environments: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] | None = None,
        interval_start: dt.datetime | str | None = None,
        interval_end: dt.datetime | str | None = None,
        resource_attributes: Mapping[str, Any] | None = None,
        conform: bool = True,
        on_expired: str = "fail",
        on_changed: str = "skip",
        on_ambiguous: str = "resend",
        resend: bool | str = False,
        revisit_after: dt.timedelta | None = dt.timedelta(hours=1),
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        telemetry: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_retry_policy(kwargs))
        _check_choice("on_expired", on_expired, "fail", "skip")
        _check_choice("on_changed", on_changed, "skip", "send", "fail")
        _check_choice("on_ambiguous", on_ambiguous, "resend", "fail")
        if resource_attributes and not conform:
            raise ConfigurationError(
                "resource_attributes", "need conform=True: without it nothing is changed"
            )
        if revisit_after is not None and revisit_after <= dt.timedelta(0):
            raise ConfigurationError("revisit_after", f"{revisit_after} is not above 0; None switches it off")
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
        self.deferrable = deferrable
        self.telemetry = telemetry
        self.asset = delivery_asset(forge_conn_id, otlp_conn_id)
        # An outlet alone loses what is kept with it whenever the DAG file cannot be imported for a minute.
        self.inlets = _with(self.inlets, self.asset)
        self.outlets = _with(self.outlets, self.asset)

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the task; defer it until the interval has settled, should it be too early.

        Raises:
            AirflowFailException: An error that trying again cannot mend.
            AirflowSkipException: All of the interval is too old, and `on_expired` is `skip`.
            RetryableError: Anything else that went wrong.
        """
        import pendulum

        from airflow_provider_forge.operators.interval import find_interval, settled_at

        with final_errors():
            self._take_form(context)
            interval = find_interval(context, self.interval_start, self.interval_end)
            settled = settled_at(interval, context, now := pendulum.now("UTC"))
        if settled > now:
            log.info("%s has settled at %s: deferred until then", interval, settled)
            self.defer(trigger=_wake_at(settled), method_name="resume")
        return self._run(context, Tally())

    def resume(
        self,
        context: Context,
        event: Any = None,  # noqa: ARG002 - Airflow's signature
        progress: dict[str, Any] | None = None,
        limited_since: float | None = None,
    ) -> dict[str, Any]:
        """Go on after a deferral: the triggerer's clock says that it is time, whatever the worker's does."""
        with final_errors():
            self._take_form(context)
        tally = Tally()
        if limited_since is not None:
            tally.deferred = max(tally.started / 1e9 - limited_since, 0.0)
        return self._run(context, tally, progress)

    def _take_form(self, context: Context) -> None:
        """Let what the run's trigger form says win over the arguments."""
        import pendulum

        from airflow_provider_forge.operators.form import check_conf_is_taken, read_form

        run, params = context.get("dag_run"), context.get("params") or {}
        in_backfill = getattr(run, "run_type", None) == "backfill"
        check_conf_is_taken(getattr(run, "conf", None) or {}, params, in_backfill=in_backfill)
        form = read_form(params, pendulum.now("UTC"), in_backfill=in_backfill)
        for name, value in form.items():
            setattr(self, name, value)

    def _run(self, context: Context, tally: Tally, so_far: dict[str, Any] | None = None) -> dict[str, Any]:
        from airflow_provider_forge.operators.interval import find_interval

        patience = WORTH_A_DEFERRAL if self.deferrable else None
        forge = ForgeMetricsHook(self.forge_conn_id, app_id=self.app_id or None, patience=patience)
        with (
            final_errors(),
            OtlpHook(self.otlp_conn_id).get_conn() as receiver,
            telling(tally, forge, receiver.endpoint, self.dag_id, to_receiver=self.telemetry),
        ):
            interval = find_interval(context, self.interval_start, self.interval_end)
            exporter = self._exporter(context, forge, receiver, tally)
            checkpoint = self._checkpoint(context, interval, exporter)
            summary = self._deliver(interval, exporter, checkpoint, so_far)
        self._tell(context, summary)
        return summary

    def _deliver(
        self, interval: Window, exporter: Exporter, checkpoint: Checkpoint, so_far: dict[str, Any] | None
    ) -> dict[str, Any]:
        from airflow_provider_forge.operators.progress import Progress, in_words

        if so_far is not None:
            progress = Progress.from_json(so_far)
        else:
            progress = checkpoint.load() or self._begin(interval, exporter)
        try:
            exporter.export(progress, checkpoint.save)
        except (DeliveryBusy, RateLimited) as put_off:
            if isinstance(put_off, RateLimited) and not self.deferrable:
                raise
            self._put_off(put_off, progress)
        checkpoint.conclude(progress)
        summary = progress.summary
        log.info(
            "Summary: %s: calls: %d, %s, requests: %d%s",
            interval.for_people(),
            summary.calls,
            in_words(summary),
            summary.batches,
            f", windows left out: {summary.expired}" if summary.expired else "",
        )
        progress.check()
        if summary.expired and not summary.calls:
            raise AirflowSkipException(f"All of {interval} is too old: see on_expired")
        return {"window": str(interval), **vars(summary)}

    def _put_off(self, error: RetryableError, progress: Progress) -> NoReturn:
        """Defer the task until what it waits for may be there."""
        import pendulum

        now = pendulum.now("UTC")
        again = now.add(seconds=error.retry_after or 0)
        log.info("%s: deferred until %s", error, again)
        left: dict[str, Any] = {"progress": progress.to_json()}
        if isinstance(error, RateLimited):
            left["limited_since"] = now.timestamp()
        self.defer(trigger=_wake_at(again), method_name="resume", kwargs=left)

    def _exporter(
        self, context: Context, forge: ForgeMetricsHook, receiver: OtlpClient, tally: Tally
    ) -> Exporter:
        from airflow_provider_forge.hooks.ledger import account_of, find_store, open_ledger
        from airflow_provider_forge.operators.exporter import Exporter
        from airflow_provider_forge.otlp.conform import check_attributes

        check_attributes(self.resource_attributes or {})
        store = find_store(context, self.asset, OtlpHook(self.otlp_conn_id).ledger_url)
        return Exporter(
            forge,
            receiver,
            open_ledger(
                store,
                forge.app_id,
                receiver.endpoint.destination,
                forge.redis_url,
                account_of(self.otlp_conn_id, receiver.endpoint),
            ),
            self._policy(context),
            self.environments,
            self.metrics,
            self.resource_attributes or {},
            conform=self.conform,
            on_expired=self.on_expired,
            tally=tally,
        )

    def _checkpoint(self, context: Context, interval: Window, exporter: Exporter) -> Checkpoint:
        from airflow_provider_forge.operators.checkpoint import find_checkpoint

        asked_for = {
            "selection": exporter.forge.selection(self.environments, self.metrics),
            "resend": exporter.policy.resend,
            "conform": self.conform,
            "resource_attributes": dict(self.resource_attributes or {}),
            "ledger": exporter.ledger.name,
        }
        return find_checkpoint(context, exporter.ledger, interval, asked_for)

    def _begin(self, interval: Window, exporter: Exporter) -> Progress:
        """Return what is to be done: the interval, and what a live run looks at again for late points."""
        import pendulum

        from airflow_provider_forge.operators.interval import windows_alive
        from airflow_provider_forge.operators.progress import Progress

        now = pendulum.now("UTC")
        endpoint = exporter.receiver.endpoint
        windows, expired = windows_alive(interval, now, self.on_expired, endpoint)
        exporter.tally.windows["expired"] += expired
        late: list[Window] = []
        back = self.revisit_after
        if back is not None and now - interval.end <= back and not exporter.policy.resend:
            late, _ = windows_alive(interval.shifted(-back), now, "skip", endpoint)
            # A long interval reaches back into itself.
            late = [window for window in late if window.end <= interval.start]
        return Progress.begin(windows, late, expired=expired)

    def _policy(self, context: Context) -> Policy:
        from airflow_provider_forge.delivery.delivery import Policy

        # A template leaves text.
        resend = str(self.resend or False).strip().lower()
        _check_choice("resend", resend, "true", "false")
        run = context.get("dag_run")
        begun = getattr(run, "start_date", None)
        return Policy(
            resend=resend == "true",
            on_changed=self.on_changed,
            on_ambiguous=self.on_ambiguous,
            since=begun.timestamp() if begun else None,
        )

    def _tell(self, context: Context, summary: dict[str, Any]) -> None:
        """Put the summary into the asset's event; a mapped task has no asset unless it was given one."""
        events = context.get("outlet_events")
        if events is not None and self.asset in (context.get("outlets") or ()):
            events[self.asset].extra = summary


def _with(assets: list[Any], asset: Asset) -> list[Any]:
    return assets if asset in assets else [*assets, asset]


def _check_choice(field: str, value: str, *choices: str) -> None:
    if value not in choices:
        raise ConfigurationError(field, f"{value!r} is not one of {', '.join(choices)}")


def _wake_at(moment: dt.datetime) -> BaseTrigger:
    from airflow.providers.standard.triggers.temporal import DateTimeTrigger

    return DateTimeTrigger(moment)
