from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from almanac_jobs.evaluate import Totals
from almanac_jobs.report.highlights import LISTED, Band, Failure, Fan, Highlight, Highlights
from almanac_jobs.report.page import (
    ReportData,
    headline,
    render,
    score_lines,
)
from almanac_jobs.scores import Tally, measures

HOSTILE = "<script>alert('x')</script> & \"co\" {{ 7*7 }}"
LEVELS = (80.0, 95.0)


def tally(mase: float) -> Tally:
    names = measures(LEVELS)
    total = np.array([mase if name == "mase" else 0.8 if name == "coverage_80" else 0.5 for name in names])
    return Tally(names, 1074 * total, np.full(len(names), 1074.0))


def totals(mase: float = 0.83, baseline: float = 0.97, wins: int = 763) -> Totals:
    return Totals(
        entities=1100,
        evaluated=1080,
        windows=3221,
        skipped=79,
        compared=1074,
        wins=wins,
        model=tally(mase),
        baseline=tally(baseline),
    )


def highlight(entity: str) -> Highlight:
    past = np.arange("2024-01-01", "2024-04-01", dtype="datetime64[D]").astype("datetime64[s]")
    ahead, mean = past[-30:] + np.timedelta64(30, "D"), np.linspace(5, 9, 30)
    fan = Fan(past, np.sin(np.arange(len(past))) + 5, ahead, mean, (Band(80, mean - 1, mean + 1),))
    return Highlight(entity, "arima(1,1,1)", "ok", 1234.5, 0.71, 0.93, fan)


def data(**changes) -> ReportData:
    groups = [tuple(highlight(f"{group}-{i}") for i in range(4)) for group in ("big", "best", "worst")]
    report = ReportData(
        job="finance/ledger",
        run="20261121-021500-3f9a2c",
        finished=datetime(2026, 11, 21, 2, 16, 3, tzinfo=UTC),
        manifest="kind: ForecastJob\n",
        source="s3://ledger/raw",
        rows=1_254_310,
        entities=1100,
        first="2023-09-01",
        last="2024-10-04",
        model="ARIMA (1,1,1)",
        frequency="D",
        horizon=30,
        windows=3,
        notes={"null values dropped": 12},
        statuses={"ok": 1094, "too_short": 4, "not_finite": 1, "fallback:naive": 1},
        durations={"read": 1.5, "fit": 62.0},
        versions={"almanac": "0.1.0"},
        totals=totals(),
        mase=np.array([0.5, 1.0, np.nan]),
        baseline_mase=np.array([0.7, 1.0, 0.2]),
        highlights=Highlights(*groups),
        failures=[Failure("short-1", "too_short", 3)],
    )
    return replace(report, **changes)


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether every tag that must be closed is."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_but_itself():
    page = Page(html := render(data()))
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert not {"src", "href", "action", "srcset"} & {name for name, _ in page.attributes}
    references = [value for name, value in page.attributes if name == "xlink:href"]
    assert all(value.startswith("#") for value in references)
    assert "http" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_the_page_is_small_and_the_same_for_the_same_data():
    assert render(data()) == render(data())
    assert len(render(data()).encode()) < 300_000


def test_ids_are_unique():
    ids = [value for name, value in Page(render(data())).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_everything_is_escaped():
    clean = Page(render(data())).tags
    hostile = data(
        job=HOSTILE,
        run=HOSTILE,
        manifest=HOSTILE,
        source=HOSTILE,
        first=HOSTILE,
        model=HOSTILE,
        frequency=HOSTILE,
        notes={HOSTILE: 1},
        statuses={"ok": 1, HOSTILE: 2, "fallback:" + HOSTILE: 3, "empty": 1},
        durations={HOSTILE: 1.0},
        versions={HOSTILE: HOSTILE},
        highlights=Highlights((highlight(HOSTILE),)),
        failures=[Failure(HOSTILE, HOSTILE, 1)],
    )
    page = Page(html := render(hostile))
    assert set(page.tags) <= set(clean)
    assert "<script" not in html
    assert page.text.count(HOSTILE) >= 12


@pytest.mark.parametrize(
    ("changes", "tone", "title", "detail"),
    [
        (
            {},
            "good",
            "Beats seasonal naive on 71 % of 1 074 entities",
            "MASE 0.83 against 0.97, over 3 windows of 30 days.",
        ),
        (
            {"totals": totals(0.83, 0.97, 400)},
            "mixed",
            "Beats seasonal naive on average, though on 37 % of 1 074 entities",
            "MASE 0.83 against 0.97",
        ),
        (
            {"totals": totals(1.2, 0.97, 600)},
            "mixed",
            "Beats seasonal naive on 56 % of 1 074 entities, but not on average",
            "MASE 1.20 against 0.97",
        ),
        (
            {"totals": totals(1.2, 0.97, 3)},
            "bad",
            "Does not beat seasonal naive: better on under 1 % of 1 074 entities",
            "",
        ),
        (
            {"totals": totals(0.9, 0.9, 0)},
            "plain",
            "As good as seasonal naive on 1 074 entities",
            "MASE 0.9000 against",
        ),
        ({"totals": totals(0.9701, 0.9702, 1073)}, "good", "over 99 %", "MASE 0.9701 against 0.9702"),
        ({"totals": None}, "plain", "Forecast of 1 099 entities, 30 days ahead", "spec.evaluation.windows is 0"),
        ({"totals": Totals.zeros(LEVELS)}, "plain", "Forecast of", "no entity is long enough"),
        (
            {"totals": replace(Totals.zeros(LEVELS), evaluated=3)},
            "plain",
            "Forecast of",
            "no tested entity has a history that changes",
        ),
        ({"windows": 1, "horizon": 1}, "good", "Beats", "over a window of 1 day."),
        ({}, "good", "Beats", "1 094 of 1 100 entities have a fitted model. 1 have no forecast."),
    ],
)
def test_the_headline_says_it_at_once(changes, tone, title, detail):
    found = headline(data(**changes))
    assert found.tone == tone
    assert title in found.title.replace("\u202f", " ")
    assert detail in found.detail.replace("\u202f", " ")


def test_the_better_score_is_marked_and_equal_ones_are_not():
    better = {line.name: line.better for line in score_lines(totals())}
    assert better["MASE"] == "model"
    assert set(better.values()) == {"model", ""}
    assert {line.name: line.better for line in score_lines(totals(1.2))}["MASE"] == "baseline"


def test_coverage_is_best_near_its_level():
    found = totals()
    row = found.baseline.measures.index("coverage_80")
    found.baseline.total[row] = 0.99 * 1074
    line = next(line for line in score_lines(found) if line.name.startswith("80"))
    assert (line.model, line.baseline, line.better) == ("80.0\u202f%", "99.0\u202f%", "model")


def test_the_list_of_entities_without_a_model_is_capped_and_counted():
    failures = [Failure(f"short-{i}", "too_short", i) for i in range(LISTED + 50)]
    text = Page(render(data(failures=failures, entities=25_000, statuses={"ok": 1000, "too_short": 24_000}))).text
    assert f"short-{LISTED - 1}" in text
    assert f"short-{LISTED}" not in text
    assert f"The first {LISTED} of 24\u202f000" in text


def test_without_evaluation_there_are_no_scores():
    none = np.full(3, np.nan)
    plain = data(totals=None, windows=0, mase=none, baseline_mase=none)
    page = Page(render(plain))
    assert "Accuracy" not in page.text
    assert "seasonal naive" not in page.text.split("Forecasts")[0]


def test_nothing_at_all_still_makes_a_page():
    nothing = np.empty(0)
    empty = data(entities=0, rows=0, totals=Totals.zeros(LEVELS), mase=nothing, baseline_mase=nothing)
    Page(render(replace(empty, highlights=Highlights(), failures=[], statuses={}, durations={}, notes={})))


def test_entities_appear_once_where_they_come_first():
    one = highlight("only-one")
    text = Page(render(data(highlights=Highlights((one,), (one,), (one, highlight("other")))))).text
    assert text.count("MASE 0.710, seasonal naive 0.930") == 2
    assert "Best" not in text
