"""Where an axis begins, ends and has its ticks, and how its numbers are written: on pages and terminals alike. Pure."""

from __future__ import annotations

import numpy as np

from almanac_jobs.forecast.types import Floats
from almanac_jobs.report.highlights import Fan

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def limits(fan: Fan) -> tuple[float, float]:
    """Where the axis of values begins and ends: it holds everything, and zero where the values come near it.

    Heights can be compared only from zero; far from it, they would hide what happens.
    """
    every = [fan.history, fan.mean, *(bound for band in fan.bands for bound in (band.lower, band.upper))]
    values = np.concatenate(every)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if 0 < low < 0.4 * high:
        low = 0.0
    elif 0.4 * low < high < 0:
        high = 0.0
    room = 0.04 * (high - low) or 0.5 * abs(high) or 1.0
    return (low - room if low or low == high else low), (high + room if high or low == high else high)


def round_ticks(low: float, high: float, at_most: int, *, whole: bool = False) -> Floats:
    """Up to `at_most` round numbers from `low` to `high`, equally far apart; whole numbers where asked for."""
    wanted = (high - low) / at_most
    if not np.isfinite(wanted) or wanted <= 0:
        return np.array([low])
    magnitude = 10.0 ** np.floor(np.log10(wanted))
    steps = [factor * magnitude for factor in (1, 2, 2.5, 5, 10, 20, 25)]
    steps = [step for step in steps if step >= 1 and step % 1 == 0] or [1.0] if whole else steps
    ranges = ((step, np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)) for step in steps)
    step, first, last = next(one for one in ranges if one[2] - one[1] < at_most)
    ticks: Floats = np.arange(first, last + 1) * step
    return ticks


def compact(values: Floats) -> list[str]:
    """Numbers on a scale in few characters, all with the same unit and decimals: 0, 2.5 k, 5.0 k."""
    largest = float(np.abs(values).max(initial=0.0))
    step = float(np.diff(values).min()) if len(values) > 1 else largest
    if largest and not 1e-4 <= largest < 1e15:
        return [f"{value:.3g}".replace("e+", "e").replace("-", "−") for value in values]
    unit, letter = next(
        ((one, f"\u202f{name}") for one, name in _UNITS if largest >= one and step >= one / 20), (1.0, "")
    )
    decimals = next((d for d in range(8) if np.isclose(step / unit, round(step / unit, d), rtol=1e-6)), 8)
    words = [f"{value / unit:,.{decimals}f}".replace("-", "−").replace(",", "\u202f") for value in values]
    return [word + letter if value else "0" for word, value in zip(words, values, strict=True)]
