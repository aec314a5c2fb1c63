"""Measures against scikit-learn's, and the way from margins to scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from almanac_jobs.anomaly import across, calibration, explanations, measures
from almanac_jobs.anomaly.calibration import Scale
from almanac_jobs.crew import Held
from crews import Several, alone

metrics = pytest.importorskip("sklearn.metrics", reason="the extra `anomaly` is not installed")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
@settings(deadline=None)
def test_measures_are_those_of_scikit_learn(pairs: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([one for one, _ in pairs]), np.array([two / 6 for _, two in pairs])
    if labels.all() or not labels.any():
        assert np.isnan(measures.auc(labels, scores))
        return
    assert measures.auc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert measures.average_precision(labels, scores) == pytest.approx(metrics.average_precision_score(labels, scores))
    assert measures.brier(labels, scores) == pytest.approx(metrics.brier_score_loss(labels, scores))


def test_the_base_rate_has_no_skill() -> None:
    labels = np.arange(100) < 20
    assert measures.brier_skill(labels, np.full(100, 0.2)) == pytest.approx(0)
    assert measures.brier_skill(labels, labels.astype(float)) == 1


def drawn(rows: int, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Margins three times as sure as they should be, and labels."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1.5, 1.2, rows)
    return rng.random(rows) < 1 / (1 + np.exp(-truth)), 3 * truth + 1


@pytest.mark.parametrize(("rows", "how"), [(30, "none"), (300, "platt"), (4000, "isotonic")])
def test_calibration_follows_the_number_of_labels(rows: int, how: str) -> None:
    labels, margins = drawn(rows)
    scale = calibration.by_labels(labels, margins)
    assert scale.how == how
    order = np.argsort(margins)
    assert (np.diff(scale.scores(margins)[order]) >= 0).all()
    again = Scale.from_json(scale.as_json())
    np.testing.assert_array_equal(again.scores(margins), scale.scores(margins))


@pytest.mark.parametrize("rows", [300, 4000])
def test_calibrated_probabilities_are_what_happens(rows: int) -> None:
    labels, margins = drawn(rows)
    scale = calibration.by_labels(labels, margins)
    truth, later = drawn(20_000, seed=9)
    own = 1 / (1 + np.exp(-later))
    assert measures.brier(truth, scale.scores(later)) < measures.brier(truth, own) - 0.01
    assert scale.scores(later).mean() == pytest.approx(truth.mean(), abs=0.05)


def by_share(margins: NDArray[np.float64]) -> calibration.Scale:
    """The same of all margins in one place, and in three."""
    scales = [
        calibration.by_share(crew, crew.each(across.order, held), len(margins))
        for crew, held in ((alone(), Held((margins,))), (Several(3), Several(3).cut(margins)))
    ]
    assert scales[0] == scales[1]
    return scales[0]


def test_shares_are_shares() -> None:
    rng = np.random.default_rng(3)
    margins = rng.exponential(1, 50_000)
    scale = by_share(margins)
    scores = scale.scores(margins)
    assert (scores >= 0.99).mean() == pytest.approx(0.01, abs=1e-3)
    assert (scores >= 0.9).mean() == pytest.approx(0.1, abs=2e-3)
    assert scale.scores(np.array([-1.0, margins.max() + 1])).tolist() == [0, 1]
    flat = by_share(np.array([0.0] * 90 + [1.0] * 10))
    assert flat.scores(np.array([0.0, 1.0])).tolist() == pytest.approx([0.9, 1], abs=0.01)


@pytest.mark.parametrize(("contamination", "flagged"), [(0.01, 10), (0.5, 500), (1e-6, 1)])
def test_the_cut_flags_its_share(contamination: float, flagged: int) -> None:
    margins = np.random.default_rng(4).normal(0, 1, 1000)
    ordered = Several(3).each(across.order, Several(3).cut(margins))
    assert (margins >= calibration.cut(Several(3), ordered, 1000, contamination)).sum() == flagged


def test_reasons_of_an_entity_are_means_by_score() -> None:
    contributions = np.array([[1.0, -4.0, 0.0, 9.0], [3.0, 4.0, 0.5, 9.0]])
    told = explanations.of_entity(["a", "b", "c"], contributions, np.array([0.75, 0.25]), 2)
    assert told == [
        {"feature": "b", "contribution": 4.0, "direction": "lowers"},
        {"feature": "a", "contribution": 1.5, "direction": "raises"},
    ]
