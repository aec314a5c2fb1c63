"""Published results on real data: what an isolation forest reaches there, its student reaches as well."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("xgboost", reason="the extra `anomaly` is not installed")

from almanac.api import AnomalyModel, Detector
from almanac_jobs.anomaly import detectors, measures, teacher
from almanac_jobs.anomaly.detectors import Training
from almanac_jobs.anomaly.features import Feature, Kind
from almanac_jobs.anomaly.matrix import Resident
from almanac_jobs.crew import Held
from crews import alone

SHUTTLE = Path(__file__).parents[2] / "data/shuttle"


def areas(values: NDArray[np.float32], odd: NDArray[np.bool_]) -> tuple[float, float]:
    """AUC of the forest and of its student."""
    matrix = Resident(values)
    features = [Feature(f"f{at}", f"f{at}", Kind.NUMBER) for at in range(values.shape[1])]
    training = Training(Held((matrix,)), [len(values)], features)
    student = detectors.train(Detector.STUDENT, AnomalyModel(), training, alone())
    sample = values[teacher.sample(len(values), 0)]
    forest = teacher.grow(sample, len(values), 0, 1)
    return measures.auc(odd, forest.oddness(matrix)), measures.auc(odd, student.margins(values))


def test_breast_cancer() -> None:
    """WDBC as ADBench has it, all benign and ten malignant samples: 0.99, by which ten."""
    datasets = pytest.importorskip("sklearn.datasets")
    values, benign = datasets.load_breast_cancer(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(benign == 1), np.flatnonzero(benign == 0)[:10]])
    forest, student = areas(values[rows].astype(np.float32), benign[rows] == 0)
    assert forest == pytest.approx(0.99, abs=0.02)
    assert student == pytest.approx(forest, abs=0.01)


def test_shuttle() -> None:
    """ODDS shuttle: PyOD publishes 0.9971 for its isolation forest."""
    wheel = next(iter(SHUTTLE.glob("river-*.whl")), None)
    if wheel is None:
        pytest.skip("the shuttle data are not here: `make data/shuttle/.fetched` fetches them")
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read("river/datasets/shuttle.csv.gz")).decode()
    rows = np.array(list(csv.reader(io.StringIO(text)))[1:], np.float32)
    forest, student = areas(rows[:, :-1], rows[:, -1] == 1)
    assert forest == pytest.approx(0.9971, abs=0.003)
    assert student > 0.99
