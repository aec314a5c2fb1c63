"""The estimator, in a session of one's own: it fits what a job fits, and does what Spark ML expects of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import almanac_jobs
from almanac.api import Engine, ForecastJob, JobError
from almanac_jobs import run
from almanac_jobs.model import Model
from almanac_jobs.progress import Progress
from ledgers import FIRST_DAY, job, ledger, write_parquet

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import SQLTransformer
from pyspark.ml.tuning import CrossValidatorModel, ParamGridBuilder
from pyspark.sql import DataFrame

from almanac_jobs.spark import ARIMA, ARIMAModel, ForecastEvaluator, RollingOrigin
from sparks import local_cluster

pytestmark = pytest.mark.timeout(600)
COLUMNS = {"entityCol": "account", "timeCol": "date", "valueCol": "amount"}
ENTITIES, DAYS = 12, 50


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    conf = {"spark.sql.shuffle.partitions": "3", "spark.task.maxFailures": "1", "spark.sql.session.timeZone": "UTC"}
    with local_cluster(tmp_path_factory.mktemp("spark"), conf) as made:
        yield made


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return ledger(ENTITIES, DAYS)


@pytest.fixture(scope="module")
def data(session: Any, table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> DataFrame:
    folder = tmp_path_factory.mktemp("ledger")
    pq.write_table(table.take(np.random.default_rng(1).permutation(len(table))), folder / "t.parquet")
    frame: DataFrame = session.read.parquet(str(folder)).repartition(4)
    return frame


@pytest.fixture(scope="module")
def model(data: DataFrame) -> ARIMAModel:
    return ARIMA(**COLUMNS, horizon=5).fit(data)


def rows(frame: DataFrame | pa.Table, *by: str) -> list[dict[str, Any]]:
    made = frame if isinstance(frame, pa.Table) else frame.toArrow()
    found: list[dict[str, Any]] = made.sort_by([(name, "ascending") for name in by]).to_pylist()
    return found


def test_it_fits_what_a_job_fits(model: ARIMAModel, data: DataFrame, table: pa.Table, tmp_path: Path) -> None:
    source = write_parquet(table, tmp_path / "lake" / "t.parquet")
    document = ForecastJob.parse(job(source, tmp_path / "out", horizon=5, evaluation__windows=0))
    run.run(
        document,
        engine=Engine.LOCAL,
        run_id="r1",
        clock=lambda: datetime.now(UTC),
        progress=Progress(),
        manifest="",
    )
    fitted = almanac_jobs.load(str(tmp_path / "out"))
    assert isinstance(fitted, Model)
    assert rows(model.parameters, "entity") == rows(pa.concat_tables(fitted.parts("parameters")), "entity")
    forecasts = rows(model.transform(data), "account", "date")
    assert len(forecasts) == 5 * ENTITIES
    assert {one["amount"] for one in forecasts} == {None}
    told = [
        {"entity": one["account"], "time": one["date"], "mean": one["prediction"]}
        | {bound: one[bound] for bound in ("lo80", "hi80", "lo95", "hi95")}
        for one in forecasts
    ]
    assert told == rows(pa.concat_tables(fitted.parts("forecasts")), "entity", "time")


def test_entities_that_are_asked_for(model: ARIMAModel, data: DataFrame) -> None:
    some = data.where("account = 'account-0000003'").unionByName(
        data.limit(1).selectExpr("'new' account", "date", "amount")
    )
    assert {one["account"] for one in rows(model.transform(some), "date")} == {"account-0000003"}


def test_parameters_are_spark_mls(model: ARIMAModel, data: DataFrame) -> None:
    arima = ARIMA(**COLUMNS, order=[2, 0, 1])
    assert arima.getOrDefault("order") == [2, 0, 1]
    assert "order: [p, d, q]" in arima.explainParams()
    other = arima.fit(data, {arima.order: [0, 1, 1], arima.horizon: 2})
    assert other.getOrDefault("horizon") == 2
    assert {one["form"] for one in rows(other.parameters, "entity")} == {"(0,1,1)"}
    assert model.copy({model.horizon: 3}).transform(data).count() == 3 * ENTITIES
    with pytest.raises(ValueError, match="seasonLength: must be above 1"):
        ARIMA(**COLUMNS, seasonalOrder=[1, 0, 0]).fit(data)
    with pytest.raises(ValueError, match="missing: `nil` is none of zero"):
        ARIMA(**COLUMNS, missing="nil").fit(data)
    with pytest.raises(TypeError, match="horizon"):
        ARIMA(horizon="a week")


def test_saved_and_loaded(model: ARIMAModel, data: DataFrame, tmp_path: Path) -> None:
    path = str(tmp_path / "model")
    model.write().overwrite().save(path)
    model.write().overwrite().save(path)
    again = ARIMAModel.load(path)
    assert (again.uid, again.getOrDefault("horizon"), again.fitted_frequency) == (model.uid, 5, "D")
    assert rows(again.transform(data), "account", "date") == rows(model.transform(data), "account", "date")
    arima = ARIMA(**COLUMNS, order=[1, 0, 2], floor=0.5)
    arima.save(str(tmp_path / "estimator"))
    assert ARIMA.load(str(tmp_path / "estimator")).extractParamMap() == arima.extractParamMap()


def test_in_a_pipeline(data: DataFrame, tmp_path: Path) -> None:
    doubled = SQLTransformer(statement="SELECT account, date, amount * 2 AS amount FROM __THIS__")
    pipeline = Pipeline(stages=[doubled, ARIMA(**COLUMNS, horizon=2)]).fit(data)
    pipeline.write().overwrite().save(str(tmp_path / "pipeline"))
    again = PipelineModel.load(str(tmp_path / "pipeline"))
    told = rows(again.transform(data), "account", "date")
    assert told == rows(pipeline.transform(data), "account", "date")
    assert told[0]["prediction"] > 70  # amounts are about 50


def test_a_search_keeps_the_order_of_time(data: DataFrame, tmp_path: Path) -> None:
    arima = ARIMA(**COLUMNS, horizon=4)
    grid = ParamGridBuilder().addGrid(arima.order, [[0, 0, 0], [0, 1, 1]]).build()
    search = RollingOrigin(
        timeCol="date",
        horizon=4,
        estimator=arima,
        estimatorParamMaps=grid,
        evaluator=ForecastEvaluator(valueCol="amount"),
        numFolds=2,
    )
    folds = search._kFold(data)
    last = FIRST_DAY + np.timedelta64(DAYS - 1, "D")
    for (training, tested), ahead in zip(folds, (8, 4), strict=True):
        assert np.datetime64(training.agg({"date": "max"}).first()[0]) == last - np.timedelta64(ahead, "D")
        assert tested.count() == 4 * ENTITIES
    found = search.fit(data)
    assert isinstance(found, CrossValidatorModel)
    assert len(found.avgMetrics) == 2
    assert np.isfinite(found.avgMetrics).all()
    best = grid[int(np.argmin(found.avgMetrics))][arima.order]
    assert found.bestModel.getOrDefault("order") == best
    assert found.transform(data).count() == 4 * ENTITIES


@pytest.mark.parametrize(("metric", "expected"), [("mae", 1.5), ("rmse", np.sqrt(2.5)), ("wape", 0.5)])
def test_errors_count_where_something_was_observed(metric: str, expected: float, session: Any) -> None:
    seen = session.createDataFrame(
        [(1.0, 2.0), (5.0, 3.0), (None, 9.0), (7.0, None)], "value double, prediction double"
    )
    evaluator = ForecastEvaluator(metricName=metric)
    assert evaluator.evaluate(seen) == pytest.approx(expected)
    assert not evaluator.isLargerBetter()
    assert np.isnan(evaluator.evaluate(seen.where("value > 6")))


def test_timestamps_and_an_inferred_frequency(session: Any) -> None:
    hours = (np.datetime64("2026-03-01T00", "h") + np.arange(60)).astype("datetime64[us]")
    frame = pa.table(
        {
            "sensor": pa.array(np.repeat([7, 8, 9], 60)),
            "at": pa.array(np.tile(hours, 3), pa.timestamp("us", "UTC")),
            "level": pa.array(np.random.default_rng(1).normal(20, 1, 180)),
        }
    )
    data = session.createDataFrame(frame)
    fitted = ARIMA(entityCol="sensor", timeCol="at", valueCol="level", frequency="auto", horizon=2).fit(data)
    assert fitted.fitted_frequency == "H"
    told = rows(fitted.transform(data), "sensor", "at")
    assert [(one["sensor"], one["at"].isoformat()) for one in told[:2]] == [
        (7, "2026-03-03T12:00:00+00:00"),
        (7, "2026-03-03T13:00:00+00:00"),
    ]


def test_bad_data_are_named(data: DataFrame, session: Any) -> None:
    with pytest.raises(JobError, match=r"^missing: entity `account-0000003` has no row for 2026-01-15"):
        ARIMA(**COLUMNS, missing="fail").fit(data.where("account != 'account-0000003' or date != '2026-01-15'"))
    with pytest.raises(ValueError, match="holds no row with an entity, a time and a value"):
        ARIMA(**COLUMNS).fit(data.limit(0))
    with pytest.raises(ValueError, match=r"^entityCol: column `amount` is of type double"):
        ARIMA(entityCol="amount", timeCol="account", valueCol="date").fit(data)
