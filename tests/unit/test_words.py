from __future__ import annotations

import numpy as np
import pytest

from almanac_jobs.forecast.types import Status, fallback_status
from almanac_jobs.report.words import count, duration, entities, meaning, measure, percent, quantity, ratio, share, span
from almanac_jobs.scores import measures


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (percent, 1.0, "100 %"),
        (percent, 0.9999, "over 99 %"),
        (percent, 0.7104, "71 %"),
        (percent, 0.0001, "under 1 %"),
        (percent, 0.0, "0 %"),
        (quantity, 1_234_567.8, "1 234 568"),
        (quantity, -12.3456, "−12.35"),
        (quantity, 0.00123456, "0.001235"),
        (quantity, 0.0, "0"),
        (quantity, 1.5e-9, "1.500e−09"),
        (quantity, np.nan, "–"),
        (duration, 0.04, "0.0 s"),
        (duration, 12.4, "12 s"),
        (duration, 59.9, "1 min 0 s"),
        (duration, 200.2, "3 min 20 s"),
        (duration, 3900, "1 h 5 min"),
    ],
)
def test_numbers_are_written_for_people(function, value, expected):
    assert function(value).replace("\u202f", " ") == expected


@pytest.mark.parametrize(
    ("periods", "frequency", "expected"),
    [
        (30, "D", "30 days"),
        (1, "M", "1 month"),
        (13, "W-SUN", "13 weeks"),
        (96, "15min", "96 × 15min"),
        (5, "min", "5 minutes"),
    ],
)
def test_horizons_are_written_in_words(periods, frequency, expected):
    assert span(periods, frequency).replace("\u202f", " ") == expected


def test_every_score_and_every_status_has_words():
    assert [measure(name).title.replace("\u202f", " ") for name in measures((99.5,))][-2:] == [
        "Pinball loss",
        "99.5 % interval",
    ]
    assert measure("coverage_80").ideal == 0.8
    assert all(meaning(status) != status for status in Status)
    assert meaning(fallback_status("naive")) == "the model could not be fitted: naive forecasts instead"


def test_counts_have_their_thousands_apart():
    assert (count(1_234_567), entities(1), entities(0)) == ("1\u202f234\u202f567", "1 entity", "0 entities")
    assert (share(0.12345), ratio(0.83), ratio(1234.5)) == ("12.3\u202f%", "0.830", "1\u202f234")
