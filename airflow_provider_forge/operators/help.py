"""Help that Airflow shows beside DAGs and tasks (`doc_md`), for the people who run them."""

from __future__ import annotations

from typing import Any

from airflow_provider_forge import DOCUMENTATION

__all__ = ["COVERAGE_HELP", "COVERAGE_TASK_HELP", "EXPORT_HELP", "EXPORT_TASK_HELP", "with_help"]

EXPORT_HELP = f"""\
Exports Atlassian Forge app metrics to OTLP, one run for each quarter hour.

| Square | Meaning |
|---|---|
| green | delivered: the receiver has acknowledged every point |
| pink | skipped: the window is too old to be delivered, or *Check only* found no fault |
| yellow | to be retried: something does not answer, or the API token was refused in another task |
| red | failed for good |

The first ERROR line in the log of a task's last try names the fault and its remedy. A run above a pink square
counts as a success.

**Names.** A run is named by the window that it delivers, in UTC: `scheduled__<start>_to_<end>`. It starts
five minutes after the window's end. `live__…` runs deliver the newest window while catchup fills the last 14
days, and `heal__…` runs deliver windows whose own run has failed, or that the schedule has skipped. The
ids of Airflow's `backfill__…` runs have the time at which a window can be delivered, 20 minutes after it
starts.

**To fill a gap**, press *Heal* on the page *Forge*. Or switch the DAG off, and choose *Trigger*, *Backfill*
with *Missing and Errored Runs* and 8 as *Max Active Runs*, without *Unpause*; then switch it on again.
Delivery is idempotent: points that were delivered are not sent again.

**To test the Connections** on a worker, choose *Trigger*, *Single Run*, *Check only*.

[Operations]({DOCUMENTATION}operations.html) ·
[Troubleshooting]({DOCUMENTATION}troubleshooting.html) ·
[Fields of the Connections]({DOCUMENTATION}reference.html)
"""

EXPORT_TASK_HELP = f"""\
Fetches the run's window from Atlassian, with one call for each quarter hour, and sends the points that the
receiver has not acknowledged yet. The log has one line for each window, and an ERROR line if a try fails.
Temporary errors are retried. [Troubleshooting]({DOCUMENTATION}troubleshooting.html)
"""

COVERAGE_HELP = f"""\
Monitors the DAGs that export Forge app metrics, one task for each. It makes no calls to Atlassian.

**Red** means that somebody has to act: windows are missing and will soon be lost, the API token expires soon,
or the ledger is gone. The last line of the log says which. Each cause fails one run only; later runs log it
as a warning. **Pink** means that there is nothing to check yet.

The log shows the last 14 days, a symbol an hour, and how to fill each gap.
[Coverage]({DOCUMENTATION}coverage.html)
"""

COVERAGE_TASK_HELP = f"""\
Reads the ledger of deliveries of the DAG with this name, and reports missing windows while they can still be
delivered. [When it fails]({DOCUMENTATION}coverage.html#when-it-fails)
"""


def with_help(text: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return an operator's arguments with a text as `doc_md`, unless they or the `default_args` have one."""
    chosen = {**(arguments.get("default_args") or {}), **arguments}
    return arguments if chosen.get("doc_md") else {**arguments, "doc_md": text}
