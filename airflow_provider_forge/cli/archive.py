"""`archive`: list the archive, verify it, and delete old windows."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_forge.archive.survey import check, survey
from airflow_provider_forge.cli.context import forge_access, ledger_store, otlp_access
from airflow_provider_forge.cli.times import Times, parse_duration
from airflow_provider_forge.connections.archive import open_archive
from airflow_provider_forge.connections.ledger import open_ledger
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.windows import MAX_INTERVAL, Window, format_time

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from airflow_provider_forge.archive.archive import Archive, Archived
    from airflow_provider_forge.archive.survey import Day
    from airflow_provider_forge.cli.output import Output
    from airflow_provider_forge.connections.forge import ForgeAccess
    from airflow_provider_forge.delivery.ledger import Ledger

__all__ = ["run"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def run(options: Namespace, output: Output) -> int:
    """Run one of the actions; return 1 if `verify` has found a problem."""
    _check_options(options)
    now = pendulum.now("UTC")
    hook = forge_access(options)
    if options.action == "prune":
        return _prune(options, output, hook, now)
    times = Times(options, now, output, longest=MAX_INTERVAL)
    start = times.moment("--from", options.start) if options.start else None
    end = times.moment("--to", options.end) if options.end else Window.last_settled(now).end
    archive, app_id = open_archive(hook), hook.app_id
    interval = _interval(archive, app_id, start, end)
    if interval is None:
        output.json([]) if options.json else output.note(f"{archive.name} has no windows of this app.")
        return 0
    interval.check_length()
    if options.action == "ls":
        return _list(options, output, list(survey(archive, app_id, interval)))
    return _verify(options, output, archive, app_id, interval)


def _check_options(options: Namespace) -> None:
    """Check that each option that was given is one of the action's."""
    if options.action == "prune":
        others = {"--from": options.start, "--to": options.end}
    else:
        others = {"--older-than": options.older_than, "--dry-run": options.dry_run, "--yes": options.yes}
    for name, value in others.items():
        if value:
            raise ConfigurationError(name, f"is not an option of archive {options.action}")


def _interval(
    archive: Archive, app_id: str, start: pendulum.DateTime | None, end: pendulum.DateTime
) -> Window | None:
    """Return the interval, by default from the first archived day."""
    if start:
        return Window(start, end)
    days = archive.days(app_id)
    first = pendulum.datetime(days[0].year, days[0].month, days[0].day) if days else None
    return Window(first, end) if first and first < end else None


def _list(options: Namespace, output: Output, days: list[Day]) -> int:
    if options.json:
        output.json(
            [
                {**dataclasses.asdict(day), "day": f"{day.day}", "gaps": list(map(str, day.gaps))}
                for day in days
            ]
        )
        return 0
    if output.is_table:
        size, figures = "SIZE", [(_size(day.size), _describe(day.gaps)) for day in days]
    else:
        size, figures = "BYTES", [(f"{day.size}", " ".join(map(str, day.gaps))) for day in days]
    output.table(
        ("DAY", "QUARTERS", "OBJECTS", size, "GAPS"),
        [(f"{day.day}", day.quarters, day.objects, *shown) for day, shown in zip(days, figures, strict=True)],
    )
    total = sum(day.size for day in days)
    output.note(f"{_objects(sum(day.objects for day in days))}, {_size(total)}")
    return 0


def _verify(options: Namespace, output: Output, archive: Archive, app_id: str, interval: Window) -> int:
    ledger = _ledger(options, app_id)
    found = list(_checkable(archive, app_id, interval))
    rows: dict[str, list[int]] = {}
    problems: list[str] = []
    with output.progress(found, lambda archived: archived.entry.window.humanize()) as begun:
        for archived in begun:
            result = check(archive, archived, ledger)
            # Without a ledger, it is not known what was delivered.
            undelivered = [result.undelivered or 0] if ledger else []
            figures = [1, result.points, *undelivered, int(result.problem is not None)]
            before = rows.get(f"{archived.day}", [0] * len(figures))
            rows[f"{archived.day}"] = [sum(pair) for pair in zip(before, figures, strict=True)]
            if result.problem:
                problems.append(result.problem)
    columns = ("objects", "points", *(["undelivered"] if ledger else []), "problems")
    if options.json:
        days: list[dict[str, Any]] = [
            {"day": day, **dict(zip(columns, row, strict=True))} for day, row in rows.items()
        ]
        output.json({"days": days, "problems": problems})
    else:
        output.table(("DAY", *map(str.upper, columns)), [(day, *row) for day, row in rows.items()])
    for problem in problems:
        output.problem(problem)
    return 1 if problems else 0


def _checkable(archive: Archive, app_id: str, interval: Window) -> Iterator[Archived]:
    """Yield the responses to verify: an interrupted write is ignored, as by a replay."""
    return (each for each in archive.list_between(app_id, interval.start, interval.end) if each.is_described)


def _ledger(options: Namespace, app_id: str) -> Ledger | None:
    if not options.otlp_conn_id:
        return None
    otlp = otlp_access(options)
    store = ledger_store(options, otlp, snapshot=True)
    return open_ledger(otlp.runtime, store, app_id, otlp.endpoint().destination)


def _prune(options: Namespace, output: Output, forge: ForgeAccess, now: pendulum.DateTime) -> int:
    """Delete old windows, once the user has agreed; return 1 if they have not."""
    if not options.older_than:
        raise ConfigurationError(
            "--older-than", "is missing: give the age of the windows to delete, such as 400d"
        )
    horizon = now - parse_duration("--older-than", options.older_than, MAX_INTERVAL)
    if not (options.yes or options.dry_run or output.can_ask):
        raise ConfigurationError(
            "--yes",
            "is missing: without a terminal, prune deletes only with --yes. Try --dry-run first",
        )
    archive = open_archive(forge)
    old = list(_ended_before(archive, forge.app_id, horizon))
    freed = sum(archived.data_size or 0 for archived in old)
    found = f"{_objects(len(old))}, {_size(freed)}, from before {horizon:%Y-%m-%d %H:%M} UTC"
    if old and not (options.yes or options.dry_run) and not output.ask(f"Delete {found}?"):
        output.note("Nothing was deleted.")
        return 1
    if not options.dry_run:
        for archived in old:
            archive.delete(archived)
    if options.json:
        before = format_time(horizon, "seconds")
        output.json({"dry_run": options.dry_run, "deleted": len(old), "bytes": freed, "before": before})
    else:
        output.line(f"{'Would delete' if options.dry_run else 'Deleted'} {found}")
    return 0


def _ended_before(archive: Archive, app_id: str, horizon: pendulum.DateTime) -> Iterator[Archived]:
    for day in archive.days(app_id):
        if day > horizon.date():
            break
        for archived in archive.list_day(app_id, day):
            if archived.entry.window.end <= horizon:
                yield archived


def _objects(number: int) -> str:
    return "1 object" if number == 1 else f"{number:,} objects"


def _describe(gaps: list[Window]) -> str:
    shown = [f"{gap.start:%H:%M} to {gap.end:%H:%M}" for gap in gaps[:3]]
    return ", ".join([*shown, f"{len(gaps) - 3} more"] if len(gaps) > 3 else shown)


def _size(number: float) -> str:
    unit = 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if unit == 0 else f"{number:.1f} {_UNITS[unit]}"
