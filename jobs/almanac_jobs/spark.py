"""ARIMA for every entity of a DataFrame, as Spark ML has its estimators: for those who bring their own session.

    from almanac_jobs.spark import ARIMA

    arima = ARIMA(entityCol="account", timeCol="date", valueCol="amount", order=[1, 1, 1], horizon=30)
    model = arima.fit(ledger)
    model.transform(ledger)               # account, date, prediction, lo80, hi80, lo95, hi95, amount
    model.write().overwrite().save("s3a://models/arima")

The kernel and the table of parameters are those of a ForecastJob, and so is what parameters mean (docs/reference). Rows
of one entity and period are aggregated before they are shuffled, so that an entity with most of the rows is ordinary.
`RollingOrigin` searches parameters in the order of time, which CrossValidator does not keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError
from pyspark import StorageLevel, keyword_only
from pyspark.errors import PySparkException
from pyspark.ml import Estimator, Model
from pyspark.ml.evaluation import Evaluator
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasPredictionCol
from pyspark.ml.tuning import CrossValidator
from pyspark.ml.util import (
    DefaultParamsReadable,
    DefaultParamsReader,
    DefaultParamsWritable,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import DataType, TimestampType

from almanac.api import Aggregate, ForecastModel, JobError, Missing, problems
from almanac_jobs.calendar import Calendar, Frequency, Unit, infer
from almanac_jobs.engines.spark_frames import PARTIAL, Fit, Place, Predict, Rows, guarded
from almanac_jobs.engines.spark_tasks import failure
from almanac_jobs.kernel.sums import How
from almanac_jobs.source.columns import check_roles
from almanac_jobs.source.rows import Plan

PLACES = 1024
"""Parts that entities are divided into; a task has several. The number is part of no result."""
SAMPLED_ROWS, SAMPLED_ENTITIES = 1_000_000, 1_000
"""What `frequency="auto"` looks at, at most."""
_AUTO = "auto"


def _param(name: str, doc: str, convert: Any) -> Any:
    """A parameter of a class of Params, as Spark ML declares them."""
    return Param(Params._dummy(), name, doc, typeConverter=convert)


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(TypeConverters.toFloat(value))


def _optional_string(value: Any) -> str | None:
    return None if value is None else str(TypeConverters.toString(value))


class _Columns(HasPredictionCol):
    """Which columns an estimator and its model read and write, and how their times are counted."""

    entityCol: Param[str] = _param("entityCol", "column that tells entities apart", TypeConverters.toString)
    timeCol: Param[str] = _param("timeCol", "column of dates or timestamps", TypeConverters.toString)
    valueCol: Param[str] = _param("valueCol", "column of numbers to forecast", TypeConverters.toString)
    aggregate: Param[str] = _param(
        "aggregate",
        "what rows of one entity and period become: sum, mean, count, min, max, last",
        TypeConverters.toString,
    )
    frequency: Param[str] = _param(
        "frequency",
        "length of a period: s, min, H, D, W, M, Q, Y, a multiple such as 15min, or auto",
        TypeConverters.toString,
    )
    timeZone: Param[str | None] = _param(
        "timeZone", "time zone in which timestamps are cut into periods; None: the session's", _optional_string
    )
    horizon: Param[int] = _param("horizon", "periods to forecast", TypeConverters.toInt)
    intervals: Param[list[float]] = _param(
        "intervals", "levels of the prediction intervals in percent", TypeConverters.toListFloat
    )
    floor: Param[float | None] = _param("floor", "no forecast and no bound is below this; None: none", _optional_float)


class _Fitting(_Columns):
    """How models are fitted, which the fitted ones remember."""

    order: Param[list[int]] = _param("order", "[p, d, q]", TypeConverters.toListInt)
    seasonalOrder: Param[list[int]] = _param("seasonalOrder", "[P, D, Q] at the season's lag", TypeConverters.toListInt)
    seasonLength: Param[int] = _param("seasonLength", "periods in a season", TypeConverters.toInt)
    missing: Param[str] = _param(
        "missing", "what a period without a row means: zero, interpolate, drop or fail", TypeConverters.toString
    )
    minObservations: Param[int] = _param(
        "minObservations", "entities with fewer observed periods get no model", TypeConverters.toInt
    )


class ARIMA(Estimator["ARIMAModel"], _Fitting, DefaultParamsReadable["ARIMA"], DefaultParamsWritable):
    """Fits ARIMA(p,d,q)(P,D,Q) to each entity, by exact likelihood. Parameters are those of a ForecastJob's spec."""

    _input_kwargs: dict[str, Any]

    @keyword_only
    def __init__(
        self,
        *,
        entityCol: str = "entity",
        timeCol: str = "time",
        valueCol: str = "value",
        aggregate: str = "sum",
        frequency: str = "D",
        timeZone: str | None = None,
        order: Sequence[int] = (1, 1, 1),
        seasonalOrder: Sequence[int] = (0, 0, 0),
        seasonLength: int = 1,
        missing: str = "zero",
        minObservations: int = 20,
        horizon: int = 30,
        intervals: Sequence[float] = (80.0, 95.0),
        floor: float | None = None,
        predictionCol: str = "prediction",
    ) -> None:
        super().__init__()
        self._setDefault(
            entityCol="entity",
            timeCol="time",
            valueCol="value",
            aggregate="sum",
            frequency="D",
            timeZone=None,
            order=[1, 1, 1],
            seasonalOrder=[0, 0, 0],
            seasonLength=1,
            missing="zero",
            minObservations=20,
            horizon=30,
            intervals=[80.0, 95.0],
            floor=None,
        )
        self.setParams(**self._input_kwargs)

    def setParams(self, **values: Any) -> ARIMA:
        """Set parameters by name."""
        return self._set(**values)

    def _fit(self, dataset: DataFrame) -> ARIMAModel:
        value = self.getOrDefault
        model, missing = self._model(), _one_of(Missing, "missing", value("missing"))
        frequency = _frequency(self, dataset)
        rows = _rows(self, dataset, frequency)
        last = _last_period(dataset, self, rows.plan.calendar) if missing is Missing.ZERO else 0
        fit = Fit(rows, model, missing, value("minObservations"), last)
        partial = _selected(dataset, self).mapInArrow(guarded(rows), PARTIAL)
        placed = partial.repartition(_partitions(dataset), "place")
        schema = _parameters_schema(dataset, self)
        parameters = placed.mapInArrow(guarded(fit), schema).persist(StorageLevel.MEMORY_AND_DISK)
        with _errors():
            parameters.count()
        made = ARIMAModel(parameters, frequency)
        return self._copyValues(made)

    def _model(self) -> ForecastModel:
        value = self.getOrDefault
        try:
            return ForecastModel(
                order=tuple(value("order")),
                seasonal_order=tuple(value("seasonalOrder")),
                season_length=value("seasonLength"),
            )
        except ValidationError as error:
            raise ValueError("; ".join(map(str, problems(error)))) from error


class ARIMAModel(Model, _Fitting, MLReadable["ARIMAModel"], MLWritable):
    """The fitted models of all entities.

    `parameters` has a row an entity, as the table `parameters` of a run; `fitted_frequency` is how long periods are.
    """

    def __init__(self, parameters: DataFrame | None = None, frequency: str = "D") -> None:
        super().__init__()
        self._parameters = parameters
        self.fitted_frequency = frequency

    @property
    def parameters(self) -> DataFrame:
        """One row an entity: entity, model, form, status, coefficients, sigma2, loglik, aicc, observations, end ..."""
        assert self._parameters is not None, "a model has parameters once it is fitted or loaded"  # noqa: S101
        return self._parameters

    def _transform(self, dataset: DataFrame) -> DataFrame:
        """The forecasts of the entities of `dataset`, `horizon` periods from the end of each one's history on.

        Columns: entity, time, prediction, the bounds of the intervals, and the value where `dataset` has one for the
        period, so that forecasts of the past can be evaluated. Entities that were not there when the model was fitted
        have no row.
        """
        value = self.getOrDefault
        rows = _rows(self, dataset, self.fitted_frequency)
        names = (value("entityCol"), value("timeCol"), value("predictionCol"), value("valueCol"))
        intervals = tuple(value("intervals"))
        predict = Predict(rows, names, value("horizon"), intervals, value("floor"))
        partial = _selected(dataset, self).mapInArrow(guarded(rows), PARTIAL)
        columns = ", ".join(
            [*(f"`{one.name}` {one.dataType.simpleString()}" for one in self.parameters.schema), "place int"]
        )
        placed = self.parameters.mapInArrow(guarded(Place(PLACES)), columns)
        bounds = [f"{side}{level:g}" for level in intervals for side in ("lo", "hi")]
        entity, time, mean, observed = (f"`{name}`" for name in names)
        kinds = dataset.schema
        schema = ", ".join(
            [
                f"{entity} {kinds[names[0]].dataType.simpleString()}",
                f"{time} {kinds[names[1]].dataType.simpleString()}",
                *(f"{name} double" for name in (mean, *bounds, observed)),
            ]
        )

        def both(left: pa.Table, right: pa.Table) -> pa.Table:  # Spark counts a function's parameters
            return predict(left, right)

        return placed.groupBy("place").cogroup(partial.groupBy("place")).applyInArrow(both, schema)

    def write(self) -> MLWriter:
        """What saves the model: `.overwrite().save(path)`."""
        return _ModelWriter(self)

    @classmethod
    def read(cls) -> MLReader[ARIMAModel]:
        """What loads a model: `.load(path)`."""
        return _ModelReader()


class _ModelWriter(MLWriter):
    def __init__(self, model: ARIMAModel) -> None:
        super().__init__()
        self._model = model

    def saveImpl(self, path: str) -> None:
        extra = {"fittedFrequency": self._model.fitted_frequency}
        DefaultParamsWriter.saveMetadata(self._model, path, self.sparkSession, extraMetadata=extra)
        self._model.parameters.write.parquet(f"{path}/data")


class _ModelReader(MLReader[ARIMAModel]):
    def load(self, path: str) -> ARIMAModel:
        name = f"{ARIMAModel.__module__}.{ARIMAModel.__name__}"
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession, name)
        model = ARIMAModel(self.sparkSession.read.parquet(f"{path}/data"), metadata["fittedFrequency"])
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model


class ForecastEvaluator(Evaluator, HasPredictionCol, DefaultParamsReadable["ForecastEvaluator"], DefaultParamsWritable):
    """How far predictions are off, over the rows that have both a prediction and a value: mae, rmse or wape."""

    metricName: Param[str] = _param("metricName", "mae, rmse or wape", TypeConverters.toString)
    valueCol: Param[str] = _param("valueCol", "column of what was observed", TypeConverters.toString)
    _input_kwargs: dict[str, Any]

    @keyword_only
    def __init__(
        self,
        *,
        valueCol: str = "value",
        predictionCol: str = "prediction",
        metricName: str = "wape",
    ) -> None:
        super().__init__()
        self._setDefault(valueCol="value", metricName="wape")
        self._set(**self._input_kwargs)

    def _evaluate(self, dataset: DataFrame) -> float:
        value, prediction = (sf.col(self.getOrDefault(name)) for name in ("valueCol", "predictionCol"))
        error = value - prediction
        metrics: dict[str, Column] = {
            "mae": sf.avg(sf.abs(error)),
            "rmse": sf.sqrt(sf.avg(error * error)),
            "wape": sf.sum(sf.abs(error)) / sf.sum(sf.abs(value)),
        }
        name = self.getOrDefault("metricName")
        if name not in metrics:
            raise ValueError(f"metricName: `{name}` is none of {', '.join(metrics)}")
        row = dataset.where(value.isNotNull() & prediction.isNotNull()).agg(metrics[name]).first()
        found = row and row[0]
        return float("nan") if found is None else float(found)

    def isLargerBetter(self) -> bool:
        """An error is the better the smaller it is."""
        return False


class RollingOrigin(CrossValidator):
    """CrossValidator in the order of time: each fold forecasts `horizon` periods from what came before them.

    The folds (`numFolds`) are the last periods of the data, one after the other. Estimator, parameter maps, evaluator
    and parallelism are as with CrossValidator; set the estimator's own horizon to the same.
    """

    def __init__(self, *, timeCol: str = "time", frequency: str = "D", horizon: int = 30, **others: Any) -> None:
        """`frequency` is written as in a job, and not auto."""
        super().__init__(**others)
        self._time, self._periods, self._horizon = timeCol, Frequency.parse(frequency), horizon

    def _kFold(self, dataset: DataFrame) -> list[tuple[DataFrame, DataFrame]]:
        calendar = Calendar(self._periods, _time_type(dataset, self._time))
        last = _period(dataset.agg(sf.max(self._time)), calendar)
        folds = self.getOrDefault("numFolds")
        time, made = sf.col(self._time), []
        for fold in range(folds):
            first = last + 1 - (folds - fold) * self._horizon
            start, end = calendar.times(np.array([first, first + self._horizon])).to_pylist()
            made.append(
                (dataset.where(time < sf.lit(start)), dataset.where((time >= sf.lit(start)) & (time < sf.lit(end))))
            )
        return made


def _rows(params: _Columns, dataset: DataFrame, frequency: str) -> Rows:
    value, arrow = params.getOrDefault, _arrow_types(params, dataset)
    with _refusals():
        check_roles(_job_columns(params), {value(f"{role}Col"): kind for role, kind in arrow.items()})
        calendar = Calendar(Frequency.parse(frequency), arrow["time"], value("timeZone"))
    how = How[_one_of(Aggregate, "aggregate", value("aggregate")).name]
    return Rows(Plan(how, calendar, arrow["entity"], arrow["value"]), value("timeCol"), PLACES)


def _job_columns(params: _Columns) -> Any:
    from almanac.api import Columns

    return Columns(**{role: params.getOrDefault(f"{role}Col") for role in ("entity", "time", "value")})


def _arrow_types(params: _Columns, dataset: DataFrame) -> dict[str, pa.DataType]:
    value = params.getOrDefault
    kinds = {role: dataset.schema[value(f"{role}Col")].dataType for role in ("entity", "value")}
    return {role: to_arrow_type(kind) for role, kind in kinds.items()} | {"time": _time_type(dataset, value("timeCol"))}


def _time_type(dataset: DataFrame, column: str) -> pa.DataType:
    kind: DataType = dataset.schema[column].dataType
    if isinstance(kind, TimestampType):
        return pa.timestamp("us", dataset.sparkSession.conf.get("spark.sql.session.timeZone"))
    return to_arrow_type(kind)


def _selected(dataset: DataFrame, params: _Columns) -> DataFrame:
    return dataset.select(
        *(sf.col(params.getOrDefault(f"{role}Col")).alias(role) for role in ("entity", "time", "value"))
    )


def _counted(dataset: DataFrame, params: _Columns) -> DataFrame:
    """The rows that count: those with an entity, a time and a value."""
    rows = _selected(dataset, params)
    floating = rows.schema["value"].dataType.typeName() in ("double", "float")
    number = ~sf.isnan("value") if floating else sf.lit(True)
    return rows.where(sf.col("entity").isNotNull() & sf.col("time").isNotNull() & sf.col("value").isNotNull() & number)


def _frequency(params: _Columns, dataset: DataFrame) -> str:
    """The frequency that is asked for, or that of some entities."""
    asked = str(params.getOrDefault("frequency"))
    if asked != _AUTO:
        return asked
    kind, zone = _time_type(dataset, params.getOrDefault("timeCol")), params.getOrDefault("timeZone")
    rows = _counted(dataset, params).select("entity", "time")
    some = rows.select("entity").limit(SAMPLED_ENTITIES).distinct()
    seen = rows.join(sf.broadcast(some), "entity").distinct().limit(SAMPLED_ROWS).toArrow()
    seen = seen.sort_by([("entity", "ascending"), ("time", "ascending")]).combine_chunks()
    entity = (
        np.asarray(seen.column("entity").combine_chunks().dictionary_encode().indices)
        if len(seen)
        else np.empty(0, int)
    )
    wall = Calendar(Frequency(Unit.DAY), kind, zone).wall(seen.column("time").combine_chunks())
    with _refusals():
        return str(infer(entity.astype(np.int32), wall.astype("datetime64[s]"), params.getOrDefault("timeCol")))


def _last_period(dataset: DataFrame, params: _Columns, calendar: Calendar) -> int:
    return _period(_counted(dataset, params).agg(sf.max("time")), calendar)


def _period(last: DataFrame, calendar: Calendar) -> int:
    time = last.toArrow().column(0).combine_chunks()
    if time.null_count:
        raise ValueError("the dataset holds no row with an entity, a time and a value")
    return int(calendar.periods(time)[0])


def _parameters_schema(dataset: DataFrame, params: _Columns) -> str:
    entity, time = (
        dataset.schema[params.getOrDefault(name)].dataType.simpleString() for name in ("entityCol", "timeCol")
    )
    return (
        f"entity {entity}, model string, form string, status string, coefficients map<string,double>, sigma2 double, "
        f"loglik double, aicc double, observations bigint, `end` {time}, state array<double>, state_cov array<double>"
    )


def _partitions(dataset: DataFrame) -> int:
    session: SparkSession = dataset.sparkSession
    return int(session.conf.get("spark.sql.shuffle.partitions") or 200)


def _one_of(kind: Any, name: str, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{name}: `{value}` is none of {', '.join(kind)}") from None


@contextmanager
def _refusals() -> Iterator[None]:
    """Errors of jobs, as Spark ML raises what parameters and data are wrong: ValueError."""
    try:
        yield
    except JobError as error:
        raise ValueError(_named(error.message)) from error


@contextmanager
def _errors() -> Iterator[None]:
    """What a task has raised, without Spark's pages around it."""
    try:
        yield
    except PySparkException as error:
        known = failure(str(error))
        if known is None:
            raise
        raise JobError(known.reason, _named(known.message)) from error


def _named(message: str) -> str:
    """A message about a job's fields as one about parameters: spec.source.columns.time is timeCol here."""
    return re.sub(r"spec\.(source\.)?", "", re.sub(r"spec\.source\.columns\.(\w+)", r"\1Col", message))
