"""Detectors: what tells odd rows from others, how it is trained, and how much each feature has to do with it.

A detector gives every row a margin, higher is odder, and splits it into contributions of the features that add up to
it. Margins become scores in `calibration`.

- *classifier*: XGBoost on a label. The margin is its log odds, contributions are SHAP values.
- *student*: an isolation forest finds what is odd, XGBoost learns the fourth power of its ranks: as good as the forest,
  with SHAP values, in one file that needs no scikit-learn.
- *blend*: both, each in its own standard deviations; m rows labelled odd give the classifier a weight of m / (m + 10).
- *reconstruction*: each feature from the others. The margin adds up squared errors in units of the feature's variance,
  of each feature as much as it can be foreseen; these are the contributions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from almanac.api import AnomalyModel, Detector, JobError, Reason
from almanac_jobs.anomaly import teacher
from almanac_jobs.anomaly.features import Feature, Floats32, Kind
from almanac_jobs.anomaly.matrix import Flags, Floats, Matrix, Selection, quantized

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

Tick = Callable[[], None]


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


def latest(times: NDArray[np.int64], share: float = LATEST) -> Flags:
    """The latest rows, at most `share` of them: every one is later than all others. None where
    more share the last time."""
    later: Flags = times > np.partition(times, int(len(times) * (1 - share)))[int(len(times) * (1 - share))]
    return later


@dataclass(frozen=True, slots=True)
class Machine:
    """What training may use: threads, a folder for what memory need not hold, and a call after every tree."""

    threads: int
    folder: Path | None
    tick: Tick


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
        return np.sum([self.weights[path] * _predict(one, values) for path, one in self.boosters.items()], axis=0)

    def contributions(self, values: Floats32) -> Floats:
        return np.sum([self.weights[path] * _shap(one, values) for path, one in self.boosters.items()], axis=0)

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
                    foretold[rows] = _predict(self.boosters[_path(one.column, half)], others[rows])
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
    """What there is to learn from. `labels` are None without a label; `validation` are rows that none of it is of."""

    matrix: Matrix
    features: Sequence[Feature]
    labels: Flags | None
    validation: Flags = field(default_factory=lambda: np.empty(0, np.bool_))

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.features]


def train(detector: Detector, model: AnomalyModel, training: Training, machine: Machine) -> Trained:
    """Train a detector, which is not auto.

    Raises:
        JobError: LearntNothing where rows cannot be told apart, or no feature can be foretold.
    """
    match detector:
        case Detector.CLASSIFIER:
            return Additive({"model.ubj": _classifier(model, training, machine)}, {"model.ubj": 1.0})
        case Detector.STUDENT:
            return Additive({"model.ubj": _student(model, training, machine)}, {"model.ubj": 1.0})
        case Detector.BLEND:
            return _blend(model, training, machine)
        case Detector.RECONSTRUCTION:
            return _reconstruction(model, training, machine)
        case Detector.AUTO:
            raise ValueError("auto is resolved before it is trained")


def steps(detector: Detector, model: AnomalyModel, features: int) -> int:
    """Trees that training takes at most."""
    return model.rounds * {Detector.BLEND: 2, Detector.RECONSTRUCTION: 2 * features}.get(detector, 1)


def _classifier(model: AnomalyModel, training: Training, machine: Machine) -> xgb.Booster:
    assert training.labels is not None  # noqa: S101 - `resolve` has seen to it
    target = training.labels.astype(np.float64)
    some = bool(training.validation.any())
    learn = {"objective": "binary:logistic", "eval_metric": "aucpr", "scale_pos_weight": model.scale_pos_weight}
    fit = Selection(training.matrix, training.names, target, ~training.validation if some else None)
    held = Selection(training.matrix, training.names, target, training.validation) if some else None
    return _boost(model, learn, fit, held, machine, "classifier")


def _student(model: AnomalyModel, training: Training, machine: Machine) -> xgb.Booster:
    odd = teacher.oddness(training.matrix, model.seed, machine.threads)
    if not np.ptp(odd):
        raise nothing("all rows are alike to the isolation forest")
    fit = Selection(training.matrix, training.names, teacher.ranks(odd) ** 4)
    return _boost(model, {"objective": "reg:squarederror"}, fit, None, machine, "student")


def _blend(model: AnomalyModel, training: Training, machine: Machine) -> Additive:
    assert training.labels is not None  # noqa: S101 - `resolve` has seen to it
    boosters = {"model.ubj": _classifier(model, training, machine), "student.ubj": _student(model, training, machine)}
    known = int(training.labels.sum())
    share = known / (known + BALANCE)
    weights: dict[str, float] = {}
    for (path, booster), part in zip(boosters.items(), (share, 1 - share), strict=True):
        spread = float(np.std(np.concatenate([_predict(booster, values) for values in training.matrix.parts()])))
        weights[path] = part / spread if spread > 0 else 0.0  # a booster that has learnt nothing has no say
    return Additive(boosters, weights)


def _reconstruction(model: AnomalyModel, training: Training, machine: Machine) -> Reconstruction:
    matrix, names = training.matrix, training.names
    if len(names) < 2:
        raise JobError(
            Reason.DATA_ERROR,
            "spec.model.detector: reconstruction foretells each feature from the others, and there is one only: add "
            "features, or choose student",
        )
    fold = np.concatenate([halves(part) for part in matrix.parts()])
    boosters: dict[str, xgb.Booster] = {}
    features: list[Predictable] = []
    for column, feature in enumerate(training.features):
        plain = Predictable(column, 1.0, 1.0, feature.kind is Kind.CATEGORY)
        target = np.concatenate([plain.target(part) for part in matrix.parts()])
        known = ~np.isnan(target)
        scale = float(np.std(target[known]))
        both = [int((known & (fold == half)).sum()) for half in (0, 1)]
        if not scale or not all(both):
            continue
        others = np.delete(np.arange(len(names)), column)
        made = {}
        for half in (0, 1):
            # The half of the rows that it is not going to judge.
            fit, held = (
                Selection(matrix, [names[at] for at in others], target, known & (fold == part), others)
                for part in (1 - half, half)
            )
            made[_path(column, half)] = _boost(
                model, {"objective": "reg:squarederror"}, fit, held, machine, f"{column}-{half}"
            )
        trial = Reconstruction(made, (Predictable(column, 1.0, scale, plain.logarithmic),))
        errors = np.concatenate([trial.contributions(part)[:, column] for part in matrix.parts()])
        weight = 1 - float(np.sqrt(errors[known].mean()))
        if weight > 0:
            boosters |= made
            features.append(Predictable(column, weight, scale, plain.logarithmic))
    if not features:
        raise nothing("no feature can be foretold from the others")
    return Reconstruction(boosters, tuple(features))


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


def _boost(
    model: AnomalyModel,
    learn: Mapping[str, Any],
    fit: Selection,
    held: Selection | None,
    machine: Machine,
    name: str,
) -> xgb.Booster:
    """Boosted trees on `fit`, as many as serve `held`, where that is given and the job stops early."""
    spool = fit.matrix.external and machine.folder is not None
    caches = [machine.folder / f"{name}-{part}" if spool and machine.folder else None for part in ("fit", "held")]
    told = quantized(fit, machine.threads, model.max_bin, caches[0])
    stops = held is not None and model.early_stopping > 0
    callbacks: list[Any] = [_Ticking(machine.tick)]
    watched: list[tuple[Any, str]] = []
    if held is not None and stops:
        watched = [(quantized(held, machine.threads, model.max_bin, caches[1], told), "held")]
        callbacks.append(xgb.callback.EarlyStopping(rounds=model.early_stopping, save_best=True))
    made = xgb.train(
        {**settings(model), **learn, "nthread": machine.threads},
        told,
        num_boost_round=model.rounds,
        evals=watched,
        verbose_eval=False,
        callbacks=callbacks,
    )
    made.set_attr(best_iteration=None, best_score=None)  # all trees count, and the file says nothing else
    return made


def settings(model: AnomalyModel) -> dict[str, Any]:
    """What XGBoost is told, besides what is to be learnt."""
    return {
        "tree_method": "hist",
        "seed": model.seed,
        "eta": model.eta,
        "max_depth": model.max_depth,
        "min_child_weight": model.min_child_weight,
        "subsample": model.subsample,
        "colsample_bytree": model.colsample_bytree,
        "lambda": model.reg_lambda,
        "alpha": model.alpha,
        "gamma": model.gamma,
        "max_bin": model.max_bin,
        "verbosity": 0,
    }


class _Ticking(xgb.callback.TrainingCallback):
    """Counts trees, and lets who counts raise."""

    def __init__(self, tick: Tick) -> None:
        super().__init__()
        self._tick = tick

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self._tick()
        return False


def _predict(booster: xgb.Booster, values: Floats32) -> Floats:
    made = booster.inplace_predict(values, predict_type="margin", validate_features=False)
    return np.asarray(made, np.float64).reshape(len(values))


def _shap(booster: xgb.Booster, values: Floats32) -> Floats:
    told = xgb.DMatrix(values)
    return np.asarray(booster.predict(told, pred_contribs=True, validate_features=False), np.float64)
