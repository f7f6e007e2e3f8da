"""The dashboards' queries, and how Grafana asks them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from dashboards.generate import generated
from tests.dashboards.truth import Frame, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.receivers.prometheus import Prometheus

ALL = {"environment": ".*", "site": ".*", "version": ".*"}
"""The variables as they are set at first."""

LATENCY = {"histogram": "1", "exponential_histogram": "1", "summary": "2", "gauge": "3"}


class Query(NamedTuple):
    """One query of one panel of a dashboard."""

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
            target.get("instant", False),
            target.get("legendFormat", ""),
        )
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


def escaped(value: str) -> str:
    """Return a variable's value as Grafana puts it between a regular expression's quotes."""
    return re.sub(r"[.*+?^${}()|\[\]\\/]", r"\\\\\g<0>", value)


def substituted(expression: str, frame: Frame, variables: Mapping[str, str]) -> str:
    """Return a query as Grafana sends it: with variables put in, those of the time too."""
    times = {"__interval": f"{frame.step}s", "__range": f"{frame.step * frame.count}s"}
    return replaced(expression, {**variables, **times})


def replaced(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with the variables put in."""
    return re.sub(r"\$(\w+)", lambda match: variables[match[1]], text)


def ask(prometheus: Prometheus, expression: str, frame: Frame, by: tuple[str, ...]) -> Table:
    """Return what a query, ready to be sent, answers at each moment of a frame.

    Args:
        prometheus: Whom to ask.
        expression: PromQL.
        frame: The moments.
        by: All the labels that there may be in the answer.
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
