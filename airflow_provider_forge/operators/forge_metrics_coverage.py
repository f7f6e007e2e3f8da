"""The operator that watches over the deliveries of a DAG: what is missing, and what will soon be lost."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.operators.links import DeveloperConsoleLink
from airflow_provider_forge.utils.ledger import delivery_asset
from airflow_provider_forge.utils.retries import final_errors, with_retry_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_forge.coverage.monitor import CoverageMonitor, Findings
    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = ["ForgeMetricsCoverageOperator"]


class ForgeMetricsCoverageOperator(BaseOperator):
    """Reads the record of what a DAG has delivered in the last 14 days, logs it, and fails in time.

    The task fails, so that whatever you have Airflow do about failed tasks is done, when

    - windows are missing, or their delivery was begun and not done, and the first expires within
      `alert_before`;
    - the Forge Connection's `token_expires_on` is 30, 7 or 1 days away, or has passed;
    - there is no record any more where there was one.

    It fails **once** for each of these: a gap of which one run has told is a warning in the log of the next
    ones, and so are those that begin to expire up to a day later. It does not fail for what a catchup or a
    backfill is about to fill, nor for what is being healed. What it has told of is kept in the Airflow
    Variables `forge_coverage_<export_dag_id>_<app>_<destination>` and `forge_expiry_<forge_conn_id>`: delete
    one to be told again. An alert is not tried again.

    It is skipped where there is nothing to say: no record is kept (Airflow before 3.3 without the OTLP
    Connection's `ledger_url`), or nothing has been delivered yet.

    It returns::

        {"windows": {"pending": 2, "empty": 0, "delivered": 1330, "rejected": 0, "failed": 4, "missing": 8},
         "gaps": 2, "expiring": 1, "healing": ["2026-11-20T05:00:00Z/2026-11-20T07:00:00Z"],
         "token_days": 212}

    where `healing` are the intervals for which it has started a run, and `token_days` is None without a
    `token_expires_on`.

    Args:
        export_dag_id: The DAG that delivers, and that heals.
        forge_conn_id: Connection to Atlassian's gateway, as of that DAG.
        otlp_conn_id: Connection to the receiver, likewise.
        app_id: ARI or UUID of the app, likewise; default is the Forge Connection's. Templated.
        alert_before: How long before a gap begins to expire there is an alert.
        heal: Start runs of `export_dag_id` for what is missing: at most 2 at a time, of 12 hours each. They
            say from when to when in that DAG's trigger form, which it has to have. Nothing is started for
            windows that ended less than two hours ago, for those that were tried less than six hours ago, or
            while runs of that DAG other than the live ones are queued or running.
        telemetry: Whether to send what is found to the receiver, too: `forge.exporter.coverage`, `gap.expiry`
            and `token.expiry`.

    Raises:
        ConfigurationError: `alert_before` is not above 0.
    """

    template_fields: Sequence[str] = ("app_id",)
    ui_color = "#e9f2ff"
    operator_extra_links = (DeveloperConsoleLink(),)

    def __init__(
        self,
        *,
        export_dag_id: str = "forge_metrics",
        forge_conn_id: str = ForgeMetricsHook.default_conn_name,
        otlp_conn_id: str = OtlpHook.default_conn_name,
        app_id: str | None = None,
        alert_before: dt.timedelta = dt.timedelta(hours=48),
        heal: bool = False,
        telemetry: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**with_retry_policy(kwargs))
        if alert_before <= dt.timedelta(0):
            raise ConfigurationError("alert_before", f"{alert_before} is not above 0")
        self.export_dag_id = export_dag_id
        self.forge_conn_id = forge_conn_id
        self.otlp_conn_id = otlp_conn_id
        self.app_id = app_id
        self.alert_before = alert_before
        self.heal = heal
        self.telemetry = telemetry
        self.asset = delivery_asset(forge_conn_id, otlp_conn_id)
        # No outlet: what is scheduled on the asset is to run for deliveries only.
        self.inlets = [*self.inlets, self.asset]

    def execute(self, context: Context) -> dict[str, Any]:
        """Look at the token and at the record, heal, and fail for what is new.

        Raises:
            AirflowFailException: There is something that no run has told of, or an argument or a Connection
                is wrong.
            AirflowSkipException: There is no record to look at.
            LedgerUnavailable: The store of the record does not answer.
        """
        import pendulum

        from airflow_provider_forge.coverage.monitor import Findings, report_token_expiry
        from airflow_provider_forge.delivery.telemetry import report_coverage
        from airflow_provider_forge.otlp.selftelemetry import Reporter

        now = pendulum.now("UTC")
        with final_errors():
            forge = ForgeMetricsHook(self.forge_conn_id, app_id=self.app_id or None)
            last_day = forge.token_expires_on
            reporter = Reporter(forge.app_id, self.export_dag_id)
            endpoint = OtlpHook(self.otlp_conn_id).endpoint()
            watch = self._watch(context, reporter.app_id, endpoint)
            sight = watch.look(now) if watch else Findings(None)
            if last_day and (expiry := report_token_expiry(last_day, now.date(), self.forge_conn_id)):
                sight.alerts.append(expiry[0])
                sight.memos.append(expiry[1])
        if self.telemetry:
            report_coverage(sight.coverage, sight.first_expiry, last_day, now, endpoint, reporter)
        token_days = (last_day - now.date()).days if last_day else None
        summary = self._tell(sight, token_days, now)
        # After all that can fail, and is tried again: an alert that is noted as told has to be raised.
        for memo in sight.memos:
            memo.save()
        if sight.alerts:
            raise AirflowFailException("\n".join(sight.alerts))
        if sight.coverage is None:
            raise AirflowSkipException("There is no record of deliveries to look at: see above")
        return summary

    def _watch(self, context: Context, app_id: str, endpoint: Endpoint) -> CoverageMonitor | None:
        """Return what looks at the record of deliveries; None where none is kept."""
        from airflow_provider_forge.coverage.monitor import CoverageMonitor
        from airflow_provider_forge.utils.dag_runs import DagRuns
        from airflow_provider_forge.utils.ledger import find_store, open_ledger
        from airflow_provider_forge.windows import RETENTION

        store = find_store(context, self.asset, OtlpHook(self.otlp_conn_id).ledger_url)
        if store is None:
            self.log.warning(
                "No record of deliveries is kept, so nobody knows what is missing: Airflow before 3.3 has no"
                " place for it. Set the extra ledger_url of %s to have one",
                self.otlp_conn_id,
            )
            return None
        return CoverageMonitor(
            open_ledger(store, app_id, endpoint.destination),
            DagRuns(self.export_dag_id, context["ti"]),
            keep=min(RETENTION, endpoint.max_age or RETENTION),
            alert_before=self.alert_before,
            heal=self.heal,
        )

    def _tell(self, sight: Findings, token_days: int | None, now: dt.datetime) -> dict[str, Any]:
        """Log what was found, and return it in short."""
        from airflow_provider_forge.coverage.coverage import WindowStatus
        from airflow_provider_forge.coverage.report import render_text

        summary: dict[str, Any] = {"token_days": token_days, "healing": sight.healing}
        if coverage := sight.coverage:
            for line in render_text(coverage, now, self.alert_before, self.export_dag_id):
                self.log.info("%s", line)
            summary |= {
                "windows": {outcome.value: coverage.count(outcome) for outcome in WindowStatus},
                "gaps": len(coverage.gaps()),
                "expiring": len(coverage.expiring(now, self.alert_before)),
            }
        self.log.info("Summary: %s", summary)
        return summary
