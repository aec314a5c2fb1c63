"""report.html: what a run did and how good it is, on one page that needs nothing else: no request, no script.

Pure: data in, text out, the same bytes for the same data. Every value is escaped by the template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from almanac_jobs.evaluate import Totals
from almanac_jobs.forecast.types import FAILED, MODELLED, Floats
from almanac_jobs.report import words
from almanac_jobs.report.highlights import LISTED, Failure, Highlight, Highlights
from almanac_jobs.report.words import count, duration, entities, meaning, percent, quantity, ratio, span


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the page says.

    `job` is the job's name with its namespace, `manifest` the job as it was written. `first` and `last` are the first
    and the last period of the data, `rows` counts rows read, `notes` what was done to them (`null values dropped`
    ...). `model` is the model in words, `frequency` as in the job. `statuses` counts entities; `durations` are
    seconds by stage, in their order. `totals` is None where evaluation is off; `mase` and `baseline_mase` have one
    entry an entity, NaN where it was not tested. `failures` need not be complete: `statuses` counts them.
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
    return template("page.html.jinja").render(
        data=data,
        headline=headline(data),
        span=span(data.horizon, data.frequency),
        failed=_failed(data),
        lines=list(score_lines(data.totals)) if data.totals and data.totals.evaluated else [],
        distributions=_distributions(data),
        groups=list(_groups(data.highlights)),
        levels=_levels(data.highlights),
        statuses=sorted(data.statuses.items(), key=lambda item: (-item[1], item[0])),
        without_model=_without_model(data),
        failures=data.failures[:LISTED],
    )


def headline(data: ReportData) -> Headline:
    """The run in one line, and what else an on-call person wants to know at once in another."""
    horizon = span(data.horizon, data.frequency)
    failed = _failed(data)
    modelled = data.entities - _without_model(data)
    lost = f"{count(modelled)} of {entities(data.entities)} have a fitted model." if modelled < data.entities else ""
    lost += f" {count(failed)} have no forecast." if failed else ""
    plain = f"Forecast of {entities(data.entities - failed)}, {horizon} ahead"
    totals = data.totals
    if totals is None:
        return Headline("plain", plain, f"Not evaluated: spec.evaluation.windows is 0. {lost}".strip())
    if not totals.compared:
        short = f"no entity is long enough to be tested on {horizon}"
        reason = "no tested entity has a history that changes" if totals.evaluated else short
        return Headline("plain", plain, f"Not compared with seasonal naive: {reason}. {lost}".strip())
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


def _failed(data: ReportData) -> int:
    return sum(data.statuses.get(status, 0) for status in FAILED)


def _without_model(data: ReportData) -> int:
    return sum(number for status, number in data.statuses.items() if status not in MODELLED)


def score_lines(totals: Totals) -> Iterator[Line]:
    """The table of overall scores, the model's beside seasonal naive's."""
    ours, theirs = ({name: float(mean) for name, mean in t.means().items()} for t in (totals.model, totals.baseline))
    for name in totals.model.measures:
        measure = words.measure(name)
        a, b = measure.write(ours[name]), measure.write(theirs[name])
        nearer = "model" if abs(ours[name] - measure.ideal) < abs(theirs[name] - measure.ideal) else "baseline"
        yield Line(measure.title, measure.meaning, a, b, "" if a == b else nearer)


def _distributions(data: ReportData) -> list[Distribution]:
    """Two charts; none where nothing was compared."""
    from almanac_jobs.report import charts  # only now: Matplotlib takes 40 MB, which a run has better use for

    compared = np.isfinite(data.mase) & np.isfinite(data.baseline_mase)
    if not compared.any():
        return []
    ours, theirs = data.mase[compared], data.baseline_mase[compared]
    medians = f"Median {ratio(float(np.median(ours)))} against {ratio(float(np.median(theirs)))}."
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = ours / theirs
    level = (relative == 1) | np.isnan(relative)
    without = f" {entities(int(level.sum()))} with equal errors left out." if level.any() else ""
    by_mase = charts.mase_svg(ours, theirs, f"Distribution of MASE over entities. {medians}", "mase")
    by_ratio = charts.ratio_svg(relative[~level], "Distribution of the model's MASE over seasonal naive's", "ratio")
    return [
        Distribution("Entities by MASE", medians, Markup(by_mase), both_models=True),  # noqa: S704 - our own drawing
        Distribution(
            "Entities by MASE over seasonal naive's",
            f"Left of 1 the model is better.{without}",
            Markup(by_ratio),  # noqa: S704 - our own drawing
            both_models=False,
        ),
    ]


class Group(NamedTuple):
    """Entities shown together, each with its chart."""

    title: str
    why: str
    members: list[tuple[Highlight, Markup]]


def _groups(highlights: Highlights) -> Iterator[Group]:
    """The groups that have members; an entity is shown once, where it comes first."""
    seen: set[str] = set()
    for title, why, candidates in (
        ("Biggest", "the most volume over the whole history", highlights.biggest),
        ("Worst", "the highest MASE", highlights.worst),
        ("Best", "the lowest MASE", highlights.best),
    ):
        shown = [one for one in candidates if one.entity not in seen]
        seen |= {one.entity for one in shown}
        if shown:
            yield Group(title, why, [(one, _fan(one, f"{title} {i}")) for i, one in enumerate(shown)])


def _fan(one: Highlight, salt: str) -> Markup:
    from almanac_jobs.report import charts  # only now: Matplotlib takes 40 MB, which a run has better use for

    return Markup(charts.fan_svg(one.fan, f"Forecast of {one.entity}", salt))  # noqa: S704 - its label is escaped there


def _levels(highlights: Highlights) -> list[tuple[float, float]]:
    """Levels of the intervals in the charts with their shades, the narrowest first."""
    from almanac_jobs.report import charts  # only now: Matplotlib takes 40 MB, which a run has better use for

    fans = (one.fan for one in (*highlights.biggest, *highlights.best, *highlights.worst))
    levels = sorted({band.level for fan in fans for band in fan.bands})
    return list(zip(levels, reversed(charts.shades(len(levels))), strict=True))


@cache
def template(name: str) -> Template:
    """A page of this package, with the filters that say numbers in words."""
    environment = Environment(
        loader=PackageLoader("almanac_jobs.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "duration": duration,
        "entities": entities,
        "meaning": meaning,
        "percent": percent,
        "quantity": quantity,
        "ratio": ratio,
    }
    return environment.get_template(name)
