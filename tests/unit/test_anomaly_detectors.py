"""Detectors: that each finds what it is for, is the same every time and wherever its rows lie, and adds up."""

from __future__ import annotations

import errno
import gc
import hashlib
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("xgboost", reason="the extra `anomaly` is not installed")

from almanac.api import AnomalyModel, Detector, JobError, Reason
from almanac_jobs.anomaly import detectors, matrix, measures, teacher
from almanac_jobs.anomaly.detectors import Trained, Training, halves, latest, resolve
from almanac_jobs.anomaly.features import Feature, Kind
from almanac_jobs.anomaly.matrix import Matrix, Resident, Selection, Spooled, take
from almanac_jobs.crew import Crew, Held
from almanac_jobs.engines.local import Alone
from almanac_jobs.progress import Interrupted, Progress
from crews import Several, alone

Flags = NDArray[np.bool_]
SMALL = AnomalyModel(rounds=25, max_depth=4)


def data(rows: int = 1200, seed: int = 5) -> tuple[NDArray[np.float32], Flags]:
    """Rows of four features, of which the third follows from the first two, but not in odd rows; some are missing."""
    rng = np.random.default_rng(seed)
    odd = rng.random(rows) < 0.04
    values = rng.normal(0, 1, (rows, 4))
    values[:, 2] = values[:, 0] + values[:, 1] + rng.normal(0, 0.1, rows)
    values[odd, 2] = rng.normal(0, 1.4, int(odd.sum()))
    values[odd, 3] += 2.5
    values[rng.random(rows) < 0.05, 1] = np.nan
    return values.astype(np.float32), odd


def features(count: int = 4) -> list[Feature]:
    return [Feature(f"f{at}", f"f{at}", Kind.NUMBER) for at in range(count)]


def train(
    detector: Detector,
    matrix: Matrix,
    labels: Flags | None = None,
    *,
    model: AnomalyModel = SMALL,
    threads: int = 1,
) -> Trained:
    held = np.zeros(matrix.rows, np.bool_)
    held[-matrix.rows // 5 :] = True
    training = Training(
        Held((matrix,)),
        [matrix.rows],
        features(take(matrix, np.array([0])).shape[1]),
        None if labels is None else Held((labels,)),
        0 if labels is None else int(labels.sum()),
        Held((held,)) if detector is Detector.CLASSIFIER else None,
    )
    return detectors.train(detector, model, training, alone(threads))


def digest(trained: Trained) -> str:
    raw = b"".join(bytes(one.save_raw("ubj")) for _, one in sorted(trained.boosters.items()))
    return hashlib.sha256(raw + repr(trained.as_json()).encode()).hexdigest()


def labelled(odd: Flags, detector: Detector) -> Flags | None:
    if detector is Detector.CLASSIFIER:
        return odd
    few: Flags = odd & (np.cumsum(odd) <= 12)
    return few if detector is Detector.BLEND else None


TRAINED = (Detector.CLASSIFIER, Detector.BLEND, Detector.STUDENT, Detector.RECONSTRUCTION)


@pytest.mark.parametrize("detector", TRAINED)
def test_the_same_bytes_wherever_rows_lie(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, on the disk in parts of any size, by one thread or two, and again."""
    values, odd = data()
    labels = labelled(odd, detector)
    once = digest(train(detector, Resident(values), labels))
    assert digest(train(detector, Resident(values), labels, threads=2)) == once
    monkeypatch.setattr(matrix, "PART_ROWS", 600)
    spooled = Spooled(values[start : start + 250] for start in range(0, len(values), 250))
    assert spooled.rows == len(values)
    assert [len(part) for part in spooled.parts()] == [750, 450]  # small ones come together
    folder = spooled.folder
    assert digest(train(detector, spooled, labels)) == once
    del spooled
    assert not folder.exists()


@pytest.mark.parametrize(("bins", "missing"), [(256, 0.0), (256, 0.3), (64, 0.9), (1024, 0.0), (1024, 0.5)])
def test_what_xgboost_writes_is_foreseen_and_refused_without_room(
    bins: int, missing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its own writing fails it ends the process."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(30_000, 5)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    monkeypatch.setattr(matrix, "PART_ROWS", 10_000)
    spooled = Spooled(values[start : start + 5000] for start in range(0, len(values), 5000))

    def size() -> int:
        return sum(file.stat().st_size for file in spooled.folder.iterdir())

    before, foreseen = size(), spooled.cache_size(len(values), 5, bins)
    kept = matrix.quantized(Selection(spooled, [f"f{at}" for at in range(5)], np.zeros(len(values))), 1, bins, "x")
    assert foreseen / 2 < size() - before <= foreseen
    del kept
    monkeypatch.setattr(matrix.shutil, "disk_usage", lambda _: SimpleNamespace(free=foreseen - 1))
    with pytest.raises(OSError, match="MiB are needed") as caught:
        spooled.cache(len(values), 5, bins)
    assert caught.value.errno == errno.ENOSPC


def test_a_matrix_that_was_put_aside_has_its_files_still() -> None:
    """As Dask does with what it spills: the one in memory goes, and another is made of what was pickled."""
    values, _ = data()
    spooled = Spooled(iter([values]))
    aside = pickle.dumps(spooled)
    del spooled
    gc.collect()
    back = pickle.loads(aside)  # noqa: S301 - of our own making
    np.testing.assert_array_equal(np.concatenate(list(back.parts())), values)
    assert back.rows == len(values)


@pytest.mark.parametrize("detector", TRAINED)
def test_contributions_add_up(detector: Detector) -> None:
    values, odd = data()
    trained = train(detector, Resident(values), labelled(odd, detector))
    margins = trained.margins(values)
    assert np.ptp(margins) > 0
    contributions = trained.contributions(values)
    assert contributions.shape == (len(values), values.shape[1] + 1)
    np.testing.assert_allclose(contributions.sum(axis=1), margins, atol=1e-4 * np.abs(margins).max())
    assert measures.auc(odd, margins) > 0.75


def test_contributions_are_those_of_shap() -> None:
    shap = pytest.importorskip("shap", reason="the extra `anomaly` is not installed")
    values, odd = data()
    trained = train(Detector.CLASSIFIER, Resident(values), odd)
    (booster,) = trained.boosters.values()
    own = trained.contributions(values)
    by_shap = shap.TreeExplainer(booster)(values)
    np.testing.assert_allclose(own[:, :-1], by_shap.values, atol=1e-5)
    np.testing.assert_allclose(own[:, -1], by_shap.base_values, atol=1e-5)


def test_reconstruction_sees_broken_rules() -> None:
    """A row whose features are each usual, but not together, is odd to it and to no forest."""
    values, _ = data(3000, 6)
    values = np.delete(values, 3, axis=1)
    broken = np.zeros(len(values), np.bool_)
    broken[::60] = True
    values[broken, 2] *= -1
    rule = train(Detector.RECONSTRUCTION, Resident(values)).margins(values)
    forest = train(Detector.STUDENT, Resident(values)).margins(values)
    assert measures.auc(broken, rule) > 0.8 > measures.auc(broken, forest) + 0.1


def test_reconstruction_tells_which_feature() -> None:
    values, _ = data(3000, 6)
    values[7, 2] += 6
    trained = train(Detector.RECONSTRUCTION, Resident(values))
    assert int(np.argmax(trained.contributions(values[7:8])[0])) == 2


@pytest.mark.parametrize("detector", [Detector.STUDENT, Detector.RECONSTRUCTION])
def test_nothing_to_learn(detector: Detector) -> None:
    rng = np.random.default_rng(0)
    same = np.zeros((300, 2), np.float32)
    apart = rng.normal(0, 1, (300, 2)).astype(np.float32)
    with pytest.raises(JobError, match="learnt nothing") as caught:
        train(detector, Resident(same if detector is Detector.STUDENT else apart))
    assert caught.value.reason is Reason.LEARNT_NOTHING
    assert caught.value.reason.exit_code == 65


def test_training_stops_when_it_is_told_to() -> None:
    values, _ = data()
    trees = 0

    def guard() -> None:
        nonlocal trees
        trees += 1
        if trees == 3:
            progress.stop()

    progress = Progress(guard=guard)
    training = Training(Held((Resident(values),)), [len(values)], features())
    with pytest.raises(Interrupted):
        detectors.train(Detector.STUDENT, SMALL, training, Alone(1, progress))
    assert trees == 3


def test_reconstruction_needs_two_features() -> None:
    values, _ = data()
    with pytest.raises(JobError, match="there is one only"):
        train(Detector.RECONSTRUCTION, Resident(values[:, :1]))


@pytest.mark.parametrize(
    ("asked", "positives", "got"),
    [
        (Detector.AUTO, None, Detector.STUDENT),
        (Detector.AUTO, 0, Detector.STUDENT),
        (Detector.AUTO, 2, Detector.STUDENT),
        (Detector.AUTO, 3, Detector.BLEND),
        (Detector.AUTO, 199, Detector.BLEND),
        (Detector.AUTO, 200, Detector.CLASSIFIER),
        (Detector.RECONSTRUCTION, 500, Detector.RECONSTRUCTION),
        (Detector.CLASSIFIER, 3, Detector.CLASSIFIER),
    ],
)
def test_resolve(asked: Detector, positives: int | None, got: Detector) -> None:
    assert resolve(asked, positives)[0] is got


@pytest.mark.parametrize("asked", [Detector.CLASSIFIER, Detector.BLEND])
def test_too_few_labels_for_what_is_asked(asked: Detector) -> None:
    with pytest.raises(JobError, match=r"spec.label: 2 rows are labelled odd, and .* needs 3 at least"):
        resolve(asked, 2)


def test_the_blend_follows_the_labels() -> None:
    values, odd = data(3000)
    shares = []
    for known in (3, 30):
        labels = odd & (np.cumsum(odd) <= known)
        trained = train(Detector.BLEND, Resident(values), labels)
        (own, theirs) = (np.std(trained.as_json()["weights"][path] * one.inplace_predict(values, predict_type="margin"))
                         for path, one in trained.boosters.items())  # fmt: skip
        shares.append(own / (own + theirs))
    assert shares == pytest.approx([3 / 13, 30 / 40], abs=1e-3)


@pytest.mark.parametrize("crew", [alone(), Several(3)])
def test_latest_rows_are_later_than_all_others(crew: Crew) -> None:
    def of(times: NDArray[np.int64]) -> Flags:
        shares = Several(crew.size).cut(times) if crew.size > 1 else Held((times,))
        return np.concatenate(crew.fetch(latest(crew, shares, len(times))))

    assert of(np.array([4, 1, 5, 2, 3, 4, 4, 0, 0, 0], np.int64)).tolist() == [False, False, True, *[False] * 7]
    assert not of(np.array([5, 5, 5, 1, 2], np.int64)).any()
    assert not of(np.zeros(10, np.int64)).any()
    times = np.random.default_rng(1).integers(-500, 500, 5000)
    later = of(times)
    assert times[later].min() > times[~later].max()
    assert 0.15 < later.mean() <= 0.2


def test_halves_are_of_the_values_alone() -> None:
    values, _ = data()
    fold = halves(values)
    order = np.random.default_rng(0).permutation(len(values))
    np.testing.assert_array_equal(halves(values[order]), fold[order])
    assert 0.45 < fold.mean() < 0.55
    signed = np.array([[0.0, np.nan], [-0.0, -np.nan]], np.float32)
    assert len(set(halves(signed).tolist())) == 1


def test_oddness_takes_missing_values() -> None:
    values, odd = data()
    values[0] = np.nan
    found = teacher.grow(values, len(values), seed=0, threads=1).oddness(Resident(values))
    assert np.isfinite(found).all()
    assert measures.auc(odd, found) > 0.75


def test_a_forest_of_few_rows_has_more_trees() -> None:
    assert [teacher.trees(rows) for rows in (200, 16_384, 32_768, 65_536, 10_000_000)] == [400, 400, 200, 100, 100]
