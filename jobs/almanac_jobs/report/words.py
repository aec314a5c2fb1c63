"""How numbers, spans of time, scores and statuses are written for people: the same on pages and in terminals. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from almanac_jobs.forecast.types import Status

_NARROW = "\u202f"  # narrow no-break space, between thousands and before units


class Measure(NamedTuple):
    """How a score is called, explained and written; the nearer to `ideal`, the better."""

    title: str
    meaning: str
    write: Callable[[float], str]
    ideal: float = 0.0


def count(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}".replace(",", _NARROW)


def entities(number: int) -> str:
    """So many entities, in words."""
    return f"{count(number)} {'entity' if number == 1 else 'entities'}"


def percent(part: float) -> str:
    """A share in whole percent; only all are 100 %, and only none are 0 %."""
    word = "over 99" if 0.995 <= part < 1 else "under 1" if 0 < part < 0.005 else str(round(100 * part))
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


def share(part: float) -> str:
    """A share in percent to one decimal."""
    return f"{100 * part:.1f}{_NARROW}%" if np.isfinite(part) else "–"


def ratio(value: float) -> str:
    """A score without a unit, where 1 is the yardstick."""
    return f"{value:.3f}" if value < 100 else quantity(value)


def measure(name: str) -> Measure:
    """How the score of this name is written."""
    level = name.removeprefix("coverage_")
    return _MEASURES.get(name) or Measure(f"{level}{_NARROW}% interval", _HELD, share, float(level) / 100)


def meaning(status: str) -> str:
    """What the status of an entity says about its forecast."""
    stand_in = status.removeprefix("fallback:")
    if stand_in != status:
        return f"the model could not be fitted: {stand_in} forecasts instead"
    return _MEANINGS.get(status, status)


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
    "mase": Measure("MASE", "mean error, in units of seasonal naive's error within the history", ratio),
    "rmsse": Measure("RMSSE", "the same by squared errors: large misses weigh more", ratio),
    "smape": Measure("sMAPE", "mean error relative to the sizes of forecast and actual value, 0 to 200 %", share),
    "wape": Measure("WAPE", "total error relative to total volume: big entities weigh more", share),
    "mae": Measure("MAE", "mean error in the data's unit", quantity),
    "bias": Measure("Bias", "mean of forecast minus actual: above 0 forecasts too much", quantity),
    "pinball": Measure(
        "Pinball loss", "mean error of the intervals' bounds as quantiles, in the data's unit", quantity
    ),
}
_MEANINGS: dict[str, str] = {
    Status.OK: "the model was fitted",
    Status.WEAKLY_IDENTIFIED: "the model was fitted; its coefficients could as well be others, its forecasts not",
    Status.OVER_DIFFERENCED: "the model was fitted; one difference less would describe the series better",
    Status.TOO_SHORT: "too few observations: the last value is carried forward, without an interval",
    Status.CONSTANT: "nothing varies: the forecast is exact and its interval has no width",
    Status.NOT_FINITE: "an infinite value in the data: nothing is forecast",
    Status.EMPTY: "no observation: nothing is forecast",
}
