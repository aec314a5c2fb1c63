"""Charts: a forecast's fan and the distributions of scores, as SVG inside a page, or as a PNG or SVG file of their own.

The same data give the same bytes. Figures are drawn without pyplot, so that nothing is shared between threads.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib
import matplotlib.dates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from almanac_jobs.forecast.types import Floats
from almanac_jobs.report import scales
from almanac_jobs.report.highlights import Fan, Times


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a chart, as `#rrggbb`."""

    ink: str = "#22272e"
    quiet: str = "#6b7280"
    line: str = "#e3e5e8"
    model: str = "#1d6fb8"
    baseline: str = "#c2711c"


LIGHT = Palette()

# A page has a light and a dark scheme. Its charts are drawn in colours that stand for the page's own, and then
# replaced by them.
_SLOTS = Palette(ink="#000001", quiet="#000002", line="#000003", model="#000004", baseline="#000005")
_VARIABLES = {getattr(_SLOTS, name): f"var(--{name})" for name in Palette.__slots__}

_FONT_SIZE = 8.5
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": _FONT_SIZE,
    "axes.linewidth": 0.8,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "text.parse_math": False,
    "axes.unicode_minus": True,
}


def fan_svg(fan: Fan, label: str, salt: str) -> str:
    """A fan chart to put into a page that defines the palette's colours as CSS variables.

    `label` describes it to those who do not see it; `salt` tells this chart's ids from those of others in the page.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas(5.2, 2.15, bottom=0.42)
        _draw_fan(axes, fan, _SLOTS)
        return _inline(figure, label, salt)


def fan_file(fan: Fan, title: str, extension: str) -> bytes:
    """A fan chart of its own as `png` or `svg`, with a title and a legend."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": "almanac", "font.size": 10}):
        figure, axes = _canvas(9.6, 4.2, bottom=0.55, top=0.62)
        figure.set_facecolor("#ffffff")
        _draw_fan(axes, fan, LIGHT)
        left = axes.get_position().x0
        figure.text(left, 1 - 0.18 / 4.2, title, size=13, weight="bold", color=LIGHT.ink, va="top")
        drawn = axes.get_legend_handles_labels()[0]
        lines = [one for one in drawn if isinstance(one, Line2D)]
        handles = [*lines, *reversed([one for one in drawn if one not in lines])]
        axes.legend(
            handles=handles,
            loc="lower right",
            bbox_to_anchor=(1, 1.0),
            ncols=len(handles),
            frameon=False,
            labelcolor=LIGHT.quiet,
            columnspacing=1.5,
            handlelength=1.5,
        )
        target = io.BytesIO()
        metadata = {"Date": None} if extension == "svg" else None
        figure.savefig(target, format=extension, dpi=160, metadata=metadata)
        return target.getvalue()


def mase_svg(model: Floats, baseline: Floats, label: str, salt: str) -> str:
    """How MASE is distributed over entities, on a scale of ratios: the model as bars, seasonal naive as an outline."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas(4.5, 1.55, bottom=0.24)
        edges = _octaves(np.concatenate([model, baseline]))
        ours, theirs = (np.histogram(np.clip(_log2(one), edges[0], edges[-1]), edges)[0] for one in (model, baseline))
        axes.stairs(ours, edges, fill=True, color=_SLOTS.model, alpha=0.55, linewidth=0)
        axes.stairs(theirs, edges, color=_SLOTS.baseline, linewidth=1.6)
        _ratio_axis(axes, edges)
        _count_axis(axes)
        return _inline(figure, label, salt)


def ratio_svg(ratio: Floats, label: str, salt: str) -> str:
    """How the model's error relates to seasonal naive's, entity by entity: below one the model is better."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas(4.5, 1.55, bottom=0.24)
        edges = np.arange(-2, 2.01, 0.125)
        counts = np.histogram(np.clip(_log2(ratio), edges[0], edges[-1]), edges)[0]
        better = edges[:-1] < 0
        axes.stairs(np.where(better, counts, 0), edges, fill=True, color=_SLOTS.model, alpha=0.55, linewidth=0)
        axes.stairs(np.where(better, 0, counts), edges, fill=True, color=_SLOTS.baseline, alpha=0.7, linewidth=0)
        axes.axvline(0, color=_SLOTS.ink, linewidth=0.8)
        _ratio_axis(axes, edges)
        _count_axis(axes)
        return _inline(figure, label, salt)


def shades(bands: int) -> list[float]:
    """How opaque each of so many intervals looks, from the widest to the narrowest; the narrower lie on the wider."""
    return [0.16 + 0.26 * i / max(bands - 1, 1) for i in range(bands)]


def _canvas(width: float, height: float, *, bottom: float, top: float = 0.1) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes; margins in inches, the left one follows from the labels."""
    figure = Figure(figsize=(width, height), facecolor="none")
    axes = figure.add_axes((0.0, bottom / height, 1 - 0.16 / width, 1 - (bottom + top) / height))
    axes.set_facecolor("none")
    return figure, axes


def _draw_fan(axes: Axes, fan: Fan, palette: Palette) -> None:
    bands = sorted(fan.bands, key=lambda band: -band.level)
    outer = 0.0
    for band, shade in zip(bands, shades(len(bands)), strict=True):
        axes.fill_between(
            fan.ahead,
            band.lower,
            band.upper,
            color=palette.model,
            alpha=1 - (1 - shade) / (1 - outer),
            linewidth=0,
            label=f"{band.level:g} % interval",
        )
        outer = shade
    axes.plot(fan.past, fan.history, color=palette.ink, linewidth=1.1, label="history")
    axes.plot(fan.ahead, fan.mean, color=palette.model, linewidth=1.8, label="forecast")
    _mark_single_points(axes, fan, palette)
    axes.margins(x=0.01)
    _time_axis(axes, np.concatenate([fan.past, fan.ahead]), palette)
    _value_axis(axes, fan, palette)


def _mark_single_points(axes: Axes, fan: Fan, palette: Palette) -> None:
    """A line shows no point that has no neighbour, so these get a dot."""
    for times, values, color in ((fan.past, fan.history, palette.ink), (fan.ahead, fan.mean, palette.model)):
        here = np.concatenate(([False], np.isfinite(values), [False]))
        alone = here[1:-1] & ~here[:-2] & ~here[2:]
        axes.plot(times[alone], values[alone], ".", color=color, markersize=4)


def _value_axis(axes: Axes, fan: Fan, palette: Palette) -> None:
    low, high = scales.limits(fan)
    axes.set_ylim(low, high)
    _label_values(axes, scales.round_ticks(low, high, 5))
    _quiet(axes, palette)


def _label_values(axes: Axes, ticks: Floats) -> None:
    """Labels left of the axes, which make room for the longest."""
    words = scales.compact(ticks)
    axes.set_yticks(ticks, words)
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101 - axes always belong to a figure
    left = (0.16 + 0.0084 * matplotlib.rcParams["font.size"] * max(map(len, words), default=0)) / figure.get_figwidth()
    box = axes.get_position()
    axes.set_position((left, box.y0, box.x1 - left, box.height))


def _time_axis(axes: Axes, times: Times, palette: Palette) -> None:
    """Ticks at round times; the first one, and every one where it changes, says the year (or the day) below."""
    if not len(times):
        return
    numbers = times.astype("datetime64[us]").astype(np.float64) / _DAY
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    first, last = (one.item() for one in (times.min().astype("datetime64[us]"), times.max().astype("datetime64[us]")))
    ticks = np.asarray(locator.tick_values(first, last))  # type: ignore[no-untyped-call]
    ticks = ticks[(ticks >= numbers.min()) & (ticks <= numbers.max())]
    if len(ticks) > 2:  # a tick shortly before the first of a month gives way to it
        steps = np.diff(ticks)
        ticks = ticks[np.append(steps > 0.6 * np.median(steps), True)]
    short, long = _time_labels(ticks)
    changes = np.array([True, *(before != after for before, after in pairwise(long))])[: len(ticks)]
    axes.xaxis.remove_overlapping_locs = False
    axes.set_xticks(ticks, short)
    axes.set_xticks(ticks[changes], np.array(long)[changes], minor=True)
    axes.tick_params(axis="x", which="minor", pad=5 + 1.3 * matplotlib.rcParams["font.size"])
    axes.tick_params(axis="x", which="both", length=0, labelcolor=palette.quiet)


_DAY = 86_400e6  # microseconds


def _time_labels(ticks: Floats) -> tuple[list[str], list[str]]:
    """What each tick says, and what it says below."""
    step = float(np.diff(ticks).min(initial=np.inf))
    times = [np.datetime64(round(tick * _DAY), "us").item() for tick in ticks]
    if step < 1 / 1440:
        return [f"{t:%H:%M:%S}" for t in times], [f"{t.day} {t:%b %Y}" for t in times]
    if step < 1:
        return [f"{t:%H:%M}" for t in times], [f"{t.day} {t:%b %Y}" for t in times]
    if step < 27:
        return [f"{t.day} {t:%b}" for t in times], [f"{t:%Y}" for t in times]
    if step < 360:
        return [f"{t:%b}" for t in times], [f"{t:%Y}" for t in times]
    return [f"{t:%Y}" for t in times], ["" for _ in times]


def _quiet(axes: Axes, palette: Palette) -> None:
    """No frame, no tick marks: numbers in a quiet colour and a few thin lines to read them by."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(palette.line)
    axes.tick_params(length=0, pad=5, labelcolor=palette.quiet)
    axes.grid(axis="y", color=palette.line, linewidth=0.8)
    axes.set_axisbelow(True)


def _log2(values: Floats) -> Floats:
    """Logarithms of what is defined; zero becomes minus infinity, and so lands in the first bin."""
    with np.errstate(divide="ignore"):
        return np.log2(values[np.isfinite(values)])


def _octaves(values: Floats) -> Floats:
    """Edges of bins between powers of two that hold nearly all values, and one."""
    logs = _log2(values)
    logs = logs[np.isfinite(logs)]
    low, high = np.quantile(logs, [0.005, 0.995]) if len(logs) else (0.0, 0.0)
    first, last = max(np.floor(min(low, -1.0)), -7.0), min(np.ceil(max(high, 1.0)), 7.0)
    return np.arange(first, last + 0.01, 0.125 if last - first <= 4 else 0.25)


def _ratio_axis(axes: Axes, edges: Floats) -> None:
    """Ticks at powers of two; the outermost bins hold whatever lies beyond, and say so."""
    low, high = int(edges[0]), int(edges[-1])
    step = 1 if high - low <= 8 else 2
    inner = [tick for tick in range(low + 2 * step - 1, high - step + 1) if tick % step == 0]
    words = [f"≤ {2.0**low:.3g}", *(f"{2.0**tick:.3g}" for tick in inner), f"≥ {2.0**high:.3g}"]
    axes.set_xticks([low, *inner, high], words)
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.set_xlim(low, high)


def _count_axis(axes: Axes) -> None:
    highest = max(axes.get_ylim()[1], 1.0)
    axes.set_ylim(0, highest)
    _label_values(axes, scales.round_ticks(0.0, highest, 4, whole=True))
    _quiet(axes, _SLOTS)


def _inline(figure: Figure, label: str, salt: str) -> str:
    """The figure as an SVG element for a page: its colours and letters are the page's, its ids are its own."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"almanac {salt}"}):
        figure.savefig(target, format="svg", metadata={"Date": None}, transparent=True)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    for pattern, replacement in _REDUNDANT:
        text = pattern.sub(replacement, text)
    for slot, variable in _VARIABLES.items():
        text = text.replace(slot, variable)
    text = re.sub(r"<[^>]*>", lambda tag: _LONG_NUMBER.sub(_shorten, tag[0]), text)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None  # noqa: S101 - matplotlib always writes one
    return f'<svg {box[0]} role="img" aria-label="{escape(label)}"><title>{escape(label)}</title>{rest}'


def _shorten(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


_LONG_NUMBER = re.compile(r"\d+\.\d{3,}")
_REDUNDANT = [
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>", ""),
        (r"<defs>\s*<style.*?</style>\s*</defs>", ""),
        (r'<g id="[^"]*"/>', ""),
        (r'<g id="[^"]*">', "<g>"),
        (r"font-size: [\d.]+px; font-family: [^;\"]*;?", ""),
        (r"font: [\d.]+px [^;\"]*;?", ""),
        (r"\s*\n\s*", " "),
    )
]
