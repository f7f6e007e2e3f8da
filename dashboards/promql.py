"""PromQL for Forge's metrics as Prometheus keeps them: delta points, one a minute.

A delta point is the count of its minute, so totals are sums over time and never a `rate()`. Grafana's
`$__interval` equals the step of a graph, so that each point is counted once. `$__rate_interval` would count
most points several times.
"""

from __future__ import annotations

from dataclasses import dataclass

INTERVAL, RANGE = "$__interval", "$__range"
APP, ENVIRONMENT = "atlassian_forge_app_id", "deployment_environment_name"
SITE, VERSION = "contextAri", "appVersion"
REMOTE, URL = "remote", "url"
DAG, DESTINATION = "forge_exporter_dag_id", "forge_exporter_destination"
# Regular expressions for metric names, valid for every type of latency.
OF_INVOCATIONS, OF_CALLS = "forge_backend_.+", "forge_api_.+"
OF_INVOCATIONS_AND_CALLS = f"{OF_INVOCATIONS}|{OF_CALLS}"

_OF_APP = (f'{APP}="$app"',)
_OF_ENVIRONMENT = (*_OF_APP, f'{ENVIRONMENT}=~"$environment"')
_OF_SITE = (*_OF_ENVIRONMENT, f'{SITE}=~"$site"')
_OF_VERSION = (*_OF_SITE, f'{VERSION}=~"$version"')
_OF_URL = (*_OF_SITE, f'{REMOTE}=~"$remote"', f'{URL}=~"$url"')
# Points without an environment count for all environments.
_OF_ANY_ENVIRONMENT = (*_OF_APP, f'{ENVIRONMENT}=~"$environment|"')

SERVER_ERRORS, CLIENT_ERRORS = ('status="5xx"',), ('status="4xx"',)
# Distinguish a summary's quantiles from gauges.
QUANTILE, NO_QUANTILE = 'quantile!=""', 'quantile=""'

TOP = 10


@dataclass(frozen=True)
class Metric:
    """A metric by its name in Prometheus, with the matchers that apply the dashboards' variables."""

    name: str
    matchers: tuple[str, ...]

    def where(self, *more: str, suffix: str = "") -> str:
        """Return the selector of its series, optionally with more matchers and a suffix of the name."""
        return f"{self.name}{suffix}{{{', '.join((*self.matchers, *more))}}}"


INVOCATIONS = Metric("forge_backend_invocation_count_total", _OF_VERSION)
ERRORS = Metric("forge_backend_invocation_errors_total", _OF_VERSION)
INVOCATION_LATENCY = Metric("forge_backend_invocation_latency_milliseconds", _OF_VERSION)
CUSTOM = Metric("forge_backend_custom_metrics_count_total", _OF_VERSION)
API_REQUESTS = Metric("forge_api_request_count_total", _OF_SITE)
# Any version, so that a new one is found by comparison.
DEPLOYED = Metric(INVOCATIONS.name, _OF_ENVIRONMENT)
# With the variables that only the dashboard of API calls has.
CALLS = Metric(API_REQUESTS.name, _OF_URL)
CALL_LATENCY = Metric("forge_api_request_latency_milliseconds", _OF_URL)
CPU = Metric("container_cpu_usage_percentage_percent", _OF_ENVIRONMENT)
MEMORY = Metric("container_memory_usage_percentage_percent", _OF_ENVIRONMENT)
RESTARTS = Metric("container_status_restarts_total", _OF_ENVIRONMENT)
UPTIME = Metric("container_uptime_seconds", _OF_ANY_ENVIRONMENT)
INSTANCES = Metric("service_instance_count", _OF_ANY_ENVIRONMENT)


def exporter(name: str) -> Metric:
    """Return one of the exporter's own metrics, given its name without `forge_exporter_`."""
    return Metric(f"forge_exporter_{name}", (*_OF_APP, f'{DESTINATION}=~"$destination"'))


def by_labels(labels: tuple[str, ...]) -> str:
    """Return the `by` clause of an aggregation."""
    return f" by ({', '.join(labels)}) " if labels else ""


def total(metric: Metric, window: str, *by: str, where: tuple[str, ...] = (), at: str = "") -> str:
    """Return the total of a delta sum.

    Args:
        metric: The sum.
        window: `INTERVAL` in a graph, `RANGE` for the whole time range.
        by: Labels to keep.
        where: Additional matchers.
        at: An @ modifier for the selector.
    """
    return f"sum{by_labels(by)}(sum_over_time({metric.where(*where)}[{window}]{at}))"


def total_of_tasks(metric: Metric, window: str) -> str:
    """Return the total of a delta sum that a task sends to each of its destinations alike."""
    return f"sum(max by ({DAG}) (sum_over_time({metric.where()}[{window}])))"


def ratio(part: str, whole: str) -> str:
    """Return the ratio of a part to the whole: 0 if the whole has points and the part has none."""
    return f"({part} or 0 * {whole}) / {whole}"


def quantile(share: float, metric: Metric, window: str, *by: str) -> str:
    """Return a quantile of explicit histograms, else of exponential ones, stored as native histograms."""
    buckets = f"sum by ({', '.join((*by, 'le'))}) (sum_over_time({metric.where(suffix='_bucket')}[{window}]))"
    native = f"sum{by_labels(by)}(sum_over_time({metric.where()}[{window}]))"
    return f"histogram_quantile({share}, {buckets}) or histogram_quantile({share}, {native})"


def means(metric: Metric, window: str, *by: str) -> tuple[str, str]:
    """Return the mean of summaries, and the unweighted mean of gauges over their series."""
    sums, counts = (
        f"sum{by_labels(by)}(sum_over_time({metric.where(suffix=suffix)}[{window}]))"
        for suffix in ("_sum", "_count")
    )
    gauges = f"avg{by_labels(by)}(avg_over_time({metric.where(NO_QUANTILE)}[{window}]))"
    return f"{sums} / {counts}", gauges


# The values of the variable `latency`.
HISTOGRAM, SUMMARY, GAUGE = 1, 2, 3


def if_latency_is(shape: int, expression: str) -> str:
    """Return the expression, empty unless the variable `latency` selects this type."""
    return f"({expression}) and on () (vector($latency) == {shape})"


def latency(metric: Metric, window: str, *by: str) -> str:
    """Return the latency as one number: the 95th percentile of histograms, else the mean."""
    summaries, gauges = means(metric, window, *by)
    shapes = {HISTOGRAM: quantile(0.95, metric, window, *by), SUMMARY: summaries, GAUGE: gauges}
    return " or ".join(f"({if_latency_is(shape, expression)})" for shape, expression in shapes.items())


def only_top(expression: str, metric: Metric, label: str, *, where: tuple[str, ...] = ()) -> str:
    """Keep the results of the ten label values with the highest totals over the whole time range.

    `topk` alone would select different ones at each step of a graph.
    """
    totals = total(metric, RANGE, label, where=where, at=" @ end()")
    return f"({expression}) and on ({label}) topk({TOP}, {totals})"


DAY_BEFORE = " offset 1d"
"""Modifier of a selector: the same time of the day before."""


def new_values(metric: Metric, label: str) -> str:
    """Return the values of a label that had no points in the day before: the versions that were deployed."""
    now = total(metric, "15m", label)
    before = total(metric, "1d", label, at=" offset 15m")
    return f"{now} unless on ({label}) {before}"
