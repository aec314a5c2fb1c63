"""The entities of one bucket: what becomes of them does not depend on how they are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from almanac.api import ForecastJob, ForecastModel, JobError
from almanac_jobs import parts
from almanac_jobs.calendar import Calendar, Frequency
from almanac_jobs.parts import Part, Recipe, Summary
from almanac_jobs.progress import Interrupted, Progress
from almanac_jobs.reporting import model_in_words, notes
from almanac_jobs.source.observations import Counts, Observations
from ledgers import job

DAILY = Calendar(Frequency.parse("D"), pa.date32())


def observations(entities: int, periods: int) -> Observations:
    """One bucket of entities that were all observed in each of some days; the last one only once."""
    lengths = np.full(entities, periods)
    lengths[-1] = 1
    value = 10 + np.random.default_rng(3).normal(0, 1, lengths.sum()).cumsum()
    return Observations(
        entities=pa.array([f"e{i:04}" for i in range(entities)]),
        bucket=np.zeros(entities, np.int32),
        buckets=1,
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        period=np.concatenate([np.arange(periods - length, periods) for length in lengths]),
        value=value,
        calendar=DAILY,
        last_period=periods - 1,
        counts=Counts(int(lengths.sum())),
    )


def recipe(**fields: Any) -> Recipe:
    return Recipe(ForecastJob.parse(job("lake", "out", **fields)).spec, DAILY)


def worked(entities: int, slices: int, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> tuple[Part, Progress]:
    monkeypatch.setattr(parts, "SLICE", slices)
    progress = Progress()
    progress.start("fit", entities, "series")
    return recipe(**fields).work(observations(entities, 50), 0, entities, progress), progress


@pytest.mark.parametrize("missing", ["zero", "drop"])
def test_slices_do_not_show(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = worked(40, 1000, monkeypatch, missing=missing)
    cut, progress = worked(40, 7, monkeypatch, missing=missing)
    assert progress.snapshot() is not None
    assert progress.snapshot().done == 40  # type: ignore[union-attr]
    assert set(whole.tables) == {"forecasts", "parameters", "history", "scores"}
    for name, table in whole.tables.items():
        assert cut.tables[name].combine_chunks().equals(table.combine_chunks()), name
    assert cut.summary.statuses == whole.summary.statuses
    assert cut.summary.statuses["too_short"] == 1
    assert [failure.entity for failure in cut.summary.failures] == ["e0039"]
    assert [one.entity for one in cut.summary.highlights.biggest] == [
        one.entity for one in whole.summary.highlights.biggest
    ]
    np.testing.assert_array_equal(cut.summary.mase, whole.summary.mase)
    assert cut.summary.totals is not None
    assert whole.summary.totals is not None
    assert cut.summary.totals.summary() == whole.summary.totals.summary()


def test_a_bucket_without_entities_has_tables_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    some, _ = worked(3, 10, monkeypatch)
    none = recipe().work(observations(3, 50), 0, 0, Progress())
    for name, table in some.tables.items():
        assert none.tables[name].schema == table.schema
        assert len(none.tables[name]) == 0
    both = Summary.sum([none.summary, some.summary])
    assert both.statuses == some.summary.statuses
    assert both.totals is not None
    assert both.totals.entities == 3


def test_without_evaluation_there_are_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    part, _ = worked(5, 10, monkeypatch, evaluation__windows=0)
    assert set(part.tables) == {"forecasts", "parameters", "history"}
    assert part.summary.totals is None
    assert np.isnan(part.summary.mase).all()


def test_the_season_is_the_models_or_the_usual_one() -> None:
    assert recipe().season_length == 7
    assert recipe(model__seasonLength=30).season_length == 30


def test_work_stops_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SLICE", 5)
    progress = Progress()
    progress.stop()
    with pytest.raises(Interrupted):
        recipe().work(observations(10, 50), 0, 10, progress)


def test_a_gap_that_is_to_fail_is_named() -> None:
    gappy = observations(2, 50)
    gappy.period[10:50] += 1
    with pytest.raises(JobError, match="entity `e0000` has no row for 1970-01-11"):
        recipe(missing="fail").work(gappy, 0, 2, Progress())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "ARIMA (1,1,1)"),
        ({"order": (0, 1, 1), "seasonal_order": (0, 1, 1), "season_length": 12}, "ARIMA (0,1,1)(0,1,1)[12]"),
        ({"order": (2, 0, 1), "season_length": 7}, "ARIMA (2,0,1)"),
        ({"family": "autoarima", "season_length": 7}, "AutoARIMA[7]"),
        ({"family": "ets"}, "ETS"),
        ({"family": "seasonalnaive", "season_length": 24}, "seasonal naive[24]"),
    ],
)
def test_model_in_words(fields: dict[str, Any], words: str) -> None:
    assert model_in_words(ForecastModel.model_validate(fields)) == words


def test_notes_tell_only_what_there_is_to_tell() -> None:
    assert notes(Counts(10)) == {}
    assert notes(Counts(10, null_values=2, merged=1)) == {
        "left out: no value": 2,
        "merged with others of the same entity and period": 1,
    }
