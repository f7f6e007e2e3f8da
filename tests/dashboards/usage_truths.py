"""The expected result of each query of the dashboard *Usage and cost*."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.dashboards.asking import ALL
from tests.dashboards.truth import Table, latest_by_series
from tests.dashboards.truths import ENVIRONMENT, HOUR, INVOCATIONS, KEPT, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.dashboards.truths import Asked

RESOURCE, DATE, MONTH, SITE = (f"forge_usage_{name}" for name in ("resource", "date", "month", "site"))
TWO_DAYS = 48 * HOUR
OF_MONTH = {MONTH: ALL["month"]}
OF_RESOURCE = {RESOURCE: ALL["resource"]}


def latest(
    asked: Asked, name: str, reduce: Callable[[list[float]], float], *by: str, reach: int = TWO_DAYS, **more
) -> Table:
    """Reduce the latest value of each series; only some panels filter by the environment."""

    def where(labels: Mapping[str, str]) -> bool:
        environment = asked.chosen.get(ENVIRONMENT)
        return (
            more.get("where", {}).items() <= labels.items()
            and labels.get(DATE, "").startswith(more.get("month", ""))
            and (not more.get("filtered") or environment in (None, labels[ENVIRONMENT]))
        )

    return asked.truth.reduced(
        f"forge_usage_{name}",
        by,
        asked.frame,
        lambda samples: reduce(latest_by_series(samples)),
        reach=reach,
        where=where,
    )


def monthly(asked: Asked, *by: str, **where: str) -> Table:
    return latest(asked, "monthly", sum, *by, reach=KEPT, where={**OF_MONTH, **where})


def cost(asked: Asked, *by: str) -> Table:
    return latest(asked, "cost", sum, *by, reach=KEPT, where=OF_MONTH)


def used_up(asked: Asked) -> Table:
    def count(values: list[float]) -> int:
        return sum(value >= 1 for value in values)

    return asked.or_zero(latest(asked, "allowance_utilization_ratio", count))


def age(asked: Asked, name: str, reduce: Callable[[list[float]], float]) -> Table:
    times = latest(asked, name, reduce, reach=KEPT)
    return times.map(lambda number, time: asked.frame.moment(number) - time)


def cost_by_environment(asked: Asked) -> Table:
    used, total, costs = (
        monthly(asked, ENVIRONMENT, RESOURCE),
        monthly(asked, RESOURCE),
        cost(asked, RESOURCE),
    )
    parts = Table((ENVIRONMENT,))
    for (environment, resource), values in used.items():
        for number, value in values.items():
            of_resource = costs[(resource,)][number]
            if of_resource > 0:
                part = value / (total[(resource,)][number] / of_resource)
                row = parts.setdefault((environment,), {})
                row[number] = row.get(number, 0) + part
    return parts


USAGE: dict[str, dict[str, Callable[[Asked], Table]]] = {
    "Cost of the month, so far": {"A": lambda asked: cost(asked)},
    "Forecast for this month": {"A": lambda asked: latest(asked, "cost_forecast", sum)},
    "Budget": {"A": lambda asked: latest(asked, "budget", max)},
    "Allowances used up this month": {"A": used_up},
    "Last read": {"A": lambda asked: age(asked, "refresh_seconds", min)},
    "Usage until": {"A": lambda asked: age(asked, "data_end_seconds", max)},
    "Resources": {
        "A": lambda asked: monthly(asked, RESOURCE),
        "B": lambda asked: latest(asked, "allowance", max, RESOURCE),
        "C": lambda asked: latest(asked, "allowance_utilization_ratio", max, RESOURCE),
        "D": lambda asked: cost(asked, RESOURCE),
        "E": lambda asked: latest(asked, "forecast", max, RESOURCE),
        "F": lambda asked: latest(asked, "cost_forecast", max, RESOURCE),
        "G": lambda asked: latest(asked, "allowance_exhaustion_seconds", max, RESOURCE).map(
            lambda _, seconds: 1000 * seconds
        ),
    },
    "$resource by day": {
        "A": lambda asked: latest(
            asked, "daily", sum, DATE, reach=KEPT, where=OF_RESOURCE, month=ALL["month"], filtered=True
        )
    },
    "Invocations by version": {
        "A": lambda asked: asked.truth.reduced(
            INVOCATIONS,
            (VERSION,),
            asked.frame,
            lambda samples: sum(sample.value for sample in samples),
            where=lambda labels: asked.chosen.get(ENVIRONMENT) in (None, labels[ENVIRONMENT]),
        )
    },
    "Environments": {
        "A": lambda asked: monthly(asked, ENVIRONMENT, **OF_RESOURCE),
        "B": cost_by_environment,
    },
    "Sites": {
        "A": lambda asked: latest(
            asked, "site_monthly", sum, SITE, reach=KEPT, where={**OF_MONTH, **OF_RESOURCE}
        )
    },
    "Used part of the allowance": {
        "A": lambda asked: latest(asked, "allowance_utilization_ratio", max, RESOURCE)
    },
    "Cost and forecast": {
        "A": lambda asked: latest(asked, "cost", sum, MONTH),
        "B": lambda asked: latest(asked, "cost_forecast", sum),
        "C": lambda asked: latest(asked, "budget", max),
    },
}

TRUTHS = {
    ("forge-usage", panel, letter): truth
    for panel, letters in USAGE.items()
    for letter, truth in letters.items()
}
"""By a dashboard's uid, a panel's title and a query's letter."""
