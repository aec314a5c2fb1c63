"""AnomalyJob: the odd rows of a table of entities and times, each with its reasons."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt

from almanac.api.common import (
    Engine,
    Job,
    JobSpec,
    Name,
    ParquetSource,
    Positive,
    TimeZone,
    layout_is_bucketed,
    output_is_apart,
)
from almanac.api.model import Model, rule

Share = Annotated[
    StrictFloat,
    Field(gt=0, le=0.5, json_schema_extra={"minimum": 0, "maximum": 0.5, "exclusiveMinimum": True}),
]
Fraction = Annotated[StrictFloat, Field(gt=0, le=1, json_schema_extra={"minimum": 0, "exclusiveMinimum": True})]
NotNegative = Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)]


class Detector(StrEnum):
    """How rows are told apart."""

    AUTO = "auto"
    CLASSIFIER = "classifier"
    BLEND = "blend"
    STUDENT = "student"
    RECONSTRUCTION = "reconstruction"


class Preset(StrEnum):
    """Sets of features that come with Almanac."""

    NONE = "none"
    LEDGER = "ledger"


class AnomalyColumns(Model):
    """Which column is what."""

    entity: Name
    """Column that tells entities apart, e.g. the account: strings, integers or dates."""
    time: Name
    """Column of dates or timestamps."""
    id: Name | None = None
    """Column that names a row in results, e.g. the number of the entry: strings or integers. Unset: none."""

    @rule(
        "id",
        "entity",
        "time",
        message="entity, time and id must be different columns",
        cel="self.entity != self.time && (!has(self.id) || (self.id != self.entity && self.id != self.time))",
    )
    def _are_distinct(self) -> bool:
        return len({self.entity, self.time, self.id}) == 3


class AnomalySource(ParquetSource):
    """What is read: a Parquet file, a folder of them, or a hive-partitioned data set."""

    columns: AnomalyColumns
    """Which column is what."""
    filter: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Rows to read, as a condition on columns: status == 'posted'. Pushed down to Parquet. Unset: all."""
    time_zone: TimeZone | None = None
    """Time zone in which hours and weekdays are told, e.g. Europe/Berlin. Unset: that of the column. Timestamps without
    a zone are taken as they are."""


class LedgerColumns(Model):
    """Which columns of journal entries the features of preset ledger are made of."""

    amount: Name = "amount"
    """Column of amounts, with their sign."""
    user: Name | None = None
    """Column that says who made the entry. Unset: no feature of users."""
    counterparty: Name | None = None
    """Column of the other side: the offsetting account, or a business partner. Unset: no feature of counterparties."""


class Features(Model):
    """What rows are judged by."""

    columns: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)] | None = None
    """Columns to use: numbers, booleans, strings (by how common each value is), dates and timestamps (weekday, day of
    the month, hour). Unset: all of such a type but entity, time, id, label and those of preset ledger."""
    exclude: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    """Columns to leave out of all."""
    preset: Preset = Preset.NONE
    """ledger: besides, what auditors look at in journal entries (amount, roundness, hour, gaps, an entity's own habits,
    unusual pairs of account, user and counterparty), for each row from the rows before it."""
    ledger: LedgerColumns = LedgerColumns()
    """Columns of preset ledger."""

    @rule(
        "exclude",
        "columns",
        message="is read where columns is unset only: leave one of the two out",
        cel="!has(self.columns) || !has(self.exclude) || self.exclude.size() == 0",
    )
    def _columns_or_exclude(self) -> bool:
        return self.columns is None or not self.exclude

    @rule(
        "ledger",
        "preset",
        message="is read with preset ledger only: leave it out, or set preset",
        cel="self.preset == 'ledger' || !has(self.ledger) || (self.ledger.amount == 'amount' && "
        "!has(self.ledger.user) && !has(self.ledger.counterparty))",
    )
    def _ledger_is_the_presets(self) -> bool:
        return self.preset is Preset.LEDGER or self.ledger == LedgerColumns()


class AnomalyModel(Model):
    """How rows are told apart. What XGBoost knows has XGBoost's own names."""

    detector: Detector = Detector.AUTO
    """classifier learns from a label; student, without one, learns what an isolation forest finds odd; reconstruction
    predicts each feature from the others, for rows that break a rule; blend mixes classifier and student, the more of
    the classifier the more rows are labelled odd. auto: student below 3 of such rows, classifier from 200 on, blend
    between."""
    rounds: Annotated[StrictInt, Field(ge=1, le=10_000)] = 200
    """Trees at most; reconstruction has as many for each feature."""
    early_stopping: Annotated[StrictInt, Field(ge=0, le=1000)] = 20
    """classifier and reconstruction: trees without an improvement on the latest fifth of the rows after which no more
    are added. 0 adds all."""
    seed: Annotated[StrictInt, Field(ge=0, le=2_147_483_647)] = 0
    """Number that all chance follows from: the same data, spec and seed give the same model."""
    eta: Annotated[StrictFloat, Field(gt=0, le=1, json_schema_extra={"minimum": 0, "exclusiveMinimum": True})] = 0.1
    """Share of each tree that is added (learning rate)."""
    max_depth: Annotated[StrictInt, Field(ge=1, le=16, alias="max_depth")] = 6
    """Depth of a tree."""
    min_child_weight: Annotated[NotNegative, Field(alias="min_child_weight")] = 1.0
    """Weight of the rows that a leaf has at least."""
    subsample: Fraction = 1.0
    """Share of the rows that each tree sees."""
    colsample_bytree: Annotated[Fraction, Field(alias="colsample_bytree")] = 1.0
    """Share of the features that each tree sees."""
    reg_lambda: Annotated[NotNegative, Field(alias="lambda")] = 1.0
    """L2 penalty on leaves."""
    alpha: NotNegative = 0.0
    """L1 penalty on leaves."""
    gamma: NotNegative = 0.0
    """What a split must gain at least."""
    max_bin: Annotated[StrictInt, Field(ge=16, le=1024, alias="max_bin")] = 256
    """Bins that each feature is cut into."""
    scale_pos_weight: Annotated[
        StrictFloat,
        Field(
            gt=0,
            allow_inf_nan=False,
            alias="scale_pos_weight",
            json_schema_extra={"minimum": 0, "exclusiveMinimum": True},
        ),
    ] = 1.0
    """classifier and blend: weight of a row labelled odd, against 1 for the others."""


class Explain(Model):
    """The reasons that are told for every flagged row, and for every entity that has one."""

    top_k: Annotated[Positive, Field(le=50)] = 5
    """Features that are named, those with the largest SHAP values first. Those of an entity are the means of the sizes
    over its flagged rows, weighted by the rows' scores."""


class AnomalySpec(JobSpec):
    """What to look for, in which data, with which model."""

    source: AnomalySource
    """What is read."""
    features: Features = Features()
    """What rows are judged by."""
    label: Name | None = None
    """Column that says which rows are known to be odd: true or 1; false, 0 and null are the others. Unset: none."""
    model: AnomalyModel = AnomalyModel()
    """How rows are told apart."""
    contamination: Share | None = None
    """Share of the rows that is flagged, those with the highest scores. Unset, and without a threshold: 0.01."""
    threshold: Annotated[StrictFloat, Field(ge=0, le=1)] | None = None
    """Rows with a score of at least this are flagged. A score is a probability where labels allow that, else the share
    of the rows that are less odd. Unset: contamination decides."""
    explain: Explain = Explain()
    """The reasons that are told for every flagged row, and for every entity that has one."""

    @rule(
        "threshold",
        "contamination",
        message="and contamination cannot both be set: leave one of the two out",
        cel="!has(self.threshold) || !has(self.contamination)",
    )
    def _one_of_threshold_and_contamination(self) -> bool:
        return self.threshold is None or self.contamination is None

    @rule(
        "label",
        "model.detector",
        message="is missing: detectors classifier and blend learn from it. Name its column, or choose student",
        cel="has(self.label) || !(self.model.detector in ['classifier', 'blend'])",
    )
    def _some_detectors_need_a_label(self) -> bool:
        return self.label is not None or self.model.detector not in (Detector.CLASSIFIER, Detector.BLEND)

    @rule(
        "label",
        "source.columns",
        message="must be another column than entity, time and id",
        cel="!has(self.label) || (self.label != self.source.columns.entity && self.label != self.source.columns.time "
        "&& (!has(self.source.columns.id) || self.label != self.source.columns.id))",
    )
    def _label_has_a_column_of_its_own(self) -> bool:
        columns = self.source.columns
        return self.label is None or self.label not in (columns.entity, columns.time, columns.id)

    @rule(
        "features.columns",
        "label",
        message="must not hold the label: a model that sees the answer learns nothing else",
        cel="!has(self.label) || !has(self.features.columns) || !(self.label in self.features.columns)",
    )
    def _label_is_no_feature(self) -> bool:
        return self.label is None or self.label not in (self.features.columns or ())

    _layout_is_bucketed = layout_is_bucketed

    @rule(
        "engine",
        message="cannot be spark: XGBoost trains in one process or on Dask. Write auto, local or dask",
        cel="self.engine != 'spark'",
    )
    def _engine_is_not_spark(self) -> bool:
        return self.engine is not Engine.SPARK

    _output_is_apart = output_is_apart


class AnomalyJob(Job):
    """The odd rows of a table, with their reasons, and the model that finds them."""

    kind: Literal["AnomalyJob"] = "AnomalyJob"
    spec: AnomalySpec
    """What to look for, in which data, with which model."""
