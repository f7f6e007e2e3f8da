"""The expected result of each query of each dashboard, in terms of the served data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dashboards.base import LATENCY_TITLE
from tests.dashboards.truth import (
    Frame,
    Table,
    Truth,
    grown,
    highest,
    latest_by_series,
    mean_of_means,
    quantile,
    total,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HOUR, WEEK, KEPT = 3600, 7 * 24 * 3600, 15 * 24 * 3600
INVOCATIONS, ERRORS = "forge_backend_invocation_count_total", "forge_backend_invocation_errors_total"
REQUESTS, CUSTOM = "forge_api_request_count_total", "forge_backend_custom_metrics_count_total"
INVOCATION_LATENCY = "forge_backend_invocation_latency_milliseconds"
API_LATENCY = "forge_api_request_latency_milliseconds"
ENVIRONMENT, SITE, VERSION = "deployment_environment_name", "contextAri", "appVersion"
OUTCOME, DAG = "forge_exporter_outcome", "forge_exporter_dag_id"
DESTINATION = "forge_exporter_destination"
POD = ("serviceKey", "pod")


@dataclass
class Asked:
    """A dashboard with its variables and time range selected.

    Attributes:
        truth: The ground truth.
        frame: The moments.
        shape: Value of the variable `latency`.
        chosen: Selected values of the variables that filter by labels, by label.
    """

    truth: Truth
    frame: Frame
    shape: str = "histogram"
    chosen: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str, by: tuple[str, ...], reduce: Callable, **more) -> Table:
        """Reduce a metric's samples, filtered by the variables."""

        def where(labels: Mapping[str, str], also: Mapping[str, str] = more.pop("where", {})) -> bool:
            return _is_chosen(name, labels, self.chosen) and also.items() <= labels.items()

        return self.truth.reduced(name, by, more.pop("frame", self.frame), reduce, where=where, **more)

    def total(self, name: str, *by: str, where: Mapping[str, str] | None = None) -> Table:
        return self.of(name, by, total, where=where or {})

    def share(self, part: Table, whole: Table) -> Table:
        return whole.joined(part, lambda all_of_it, some: (some or 0) / all_of_it)

    def error_rate(self, *by: str) -> Table:
        return self.share(self.total(ERRORS, *by), self.total(INVOCATIONS, *by))

    def errors(self, *by: str) -> Table:
        """Return the errors of everything with invocations."""
        return self.total(INVOCATIONS, *by).joined(self.total(ERRORS, *by), lambda _, errors: errors or 0)

    def status(self, status: str, *by: str) -> Table:
        return self.share(self.total(REQUESTS, *by, where={"status": status}), self.total(REQUESTS, *by))

    def if_shape(self, *shapes: str, table: Callable[[], Table]) -> Table:
        return table() if self.shape in shapes else Table(())

    def quantile(self, share: float, name: str, *by: str) -> Table:
        histograms = ("histogram", "exponential_histogram")
        return self.if_shape(*histograms, table=lambda: self.of(name, by, quantile(share)))

    def summary_mean(self, name: str, *by: str) -> Table:
        return self.if_shape(
            "summary",
            table=lambda: self.share(self.total(f"{name}_sum", *by), self.total(f"{name}_count", *by)),
        )

    def gauge_mean(self, name: str, *by: str) -> Table:
        return self.if_shape("gauge", table=lambda: self.of(name, by, mean_of_means))

    def slowest(self, name: str, shape: str, *by: str) -> Table:
        return self.if_shape(shape, table=lambda: self.of(name, by, highest))

    def latency(self, name: str, *by: str) -> Table:
        return self.quantile(0.95, name, *by) or self.summary_mean(name, *by) or self.gauge_mean(name, *by)

    def top(self, table: Table, name: str, label: str, where: Mapping[str, str] | None = None) -> Table:
        """Return the rows of the ten with the highest totals over the period; ties are optional."""
        totals = self.of(name, (label,), total, frame=self.frame.whole, where=where or {})
        amounts = {key: values[1] for key, values in totals.items()}
        least = sorted(amounts.values(), reverse=True)[:10][-1]
        ties = {key for key, amount in amounts.items() if amount == least}
        surplus = sum(amount >= least for amount in amounts.values()) > 10
        kept = Table(table.by, ties if surplus else ())
        kept.update({key: values for key, values in table.items() if amounts.get(key, -1) >= least})
        return kept

    def day_before(self) -> Asked:
        """Return what would have been asked the day before."""
        frame = Frame(self.frame.start - 24 * HOUR, self.frame.step, self.frame.count)
        return Asked(self.truth, frame, self.shape, self.chosen)

    def latest(
        self, name: str, reduce: Callable[[list[float]], float], *by: str, reach: int, **more
    ) -> Table:
        """Reduce the last value of each series."""
        return self.of(name, by, lambda samples: reduce(latest_by_series(samples)), reach=reach, **more)

    def behind(self) -> Table:
        newest = self.of("forge_exporter_window_end_seconds", (DAG, DESTINATION), highest, reach=KEPT)
        return newest.map(lambda number, end: self.frame.moment(number) - end)

    def restarts(self, *by: str) -> Table:
        # The increase within a step is relative to the last minute before it.
        return self.of("container_status_restarts_total", by, grown, reach=self.frame.step + 60)

    def or_zero(self, table: Table) -> Table:
        """Return the table, with 0 at the moments without any value."""
        every = Table(table.by)
        every.update({key: dict(values) for key, values in table.items()})
        known = {number for values in table.values() for number in values}
        if zeros := set(range(1, self.frame.count + 1)) - known:
            every.setdefault(("",) * len(table.by), {}).update(dict.fromkeys(zeros, 0))
        return every

    def of_tasks(self, name: str, *by: str, reduce: Callable | None = None) -> Table:
        """Return what a task sends to each of its destinations alike, once."""
        once = Table(by)
        for key, values in self.of(name, (*by, DESTINATION), reduce or total).items():
            row = once.setdefault(key[:-1], {})
            row.update({number: max(value, row.get(number, value)) for number, value in values.items()})
        return once

    def windows_done(self) -> Table:
        delivered, empty = (
            self.total("forge_exporter_windows_total", DESTINATION, where={OUTCOME: outcome})
            for outcome in ("delivered", "empty")
        )
        return delivered.joined(empty, lambda some, others: some + (others or 0))

    def not_delivered(self) -> Table:
        coverage = self.latest("forge_exporter_coverage", sum, OUTCOME, reach=2 * HOUR)
        del coverage[("delivered",)]
        return coverage

    def missing(self) -> Table:
        """Return the number of missing or failed windows at the last check."""
        outcomes = [{OUTCOME: "missing"}, {OUTCOME: "failed"}]
        missing, failed = (
            self.latest("forge_exporter_coverage", sum, DESTINATION, reach=2 * HOUR, where=each)
            for each in outcomes
        )
        return missing.joined(failed, lambda some, others: some + others)

    def first_gap(self) -> Table:
        """Return the time until the first gap expires: -1 without a gap, nothing without a check."""
        looked_for = self.latest("forge_exporter_coverage", len, DESTINATION, reach=2 * HOUR)
        gaps = self.latest("forge_exporter_gap_expiry_seconds", min, DESTINATION, reach=2 * HOUR)
        return looked_for.joined(gaps, lambda _, gap: -1 if gap is None else gap)


def _is_chosen(name: str, labels: Mapping[str, str], chosen: Mapping[str, str]) -> bool:
    """Return whether a series matches the variables; each applies only to metrics with its label."""
    if name.startswith("forge_exporter_"):
        return labels[DESTINATION] == chosen.get(DESTINATION, labels[DESTINATION])
    if name in {"container_uptime_seconds", "service_instance_count"}:
        return ENVIRONMENT not in labels or labels[ENVIRONMENT] == chosen.get(
            ENVIRONMENT, labels[ENVIRONMENT]
        )
    restricting = {ENVIRONMENT}
    if not name.startswith("container_"):
        restricting.add(SITE)
    if name.startswith("forge_backend_"):
        restricting.add(VERSION)
    return all(labels[label] == value for label, value in chosen.items() if label in restricting)


def _affected(asked: Asked, name: str, **where: str) -> Table:
    hurt = asked.total(name, SITE, where=where).map(lambda _, count: count or None)
    return asked.or_zero(hurt.counted())


def _latencies(name: str) -> dict[str, Callable[[Asked], Table]]:
    return {
        "A": lambda asked: asked.quantile(0.5, name),
        "B": lambda asked: asked.quantile(0.95, name),
        "C": lambda asked: asked.quantile(0.99, name),
        "D": lambda asked: asked.summary_mean(name),
        "E": lambda asked: asked.slowest(name, "summary", "quantile"),
        "F": lambda asked: asked.gauge_mean(name),
        "G": lambda asked: asked.slowest(name, "gauge"),
    }


def _and_the_day_before(name: str) -> dict[str, Callable[[Asked], Table]]:
    return {"A": lambda asked: asked.total(name), "B": lambda asked: asked.day_before().total(name)}


def _calls(label: str) -> dict[str, Callable[[Asked], Table]]:
    return {
        "A": lambda asked: asked.total(REQUESTS, label),
        "B": lambda asked: asked.status("5xx", label),
        "C": lambda asked: asked.status("4xx", label),
        "D": lambda asked: asked.latency(API_LATENCY, label),
    }


def _failed_calls(asked: Asked) -> Table:
    failures = asked.total(REQUESTS, "url", where={"status": "5xx"})
    return asked.top(failures, REQUESTS, "url", where={"status": "5xx"})


def _rate_of_busy_sites(asked: Asked) -> Table:
    """Return the error rates of sites in intervals with at least five invocations."""
    rates, invocations = asked.error_rate(SITE), asked.total(INVOCATIONS, SITE)
    kept = Table(rates.by, rates.optional)
    for key, values in rates.items():
        busy = {number: rate for number, rate in values.items() if invocations[key][number] >= 5}
        if busy:
            kept[key] = busy
    return kept


def _share_of_environment(asked: Asked) -> Table:
    wholes = asked.total(INVOCATIONS, ENVIRONMENT)
    parts = asked.total(INVOCATIONS, VERSION, ENVIRONMENT)
    shares = Table(parts.by)
    for key, values in parts.items():
        whole = wholes[key[1:]]
        shares[key] = {number: value / whole[number] for number, value in values.items()}
    return shares


APP_OVERVIEW = {
    "Invocations": {"A": lambda asked: asked.total(INVOCATIONS)},
    "Errors": {"A": lambda asked: asked.errors()},
    "Error rate": {"A": lambda asked: asked.error_rate()},
    LATENCY_TITLE: {"A": lambda asked: asked.latency(INVOCATION_LATENCY)},
    "API requests": {"A": lambda asked: asked.total(REQUESTS)},
    "Sites": {"A": lambda asked: asked.total(INVOCATIONS, SITE).counted()},
    "Invocations by environment": {"A": lambda asked: asked.total(INVOCATIONS, ENVIRONMENT)},
    "Invocations by version": {"A": lambda asked: asked.total(INVOCATIONS, VERSION)},
    "Error rate by environment": {"A": lambda asked: asked.error_rate(ENVIRONMENT)},
    "Error rate by version": {"A": lambda asked: asked.error_rate(VERSION)},
    "Invocations, and the day before": _and_the_day_before(INVOCATIONS),
    "Errors, and the day before": _and_the_day_before(ERRORS),
    "Top 10 functions by errors": {
        "A": lambda asked: asked.top(asked.total(ERRORS, "functionKey"), ERRORS, "functionKey")
    },
    "Invocation latency": _latencies(INVOCATION_LATENCY),
    "Errors by type": {"A": lambda asked: asked.total(ERRORS, "errorType")},
    "Top 10 functions by invocations": {
        "A": lambda asked: asked.top(asked.total(INVOCATIONS, "functionKey"), INVOCATIONS, "functionKey")
    },
    "Custom metrics": {"A": lambda asked: asked.total(CUSTOM, "metricName")},
    "Sites with invocations": {"A": lambda asked: asked.total(INVOCATIONS, SITE).counted()},
}

API_CALLS = {
    "Requests": {"A": lambda asked: asked.total(REQUESTS)},
    "5xx responses": {"A": lambda asked: asked.status("5xx")},
    "4xx responses": {"A": lambda asked: asked.status("4xx")},
    LATENCY_TITLE: {"A": lambda asked: asked.latency(API_LATENCY)},
    "Requests by status": {"A": lambda asked: asked.total(REQUESTS, "status")},
    "Requests by remote": {"A": lambda asked: asked.total(REQUESTS, "remote")},
    "5xx by remote": {"A": lambda asked: asked.status("5xx", "remote")},
    "4xx by remote": {"A": lambda asked: asked.status("4xx", "remote")},
    "Request latency": _latencies(API_LATENCY),
    "Latency by remote": {"A": lambda asked: asked.latency(API_LATENCY, "remote")},
    "Top 10 URLs by requests": {"A": lambda asked: asked.top(asked.total(REQUESTS, "url"), REQUESTS, "url")},
    "Top 10 URLs by 5xx": {"A": _failed_calls},
    "Latency of the top 10 URLs by requests": {
        "A": lambda asked: asked.top(asked.latency(API_LATENCY, "url"), REQUESTS, "url")
    },
    "Remotes": _calls("remote"),
    "URLs": _calls("url"),
}

SITES = {
    "Sites with invocations": {"A": lambda asked: asked.total(INVOCATIONS, SITE).counted()},
    "Sites with errors": {"A": lambda asked: _affected(asked, ERRORS)},
    "Sites with 5xx from an API": {"A": lambda asked: _affected(asked, REQUESTS, status="5xx")},
    "Top 10 sites by errors": {"A": lambda asked: asked.top(asked.total(ERRORS, SITE), ERRORS, SITE)},
    "Error rate of the top 10 sites by errors": {
        "A": lambda asked: asked.top(_rate_of_busy_sites(asked), ERRORS, SITE)
    },
    "Top 10 sites by invocations": {
        "A": lambda asked: asked.top(asked.total(INVOCATIONS, SITE), INVOCATIONS, SITE)
    },
    "Sites": {
        "A": lambda asked: asked.total(INVOCATIONS, SITE),
        "B": lambda asked: asked.errors(SITE),
        "C": lambda asked: asked.error_rate(SITE),
        "D": lambda asked: asked.latency(INVOCATION_LATENCY, SITE),
        "E": lambda asked: asked.total(REQUESTS, SITE),
        "F": lambda asked: asked.status("5xx", SITE),
    },
}

VERSIONS = {
    "Invocations": {"A": lambda asked: asked.total(INVOCATIONS, VERSION)},
    "Share of its environment's invocations": {"A": _share_of_environment},
    "Error rate": {"A": lambda asked: asked.error_rate(VERSION)},
    LATENCY_TITLE: {"A": lambda asked: asked.latency(INVOCATION_LATENCY, VERSION)},
    "Errors": {"A": lambda asked: asked.total(ERRORS, VERSION)},
    "Sites": {"A": lambda asked: asked.total(INVOCATIONS, VERSION, SITE).counted(VERSION)},
    "Versions": {
        "A": lambda asked: asked.total(INVOCATIONS, VERSION),
        "B": lambda asked: asked.errors(VERSION),
        "C": lambda asked: asked.error_rate(VERSION),
        "D": lambda asked: asked.latency(INVOCATION_LATENCY, VERSION),
        "E": lambda asked: asked.total(INVOCATIONS, VERSION, SITE).counted(VERSION),
    },
}

CONTAINERS = {
    "Instances": {"A": lambda asked: asked.latest("service_instance_count", sum, reach=1800)},
    "Restarts": {"A": lambda asked: asked.restarts()},
    "Shortest uptime": {"A": lambda asked: asked.latest("container_uptime_seconds", min, reach=1800)},
    "CPU": {"A": lambda asked: asked.of("container_cpu_usage_percentage_percent", POD, mean_of_means)},
    "Memory": {"A": lambda asked: asked.of("container_memory_usage_percentage_percent", POD, mean_of_means)},
    "Restarts by pod": {"A": lambda asked: asked.restarts(*POD)},
    "Uptime": {
        "A": lambda asked: asked.latest("container_uptime_seconds", max, *POD, reach=asked.frame.step)
    },
    "Instances by service": {
        "A": lambda asked: asked.latest("service_instance_count", sum, "serviceKey", reach=asked.frame.step)
    },
}

EXPORTER = {
    "Behind by": {"A": lambda asked: asked.behind()},
    "Windows delivered": {"A": lambda asked: asked.or_zero(asked.windows_done())},
    "Failed attempts": {
        "A": lambda asked: asked.or_zero(asked.total("forge_exporter_failures_total", DESTINATION))
    },
    "Missing windows": {"A": lambda asked: asked.missing()},
    "First gap expires in": {"A": lambda asked: asked.first_gap()},
    "Token expires in": {
        "A": lambda asked: asked.latest("forge_exporter_token_expiry_seconds", min, reach=2 * HOUR)
    },
    "Heartbeat: tasks ended": {
        "A": lambda asked: asked.of_tasks("forge_exporter_heartbeat", DAG, reduce=len)
    },
    "Behind by, over time": {"A": lambda asked: asked.behind()},
    "Lag of each window": {
        "A": lambda asked: asked.of("forge_exporter_lag_seconds", (DAG, DESTINATION), highest)
    },
    "Windows": {"A": lambda asked: asked.total("forge_exporter_windows_total", OUTCOME)},
    "Points": {"A": lambda asked: asked.total("forge_exporter_points_total", OUTCOME)},
    "Waiting for the rate limit": {"A": lambda asked: asked.of_tasks("forge_exporter_wait_seconds_total")},
    "Gateway calls": {
        "A": lambda asked: asked.of_tasks("forge_exporter_calls_total"),
        "B": lambda asked: asked.of_tasks("forge_exporter_throttles_total"),
    },
    "Failed attempts by error": {
        "A": lambda asked: asked.total("forge_exporter_failures_total", "error_type", DESTINATION)
    },
    "Undelivered windows of the last 14 days": {"A": lambda asked: asked.not_delivered()},
    "Windows with late points": {
        "A": lambda asked: asked.latest("forge_exporter_late_ratio", max, DAG, DESTINATION, reach=2 * HOUR)
    },
    "Windows not archived": {"A": lambda asked: asked.total("forge_exporter_unarchived_total")},
}

TRUTHS: dict[tuple[str, str, str], Callable[[Asked], Table]] = {
    (f"forge-{name}", panel, letter): truth
    for name, panels in {
        "app-overview": APP_OVERVIEW,
        "api-calls": API_CALLS,
        "sites": SITES,
        "versions": VERSIONS,
        "containers": CONTAINERS,
        "exporter": EXPORTER,
    }.items()
    for panel, letters in panels.items()
    for letter, truth in letters.items()
}
"""By a dashboard's uid, a panel's title and a query's letter."""
