"""Draw the dashboards for the documentation: `python -m tests.dashboards.images DIRECTORY`.

The drawings show a real Prometheus' responses to the dashboards' own queries over the second of two days of
sandbox data. A panel's position and content come from the dashboard, but its appearance is not Grafana's.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import colors, dates, ticker
from matplotlib import pyplot as plt
from PIL import Image

from tests.dashboards.asking import ALL, DASHBOARDS, LATENCY, replaced, substituted
from tests.dashboards.day import day
from tests.dashboards.grafana_colors import FEW_TO_MANY, color, color_of_series
from tests.dashboards.truth import Frame
from tests.dashboards.units import UNITS, duration, seconds_of, stat_text
from tests.pictures import write_note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from matplotlib.axes import Axes

    from tests.dashboards.day import Day

HOUR, QUARTER_HOUR = 3600, 900
COLUMN, LINE = 0.58, 0.42  # inches of a cell of Grafana's grid
ROWS = 8
NUMBER = 0.58  # height of a number, in parts of its panel
GREY = "#555555"
LEGEND_ROWS, LEGEND_ROW = 2, 0.14  # rows that have room, inches of each
LETTER = 0.066  # inches of a letter beside a row
COLORS = 256
WEEK = 7
SPARKLINE_POINTS = 25

# Seconds between the ticks of an axis, so that they are round minutes, hours or days.
ROUND = (0.1, 1, 10, 60, 300, 600, 1200, 1800, HOUR, 2 * HOUR, 4 * HOUR, 12 * HOUR, 24 * HOUR)


def color_of(value: float, defaults: dict[str, Any]) -> str:
    """Return the colour of a number."""
    steps = defaults["thresholds"]["steps"]
    return color([each["color"] for each in steps if each["value"] is None or each["value"] <= value][-1])


def legend(labels: Mapping[str, str]) -> str:
    """Return the name of a series: its labels in the legend format, which has no name."""
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), labels[""])


def renamed(name: str, panel: dict[str, Any]) -> str:
    """Return the name of a series after the panel's transformations."""
    for each in panel.get("transformations", ()):
        if each["id"] == "renameByRegex":
            to = re.sub(r"\$(\d)", r"\\\1", each["options"]["renamePattern"])
            name = re.sub(each["options"]["regex"], to, name)
    return name


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
        texts = dashboard["templating"]["list"]
        chosen = {each["name"]: each["current"]["text"] for each in texts if each["name"] == "latency"}
        self.titles = {**self.variables, **chosen}

    def save(self, path: Path) -> None:
        places = [panel["gridPos"] for panel in self.dashboard["panels"]]
        lines = max(place["y"] + place["h"] for place in places)
        figure = plt.figure(figsize=(24 * COLUMN, (lines + 1) * LINE), facecolor="#f4f5f5")
        top = 1 - 0.6 / (lines + 1)
        figure.text(0.01, top, self.dashboard["title"], fontsize=12, weight="bold", va="center")
        figure.text(0.99, top, "24 hours, UTC", fontsize=9, color=GREY, va="center", ha="right")
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            bottom = (lines - place["y"] - place["h"]) / (lines + 1)
            box = (place["x"] / 24, bottom, place["w"] / 24, place["h"] / (lines + 1))
            self._panel(figure, panel, box)
        figure.savefig(path, dpi=80)
        plt.close(figure)
        with Image.open(path) as image:
            # Also the colours of small areas, such as those of a legend.
            palette = Image.Quantize.MAXCOVERAGE
            image.convert("RGB").quantize(COLORS, palette, dither=Image.Dither.NONE).save(path, optimize=True)
        panels = [panel["title"] for panel in self.dashboard["panels"]]
        write_note(path, {"dashboard": self.dashboard["title"], "panels": panels})

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
        title = replaced(panel["title"], self.titles)
        figure.text(left + 0.008, bottom + height - 0.2 * inch, title, fontsize=8.5, va="center")
        if panel["type"] == "timeseries":
            inner = (left + 0.045, bottom + 0.62 * inch, width - 0.055, height - 1.05 * inch)
            self._graph(figure.add_axes(inner), panel)
        elif panel["type"] == "stat":
            ink = self._numbers(card, panel)
            inner = (left + margin, bottom + margin, width - 2 * margin, height * 0.3)
            self._sparkline(figure.add_axes(inner), card, panel, ink)
        elif panel["type"] == "status-history":
            inner = (left + 0.012, bottom + 0.62 * inch, width - 0.022, height - 1.05 * inch)
            self._grid(figure.add_axes(inner), panel)
        elif panel["type"] == "barchart":
            inner = (left + 0.045, bottom + 0.62 * inch, width - 0.055, height - 1.05 * inch)
            self._bars(figure.add_axes(inner), panel)
        else:
            self._table(card, panel)

    def _numbers(self, card: Axes, panel: dict[str, Any]) -> str:
        """Draw the number of each series, with names if there are several; return the last one's colour."""
        defaults = panel["fieldConfig"]["defaults"]
        found: list[tuple[str, float | None]] = [
            (legend(labels), values[-1]) for labels, _, values in self._answers(panel, instant=True)
        ]
        ink, several = GREY, len(found) > 1
        size = 13 if several else 19
        for place, (name, value) in enumerate(found or [("", None)]):
            ink = ink if value is None else color_of(value, defaults)
            centre = {"ha": "center", "va": "center", "transform": card.transAxes}
            across = (place + 0.5) / max(1, len(found))
            card.text(across, NUMBER, stat_text(value, defaults), fontsize=size, color=ink, **centre)
            if several:
                card.text(across, NUMBER + 0.18, name, fontsize=6.5, **centre)
        return ink

    def _answers(self, panel: dict[str, Any], *, instant: bool) -> list[tuple[dict[str, str], list, list]]:
        """Return legend, labels, times and values of every series in a panel."""
        frame = self.graph.whole if instant else self._frame(panel)
        found = []
        for target in panel["targets"]:
            query = substituted(target["expr"], frame, self.variables)
            span = {"start": frame.moment(1), "end": frame.moment(frame.count), "step": frame.step}
            for series in self.of_day.prometheus.ask("query_range", query=query, **span)["result"]:
                times, values = zip(*series["values"], strict=True)
                labels = {**series["metric"], "": target.get("legendFormat", ""), "refId": target["refId"]}
                found.append((labels, list(times), [float(value) for value in values]))
        return found

    def _frame(self, panel: dict[str, Any]) -> Frame:
        """Return the steps of a graph, which may have a minimum."""
        step = max(self.graph.step, seconds_of(panel["interval"]))
        return Frame(self.graph.start, step, self.graph.step * self.graph.count // step)

    def _sparkline(self, axes: Axes, card: Axes, panel: dict[str, Any], ink: str) -> None:
        axes.set_axis_off()
        whole = self.graph.whole
        [target] = panel["targets"]
        query = substituted(target["expr"], whole, self.variables)
        span = {"start": whole.start, "end": whole.moment(1), "step": whole.step // SPARKLINE_POINTS}
        for series in self.of_day.prometheus.ask("query_range", query=query, **span)["result"]:
            times, values = zip(*((time, float(value)) for time, value in series["values"]), strict=True)
            axes.fill_between(times, min(0, *values), values, color=ink, alpha=0.2, linewidth=0)
            axes.plot(times, values, color=ink, linewidth=1)
            axes.set_xlim(span["start"], span["end"])
            if panel["options"]["showPercentChange"]:
                _write_change(card, panel["options"]["percentChangeColorMode"], values, ink)

    def _mark(self, axes: Axes, panel: dict[str, Any]) -> None:
        """Draw the levels, and the annotations of the dashboard."""
        defaults = panel["fieldConfig"]["defaults"]
        _, top = axes.get_ylim()
        if "thresholdsStyle" in defaults["custom"]:
            for level in defaults["thresholds"]["steps"]:
                if level["value"] is not None and level["value"] <= top:
                    axes.axhline(level["value"], color=color(level["color"]), linewidth=0.8, linestyle="--")
        frame = self.graph
        for marks in self.dashboard["annotations"].get("list", ()):
            query = substituted(marks["expr"], frame, self.variables)
            span = {"start": frame.moment(2), "end": frame.moment(frame.count), "step": frame.step}
            for series in self.of_day.prometheus.ask("query_range", query=query, **span)["result"]:
                moment = datetime.fromtimestamp(series["values"][0][0], timezone.utc)
                axes.axvline(moment, color=color(marks["iconColor"]), linewidth=0.8, linestyle=":")

    def _graph(self, axes: Axes, panel: dict[str, Any]) -> None:
        custom = panel["fieldConfig"]["defaults"]["custom"]
        series = self._answers(panel, instant=False)
        bars = custom.get("drawStyle") == "bars"
        step = self._frame(panel).step
        below: dict[float, float] = {}
        for position, (labels, times, values) in enumerate(series):
            name = renamed(legend(labels), panel)
            ink = color_of_series(name, position, panel)
            if not bars:
                times, values = with_holes(times, values, step)
            moments = [datetime.fromtimestamp(time, timezone.utc) for time in times]
            if bars:
                bottoms = [below.get(time, 0) for time in times]
                width = step / 86400
                axes.bar(moments, values, width=width, bottom=bottoms, label=name, color=ink)
                below |= {
                    time: base + value for time, base, value in zip(times, bottoms, values, strict=True)
                }
            else:
                marker = "." if len(times) < 9 else None
                axes.plot(moments, values, linewidth=1, label=name, marker=marker, color=ink)
        self._finish(axes, panel, len(series))
        self._mark(axes, panel)

    def _grid(self, axes: Axes, panel: dict[str, Any]) -> None:
        series = self._answers(panel, instant=False)
        step = self._frame(panel).step
        most = max(value for _, _, values in series for value in values)
        scheme = colors.LinearSegmentedColormap.from_list("few to many", FEW_TO_MANY)
        for row, (_, times, values) in enumerate(series):
            starts = [datetime.fromtimestamp(time - step, timezone.utc) for time in times]
            inks = [scheme(value / most) for value in values]
            axes.barh(row, width=0.9 * step / 86400, left=starts, height=0.85, color=inks)
        names = [renamed(legend(labels), panel) for labels, _, _ in series]
        place = axes.get_position()
        room = max(map(len, names)) * LETTER / axes.figure.get_size_inches()[0]
        axes.set_position((place.x0 + room, place.y0, place.width - room, place.height))
        self._finish(axes, panel, 0)
        self._mark(axes, panel)
        axes.grid(visible=False)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)

    def _bars(self, axes: Axes, panel: dict[str, Any]) -> None:
        label = panel["options"]["xField"]
        bars = {labels[label]: values[-1] for labels, _, values in self._answers(panel, instant=True)}
        names = sorted(bars)
        axes.bar(range(len(names)), [bars[name] for name in names], width=0.6)
        # A month of dates has room for a label a week.
        axes.set_xticks(range(0, len(names), WEEK), names[::WEEK])
        unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: unit(value)))
        axes.tick_params(labelsize=7, length=0, colors=GREY)
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
        axes.tick_params(labelsize=7, length=0, colors=GREY)
        axes.grid(visible=True, color="#ececec")
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if count:
            self._legend(axes, panel, count)

    def _legend(self, axes: Axes, panel: dict[str, Any], count: int) -> None:
        """Draw the legend below a graph, which it makes room for."""
        longest = max(map(len, axes.get_legend_handles_labels()[1]))
        columns = max(1, min(count, panel["gridPos"]["w"] * 10 // (longest + 5)))
        more = max(0, math.ceil(count / columns) - LEGEND_ROWS)
        place, inches = axes.get_position(), axes.figure.get_size_inches()[1]
        room = more * LEGEND_ROW / inches
        axes.set_position((place.x0, place.y0 + room, place.width, place.height - room))
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.1),
            ncols=columns,
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
        if len(cells) > ROWS:
            note = f"The first {ROWS} of {len(cells)} rows: scroll for more"
            card.text(0.99, 0.94, note, fontsize=7, color=GREY, ha="right", transform=card.transAxes)


def _write_change(card: Axes, mode: str, values: tuple[float, ...], ink: str) -> None:
    """Write the change since the time range before below a number."""
    change = round(values[-1] / values[0] - 1, 3)
    if change and mode != "same_as_value":
        ink = color("green" if (change > 0) == (mode == "standard") else "red")
    text = f"{'▼' if change < 0 else '▲'} {100 * abs(change):.1f}%" if change else "0%"
    card.text(
        0.5, NUMBER - 0.19, text, fontsize=7.5, color=ink, ha="center", va="center", transform=card.transAxes
    )


def drawings(of_day: Day) -> Iterator[tuple[str, Drawing]]:
    """Return a drawing of each dashboard, by file name."""
    for text in DASHBOARDS.values():
        dashboard = json.loads(text)
        yield f"dashboard-{dashboard['uid'].removeprefix('forge-')}.png", Drawing(dashboard, of_day)


def main(directory: Path) -> None:
    mpl.use("agg")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, day(Path(temporary), and_before=True) as of_day:
        for name, drawing in drawings(of_day):
            drawing.save(directory / name)
            print(directory / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
