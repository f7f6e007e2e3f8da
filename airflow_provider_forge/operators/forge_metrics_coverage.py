"""The operator that monitors a DAG's deliveries: missing windows, expiring gaps, an expiring API token."""

from __future__ import annotations

import dataclasses
import datetime as dt
import urllib.parse
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_forge.exceptions import ForgeError
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.hooks.otlp import OtlpHook
from airflow_provider_forge.operators import arguments
from airflow_provider_forge.operators.help import COVERAGE_TASK_HELP, with_help
from airflow_provider_forge.operators.links import DeveloperConsoleLink
from airflow_provider_forge.text import get_logger, visible
from airflow_provider_forge.utils.ledger import delivery_asset
from airflow_provider_forge.utils.retries import final_errors, with_retry_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_forge.coverage.monitor import CoverageMonitor, Findings
    from airflow_provider_forge.otlp.endpoint import Endpoint

__all__ = ["ForgeMetricsCoverageOperator"]

log = get_logger(__name__)


class ForgeMetricsCoverageOperator(BaseOperator):
    """Checks the coverage of a DAG's last 14 days, logs it, and fails while gaps can still be healed.

    The task fails, so that Airflow does what you have configured for failed tasks, if

    - windows are missing or failed, and the first of them expires within `alert_before`;
    - the Forge Connection's `token_expires_on` is 30, 7 or 1 days away, or has passed;
    - the ledger is gone.

    It fails **once** for each cause. Later runs log a reported gap as a warning. Gaps that begin to expire
    within a day of it share its alert. It does not fail for gaps that a catchup, a backfill or a healing run
    is about to fill. Reported alerts are kept in the Airflow Variables
    `forge_coverage_<export_dag_id>_<app>_<destination>` and `forge_expiry_<forge_conn_id>`: delete one to be
    alerted again. An alert is not retried.

    It is skipped if there is nothing to check: no ledger is kept (Airflow before 3.3 without the OTLP
    Connection's `ledger_url`), or nothing has been delivered yet.

    It returns::

        {"windows": {"pending": 2, "empty": 0, "delivered": 1330, "rejected": 0, "failed": 4, "missing": 8},
         "gaps": 2, "expiring": 1, "healing": ["2026-11-20T05:00:00Z/2026-11-20T07:00:00Z"],
         "token_days": 212}

    `healing` lists the intervals for which it started a run. `token_days` is None without a
    `token_expires_on`. The whole coverage is the XCom `forge_coverage`, also if the task fails
    (docs/coverage.md describes it).

    Args:
        export_dag_id: Id of the DAG that exports, and that heals.
        forge_conn_id: Connection to Atlassian's gateway, the same as in that DAG.
        otlp_conn_id: Connection to the receiver, the same as in that DAG.
        app_id: ARI or UUID of the app, the same as in that DAG; default is the Forge Connection's. Templated.
        alert_before: Time before a gap begins to expire at which the task fails.
        heal: Whether to start runs of `export_dag_id` for missing windows: at most 2 at a time, of at most 12
            hours each. They set the interval in the run's conf, for which that DAG needs no trigger form. No
            run is started for windows that ended less than two hours ago, for windows tried less than six
            hours ago, or while runs of that DAG other than live ones are queued or running.
        telemetry: Whether to send `forge.exporter.coverage`, `late`, `gap.expiry` and `token.expiry` to the
            receiver.

    Raises:
        ConfigurationError: An argument is wrong.
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
        super().__init__(**with_retry_policy(self, with_help(COVERAGE_TASK_HELP, kwargs)))
        arguments.check_duration("alert_before", alert_before)
        arguments.check_conn_id("forge_conn_id", forge_conn_id)
        arguments.check_conn_id("otlp_conn_id", otlp_conn_id)
        self.export_dag_id = export_dag_id
        self.forge_conn_id = forge_conn_id
        self.otlp_conn_id = otlp_conn_id
        self.app_id = app_id
        self.alert_before = alert_before
        self.heal = heal
        self.telemetry = telemetry
        arguments.check_switches(self, "heal", "telemetry")
        self.asset = delivery_asset(forge_conn_id, otlp_conn_id)
        # No outlet: DAGs scheduled on the asset are to run for deliveries only.
        self.inlets = [*self.inlets, self.asset]

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the token and the coverage, heal gaps, and fail for new alerts.

        Raises:
            AirflowFailException: There are new alerts, or an argument or a Connection is wrong.
            AirflowSkipException: There is no ledger to check.
            LedgerUnavailable: The ledger's store cannot be read.
        """
        import pendulum

        from airflow_provider_forge.coverage.monitor import Findings, report_token_expiry
        from airflow_provider_forge.coverage.telemetry import report_coverage
        from airflow_provider_forge.delivery.telemetry import Reporter

        now = pendulum.now("UTC")
        with final_errors():
            forge = ForgeMetricsHook(self.forge_conn_id, app_id=self.app_id or None)
            last_day, calls = forge.token_expires_on, list(forge.rate_limit)
            reporter = Reporter(forge.app_id, self.export_dag_id, self._destination())
            endpoint = OtlpHook(self.otlp_conn_id).endpoint()
            monitor = self._monitor(context, reporter.app_id, endpoint)
            findings = monitor.check(now) if monitor else Findings(None)
            if last_day and (expiry := report_token_expiry(last_day, now.date(), self.forge_conn_id)):
                findings.alerts.append(expiry[0])
                findings.pending.append(expiry[1])
        if self.telemetry:
            report_coverage(findings.coverage, findings.first_expiry, last_day, now, endpoint, reporter)
        token_days = (last_day - now.date()).days if last_day else None
        summary = self._report(findings, token_days, now)
        facts = {"app_id": reporter.app_id, "calls": calls, "token_days": token_days}
        self._push_coverage(context, findings, now, endpoint, {**facts, **self._gateway_facts(forge)})
        # After everything that can fail and is retried: an alert that is saved as reported must be raised.
        for state in findings.pending:
            state.save()
        if findings.alerts:
            raise AirflowFailException("\n".join(findings.alerts))
        if findings.coverage is None:
            raise AirflowSkipException("There is no ledger to check: see the log above")
        return summary

    def _destination(self) -> str:
        """Return the Connection's id if the exporting DAG has several destinations, else nothing.

        Each of them is then checked by a task of this DAG.
        """
        dag = self.get_dag()
        checked = {
            task.otlp_conn_id
            for task in (dag.tasks if dag else ())
            if isinstance(task, ForgeMetricsCoverageOperator) and task.export_dag_id == self.export_dag_id
        }
        return self.otlp_conn_id if len(checked) > 1 else ""

    def _monitor(self, context: Context, app_id: str, endpoint: Endpoint) -> CoverageMonitor | None:
        """Return the monitor of the DAG's ledger; None if no ledger is kept."""
        from airflow_provider_forge.connections.ledger import open_ledger
        from airflow_provider_forge.coverage.monitor import CoverageMonitor
        from airflow_provider_forge.utils.dag_runs import DagRuns
        from airflow_provider_forge.utils.ledger import find_store
        from airflow_provider_forge.windows import RETENTION

        otlp = OtlpHook(self.otlp_conn_id)
        store = find_store(context, self.asset, otlp.ledger_url)
        if store is None:
            log.warning(
                "No ledger is kept, so missing windows are unknown: Airflow before 3.3 has no store for it."
                " Set the extra ledger_url of %s to keep one",
                self.otlp_conn_id,
            )
            return None
        return CoverageMonitor(
            open_ledger(otlp.runtime, store, app_id, endpoint.destination),
            DagRuns(self.export_dag_id, context["ti"]),
            keep=min(RETENTION, endpoint.limits.max_age or RETENTION),
            alert_before=self.alert_before,
            heal=self.heal,
        )

    def _gateway_facts(self, forge: ForgeMetricsHook) -> dict[str, Any]:
        """Return the state of the account's budget, and the metrics that the gateway does not know.

        Each is None if it is unknown.
        """
        try:
            budget = dataclasses.asdict(forge.get_conn().limiter.standing())
            return {"budget": budget, "left_out": list(forge.left_out_metrics())}
        except ForgeError as error:  # a check makes no call, and works without credentials
            log.info("The use of the rate limit is unknown: %s", error)
            return {"budget": None, "left_out": None}

    def _push_coverage(
        self,
        context: Context,
        findings: Findings,
        now: dt.datetime,
        endpoint: Endpoint,
        facts: dict[str, Any],
    ) -> None:
        """Store the coverage as XCom before alerts are raised: the page in Airflow shows their gaps."""
        from airflow_provider_forge.coverage.document import XCOM_KEY, to_document

        if findings.coverage is None:
            return
        document = to_document(findings.coverage, now, self.alert_before, self.export_dag_id)
        # Without the URL's path, which can hold a secret.
        receiver = urllib.parse.urlsplit(endpoint.destination).hostname
        outcome = {"receiver": receiver, "alerts": len(findings.alerts)}
        context["ti"].xcom_push(XCOM_KEY, {**document, **facts, **outcome})

    def _report(self, findings: Findings, token_days: int | None, now: dt.datetime) -> dict[str, Any]:
        """Log the findings and return their summary."""
        from airflow_provider_forge.coverage.coverage import WindowStatus
        from airflow_provider_forge.coverage.report import render_text

        summary: dict[str, Any] = {"token_days": token_days, "healing": findings.healing}
        if coverage := findings.coverage:
            for line in render_text(coverage, now, self.alert_before, self.export_dag_id):
                log.info(visible(line))  # as an argument, it would lose the spaces that align the chart
            summary |= {
                "windows": {status.value: coverage.count(status) for status in WindowStatus},
                "gaps": len(coverage.gaps()),
                "expiring": len(coverage.expiring(now, self.alert_before)),
            }
        facts = [
            f"gaps: {summary['gaps']}, expiring soon: {summary['expiring']}" if coverage else "",
            f"healing runs started: {', '.join(findings.healing)}" if findings.healing else "",
            f"days until the API token expires: {token_days}" if token_days is not None else "",
        ]
        if told := "; ".join(filter(None, facts)):
            log.info("Summary: %s", told)
        return summary
