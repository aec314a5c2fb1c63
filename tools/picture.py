"""A dashboard as a picture, from the answers of a Prometheus: `python -m tools.picture URL operator out.png [minutes]`.

Not Grafana's own rendering: its panels, queries and places, drawn by matplotlib, so that documentation shows what there
is to be seen without a Grafana.
"""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tools.dashboards import FOLDER

STYLE = {
    "axes.edgecolor": "#c8c8c8",
    "axes.labelcolor": "#555555",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "font.family": "sans-serif",
    "font.size": 7,
    "xtick.color": "#777777",
    "ytick.color": "#777777",
}
FACTORS = {"bytes": (2**20, " MiB"), "Bps": (2**10, " KiB/s"), "percentunit": (0.01, " %"), "s": (1, " s")}
"""What values of a unit are divided by, and what is written behind them."""

Series = tuple[str, list[float], list[float]]


def drawn(url: str, name: str, end: float, minutes: float) -> Figure:
    """The dashboard of this name over so many minutes before `end` (seconds since 1970)."""
    document = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    rows = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in document["panels"])
    figure = Figure(figsize=(13, rows * 0.36), layout=None)
    for panel in document["panels"]:
        place = panel["gridPos"]
        left, top = place["x"] / 24, 1 - place["y"] / rows
        if panel["type"] == "row":
            figure.text(0.01, top - 0.6 / rows, panel["title"], fontsize=10, color="#3f51b5", weight="bold")
            continue
        width, height = place["w"] / 24, place["h"] / rows
        axes = figure.add_axes((left + 0.035, top - height + 0.9 / rows, width - 0.05, height - 2.1 / rows))
        series = [one for target in panel["targets"] for one in answers(url, target, end, minutes)]
        _panel(axes, panel, series, end)
    return figure


def answers(url: str, target: dict[str, str], end: float, minutes: float) -> list[Series]:
    """What Prometheus answers to a query of a panel: legends, minutes before the end, and values."""
    query = target["expr"].replace("$__rate_interval", "1m")
    query = re.sub(r"\$(namespace|kind|job)\b", ".+", query)
    step = max(2.0, minutes * 60 / 200)
    asked = urllib.parse.urlencode({"query": query, "start": end - minutes * 60, "end": end, "step": step})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{url}/api/v1/query_range?{asked}") as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return [_series(target["legendFormat"], one, end) for one in found]


def _series(legend: str, one: dict[str, Any], end: float) -> Series:
    text = re.sub(r"{{(\w+)}}", lambda match: one["metric"].get(match[1], ""), legend)
    return text, [(moment - end) / 60 for moment, _ in one["values"]], [float(value) for _, value in one["values"]]


def _panel(axes: Axes, panel: dict[str, Any], series: Sequence[Series], end: float) -> None:
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    factor, sign = FACTORS.get(unit, (1, ""))
    axes.set_title(panel["title"])
    if panel["type"] == "stat":
        axes.set_axis_off()
        last = f"{series[0][2][-1] / factor:,.0f}{sign}" if series else "no data"
        axes.text(0.0, 0.1, last, fontsize=18, color="#3f51b5", transform=axes.transAxes)
    elif panel["type"] == "bargauge":
        shown = series[-8:]
        axes.barh(range(len(shown)), [values[-1] / factor for _, _, values in shown], color="#c5cae9")
        for place, (legend, _, _) in enumerate(shown):
            axes.text(0, place, f" {legend}", va="center", fontsize=6)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}{sign}")
    else:
        for legend, moments, values in series:
            axes.plot(moments, [value / factor for value in values], linewidth=1, label=legend)
        highest = max((value for _, _, values in series for value in values if value == value), default=0.0)  # no NaN
        axes.set_ylim(0, (highest / factor or 1) * 1.5)  # room for the legend
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}{sign}")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} min")
        if series:
            lines, legends = axes.get_legend_handles_labels()
            axes.legend(lines[:4], legends[:4], fontsize=5.5, frameon=False, loc="upper left", ncols=2)
        else:
            axes.text(0.5, 0.5, "no data", ha="center", color="#999999", transform=axes.transAxes)


def main(arguments: Sequence[str]) -> None:
    """Draw a dashboard into a file."""
    url, name, file, *rest = arguments
    with mpl.rc_context(STYLE):
        figure = drawn(url, name, time.time(), float(rest[0]) if rest else 15.0)
        figure.savefig(Path(file), dpi=85)


if __name__ == "__main__":
    main(sys.argv[1:])
