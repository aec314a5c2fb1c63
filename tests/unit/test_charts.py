from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from matplotlib.figure import Figure

from almanac_jobs.calendar import Frequency
from almanac_jobs.report import charts
from almanac_jobs.report.highlights import Band, Fan

NAN = np.nan


def fan(history, mean, se=1.0, frequency="D", levels=(80, 95), end=20_000) -> Fan:
    history, mean = np.asarray(history, float), np.asarray(mean, float)
    starts = Frequency.parse(frequency).starts
    bands = tuple(Band(level, mean - level / 50 * se, mean + level / 50 * se) for level in levels)
    past, ahead = np.arange(end - len(history) + 1, end + 1), np.arange(end + 1, end + 1 + len(mean))
    return Fan(starts(past), history, starts(ahead), mean, bands)


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))  # noqa: S314 - our own


def words(svg: str) -> list[str]:
    return [element.text or "" for element in parse(svg).iter("text")]


numbers = st.one_of(st.just(NAN), st.just(0.0), st.floats(-1e100, 1e100), st.integers(-1000, 1000).map(float))


@settings(deadline=None, max_examples=25)
@given(
    npst.arrays(float, st.integers(0, 12), elements=numbers),
    npst.arrays(float, st.integers(1, 6), elements=numbers),
    st.sampled_from(["s", "15min", "H", "D", "W", "M", "Q", "Y"]),
    st.sampled_from([(), (80,), (50, 99.5, 80)]),
)
def test_any_forecast_becomes_well_formed_svg(history, mean, frequency, levels):
    svg = charts.fan_svg(fan(history, mean, 1.0, frequency, levels, end=300), "A & <b>", "1")
    assert parse(svg).get("aria-label") == "A & <b>"


def test_the_same_data_give_the_same_bytes():
    data = fan([1, 2, NAN, 4], [4, 5])
    assert charts.fan_svg(data, "x", "1") == charts.fan_svg(data, "x", "1")
    for extension in ("png", "svg"):
        assert charts.fan_file(data, "x", extension) == charts.fan_file(data, "x", extension)


def test_charts_of_one_page_share_no_ids():
    data = fan(range(9), range(3))
    ids = [re.findall(r' id="([^"]+)"', charts.fan_svg(data, "x", salt)) for salt in ("1", "2")]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])


def test_colours_and_letters_are_the_page_s():
    svg = charts.fan_svg(fan(range(9), range(3)), "x", "1")
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) == {
        "none",
        "var(--ink)",
        "var(--quiet)",
        "var(--line)",
        "var(--model)",
    }
    assert "font" not in svg
    assert "matplotlib" not in svg


def axes_of(data: Fan):
    figure, axes = charts._canvas(5, 2, bottom=0.4)
    assert isinstance(figure, Figure)
    charts._draw_fan(axes, data, charts.LIGHT)
    return axes


def test_values_between_gaps_are_dots():
    dots = [line for line in axes_of(fan([1, NAN, 3, NAN, 5, 6], [7])).lines if line.get_marker() == "."]
    assert [list(line.get_ydata()) for line in dots] == [[1, 3], [7]]


@pytest.mark.parametrize(
    ("frequency", "end", "expected"),
    [
        ("D", 20_000, ["Aug", "Sep", "Oct", "2024"]),
        ("H", 480_000, ["1 Oct", "2 Oct", "3 Oct", "4 Oct", "2024"]),
        ("M", 500, ["2006", "2008", "2010"]),
        ("min", 28_800_000, ["23:00", "23:30", "00:00", "3 Oct 2024", "4 Oct 2024"]),
        ("s", 1_728_000_000, ["23:59:00", "23:59:30", "00:00:00", "3 Oct 2024", "4 Oct 2024"]),
    ],
)
def test_dates_are_written_in_full_once(frequency, end, expected):
    svg = charts.fan_svg(fan([5.0] * 90, [5.0] * 5, frequency=frequency, end=end), "x", "1")
    assert words(svg)[: len(expected)] == expected


def test_a_file_of_its_own_has_title_and_legend():
    data, title = fan(range(20), range(5)), "cost of $x_1$ & <b>"
    assert charts.fan_file(data, title, "png").startswith(b"\x89PNG\r\n")
    svg = charts.fan_file(data, title, "svg").decode()
    text = "".join(ET.fromstring(svg).itertext())  # noqa: S314 - our own
    for word in (title, "history", "forecast", "80 % interval", "95 % interval"):
        assert word in text


def test_distributions_keep_what_lies_beyond_in_the_outermost_bins():
    values = np.array([0.0, 1e-9, 1.0, 1.0, 1e9, np.inf, NAN])
    assert words(charts.mase_svg(values, values, "x", "1"))[0].startswith("≤ ")
    assert words(charts.ratio_svg(values, "x", "1"))[:5] == ["≤ 0.25", "0.5", "1", "2", "≥ 4"]


def test_shades_add_up_over_each_other():
    assert charts.shades(1) == [0.16]
    assert charts.shades(2) == pytest.approx([0.16, 0.42])
