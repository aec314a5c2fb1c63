"""Detectors: what tells odd rows from others, how it is trained, and how much each feature has to do with it.

A detector gives every row a margin, higher is odder, and splits it into contributions of the features that add up to
it. Margins become scores in `calibration`.

- *classifier*: XGBoost on a label. The margin is its log odds, contributions are SHAP values.
- *student*: an isolation forest finds what is odd, XGBoost learns the fourth power of its ranks: as good as the forest,
  with SHAP values, in one file that needs no scikit-learn.
- *blend*: both, each in its own standard deviations; m rows labelled odd give the classifier a weight of m / (m + 10).
- *reconstruction*: each feature from the others. The margin adds up squared errors in units of the feature's variance,
  of each feature as much as it can be foreseen; these are the contributions.

Rows may lie in several places (`almanac_jobs.crew`): every tree is of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from almanac.api import AnomalyModel, Detector, JobError, Reason
from almanac_jobs.anomaly import across, teacher
from almanac_jobs.anomaly.boosting import Course, contributions, predict
from almanac_jobs.anomaly.features import Feature, Floats32, Kind
from almanac_jobs.anomaly.matrix import Flags, Floats, Ints, Matrix
from almanac_jobs.anomaly.teacher import Forest
from almanac_jobs.crew import Crew, Held

FEW = 3
"""Rows labelled odd below which a label teaches nothing: XGBoost learns from so few that all rows are alike."""
MANY = 200
"""Rows labelled odd from which on the label is enough."""
BALANCE = 10
"""Rows labelled odd that count as much as the isolation forest, in a blend."""
ENOUGH = 10
"""Rows labelled odd that a part of the data must have to be trained on, or tested on, by itself."""
LATEST = 0.2
"""Share of the rows that a classifier is tested on: the latest."""


def resolve(asked: Detector, positives: int | None) -> tuple[Detector, str]:
    """The detector that a job gets, and why, for so many rows labelled odd (None: there is no label).

    Raises:
        JobError: DataError for a label that does not suffice for the detector that is asked for.
    """
    if asked in (Detector.CLASSIFIER, Detector.BLEND):
        if (positives or 0) < FEW:
            raise JobError(
                Reason.DATA_ERROR,
                f"spec.label: {positives or 0} rows are labelled odd, and {asked} needs {FEW} at least: label more, or "
                "write spec.model.detector: auto, which then does without",
            )
        return asked, "as the job says"
    if asked is not Detector.AUTO:
        return asked, "as the job says"
    if positives is None:
        return Detector.STUDENT, "there is no label"
    if positives < FEW:
        return Detector.STUDENT, f"only {positives} rows are labelled odd"
    if positives < MANY:
        return Detector.BLEND, f"{positives} rows are labelled odd"
    return Detector.CLASSIFIER, f"{positives:,} rows are labelled odd"


def latest(crew: Crew, times: Held[Ints], count: int, share: float = LATEST) -> Held[Flags]:
    """The latest of `count` rows, at most `share` of them: every one is later than all others. None where
    more share the last time."""
    last = np.array([min(int(count * (1 - share)), count - 1)])
    (cut,) = across.integers(across.select(crew, crew.each(across.order, times), last))
    return crew.each(np.greater, times, int(cut))


class Trained(Protocol):
    """A detector that has learnt."""

    @property
    def boosters(self) -> Mapping[str, xgb.Booster]:
        """XGBoost's models by the path that each is kept at."""

    def margins(self, values: Floats32) -> Floats:
        """The margin of each row."""

    def contributions(self, values: Floats32) -> Floats:
        """What each feature adds to the margin of each row, and in one more column what all rows have in common."""

    def as_json(self) -> dict[str, Any]:
        """What there is to know besides the boosters."""


@dataclass(frozen=True, slots=True)
class Additive:
    """The weighted sum of what boosters say: classifier, student, and blends of them."""

    boosters: Mapping[str, xgb.Booster]
    weights: Mapping[str, float]

    def margins(self, values: Floats32) -> Floats:
        return np.sum([self.weights[path] * predict(one, values) for path, one in self.boosters.items()], axis=0)

    def contributions(self, values: Floats32) -> Floats:
        return np.sum([self.weights[path] * contributions(one, values) for path, one in self.boosters.items()], axis=0)

    def as_json(self) -> dict[str, Any]:
        return {"form": "additive", "weights": dict(self.weights)}


@dataclass(frozen=True, slots=True)
class Predictable:
    """A feature that others foretell: at `column`, with `scale` errors count alike, and by `weight` for much or little.

    `logarithmic` features are taken by their logarithm. Two boosters, each from one half of the rows, judge the other.
    """

    column: int
    weight: float
    scale: float
    logarithmic: bool

    def target(self, values: Floats32) -> Floats:
        own = values[:, self.column].astype(np.float64)
        return np.log1p(np.maximum(own, 0)) if self.logarithmic else own


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Each feature from the others."""

    boosters: Mapping[str, xgb.Booster]
    features: tuple[Predictable, ...]

    def margins(self, values: Floats32) -> Floats:
        return np.asarray(self.contributions(values).sum(axis=1))

    def contributions(self, values: Floats32) -> Floats:
        made = np.zeros((len(values), values.shape[1] + 1))
        fold = halves(values)
        for one in self.features:
            others = np.ascontiguousarray(np.delete(values, one.column, axis=1))
            foretold = np.empty(len(values))
            for half in (0, 1):
                rows = fold == half
                if rows.any():
                    foretold[rows] = predict(self.boosters[_path(one.column, half)], others[rows])
            error = np.nan_to_num(one.target(values) - foretold)  # a missing value is no error
            made[:, one.column] = one.weight * (error / one.scale) ** 2
        return made

    def as_json(self) -> dict[str, Any]:
        told = [
            {"column": one.column, "weight": one.weight, "scale": one.scale, "logarithmic": one.logarithmic}
            for one in self.features
        ]
        return {"form": "reconstruction", "features": told}


def from_json(value: Mapping[str, Any], boosters: Mapping[str, xgb.Booster]) -> Trained:
    """The inverse of `as_json`."""
    if value["form"] == "additive":
        return Additive(boosters, dict(value["weights"]))
    return Reconstruction(boosters, tuple(Predictable(**one) for one in value["features"]))


@dataclass(frozen=True, slots=True)
class Training:
    """What there is to learn from: in each place a matrix of so many rows (`sizes`), with the same `features`.

    `labels` are None without a label, `positives` are then 0; `validation` are rows that the classifier is not to learn
    from, None for none.
    """

    matrix: Held[Matrix]
    sizes: Sequence[int]
    features: Sequence[Feature]
    labels: Held[Flags] | None = None
    positives: int = 0
    validation: Held[Flags] | None = None

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.features]


def train(detector: Detector, model: AnomalyModel, training: Training, crew: Crew) -> Trained:
    """Train a detector, which is not auto.

    Raises:
        JobError: LearntNothing where rows cannot be told apart, or no feature can be foretold.
    """
    match detector:
        case Detector.CLASSIFIER:
            return Additive({"model.ubj": _classifier(model, training, crew)}, {"model.ubj": 1.0})
        case Detector.STUDENT:
            return Additive({"model.ubj": _student(model, training, crew)}, {"model.ubj": 1.0})
        case Detector.BLEND:
            return _blend(model, training, crew)
        case Detector.RECONSTRUCTION:
            return _reconstruction(model, training, crew)
        case Detector.AUTO:
            raise ValueError("auto is resolved before it is trained")


def steps(detector: Detector, model: AnomalyModel, features: int) -> int:
    """Trees that training takes at most."""
    return model.rounds * {Detector.BLEND: 2, Detector.RECONSTRUCTION: 2 * features}.get(detector, 1)


def _classifier(model: AnomalyModel, training: Training, crew: Crew) -> xgb.Booster:
    assert training.labels is not None  # noqa: S101 - `resolve` has seen to it
    learn = {"objective": "binary:logistic", "eval_metric": "aucpr", "scale_pos_weight": model.scale_pos_weight}
    target = crew.each(_floats, training.labels)
    held = training.validation
    fitted = None if held is None else crew.each(np.logical_not, held)
    course = Course(model, learn, training.names, "classifier", crew.threads)
    return crew.together(course, training.matrix, target, fitted, held)


def _student(model: AnomalyModel, training: Training, crew: Crew) -> xgb.Booster:
    count = sum(training.sizes)
    rows = across.gathered(crew, training.matrix, training.sizes, teacher.sample(count, model.seed))
    forest = teacher.grow(rows, count, model.seed, crew.threads)
    odd = crew.each(Forest.oddness, crew.share(forest), training.matrix)
    least, most = np.array(crew.fetch(crew.each(_range, odd))).T
    if least.min() == most.max():
        raise nothing("all rows are alike to the isolation forest")
    target = crew.each(_fourth_power, across.ranks(crew, odd))
    course = Course(model, {"objective": "reg:squarederror"}, training.names, "student", crew.threads)
    return crew.together(course, training.matrix, target, None, None)


def _blend(model: AnomalyModel, training: Training, crew: Crew) -> Additive:
    boosters = {"model.ubj": _classifier(model, training, crew), "student.ubj": _student(model, training, crew)}
    share = training.positives / (training.positives + BALANCE)
    weights: dict[str, float] = {}
    for (path, booster), part in zip(boosters.items(), (share, 1 - share), strict=True):
        spread = across.spread(crew, crew.each(_predicted, training.matrix, booster))
        weights[path] = part / spread if spread > 0 else 0.0  # a booster that has learnt nothing has no say
    return Additive(boosters, weights)


def _reconstruction(model: AnomalyModel, training: Training, crew: Crew) -> Reconstruction:
    matrix, names = training.matrix, training.names
    if len(names) < 2:
        raise JobError(
            Reason.DATA_ERROR,
            "spec.model.detector: reconstruction foretells each feature from the others, and there is one only: add "
            "features, or choose student",
        )
    fold = crew.each(_halves, matrix)
    boosters: dict[str, xgb.Booster] = {}
    features: list[Predictable] = []
    for column, feature in enumerate(training.features):
        plain = Predictable(column, 1.0, 1.0, feature.kind is Kind.CATEGORY)
        target = crew.each(_target, matrix, plain)
        scale = across.spread(crew, crew.each(_known, target))
        parts = [crew.each(_known_half, target, fold, half) for half in (0, 1)]
        both = [sum(crew.fetch(crew.each(np.count_nonzero, part))) for part in parts]
        if not scale or not all(both):
            continue
        others = np.delete(np.arange(len(names)), column)
        made = {}
        for half in (0, 1):  # each learns from the half of the rows that it is not going to judge
            learn = {"objective": "reg:squarederror"}
            course = Course(model, learn, [names[at] for at in others], f"{column}-{half}", crew.threads, others)
            made[_path(column, half)] = crew.together(course, matrix, target, parts[1 - half], parts[half])
        trial = Reconstruction(made, (Predictable(column, 1.0, scale, plain.logarithmic),))
        errors = crew.fetch(crew.each(_errors, matrix, target, trial, column))
        weight = 1 - float(np.sqrt(sum(total for _, total in errors) / sum(number for number, _ in errors)))
        if weight > 0:
            boosters |= made
            features.append(Predictable(column, weight, scale, plain.logarithmic))
    if not features:
        raise nothing("no feature can be foretold from the others")
    return Reconstruction(boosters, tuple(features))


def _floats(labels: Flags) -> Floats:
    return labels.astype(np.float64)


def _fourth_power(values: Floats) -> Floats:
    return values**4


def _range(values: Floats) -> tuple[float, float]:
    return float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))


def _predicted(matrix: Matrix, booster: xgb.Booster) -> Floats:
    return np.concatenate([predict(booster, values) for values in matrix.parts()])


def _halves(matrix: Matrix) -> Ints:
    return np.concatenate([halves(part) for part in matrix.parts()])


def _target(matrix: Matrix, one: Predictable) -> Floats:
    return np.concatenate([one.target(part) for part in matrix.parts()])


def _known(target: Floats) -> Floats:
    return target[~np.isnan(target)]


def _known_half(target: Floats, fold: Ints, half: int) -> Flags:
    return np.asarray(~np.isnan(target) & (fold == half))


def _errors(matrix: Matrix, target: Floats, trial: Reconstruction, column: int) -> tuple[int, float]:
    """Of the rows whose feature is known: how many they are, and the sum of their errors."""
    errors = np.concatenate([trial.contributions(part)[:, column] for part in matrix.parts()])
    known = errors[~np.isnan(target)]
    return len(known), float(np.sum(known))


def halves(values: Floats32) -> NDArray[np.int64]:
    """A half, 0 or 1, for each row, by its values alone: whoever sees the row again knows its half."""
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0.0 becomes 0.0
    bits[np.isnan(values)] = 1  # of all NaNs, one
    places = np.arange(1, values.shape[1] + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = bits * (places * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1))
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        total = mixed.sum(axis=1, dtype=np.uint64)
        total = (total ^ (total >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(total >> np.uint64(63), np.int64)


def nothing(why: str) -> JobError:
    """The error of a detector that has learnt nothing."""
    return JobError(
        Reason.LEARNT_NOTHING,
        f"the detector has learnt nothing: {why}: look at what spec.features, spec.label and spec.source.filter leave",
    )


def _path(column: int, half: int) -> str:
    return f"columns/{column:03d}-{half}.ubj"
