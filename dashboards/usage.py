"""Usage and cost: what the app costs, which allowance it will exceed and when, and who consumes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.models.dashboard import VariableOption, VariableSort

from dashboards.base import KEPT, base, label_variable, with_all
from dashboards.colors import RESOURCES, VERSIONS
from dashboards.panels import category_chart, legend, stat, table, time_series, totals
from dashboards.promql import APP, ENVIRONMENT, VERSION, Metric

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard
    from grafana_foundation_sdk.builders.table import Panel as TablePanel

__all__ = ["dashboard"]

RESOURCE, DATE, MONTH = "forge_usage_resource", "forge_usage_date", "forge_usage_month"
SITE = "forge_usage_site"
# Usage is read once a day.
LATEST = "2d"
HOURLY = "1h"

_OF_APP = (f'{APP}="$app"',)
_OF_MONTH = (*_OF_APP, f'{MONTH}="$month"')
_OF_RESOURCE = (*_OF_MONTH, f'{RESOURCE}="$resource"')

COST, COST_OF_MONTHS = Metric("forge_usage_cost", _OF_MONTH), Metric("forge_usage_cost", _OF_APP)
MONTHLY = Metric("forge_usage_monthly", _OF_MONTH)
DAILY = Metric(
    "forge_usage_daily",
    (*_OF_APP, f'{ENVIRONMENT}=~"$environment"', f'{RESOURCE}="$resource"', f'{DATE}=~"$month-.*"'),
)
SITE_MONTHLY = Metric("forge_usage_site_monthly", _OF_RESOURCE)
ALLOWANCE = Metric("forge_usage_allowance", _OF_APP)
UTILIZATION = Metric("forge_usage_allowance_utilization_ratio", _OF_APP)
EXHAUSTION = Metric("forge_usage_allowance_exhaustion_seconds", _OF_APP)
COST_FORECAST = Metric("forge_usage_cost_forecast", _OF_APP)
FORECAST = Metric("forge_usage_forecast", _OF_APP)
BUDGET = Metric("forge_usage_budget", _OF_APP)
REFRESH = Metric("forge_usage_refresh_seconds", _OF_APP)
DATA_END = Metric("forge_usage_data_end_seconds", _OF_APP)
INVOCATIONS = Metric("forge_backend_invocation_count_total", (*_OF_APP, f'{ENVIRONMENT}=~"$environment"'))


def dashboard() -> Dashboard:
    """Return the dashboard."""
    description = "Usage, allowances, cost and forecast of the app. Atlassian refreshes them once a day."
    names = "forge_usage_.+"
    built = base(
        "usage",
        "Usage and cost",
        description,
        label_variable("app", names, APP),
        with_all(label_variable("environment", names, ENVIRONMENT, *_OF_APP)),
        # The newest month is the first one.
        label_variable("month", names, MONTH, *_OF_APP).sort(VariableSort.ALPHABETICAL_DESC),
        label_variable("resource", names, RESOURCE, *_OF_APP).current(
            VariableOption(selected=True, text="FUNCTION_COMPUTE", value="FUNCTION_COMPUTE")
        ),
    ).time("now-30d", "now")
    return _graphs(_consumers(_days(_stats(built).with_panel(_resources()))))


def _latest(aggregation: str, metric: Metric, reach: str = LATEST, *where: str) -> str:
    """Return an aggregation of the latest values: a revised value replaces the earlier one."""
    return f"{aggregation} (last_over_time({metric.where(*where)}[{reach}]))"


def _stats(built: Dashboard) -> Dashboard:
    used_up = f"count(last_over_time({UTILIZATION.where()}[{LATEST}]) >= 1) or vector(0)"
    return (
        built.with_panel(
            stat(
                "Cost of the month, so far",
                "currencyUSD",
                _latest("sum", COST, KEPT),
                description="Of the selected month. The invoice is Atlassian's.",
            )
        )
        .with_panel(
            stat(
                "Forecast for this month",
                "currencyUSD",
                _latest("sum", COST_FORECAST),
                description="Each day to come counts as the mean of the last 7 complete days.",
            )
        )
        .with_panel(stat("Budget", "currencyUSD", _latest("max", BUDGET), description="No data: not set."))
        .with_panel(
            stat(
                "Allowances used up this month",
                "short",
                used_up,
                "Number of resources of which more was used than is free.",
                levels={None: "green", 1: "red"},
            )
        )
        .with_panel(
            stat(
                "Last read",
                "s",
                f"time() - {_latest('min', REFRESH, KEPT)}",
                description="Time since usage was read, of the resource for which that is longest.",
            )
        )
        .with_panel(
            stat(
                "Usage until",
                "s",
                f"time() - {_latest('max', DATA_END, KEPT)}",
                description="Age of the newest usage that Atlassian has. More than two days: it has stopped"
                " refreshing, or the app is idle.",
            )
        )
    )


def _resources() -> TablePanel:
    by_resource, of_app = f"sum by ({RESOURCE})", f"max by ({RESOURCE})"
    columns = {
        "Used": ("short", _latest(by_resource, MONTHLY, KEPT)),
        "Free": ("short", _latest(of_app, ALLOWANCE)),
        "Used part": ("percentunit", _latest(of_app, UTILIZATION)),
        "Cost": ("currencyUSD", _latest(by_resource, COST, KEPT)),
        "Expected usage": ("short", _latest(of_app, FORECAST)),
        "Expected cost": ("currencyUSD", _latest(of_app, COST_FORECAST)),
        # Grafana's times are in milliseconds.
        "Used up on": ("dateTimeAsIso", f"1000 * {_latest(of_app, EXHAUSTION)}"),
    }
    return table(
        "Resources",
        RESOURCE,
        columns,
        header="Resource",
        description="Used and Cost are those of the selected month, all others those of the running month."
        " Used up on: no value if the allowance lasts.",
    )


def _days(built: Dashboard) -> Dashboard:
    days = _latest(f"sum by ({DATE})", DAILY, KEPT)
    return built.with_panel(
        category_chart(
            "$resource by day",
            "short",
            DATE,
            days,
            description="Usage of the selected resource on each day of the selected month.",
        )
    ).with_panel(
        totals(
            "Invocations by version",
            INVOCATIONS,
            VERSION,
            step=HOURLY,
            colors=VERSIONS,
            description="Compare the days before and after a version.",
        )
    )


def _consumers(built: Dashboard) -> Dashboard:
    environments = {
        "Used": ("short", _latest(f"sum by ({ENVIRONMENT})", MONTHLY, KEPT, f'{RESOURCE}="$resource"')),
        "Part of the cost": ("currencyUSD", _cost_by_environment()),
    }
    sites = {"Used": ("short", _latest(f"sum by ({SITE})", SITE_MONTHLY, KEPT))}
    return built.with_panel(
        table(
            "Environments",
            ENVIRONMENT,
            environments,
            header="Environment",
            span=12,
            description="Used is that of the selected resource. The cost is that of all resources, in"
            " proportion to their usage: allowances are for the whole app.",
        )
    ).with_panel(
        table(
            "Sites",
            SITE,
            sites,
            header="Site",
            span=12,
            description="The selected resource by site. No data: usage by site is not exported.",
        )
    )


def _cost_by_environment() -> str:
    used = f"sum by ({ENVIRONMENT}, {RESOURCE}) (last_over_time({MONTHLY.where()}[{KEPT}]))"
    of_all = f"(sum by ({RESOURCE}) (last_over_time({MONTHLY.where()}[{KEPT}])) > 0)"
    cost = f"sum by ({RESOURCE}) (last_over_time({COST.where()}[{KEPT}]))"
    return f"sum by ({ENVIRONMENT}) ({used} / on ({RESOURCE}) group_left () ({of_all} / ({cost} > 0)))"


def _graphs(built: Dashboard) -> Dashboard:
    utilization = _latest(f"max by ({RESOURCE})", UTILIZATION)
    costs = {
        f"cost of {legend(MONTH)}": _latest(f"sum by ({MONTH})", COST_OF_MONTHS),
        "forecast": _latest("sum", COST_FORECAST),
        "budget": _latest("max", BUDGET),
    }
    return built.with_panel(
        time_series(
            "Used part of the allowance",
            "percentunit",
            {legend(RESOURCE): utilization},
            "Of the running month, by resource. The dashed lines are 80 % and all of it.",
            step=HOURLY,
            colors=RESOURCES,
            levels={None: "green", 0.8: "yellow", 1: "red"},
        )
    ).with_panel(
        time_series(
            "Cost and forecast",
            "currencyUSD",
            costs,
            "Cost of each month so far, what the running month is expected to cost, and the budget.",
            step=HOURLY,
            colors={"/[02468]$/": "blue", "/[13579]$/": "purple", "forecast": "yellow", "budget": "red"},
        )
    )
