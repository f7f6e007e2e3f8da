"""The trigger form: the params of a manual run, and the operator's arguments that they become.

Airflow hardly validates the form's values, so the task does.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Param, conf

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.utils.run_interval import check_not_in_future
from airflow_provider_forge.windows import format_time, parse_time

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Container, Mapping

__all__ = ["check_conf_is_taken", "check_conf_names", "read_form", "trigger_form"]

log = get_logger(__name__)

_FIELDS = ("from", "to", "environments", "metrics", "resend", "check_only")
_SWITCHES = ("resend", "check_only")

_OTHER_NAMES = {
    "deliver_from": "from",
    "deliver_until": "to",
    "start": "from",
    "end": "to",
    "form": "from",
    "since": "from",
    "until": "to",
    "interval_start": "from",
    "interval_end": "to",
}
"""Titles of the form, names of the operator and other words, with the fields for which they may be taken."""

_MIN_SIMILAR = 5
"""Length of a name from which on a similar one counts as misspelled: shorter ones resemble too many words."""


def trigger_form() -> dict[str, Param]:
    """Return the `params` with which a manual run of a DAG can choose the interval and the selection."""

    def field(title: str, description: str, **schema: Any) -> Param:
        return Param(None, title=title, description=description, type=["null", "string"], **schema)

    def switch(title: str, description: str) -> Param:
        # Without null, Airflow marks the switch as required.
        return Param(False, title=title, description=description, type=["null", "boolean"])

    return {
        "from": field(
            "Deliver from",
            # The dialog of a backfill shows this form, too, below its own From and To.
            "Start of the interval, inclusive, for a single run; a backfill uses its Date Range instead. If"
            " empty: the run's own interval, or the last settled quarter hour.",
            format="date-time",
        ),
        "to": field(
            "Deliver until",
            "End of the interval, exclusive, for a single run. Makes one call per quarter hour.",
            format="date-time",
        ),
        "environments": field(
            "Environments", "Comma-separated names. If empty: those of the task or of its Connection."
        ),
        "metrics": field(
            "Metrics", "Comma-separated labels. If empty: those of the task or of its Connection."
        ),
        "resend": switch("Resend", "Send points again even if they were delivered."),
        "check_only": switch(
            "Check only",
            "Test both Connections on a worker, log the results, and deliver nothing. Makes one call.",
        ),
    }


def read_form(params: Mapping[str, Any], now: dt.datetime, *, in_backfill: bool = False) -> dict[str, Any]:
    """Return the operator's arguments for which the form has values.

    Args:
        params: Params of the run. They need not have all fields of `trigger_form`: a run of a DAG without the
            form may be started with `from` and `to`.
        now: Current time, aware.
        in_backfill: Whether the run belongs to a backfill. All runs of a backfill have the same form, so its
            times are ignored: otherwise each run would deliver the whole range instead of its own interval.

    Raises:
        ConfigurationError: The value of a field is invalid; the error names the field.
    """
    values = {name: params[name] for name in _FIELDS if params.get(name) not in (None, "")}
    if in_backfill and values.keys() & {"from", "to"}:
        log.warning(
            "The form's from and to are for single runs, so they are ignored: each run of a backfill has its"
            " own interval"
        )
        values = {name: value for name, value in values.items() if name not in ("from", "to")}
    found = _interval(values, now)
    for name in ("environments", "metrics"):
        if name in values:
            if not isinstance(values[name], str):
                raise ConfigurationError(name, "give one comma-separated string")
            found[name] = values[name]
    for name in _SWITCHES:
        if not isinstance(values.get(name, False), bool):
            raise ConfigurationError(name, f"{values[name]!r} is neither true nor false")
    # False is the form's default, so it does not override the task's argument.
    return {**found, **{name: True for name in _SWITCHES if values.get(name)}}


def check_conf_names(run_conf: Mapping[str, Any], declared: Container[str]) -> None:
    """Check that no key of the run's conf is a misspelled field, the title of one, or another with a time.

    Args:
        run_conf: Conf of the run.
        declared: Params of the task, whose names are not mistakes.

    Raises:
        ConfigurationError: One is. If it were ignored, the run would succeed with another selection.
    """
    # A healing run has both a `to` and an `until`.
    known = (*_FIELDS, "until") if "to" in run_conf else _FIELDS
    for name, value in run_conf.items():
        if name in known or name in declared:
            continue
        if field := _meant(name) or ("from or to" if _is_time(value) else None):
            raise ConfigurationError(
                name,
                f"the form's field is named {field} in the conf of a run. If this is another param, declare"
                " it in the DAG's params",
            )


def _is_time(value: Any) -> bool:
    try:
        parse_time("", value)
    except ConfigurationError:
        return False
    return True


def _meant(name: str) -> str | None:
    """Return the field that a name stands for; None if it is another word."""
    plain = "_".join(re.split(r"[\W_]+", name.strip().lower()))
    if plain in _FIELDS or plain in _OTHER_NAMES:
        return _OTHER_NAMES.get(plain, plain)
    similar = difflib.get_close_matches(plain, _FIELDS, n=1, cutoff=0.8) if len(plain) >= _MIN_SIMILAR else []
    return similar[0] if similar else None


def check_conf_is_taken(
    run_conf: Mapping[str, Any], params: Mapping[str, Any], *, in_backfill: bool = False
) -> None:
    """Check that Airflow has merged the run's conf into its params.

    Args:
        run_conf: Conf of the run, from the form, a command or another DAG.
        params: Params of the run, into which Airflow merges `run_conf` unless it is configured not to.
        in_backfill: As for `read_form`, which ignores the times.

    Raises:
        ConfigurationError: A value is not in the params: the run would succeed with another selection.
    """
    if conf.getboolean("core", "dag_run_conf_overrides_params", fallback=True):
        return
    names = [name for name in _FIELDS if not (in_backfill and name in ("from", "to"))]
    ignored = [
        name
        for name, value in run_conf.items()
        if name.lower() in names and value and value != params.get(name)
    ]
    if ignored:
        raise ConfigurationError(
            "[core] dag_run_conf_overrides_params",
            f"is False, so Airflow ignores the conf of this run ({', '.join(ignored)}). Set it to True, or"
            " pass the values to the task as arguments: from as interval_start, and to as interval_end",
        )


def _interval(values: Mapping[str, Any], now: dt.datetime) -> dict[str, Any]:
    times = {name: parse_time(name, values[name]) for name in ("from", "to") if name in values}
    for name, other in (("from", "to"), ("to", "from")):
        if name in times and other not in times:
            raise ConfigurationError(other, f"is missing: give it together with {name}")
    if not times:
        return {}
    start, end = times["from"], times["to"]
    if end <= start:
        raise ConfigurationError("to", f"{format_time(end)} is not after from, {format_time(start)}")
    check_not_in_future("to", end, now)
    return {"interval_start": start, "interval_end": end}
