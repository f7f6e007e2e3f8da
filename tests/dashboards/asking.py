"""The dashboards' queries, sent as Grafana sends them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from dashboards.generate import generated
from tests.dashboards.day import last_wednesday
from tests.dashboards.truth import Frame, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.receivers.prometheus import Prometheus

ALL = {
    "environment": ".*",
    "site": ".*",
    "version": ".*",
    "remote": ".*",
    "url": ".*",
    "destination": ".*",
    "resource": "FUNCTION_COMPUTE",
    "month": f"{last_wednesday():%Y-%m}",
}
"""The initial values of the variables."""

LATENCY = {"histogram": "1", "exponential_histogram": "1", "summary": "2", "gauge": "3"}


class Query(NamedTuple):
    """A query of a panel."""

    dashboard: str
    panel: str
    letter: str
    expression: str
    is_instant: bool
    legend: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.dashboard, self.panel, self.letter


def queries(dashboard: Mapping[str, Any]) -> list[Query]:
    """Return all queries of a dashboard, decoded from its JSON."""
    return [
        Query(
            dashboard["uid"],
            panel["title"],
            target["refId"],
            target["expr"],
            # Of a stat, the last value is the number.
            target.get("instant", False) or panel["type"] == "stat",
            target.get("legendFormat", ""),
        )
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


def escaped(value: str) -> str:
    """Return a variable's value as Grafana interpolates it into a regular expression."""
    return re.sub(r"[.*+?^${}()|\[\]\\/]", r"\\\\\g<0>", value)


def substituted(expression: str, frame: Frame, variables: Mapping[str, str]) -> str:
    """Return a query as Grafana sends it: with all variables interpolated, including those of the time."""
    times = {"__interval": f"{frame.step}s", "__range": f"{frame.step * frame.count}s"}
    return replaced(expression, {**variables, **times})


def replaced(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with the variables interpolated."""
    return re.sub(r"\$(\w+)|\${(\w+):text}", lambda match: variables[match[1] or match[2]], text)


def ask(prometheus: Prometheus, expression: str, frame: Frame, by: tuple[str, ...]) -> Table:
    """Return the result of an interpolated query at each moment of a frame.

    Args:
        prometheus: The Prometheus to query.
        expression: PromQL.
        frame: The moments.
        by: All labels that the result may have.
    """
    first, last = frame.moment(1), frame.moment(frame.count)
    answer = prometheus.ask("query_range", query=expression, start=first, end=last, step=frame.step)
    table = Table(by)
    for series in answer["result"]:
        labels = series["metric"]
        assert labels.keys() <= set(by), (labels, by, expression)
        key = tuple(labels.get(label, "") for label in by)
        assert "values" in series, f"a histogram and no number: {expression}"
        table[key] = {
            round((time - frame.start) / frame.step): float(value) for time, value in series["values"]
        }
    return table


DASHBOARDS = generated()
