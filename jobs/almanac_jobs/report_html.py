"""report.html: what a run did and how good it is, on one page that needs nothing else: no request, no script.

Pure: data in, text out, the same bytes for the same data. Every value is escaped by the template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from almanac_jobs import charts
from almanac_jobs.evaluate import Totals
from almanac_jobs.forecast.types import FAILED, Floats, Status
from almanac_jobs.highlights import Highlight, Highlights

LISTED = 200
"""Entities without a model that the page lists at most."""

_NARROW = "\u202f"  # narrow no-break space, between thousands and before units


@dataclass(frozen=True, slots=True)
class Failure:
    """An entity that its model does not forecast, and why: its status, with how many observed periods it has."""

    entity: str
    status: str
    observations: int


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the page says.

    `job` is the job's name with its namespace, `manifest` its YAML. `first` and `last` are the first and the last
    period of the data, `rows` counts rows read, `notes` what was done to them (`null values dropped` ...). `model` is
    the model in words, `frequency` as in the job. `statuses` counts entities; `durations` are seconds by stage, in
    their order. `totals` is None where evaluation is off; `mase` and `baseline_mase` have one entry an entity, NaN
    where it was not tested. `failures` need not be complete: `statuses` counts them.
    """

    job: str
    run: str
    finished: datetime
    manifest: str
    source: str
    rows: int
    entities: int
    first: str
    last: str
    model: str
    frequency: str
    horizon: int
    windows: int
    notes: Mapping[str, int]
    statuses: Mapping[str, int]
    durations: Mapping[str, float]
    versions: Mapping[str, str]
    totals: Totals | None
    mase: Floats
    baseline_mase: Floats
    highlights: Highlights
    failures: Sequence[Failure]


class Headline(NamedTuple):
    """What someone should know who reads one line: `tone` is good, mixed, bad or plain."""

    tone: str
    title: str
    detail: str


class Measure(NamedTuple):
    """How the page shows a score: the nearer to `ideal` the better."""

    title: str
    meaning: str
    write: Callable[[float], str]
    ideal: float = 0.0


class Distribution(NamedTuple):
    """A chart over all entities."""

    title: str
    caption: str
    svg: Markup
    both_models: bool


class Line(NamedTuple):
    """One line of the table of scores. `better` says whose score is better: model, baseline, or nobody's."""

    name: str
    meaning: str
    model: str
    baseline: str
    better: str


def render(data: ReportData) -> str:
    """The page."""
    return _template().render(
        data=data,
        headline=headline(data),
        span=span(data.horizon, data.frequency),
        failed=sum(data.statuses.get(status, 0) for status in FAILED),
        lines=list(score_lines(data.totals)) if data.totals and data.totals.evaluated else [],
        distributions=_distributions(data),
        groups=list(_groups(data.highlights)),
        levels=_levels(data.highlights),
        statuses=sorted(data.statuses.items(), key=lambda item: -item[1]),
        meanings=_MEANINGS,
        without_model=sum(n for status, n in data.statuses.items() if status not in _MODELLED),
        failures=data.failures[:LISTED],
    )


def headline(data: ReportData) -> Headline:
    """The run in one line, and what else an on-call person wants to know at once in another."""
    horizon = span(data.horizon, data.frequency)
    failed = sum(data.statuses.get(status, 0) for status in FAILED)
    lost = f"No forecast for {count(failed)} of {entities(data.entities)}." if failed else ""
    plain = f"Forecast of {entities(data.entities - failed)}, {horizon} ahead"
    totals = data.totals
    if totals is None:
        return Headline("plain", plain, f"Not evaluated: spec.evaluation.windows is 0. {lost}".strip())
    if not totals.compared:
        return Headline(
            "plain", plain, f"Not evaluated: no entity is long enough to be tested on {horizon}. {lost}".strip()
        )
    ours, theirs = (float(tally.means()["mase"]) for tally in (totals.model, totals.baseline))
    digits = 2 if f"{ours:.2f}" != f"{theirs:.2f}" else 4
    windows = f"{data.windows} windows of {horizon}" if data.windows > 1 else f"a window of {horizon}"
    detail = f"MASE {ours:.{digits}f} against {theirs:.{digits}f}, over {windows}. {lost}".strip()
    tested, share = entities(totals.compared), percent(totals.win_share)
    if totals.wins == 0 and ours == theirs:
        return Headline("plain", f"As good as seasonal naive on {tested}", detail)
    if ours < theirs:
        often = totals.win_share >= 0.5
        title = f"Beats seasonal naive {f'on {share}' if often else f'on average, though on {share}'} of {tested}"
        return Headline("good" if often else "mixed", title, detail)
    if totals.win_share > 0.5:
        return Headline("mixed", f"Beats seasonal naive on {share} of {tested}, but not on average", detail)
    return Headline("bad", f"Does not beat seasonal naive: better on {share} of {tested}", detail)


def score_lines(totals: Totals) -> Iterator[Line]:
    """The table of overall scores, the model's beside seasonal naive's."""
    ours, theirs = ({name: float(mean) for name, mean in t.means().items()} for t in (totals.model, totals.baseline))
    for name in totals.model.measures:
        level = name.removeprefix("coverage_")
        measure = _MEASURES.get(name) or Measure(f"{level}{_NARROW}% interval", _HELD, _percent_1, float(level) / 100)
        a, b = measure.write(ours[name]), measure.write(theirs[name])
        nearer = "model" if abs(ours[name] - measure.ideal) < abs(theirs[name] - measure.ideal) else "baseline"
        yield Line(measure.title, measure.meaning, a, b, "" if a == b else nearer)


def count(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}".replace(",", _NARROW)


def entities(number: int) -> str:
    """So many entities, in words."""
    return f"{count(number)} {'entity' if number == 1 else 'entities'}"


def percent(share: float) -> str:
    """A share in whole percent; only all are 100 %, and only none are 0 %."""
    word = "over 99" if 0.995 <= share < 1 else "under 1" if 0 < share < 0.005 else str(round(100 * share))
    return f"{word}{_NARROW}%"


def quantity(value: float) -> str:
    """A value in the data's own unit, to four significant digits."""
    if not np.isfinite(value):
        return "–"
    if value != 0 and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.3e}".replace("-", "−")
    digits = max(0, 3 - int(np.floor(np.log10(abs(value))))) if value else 0
    return f"{value:,.{digits}f}".replace(",", _NARROW).replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds in words: 0.4 s, 12 s, 3 min 20 s, 1 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f}{_NARROW}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{_NARROW}s"
    if whole < 3600:
        return f"{whole // 60}{_NARROW}min {whole % 60}{_NARROW}s"
    return f"{whole // 3600}{_NARROW}h {whole % 3600 // 60}{_NARROW}min"


def span(periods: int, frequency: str) -> str:
    """So many periods in words: 30 days, 1 month, 96 × 15min."""
    word = _PERIODS.get(frequency.partition("-")[0])
    if word is None:
        return f"{count(periods)} × {frequency}"
    return f"{count(periods)}{_NARROW}{word}{'s' if periods != 1 else ''}"


def _percent_1(share: float) -> str:
    return f"{100 * share:.1f}{_NARROW}%" if np.isfinite(share) else "–"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 100 else quantity(value)


_PERIODS = {
    "s": "second",
    "min": "minute",
    "H": "hour",
    "D": "day",
    "W": "week",
    "M": "month",
    "Q": "quarter",
    "Y": "year",
}
_HELD = "share of actual values that were inside"
_MEASURES = {
    "mase": Measure("MASE", "mean error, in units of seasonal naive's error within the history", _ratio),
    "rmsse": Measure("RMSSE", "the same by squared errors: large misses weigh more", _ratio),
    "smape": Measure("sMAPE", "mean error relative to the sizes of forecast and actual value, 0 to 200 %", _percent_1),
    "wape": Measure("WAPE", "total error relative to total volume: big entities weigh more", _percent_1),
    "mae": Measure("MAE", "mean error in the data's unit", quantity),
    "bias": Measure("Bias", "mean of forecast minus actual: above 0 forecasts too much", quantity),
    "pinball": Measure(
        "Pinball loss", "mean error of the intervals' bounds as quantiles, in the data's unit", quantity
    ),
}
_MODELLED = frozenset({Status.OK, Status.WEAKLY_IDENTIFIED, Status.OVER_DIFFERENCED, Status.CONSTANT})
_MEANINGS = {
    Status.OK: "the model was fitted",
    Status.WEAKLY_IDENTIFIED: "the model was fitted; its coefficients could as well be others, its forecasts not",
    Status.OVER_DIFFERENCED: "the model was fitted; one difference less would describe the series better",
    Status.TOO_SHORT: "too few observations: the last value is carried forward, without an interval",
    Status.CONSTANT: "nothing varies: the forecast is exact and its interval has no width",
    Status.NOT_FINITE: "an infinite value in the data: nothing is forecast",
    Status.EMPTY: "no observation: nothing is forecast",
}


def _distributions(data: ReportData) -> list[Distribution]:
    """Two charts; none where nothing was compared."""
    compared = np.isfinite(data.mase) & np.isfinite(data.baseline_mase)
    if not compared.any():
        return []
    ours, theirs = data.mase[compared], data.baseline_mase[compared]
    medians = f"Median {_ratio(float(np.median(ours)))} against {_ratio(float(np.median(theirs)))}."
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = ours / theirs
    level = (ratio == 1) | np.isnan(ratio)
    without = f" {entities(int(level.sum()))} with equal errors left out." if level.any() else ""
    by_mase = charts.mase_svg(ours, theirs, f"Distribution of MASE over entities. {medians}", "mase")
    by_ratio = charts.ratio_svg(ratio[~level], "Distribution of the model's MASE over seasonal naive's", "ratio")
    return [
        Distribution("Entities by MASE", medians, Markup(by_mase), both_models=True),  # noqa: S704 - our own drawing
        Distribution(
            "Entities by MASE over seasonal naive's",
            f"Left of 1 the model is better.{without}",
            Markup(by_ratio),  # noqa: S704 - our own drawing
            both_models=False,
        ),
    ]


def _groups(highlights: Highlights) -> Iterator[tuple[str, str, list[tuple[Highlight, Markup]]]]:
    """Title, explanation and entities with their charts; an entity is shown once, where it comes first."""
    seen: set[str] = set()
    for title, meaning, members in (
        ("Biggest", "the most volume over the whole history", highlights.biggest),
        ("Worst", "the highest MASE", highlights.worst),
        ("Best", "the lowest MASE", highlights.best),
    ):
        shown = [one for one in members if one.entity not in seen]
        seen |= {one.entity for one in shown}
        if shown:
            svgs = (charts.fan_svg(one.fan, f"Forecast of {one.entity}", f"{title} {i}") for i, one in enumerate(shown))
            yield title, meaning, [(one, Markup(svg)) for one, svg in zip(shown, svgs, strict=True)]  # noqa: S704 - our own drawing, its label is escaped


def _levels(highlights: Highlights) -> list[tuple[float, float]]:
    """Levels of the intervals in the charts with their shades, the narrowest first."""
    fans = (one.fan for one in (*highlights.biggest, *highlights.best, *highlights.worst))
    levels = sorted({band.level for fan in fans for band in fan.bands})
    return list(zip(levels, reversed(charts.shades(len(levels))), strict=True))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("almanac_jobs", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "duration": duration,
        "entities": entities,
        "percent": percent,
        "quantity": quantity,
        "ratio": _ratio,
    }
    return environment.get_template("report.html.jinja")
