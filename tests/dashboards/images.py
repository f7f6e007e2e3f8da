"""Draw the dashboards for the documentation: `python -m tests.dashboards.images DIRECTORY`.

The drawings show a real Prometheus' responses to the dashboards' own queries over a day of sandbox data. The
position and content of a panel come from the dashboard, but the appearance is not Grafana's.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
import zlib
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import dates, ticker
from matplotlib import pyplot as plt
from PIL import Image

from tests.dashboards.asking import ALL, DASHBOARDS, LATENCY, replaced, substituted
from tests.dashboards.day import day
from tests.dashboards.truth import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.axes import Axes

    from tests.dashboards.day import Day

HOUR, QUARTER_HOUR = 3600, 900
COLUMN, LINE = 0.58, 0.42  # inches of a cell of Grafana's grid
ROWS = 8
COLORS = 128
WEEK = 7
SPARKLINE_POINTS = 25

# Grafana's colours by their names, and its palette for others.
HUES = {
    "green": "#73bf69",
    "yellow": "#e0b400",
    "red": "#f2495c",
    "dark-red": "#a50f22",
    "orange": "#ff9830",
    "blue": "#5794f2",
    "purple": "#b877d9",
}
PALETTE = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300")
# Seconds between the ticks of an axis, so that they are round minutes, hours or days.
ROUND = (1, 10, 60, 300, 600, 1200, 1800, HOUR, 2 * HOUR, 4 * HOUR, 12 * HOUR, 24 * HOUR)


def number(value: float) -> str:
    return f"{value / 1000:.3g}k" if abs(value) >= 1000 else f"{value:.3g}"


def duration(value: float) -> str:
    day = 24 * HOUR
    for unit, seconds in (("weeks", 7 * day), ("days", day), ("hours", HOUR), ("mins", 60)):
        if abs(value) >= seconds:
            return f"{value / seconds:.3g} {unit}"
    return f"{value:.3g} s"


UNITS: dict[str, Callable[[float], str]] = {
    "short": number,
    "percentunit": lambda value: f"{100 * value:.3g}%",
    "percent": lambda value: f"{value:.3g}%",
    "ms": lambda value: f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms",
    "s": duration,
    "currencyUSD": lambda value: f"${value:,.2f}",
    "dateTimeAsIso": lambda value: f"{datetime.fromtimestamp(value / 1000, timezone.utc):%Y-%m-%d}",
}


def stat_text(value: float | None, defaults: dict[str, Any]) -> str:
    """Return the text of a stat panel."""
    if value is None:
        return defaults["noValue"]
    [words] = [each["options"] for each in defaults.get("mappings", ())] or [{}]
    word = words.get(f"{value:g}")
    return word["text"] if word else UNITS[defaults["unit"]](value)


def hue(color: str) -> str:
    return HUES.get(color, color)


def color_of(value: float, defaults: dict[str, Any]) -> str:
    """Return the colour of a number."""
    steps = defaults["thresholds"]["steps"]
    return hue([each["color"] for each in steps if each["value"] is None or each["value"] <= value][-1])


def color_by_name(name: str, panel: dict[str, Any]) -> str:
    """Return the colour of a series, which depends on nothing but its name."""
    for each in panel["fieldConfig"]["overrides"]:
        if each["matcher"]["options"] == name and each["properties"][0]["id"] == "color":
            return hue(each["properties"][0]["value"]["fixedColor"])
    return PALETTE[zlib.crc32(name.encode()) % len(PALETTE)]


def with_holes(times: list[float], values: list[float], step: int) -> tuple[list[float], list[float]]:
    """Return a series with a missing value in each hole, over which Grafana draws no line."""
    filled: list[tuple[float, float]] = []
    for time, value in zip(times, values, strict=True):
        if filled and time - filled[-1][0] > 1.5 * step:
            filled.append((filled[-1][0] + step, math.nan))
        filled.append((time, value))
    return [time for time, _ in filled], [value for _, value in filled]


class Drawing:
    """A dashboard as a picture.

    Args:
        dashboard: Decoded from its JSON.
    """

    def __init__(self, dashboard: dict[str, Any], of_day: Day) -> None:
        self.dashboard = dashboard
        self.of_day = of_day
        start = int(of_day.app.start.timestamp())
        self.graph = Frame(start, QUARTER_HOUR, 24 * 4)
        self.variables = {"app": of_day.app.id, "latency": LATENCY["histogram"], **ALL}

    def save(self, path: Path) -> None:
        places = [panel["gridPos"] for panel in self.dashboard["panels"]]
        lines = max(place["y"] + place["h"] for place in places)
        figure = plt.figure(figsize=(24 * COLUMN, (lines + 1) * LINE), facecolor="#f4f5f5")
        title = f"{self.dashboard['title']}: a day of sandbox data, {self.of_day.app.start:%A}, UTC"
        figure.text(0.01, 1 - 0.6 / (lines + 1), title, fontsize=12, weight="bold", va="center")
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            bottom = (lines - place["y"] - place["h"]) / (lines + 1)
            box = (place["x"] / 24, bottom, place["w"] / 24, place["h"] / (lines + 1))
            self._panel(figure, panel, box)
        figure.savefig(path, dpi=80)
        plt.close(figure)
        with Image.open(path) as image:
            image.convert("RGB").quantize(COLORS).save(path, optimize=True)

    def _panel(self, figure: Any, panel: dict[str, Any], box: tuple[float, float, float, float]) -> None:
        left, bottom, width, height = box
        margin = 0.004
        card = figure.add_axes(
            (left + margin / 2, bottom + margin / 2, width - margin, height - margin), facecolor="white"
        )
        card.set(xticks=[], yticks=[])
        for spine in card.spines.values():
            spine.set_color("#d8d9da")
        inch = 1 / figure.get_size_inches()[1]
        title = replaced(panel["title"], self.variables)
        figure.text(left + 0.008, bottom + height - 0.2 * inch, title, fontsize=8.5, va="center")
        if panel["type"] == "timeseries":
            inner = (left + 0.045, bottom + 0.62 * inch, width - 0.055, height - 1.05 * inch)
            self._graph(figure.add_axes(inner), panel)
        elif panel["type"] == "stat":
            # One number, because the app of that day is exported by one DAG.
            defaults = panel["fieldConfig"]["defaults"]
            [value] = [values[-1] for *_, values in self._answers(panel, instant=True)] or [None]
            color = "#555555" if value is None else color_of(value, defaults)
            text = stat_text(value, defaults)
            card.text(
                0.5, 0.5, text, fontsize=19, color=color, ha="center", va="center", transform=card.transAxes
            )
            inner = (left + margin, bottom + margin, width - 2 * margin, height * 0.3)
            self._sparkline(figure.add_axes(inner), panel, color)
        elif panel["type"] == "barchart":
            inner = (left + 0.045, bottom + 0.62 * inch, width - 0.055, height - 1.05 * inch)
            self._bars(figure.add_axes(inner), panel)
        else:
            self._table(card, panel)

    def _answers(self, panel: dict[str, Any], *, instant: bool) -> list[tuple[dict[str, str], list, list]]:
        """Return legend, labels, times and values of every series in a panel."""
        frame = self.graph.whole if instant else self.graph
        found = []
        for target in panel["targets"]:
            query = substituted(target["expr"], frame, self.variables)
            span = {"start": frame.moment(1), "end": frame.moment(frame.count), "step": frame.step}
            for series in self.of_day.prometheus.ask("query_range", query=query, **span)["result"]:
                times, values = zip(*series["values"], strict=True)
                labels = {**series["metric"], "": target.get("legendFormat", ""), "refId": target["refId"]}
                found.append((labels, list(times), [float(value) for value in values]))
        return found

    def _sparkline(self, axes: Axes, panel: dict[str, Any], color: str) -> None:
        axes.set_axis_off()
        whole = self.graph.whole
        [target] = panel["targets"]
        query = substituted(target["expr"], whole, self.variables)
        span = {"start": whole.start, "end": whole.moment(1), "step": whole.step // SPARKLINE_POINTS}
        for series in self.of_day.prometheus.ask("query_range", query=query, **span)["result"]:
            times, values = zip(*((time, float(value)) for time, value in series["values"]), strict=True)
            axes.fill_between(times, min(0, *values), values, color=color, alpha=0.2, linewidth=0)
            axes.plot(times, values, color=color, linewidth=1)
            axes.set_xlim(span["start"], span["end"])

    def _mark(self, axes: Axes, panel: dict[str, Any]) -> None:
        """Draw the levels, and the annotations of the dashboard."""
        defaults = panel["fieldConfig"]["defaults"]
        _, top = axes.get_ylim()
        if "thresholdsStyle" in defaults["custom"]:
            for level in defaults["thresholds"]["steps"]:
                if level["value"] is not None and level["value"] <= top:
                    axes.axhline(level["value"], color=hue(level["color"]), linewidth=0.8, linestyle="--")
        frame = self.graph
        for marks in self.dashboard["annotations"].get("list", ()):
            query = substituted(marks["expr"], frame, self.variables)
            span = {"start": frame.moment(2), "end": frame.moment(frame.count), "step": frame.step}
            for series in self.of_day.prometheus.ask("query_range", query=query, **span)["result"]:
                moment = datetime.fromtimestamp(series["values"][0][0], timezone.utc)
                axes.axvline(moment, color=hue(marks["iconColor"]), linewidth=0.8, linestyle=":")

    def _graph(self, axes: Axes, panel: dict[str, Any]) -> None:
        custom = panel["fieldConfig"]["defaults"]["custom"]
        series = self._answers(panel, instant=False)
        bars = custom.get("drawStyle") == "bars"
        below: dict[float, float] = {}
        for labels, times, values in series:
            name = re.sub(r"{{(\w+)}}", lambda match, known=labels: known.get(match[1], ""), labels[""])
            # A long ARI would fill the legend.
            name = re.sub(r"ari:cloud:(\w+)::site/(\w{8}).*", r"\1 \2", name)
            color = color_by_name(name, panel)
            if not bars:
                times, values = with_holes(times, values, QUARTER_HOUR)
            moments = [datetime.fromtimestamp(time, timezone.utc) for time in times]
            if bars:
                bottoms = [below.get(time, 0) for time in times]
                width = QUARTER_HOUR / 86400
                axes.bar(moments, values, width=width, bottom=bottoms, label=name, color=color)
                below |= {
                    time: base + value for time, base, value in zip(times, bottoms, values, strict=True)
                }
            else:
                marker = "." if len(times) < 9 else None
                axes.plot(moments, values, linewidth=1, label=name, marker=marker, color=color)
        self._finish(axes, panel, len(series))
        self._mark(axes, panel)

    def _bars(self, axes: Axes, panel: dict[str, Any]) -> None:
        label = panel["options"]["xField"]
        bars = {labels[label]: values[-1] for labels, _, values in self._answers(panel, instant=True)}
        names = sorted(bars)
        axes.bar(range(len(names)), [bars[name] for name in names], width=0.6)
        # A month of dates has room for a label a week.
        axes.set_xticks(range(0, len(names), WEEK), names[::WEEK])
        unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: unit(value)))
        axes.tick_params(labelsize=7, length=0, colors="#555555")
        for spine in axes.spines.values():
            spine.set_visible(False)

    def _finish(self, axes: Axes, panel: dict[str, Any], count: int) -> None:
        moments = (self.graph.start, self.graph.moment(self.graph.count))
        axes.set_xlim(*(datetime.fromtimestamp(time, timezone.utc) for time in moments))
        axes.set_ylim(bottom=panel["fieldConfig"]["defaults"].get("min"))
        unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: unit(value)))
        if unit is duration and count:
            wanted = (axes.get_ylim()[1] - axes.get_ylim()[0]) / 5
            axes.yaxis.set_major_locator(
                ticker.MultipleLocator(next(each for each in (*ROUND, wanted) if each >= wanted))
            )
        axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M", tz=timezone.utc))
        axes.tick_params(labelsize=7, length=0, colors="#555555")
        axes.grid(visible=True, color="#ececec")
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if count:
            longest = max(map(len, axes.get_legend_handles_labels()[1]))
            axes.legend(
                loc="upper left",
                bbox_to_anchor=(-0.02, -0.1),
                ncols=min(count, panel["gridPos"]["w"] * 10 // (longest + 5)),
                fontsize=6.5,
                frameon=False,
                columnspacing=1,
                handlelength=1,
            )

    def _table(self, card: Axes, panel: dict[str, Any]) -> None:
        [names] = (
            each["options"]["renameByName"] for each in panel["transformations"] if each["id"] == "organize"
        )
        [header] = [name for field, name in names.items() if not field.startswith("Value #")]
        columns = [name for field, name in sorted(names.items()) if field.startswith("Value #")]
        units = {
            each["matcher"]["options"]: UNITS[each["properties"][0]["value"]]
            for each in panel["fieldConfig"]["overrides"]
            if each["properties"][0]["id"] == "unit"
        }
        cells: dict[str, dict[str, float]] = {}
        for labels, _, values in self._answers(panel, instant=True):
            [row] = (text for label, text in labels.items() if label not in {"", "refId"})
            cells.setdefault(row, {})[names[f"Value #{labels['refId']}"]] = values[-1]
        busiest = sorted(cells, key=lambda row: -cells[row].get(columns[0], 0))[:ROWS]
        text = [
            [row[:70], *(units[name](cells[row][name]) if name in cells[row] else "" for name in columns)]
            for row in busiest
        ]
        widths = [0.4] + [0.58 / len(columns)] * len(columns)
        table = card.table(
            text,
            colLabels=[header, *columns],
            colWidths=widths,
            bbox=(0.01, 0.02, 0.98, 0.86),
            edges="horizontal",
        )
        table.auto_set_font_size(False)
        table.set_fontsize(8)
        for (_, column), cell in table.get_celld().items():
            cell.set_edgecolor("#ececec")
            cell.get_text().set_horizontalalignment("right" if column else "left")


def drawings(of_day: Day) -> Iterator[tuple[str, Drawing]]:
    """Return a drawing of each dashboard, by file name."""
    for text in DASHBOARDS.values():
        dashboard = json.loads(text)
        yield f"dashboard-{dashboard['uid'].removeprefix('forge-')}.png", Drawing(dashboard, of_day)


def main(directory: Path) -> None:
    mpl.use("agg")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, day(Path(temporary)) as of_day:
        for name, drawing in drawings(of_day):
            drawing.save(directory / name)
            print(directory / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
