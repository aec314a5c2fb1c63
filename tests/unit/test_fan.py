from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from almanac.cli import fan as terminal
from almanac_jobs.report.highlights import Band, Fan


def fan(history, mean, se=1.0, levels=(80, 95)) -> Fan:
    history, mean = np.asarray(history, float), np.asarray(mean, float)
    days = np.datetime64("2024-03-01T00:00:00") + np.arange(len(history) + len(mean)) * np.timedelta64(1, "D")
    bands = tuple(Band(level, mean - level * se, mean + level * se) for level in levels)
    return Fan(days[: len(history)], history, days[len(history) :], mean, bands)


def columns(text: str, letters: str) -> set[int]:
    """The columns in which one of the letters stands."""
    return {column for line in text.splitlines() for column, letter in enumerate(line) if letter in letters}


numbers = st.one_of(st.just(np.nan), st.just(0.0), st.floats(-1e100, 1e100), st.integers(-1000, 1000).map(float))


@settings(deadline=None)
@given(
    npst.arrays(float, st.integers(0, 30), elements=numbers),
    npst.arrays(float, st.integers(1, 9), elements=numbers),
    st.integers(30, 140),
    st.integers(6, 30),
)
def test_any_forecast_fits_into_the_terminal(history, mean, width, height):
    lines = terminal.draw(fan(history, mean), width, height, colour=False).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_history_comes_first_and_intervals_lie_around_the_forecast():
    text = terminal.draw(fan([3.0] * 60, [3.0] * 20, 0.1), 90, 16, colour=False)
    shaded, drawn = columns(text, "░▒"), columns(text, "⣀⠤⠒⠉⡀⠁")
    assert min(drawn) < 10 < 60 < min(shaded)
    assert max(shaded) == 89
    assert "2024-03-01" in text.splitlines()[-1]
    assert "2024-05-19" in text.splitlines()[-1]


def test_a_gap_in_the_history_is_a_gap_in_the_line():
    history = np.full(60, 3.0)
    history[20:40] = np.nan
    drawn = columns(terminal.draw(fan(history, [3.0], levels=()), 70, 10, colour=False), "⣀⠤⠒⠉⡀⠁")
    assert not drawn & set(range(32, 42))
    assert drawn & set(range(10, 20))


@pytest.mark.parametrize("colour", [True, False])
def test_colours_are_the_caller_s_choice(colour):
    assert ("\x1b[" in terminal.draw(fan([1.0, 2.0], [3.0]), 40, 10, colour=colour)) == colour


def test_the_legend_names_every_shade_from_narrow_to_wide():
    assert terminal.legend(fan([1.0], [1.0], levels=(95, 80))).plain.split("   ")[2:] == ["▒▒ 80 %", "░░ 95 %"]
