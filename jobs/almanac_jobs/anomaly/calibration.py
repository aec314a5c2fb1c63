"""From a detector's margin to a score from 0 to 1 that never falls as the margin rises.

Where labels allow it, a score is the probability that the row is odd; else the share of the training rows that are less
odd. `spec.contamination` cuts by margins, so that rows whose scores are equal are still told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from almanac_jobs.anomaly import across
from almanac_jobs.anomaly.across import Codes
from almanac_jobs.crew import Crew, Held

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

PLATT = 10
"""Rows of either class that two coefficients take."""
ISOTONIC = 50
"""Rows of either class, and a thousand in all, that a free curve takes."""
_LEVELS = np.unique(np.concatenate([np.linspace(0, 1, 201), 1 - np.geomspace(1e-6, 0.05, 200)]))


class Meaning(StrEnum):
    """What a score is."""

    PROBABILITY = "probability"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Scale:
    """Scores by margins: on a line through `knots` (margin, score), or a logistic curve of slope and intercept."""

    meaning: Meaning
    how: str
    """share, platt, isotonic, or none: the model's own probability."""
    knots: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    logistic: tuple[float, float] = (1.0, 0.0)

    def scores(self, margins: Floats) -> Floats:
        """The score of each margin."""
        if self.knots is not None:
            return np.interp(margins, *self.knots)
        slope, intercept = self.logistic
        return _sigmoid(slope * margins + intercept)

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"meaning": self.meaning.value, "how": self.how}
        if self.knots is not None:
            return told | {"knots": [list(one) for one in self.knots]}
        return told | {"logistic": list(self.logistic)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scale:
        """The inverse of `as_json`."""
        meaning, how = Meaning(value["meaning"]), value["how"]
        if "knots" in value:
            x, y = (tuple(map(float, one)) for one in value["knots"])
            return cls(meaning, how, (x, y))
        slope, intercept = value["logistic"]
        return cls(meaning, how, logistic=(slope, intercept))


def by_share(crew: Crew, margins: Held[Codes], count: int) -> Scale:
    """Scores are shares of these `count` margins, given by their sorted codes, that are less odd, or as odd."""
    found = across.floats(across.select(crew, margins, np.floor(_LEVELS * (count - 1)).astype(np.int64)))
    x, place = np.unique(found, return_index=True)
    last = np.append(place[1:], len(_LEVELS)) - 1  # of equal margins, all count
    return Scale(Meaning.SHARE, "share", (tuple(x.tolist()), tuple(_LEVELS[last].tolist())))


def by_labels(labels: Flags, margins: Floats) -> Scale:
    """Scores are probabilities, by rows that the detector has not learnt from; its own ones where these are too few."""
    fewest = int(min(labels.sum(), (~labels).sum()))
    if fewest < PLATT:
        return Scale(Meaning.PROBABILITY, "none")
    if fewest < ISOTONIC or len(labels) < 1000:
        return Scale(Meaning.PROBABILITY, "platt", logistic=_platt(labels, margins))
    from sklearn.isotonic import IsotonicRegression  # only where it is trained: scoring does without

    fitted = IsotonicRegression(out_of_bounds="clip").fit(margins, labels.astype(np.float64))
    x, y = fitted.X_thresholds_, fitted.y_thresholds_
    return Scale(Meaning.PROBABILITY, "isotonic", (tuple(x.tolist()), tuple(y.tolist())))


def cut(crew: Crew, margins: Held[Codes], count: int, contamination: float) -> float:
    """The margin from which on about so large a share of the `count` rows is flagged, one row at least; `margins` are
    given by their sorted codes."""
    flagged = max(1, round(contamination * count))
    return float(across.floats(across.select(crew, margins, np.array([count - flagged])))[0])


def _platt(labels: Flags, margins: Floats) -> tuple[float, float]:
    """Slope and intercept by Newton's method, on targets drawn in from 0 and 1 as Platt has them."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    middle, spread = float(margins.mean()), float(margins.std()) or 1.0
    design = np.stack([(margins - middle) / spread, np.ones(len(margins))])

    def loss(coefficients: Floats) -> float:
        line = coefficients @ design
        return float(np.sum(np.logaddexp(0, line) - target * line))

    found = np.zeros(2)
    for _ in range(100):
        p = _sigmoid(found @ design)
        curvature = (design * (p * (1 - p))) @ design.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, design @ (p - target))
        while loss(found - step) > loss(found) and np.abs(step).max() > 1e-12:
            step /= 2
        found -= step
        if np.abs(step).max() < 1e-10:
            break
    slope = max(float(found[0]), 0.0) / spread
    return slope, float(found[1]) - slope * middle


def _sigmoid(values: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(values / 2))
