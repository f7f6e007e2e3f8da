"""The trigger form: what a run by hand may say, and what the task makes of it.

Airflow shows the fields and checks next to nothing of what is in them, so the task does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Param, conf

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.utils.run_interval import check_not_in_future
from airflow_provider_forge.windows import parse_time

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

__all__ = ["check_conf_is_taken", "read_form", "trigger_form"]

log = get_logger(__name__)

_FIELDS = ("from", "to", "environments", "metrics", "resend")


def trigger_form() -> dict[str, Param]:
    """Return the `params` of a DAG whose runs by hand can say what to deliver."""

    def field(title: str, description: str, **schema: Any) -> Param:
        return Param(None, title=title, description=description, type=["null", "string"], **schema)

    return {
        "from": field(
            "From",
            # The dialog of a backfill shows this form, too, below a From and To of its own.
            "First moment to deliver, for a single run; a backfill has its Date Range instead. Empty: the"
            " interval of the run, or the last settled quarter hour.",
            format="date-time",
        ),
        "to": field(
            "To",
            "First moment after it. One call for each quarter hour between.",
            format="date-time",
        ),
        "environments": field(
            "Environments", "Names with commas between. Empty: those of the task or of its Connection."
        ),
        "metrics": field("Metrics", "Labels with commas between. Empty: as for the environments."),
        "resend": Param(
            False,
            title="Resend",
            description="Send again what was delivered already.",
            # Without null Airflow marks the switch as one that must be set.
            type=["null", "boolean"],
        ),
    }


def read_form(params: Mapping[str, Any], now: dt.datetime, *, in_backfill: bool = False) -> dict[str, Any]:
    """Return the operator's arguments that the form has values for.

    Args:
        params: The run's. Each field of `trigger_form` that is among them counts, whichever others are not:
            a DAG without the form may be given `from` and `to` by whoever starts its run.
        now: The present, aware.
        in_backfill: The run is one of a backfill. All of these have the same form, so its times are left
            out: each would deliver the whole range, and none its own interval.

    Raises:
        ConfigurationError: A field's value is of no use; the error names the field.
    """
    for name in params.keys() - set(_FIELDS):
        # What the form shows as its label; ignored, the run would deliver something else and be green.
        if name.lower() in _FIELDS:
            raise ConfigurationError(name, f"is written {name.lower()}")
    values = {name: params[name] for name in _FIELDS if params.get(name) not in (None, "")}
    if in_backfill and values.keys() & {"from", "to"}:
        log.warning("The form's from and to are for single runs: in a backfill each has its own interval")
        values = {name: value for name, value in values.items() if name not in ("from", "to")}
    found = _interval(values, now)
    for name in ("environments", "metrics"):
        if name in values:
            if not isinstance(values[name], str):
                raise ConfigurationError(name, "give one comma-separated text")
            found[name] = values[name]
    if not isinstance(values.get("resend", False), bool):
        raise ConfigurationError("resend", f"{values['resend']!r} is neither true nor false")
    # Off is what the form has when nobody touches it, so it takes nothing back.
    return {**found, "resend": True} if values.get("resend") else found


def check_conf_is_taken(
    run_conf: Mapping[str, Any], params: Mapping[str, Any], *, in_backfill: bool = False
) -> None:
    """Refuse what a run was started with where Airflow has left it out of the params.

    Args:
        run_conf: What the form, a command or another DAG has started the run with.
        params: The run's. Airflow puts `run_conf` into them unless it is told not to.
        in_backfill: As for `read_form`, which leaves the times out.

    Raises:
        ConfigurationError: A field's value is not the one in the params: the run would deliver something else
            and be green.
    """
    if conf.getboolean("core", "dag_run_conf_overrides_params", fallback=True):
        return
    names = [name for name in _FIELDS if not (in_backfill and name in ("from", "to"))]
    lost = [
        name
        for name, value in run_conf.items()
        if name.lower() in names and value and value != params.get(name)
    ]
    if lost:
        raise ConfigurationError(
            "[core] dag_run_conf_overrides_params",
            f"is False, so Airflow has left out what this run was started with ({', '.join(lost)}). Set it to"
            " True, or give the task these as arguments: from as interval_start, and to as interval_end",
        )


def _interval(values: Mapping[str, Any], now: dt.datetime) -> dict[str, Any]:
    times = {name: parse_time(name, values[name]) for name in ("from", "to") if name in values}
    for name, other in (("from", "to"), ("to", "from")):
        if name in times and other not in times:
            raise ConfigurationError(other, f"is missing beside {name}")
    if not times:
        return {}
    start, end = times["from"], times["to"]
    if end <= start:
        raise ConfigurationError("to", f"{end} is not after from, {start}")
    check_not_in_future("to", end, now)
    return {"interval_start": start, "interval_end": end}
