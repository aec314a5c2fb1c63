"""A detector as files, and back: XGBoost's own format, no pickle, and `model.json`, which says how to use them.

Another release of XGBoost may read a model without an error and still score wrongly (2.1 does, with models of 3.x). So
`model.json` holds golden rows with the margins that they must get, and `load` computes them before anything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from almanac.api import Detector, JobError, LedgerColumns, Reason
from almanac_jobs.anomaly import detectors
from almanac_jobs.anomaly.calibration import Scale
from almanac_jobs.anomaly.detectors import Trained
from almanac_jobs.anomaly.features import Feature, Floats32, Schema
from almanac_jobs.anomaly.ledger import Ledger
from almanac_jobs.anomaly.matrix import PART_ROWS

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FORMAT = 1
MANIFEST = "model.json"
OLDEST = "3.1"
"""The oldest XGBoost that reads these models right: earlier ones overlook the base score."""
GOLDEN = 16
"""Golden rows: half of them those with the highest margins."""
TOLERANCE = 1e-5
"""Difference of a margin, by its size or by 1 where that is more, that other machines may make."""


@dataclass(frozen=True, slots=True)
class Model:
    """A detector with what it needs to score rows."""

    detector: Detector
    schema: Schema
    ledger: Ledger | None
    trained: Trained
    scale: Scale
    margin: float | None
    """Rows of at least this margin are flagged; None: a threshold decides."""
    threshold: float | None
    """Rows of at least this score are flagged; None: a margin decides."""

    def margins(self, values: Floats32) -> Floats:
        """The margin of each row of a matrix of features."""
        parts = (values[start : start + PART_ROWS] for start in range(0, max(len(values), 1), PART_ROWS))
        return np.concatenate([self.trained.margins(part) for part in parts])

    def flags(self, margins: Floats) -> Flags:
        """Which of these are odd enough."""
        if self.margin is not None:
            return margins >= self.margin
        assert self.threshold is not None  # noqa: S101 - one of them is set
        return np.asarray(self.scale.scores(margins) >= self.threshold)


def files(model: Model, golden: Floats32) -> dict[str, bytes]:
    """The files of a model by their paths."""
    boosters = {path: bytes(one.save_raw("ubj")) for path, one in sorted(model.trained.boosters.items())}
    told = {
        "formatVersion": FORMAT,
        "detector": model.detector.value,
        "features": [one.as_json() for one in model.schema.features],
        "timeZone": model.schema.time_zone,
        "ledger": model.ledger and _ledger_as_json(model.ledger),
        "trained": model.trained.as_json(),
        "scale": model.scale.as_json(),
        "flagged": {"margin": model.margin, "threshold": model.threshold},
        "xgboost": {"writtenBy": xgb.__version__, "oldest": OLDEST},
        "files": [{"path": path, "sha256": hashlib.sha256(data).hexdigest()} for path, data in boosters.items()],
        "golden": {
            "rows": [[None if np.isnan(value) else float(value) for value in row] for row in golden],
            "margins": model.margins(golden).tolist(),
            "contributions": model.trained.contributions(golden).tolist(),
        },
    }
    return {**boosters, MANIFEST: (json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n").encode()}


def load(read: Callable[[str], bytes | None], uri: str) -> Model:
    """The model whose files `read` gives by their paths; `uri` names their folder in messages.

    Raises:
        JobError: DataError for a file that is missing or changed, or where this machine scores the golden rows
            otherwise than they must be; InvalidSpec for a newer format, NotInstalled for an XGBoost that is too old.
    """
    told = json.loads(_content(read, MANIFEST, uri))
    if told["formatVersion"] > FORMAT:
        raise JobError(
            Reason.INVALID_SPEC,
            f"uri: {uri}/{MANIFEST} has format {told['formatVersion']}, and this version reads up to {FORMAT}: update "
            "almanac",
        )
    oldest = told["xgboost"]["oldest"]
    if _version(xgb.__version__) < _version(oldest):
        raise JobError(
            Reason.NOT_INSTALLED,
            f"uri: the model in {uri} needs xgboost {oldest} or later, and {xgb.__version__} is installed, which would "
            f"score it wrongly: pip install 'xgboost-cpu>={oldest}'",
        )
    boosters: dict[str, xgb.Booster] = {}
    for file in told["files"]:
        data = _content(read, file["path"], uri)
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            raise JobError(Reason.DATA_ERROR, f"uri: {uri}/{file['path']} is not what the run has written")
        boosters[file["path"]] = xgb.Booster(model_file=bytearray(data))
    model = Model(
        detector=Detector(told["detector"]),
        schema=Schema(tuple(map(Feature.from_json, told["features"])), told["timeZone"]),
        ledger=told["ledger"] and _ledger_from_json(told["ledger"]),
        trained=detectors.from_json(told["trained"], boosters),
        scale=Scale.from_json(told["scale"]),
        margin=told["flagged"]["margin"],
        threshold=told["flagged"]["threshold"],
    )
    _verify(model, told["golden"], uri, told["xgboost"]["writtenBy"])
    return model


def golden(values: Floats32, margins: Floats, seed: int) -> Floats32:
    """Rows that tell whether a model is scored right: those of the highest margins, and some others."""
    order = np.argsort(-margins, kind="stable")
    others = np.random.default_rng(seed).permutation(order[GOLDEN // 2 :])[: GOLDEN // 2]
    return np.asarray(values[np.concatenate([order[: GOLDEN // 2], others])])


def _verify(model: Model, told: Mapping[str, Any], uri: str, writer: str) -> None:
    rows = np.array([[np.nan if one is None else one for one in row] for row in told["rows"]], np.float32)
    for name, found in (("margins", model.margins(rows)), ("contributions", model.trained.contributions(rows))):
        expected = np.array(told[name])
        wrong = np.abs(found - expected) > TOLERANCE * np.maximum(np.abs(expected), 1)
        if wrong.any():
            raise JobError(
                Reason.DATA_ERROR,
                f"uri: the model in {uri} was written by xgboost {writer}, and {xgb.__version__} gives its golden rows "
                f"other {name} (off by {np.abs(found - expected).max():.3g}): its scores cannot be trusted here. "
                f"Install xgboost {writer}",
            )


def _content(read: Callable[[str], bytes | None], path: str, uri: str) -> bytes:
    data = read(path)
    if data is None:
        raise JobError(Reason.DATA_ERROR, f"uri: {uri}/{path} is missing")
    return data


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _ledger_as_json(ledger: Ledger) -> dict[str, Any]:
    return {
        "columns": ledger.columns.model_dump(mode="json"),
        "entity": ledger.entity,
        "time": ledger.time,
        "hours": ledger.hours,
        "timeZone": ledger.time_zone,
    }


def _ledger_from_json(told: Mapping[str, Any]) -> Ledger:
    columns = LedgerColumns.parse(told["columns"])
    return Ledger(columns, told["entity"], told["time"], told["hours"], told["timeZone"])
