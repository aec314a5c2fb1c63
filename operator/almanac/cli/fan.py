"""A fan chart in letters: history and forecast as lines of Braille dots, intervals as shaded cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotext
from numpy.typing import NDArray
from rich.text import Text

if TYPE_CHECKING:
    from almanac_jobs.report.highlights import Band, Fan

_LINE = "braille"
_SHADES = "░▒▓"
_HISTORY, _FORECAST, _BAND = "default", "cyan+", "blue"


def draw(fan: Fan, width: int, height: int, *, colour: bool) -> str:
    """The chart as lines of text, `width` letters wide; with terminal colours if asked for."""
    from almanac_jobs.report import scales

    figure = plotext.figure
    plotext.terminal.limit(False, False)
    figure.clear()
    figure.theme("colorless")
    figure.canvas("default")
    figure.plot_size(width, height)
    figure.axes(False, axis="both", side=1)
    figure.legend(False)
    first = len(fan.past)
    ahead = np.arange(first, first + len(fan.ahead), dtype=np.float64)
    for band, shade in _shaded(fan):
        _fill(figure, ahead, band.lower, band.upper, shade, width)
    _line(figure, np.arange(first, dtype=np.float64), fan.history, _HISTORY)
    _line(figure, ahead, fan.mean, _FORECAST)
    low, high = scales.limits(fan)
    ticks = scales.round_ticks(low, high, max(2, height // 4))
    figure.ruler("y").lim(low, high).ticks(list(ticks), [f"{word} " for word in scales.compact(ticks)])
    times = np.concatenate([fan.past, fan.ahead])
    places = np.unique(np.linspace(0, len(times) - 1, max(2, width // 18)).astype(np.int64))
    figure.ruler("x").lim(0, max(len(times) - 1, 1)).ticks(list(places), [_moment(time) for time in times[places]])
    text: str = figure.build().string(colorless=not colour)
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))


def legend(fan: Fan) -> Text:
    """What the lines and shades of the chart mean."""
    text = Text.assemble(("⣀⡠⠔", _HISTORY), " history   ", ("⣀⡠⠔", "bright_cyan"), " forecast")
    for band, shade in reversed(_shaded(fan)):
        text.append("   ").append(shade * 2, _BAND).append(f" {band.level:g} %")
    return text


def _shaded(fan: Fan) -> list[tuple[Band, str]]:
    """The intervals that there are, the widest first, as far as there are shades."""
    known = [band for band in fan.bands if np.isfinite(band.upper - band.lower).any()]
    return list(zip(sorted(known, key=lambda band: -band.level), _SHADES, strict=False))


def _line(figure: plotext.figure, x: NDArray[np.float64], y: NDArray[np.float64], colour: str) -> None:
    """A line that breaks where values are missing."""
    present = np.flatnonzero(np.isfinite(y))
    for run in np.split(present, np.flatnonzero(np.diff(present) > 1) + 1):
        if len(run):
            marker = plotext.marker(_LINE, plotext.pixel(colour))
            figure.draw(figure.signal(list(x[run]), list(y[run]), marker=marker).lines())


def _fill(
    figure: plotext.figure,
    x: NDArray[np.float64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    shade: str,
    width: int,
) -> None:
    """Shaded cells between two bounds, in every column of the chart that the forecast reaches."""
    known = np.isfinite(lower) & np.isfinite(upper)
    columns = np.linspace(x[known][0], x[known][-1], 2 * width)
    marker = plotext.marker(shade, plotext.pixel(_BAND))
    edges = (list(np.interp(columns, x[known], bound[known])) for bound in (upper, lower))
    top, bottom = (figure.signal(list(columns), edge, marker=marker) for edge in edges)
    figure.draw(top.fill(bottom).density("full", "filling"))


def _moment(time: object) -> str:
    """A datetime64[s] as ISO 8601, midnights without their time."""
    return str(time).removesuffix("T00:00:00").removesuffix(":00").replace("T", " ")
