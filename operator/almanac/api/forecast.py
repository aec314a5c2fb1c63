"""ForecastJob: one forecast for every entity of a table of entities, times and values."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictFloat, StrictInt, WithJsonSchema

from almanac.api import checks
from almanac.api.common import (
    Job,
    JobSpec,
    Name,
    ParquetSource,
    Positive,
    Spark,
    TimeZone,
    cel,
    output_is_apart,
    pattern,
)
from almanac.api.model import Model, rule

Order = tuple[
    Annotated[StrictInt, Field(ge=0, le=5)],
    Annotated[StrictInt, Field(ge=0, le=2)],
    Annotated[StrictInt, Field(ge=0, le=5)],
]
SeasonalOrder = tuple[
    Annotated[StrictInt, Field(ge=0, le=2)],
    Annotated[StrictInt, Field(ge=0, le=1)],
    Annotated[StrictInt, Field(ge=0, le=2)],
]
Frequency = Annotated[
    str,
    Field(max_length=16, json_schema_extra=cel(pattern(checks.FREQUENCY), checks.FREQUENCY_HELP)),
    AfterValidator(checks.frequency),
]
Level = Annotated[
    StrictFloat,
    Field(json_schema_extra={"minimum": 0, "maximum": 100, "exclusiveMinimum": True, "exclusiveMaximum": True}),
    AfterValidator(checks.level),
]
Constant = Annotated[
    bool | Literal["auto"],
    BeforeValidator(checks.constant),
    # A schema of Kubernetes has one type a field, or none.
    WithJsonSchema({"enum": ["auto", True, False], "x-kubernetes-preserve-unknown-fields": True}),
]


class Aggregate(StrEnum):
    """How rows of one entity and period become one value."""

    SUM = "sum"
    MEAN = "mean"
    COUNT = "count"
    MIN = "min"
    MAX = "max"
    LAST = "last"


class Family(StrEnum):
    """Families of models."""

    ARIMA = "arima"
    AUTOARIMA = "autoarima"
    ETS = "ets"
    THETA = "theta"
    SEASONALNAIVE = "seasonalnaive"
    MEAN = "mean"
    DRIFT = "drift"


class Missing(StrEnum):
    """What a period without a row means."""

    ZERO = "zero"
    INTERPOLATE = "interpolate"
    DROP = "drop"
    FAIL = "fail"


class Columns(Model):
    """Which column is what."""

    entity: Name
    """Column that tells entities apart: strings, integers or dates."""
    time: Name
    """Column of dates or timestamps."""
    value: Name
    """Column of numbers to forecast."""

    @rule(
        "value",
        "entity",
        "time",
        message="entity, time and value must be three different columns",
        cel="self.entity != self.time && self.entity != self.value && self.time != self.value",
    )
    def _are_distinct(self) -> bool:
        return len({self.entity, self.time, self.value}) == 3


class Source(ParquetSource):
    """What is read: a Parquet file, a folder of them, or a hive-partitioned data set."""

    columns: Columns
    """Which column is what."""
    aggregate: Aggregate = Aggregate.SUM
    """How several rows of one entity and period become one value. last is the latest by time."""
    filter: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Rows to read, as a condition on columns: status == 'posted'. Pushed down to Parquet. Unset: all."""
    time_zone: TimeZone | None = None
    """Time zone in which timestamps are cut into periods, e.g. Europe/Berlin. Unset: that of the column. Timestamps
    without a zone are taken as they are."""


class ForecastModel(Model):
    """The model that is fitted to each entity."""

    family: Family = Family.ARIMA
    """arima: of the order given. autoarima: its order is searched for. ets: exponential smoothing. theta,
    seasonalnaive, mean and drift: the methods of these names."""
    order: Order = (1, 1, 1)
    """[p, d, q] of arima: autoregressive terms (up to 5), differences (up to 2), moving-average terms (up to 5)."""
    seasonal_order: SeasonalOrder = (0, 0, 0)
    """[P, D, Q] of arima at the season's lag (up to 2, 1, 2). Needs seasonLength."""
    season_length: Annotated[StrictInt, Field(ge=1, le=366)] = 1
    """Periods in a season: 7 for days with a weekly pattern, 12 for months, 24 for hours. 1: no season."""
    constant: Constant = "auto"
    """Constant of arima: a mean without differences, a drift with one. auto: a mean without differences, else none."""

    @rule(
        "season_length",
        "seasonal_order",
        "family",
        message="must be above 1 where seasonalOrder has a term: 7 for days with a weekly pattern, 12 for months",
        cel="self.family != 'arima' || self.seasonLength > 1 || self.seasonalOrder.all(term, term == 0)",
    )
    def _seasonal_terms_have_a_season(self) -> bool:
        return self.family is not Family.ARIMA or self.season_length > 1 or not any(self.seasonal_order)

    @rule(
        "season_length",
        "family",
        message="must be at most 60 with family ets, which estimates every period of a season: use arima or theta",
        cel="self.family != 'ets' || self.seasonLength <= 60",
    )
    def _season_of_ets_is_short(self) -> bool:
        return self.family is not Family.ETS or self.season_length <= 60

    @rule(
        "constant",
        "order",
        "seasonal_order",
        message="cannot be true with two differences or more (d + D >= 2): write auto, or take a difference less",
    )
    def _no_constant_with_two_differences(self) -> bool:
        return self.constant is not True or self.order[1] + self.seasonal_order[1] < 2

    @rule(
        "order",
        "family",
        message="is read by family arima only: leave it out, or choose that family",
        cel="self.family == 'arima' || self.order == [1, 1, 1]",
    )
    def _order_is_arimas(self) -> bool:
        return self.family is Family.ARIMA or self.order == (1, 1, 1)

    @rule(
        "seasonal_order",
        "family",
        message="is read by family arima only: leave it out, or choose that family",
        cel="self.family == 'arima' || self.seasonalOrder == [0, 0, 0]",
    )
    def _seasonal_order_is_arimas(self) -> bool:
        return self.family is Family.ARIMA or not any(self.seasonal_order)

    @rule("constant", "family", message="is read by family arima only: leave it out, or choose that family")
    def _constant_is_arimas(self) -> bool:
        return self.family is Family.ARIMA or self.constant == "auto"


class Evaluation(Model):
    """How forecasts are tried on the past before they are trusted."""

    windows: Annotated[StrictInt, Field(ge=0, le=100)] = 3
    """Rolling origins: how many times the last periods are forecast from what came before them. 0 turns it off."""


class ForecastSpec(JobSpec):
    """What to forecast, from which data, with which model."""

    source: Source
    """What is read."""
    model: ForecastModel = ForecastModel()
    """The model that is fitted to each entity."""
    frequency: Frequency = "D"
    """Length of a period: s, min, H, D, W (weeks from Monday on, W-SUN: from Sunday on ...), M, Q, Y, or a multiple
    such as 15min. auto takes it from the data."""
    horizon: Annotated[StrictInt, Field(ge=1, le=10_000)] = 30
    """Periods to forecast."""
    intervals: Annotated[tuple[Level, ...], Field(max_length=10)] = (80, 95)
    """Levels of the prediction intervals in percent, strictly between 0 and 100; columns are named by them: lo80."""
    missing: Missing = Missing.ZERO
    """What a period without a row means. zero: nothing happened, and every series reaches to the data's last period.
    interpolate: a value on the line between its neighbours. drop: not known; not for ets and theta. fail: bad data,
    the run stops."""
    min_observations: Positive = 20
    """Entities with fewer observed periods get no model: their last value is carried forward instead."""
    floor: Annotated[StrictFloat, Field(allow_inf_nan=False)] | None = None
    """No forecast and no bound of an interval is below this, e.g. 0 for amounts sold. Unset: none."""
    evaluation: Evaluation = Evaluation()
    """How forecasts are tried on the past before they are trusted."""
    spark: Spark = Spark()
    """The Spark cluster, where the engine is spark."""

    @rule(
        "intervals",
        message="must be different from each other",
        cel="self.intervals.all(level, self.intervals.exists_one(other, other == level))",
    )
    def _levels_are_distinct(self) -> bool:
        return len(set(self.intervals)) == len(self.intervals)

    @rule(
        "missing",
        "model.family",
        message="cannot be drop with ets and theta, which need a value in each period: use zero or interpolate",
        cel="self.missing != 'drop' || !(self.model.family in ['ets', 'theta'])",
    )
    def _smoothing_needs_every_period(self) -> bool:
        return self.missing is not Missing.DROP or self.model.family not in (Family.ETS, Family.THETA)

    _output_is_apart = output_is_apart


class ForecastJob(Job):
    """A forecast for every entity of a table, with prediction intervals, scores and the fitted models."""

    kind: Literal["ForecastJob"] = "ForecastJob"
    spec: ForecastSpec
    """What to forecast, from which data, with which model."""
