"""Boosted trees on the rows of one place, or of all together: the part of training that XGBoost does.

Together, each place has its own rows and all get the same trees, by XGBoost's collective (`crew.Crew.together`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from almanac.api import AnomalyModel
from almanac_jobs.anomaly.features import Floats32
from almanac_jobs.anomaly.matrix import Flags, Floats, Ints, Matrix, Selection, quantized
from almanac_jobs.crew import Link

KEEP_EVERY = 20
"""Trees after which those that there are are kept."""
_RISING = ("aucpr",)
_SCORES = "scores"
"""Attribute of a booster that is kept: how good it was on the held rows, after each tree."""


@dataclass(frozen=True, slots=True)
class Course:
    """What trees are to learn, and how: `learn` are the settings of the objective, the rest are the job's.

    `columns` are those of the matrix that they see (None: all), whose `names` these are.
    """

    model: AnomalyModel
    learn: Mapping[str, Any]
    names: Sequence[str]
    name: str
    threads: int
    columns: Ints | None = None

    def __call__(
        self, matrix: Matrix, target: Floats, fitted: Flags | None, held: Flags | None, link: Link
    ) -> xgb.Booster:
        """Trees that learn the `target` of the rows that are `fitted` (None: all), as many as serve those `held`, where
        there are any and the job stops early."""
        fit = Selection(matrix, self.names, target, fitted, self.columns)
        told = quantized(fit, self.threads, self.model.max_bin, f"{self.name}-fit")
        watched = []
        if held is not None and self.model.early_stopping:
            test = replace(fit, rows=held)
            watched = [(quantized(test, self.threads, self.model.max_bin, f"{self.name}-held", told), "held")]
        known = {**settings(self.model), **self.learn, "nthread": self.threads}
        booster = xgb.Booster(known, [told, *(one for one, _ in watched)], _kept(link))
        scores: list[float] = json.loads(booster.attr(_SCORES) or "[]")
        while booster.num_boosted_rounds() < self.model.rounds and not self._enough(scores):
            at = booster.num_boosted_rounds()
            booster.update(told, at)
            if watched:
                scores.append(float(str(booster.eval_set(watched, at)).rsplit(":", 1)[1]))
            link.tick()
            if (at + 1) % KEEP_EVERY == 0:
                booster.set_attr(**{_SCORES: json.dumps(scores)})
                link.keep(bytes(booster.save_raw("ubj")))
        booster.set_attr(**{_SCORES: None})  # the file says nothing else
        return booster[: self._best(scores) + 1] if scores else booster.reset()

    def _enough(self, scores: Sequence[float]) -> bool:
        return bool(scores) and len(scores) - 1 - self._best(scores) >= self.model.early_stopping

    def _best(self, scores: Sequence[float]) -> int:
        rising = self.learn.get("eval_metric") in _RISING
        return int(np.argmax(scores) if rising else np.argmin(scores))


def _kept(link: Link) -> bytearray | None:
    return None if link.kept is None else bytearray(link.kept)


def settings(model: AnomalyModel) -> dict[str, Any]:
    """What XGBoost is told, besides what is to be learnt."""
    return {
        "tree_method": "hist",
        "seed": model.seed,
        "seed_per_iteration": True,  # so that it does not matter whether trees are added in one go
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


def predict(booster: xgb.Booster, values: Floats32) -> Floats:
    """The margin of each row."""
    made = booster.inplace_predict(values, predict_type="margin", validate_features=False)
    return np.asarray(made, np.float64).reshape(len(values))


def contributions(booster: xgb.Booster, values: Floats32) -> NDArray[np.float64]:
    """What each feature adds to the margin of each row, and in one more column what all rows have in common."""
    told = xgb.DMatrix(values)
    return np.asarray(booster.predict(told, pred_contribs=True, validate_features=False), np.float64)
