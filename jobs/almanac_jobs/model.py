"""A complete run, read back: what was forecast for one entity, and forecasts further ahead, without fitting again.

One entity is one small read of a table, whatever their number. Needs neither Spark nor Dask, nor the source.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from almanac.api import JobError, Reason, Storage
from almanac_jobs import objects, per_entity, tables
from almanac_jobs.artefacts import LATEST, REPORT, document, latest, table_path
from almanac_jobs.buckets import bucket_of
from almanac_jobs.calendar import Calendar, Frequency
from almanac_jobs.extracted import Extract
from almanac_jobs.forecast import fit
from almanac_jobs.storage import Location, open_location, storage_errors

if TYPE_CHECKING:
    from almanac_jobs.scoring import AnomalyRun

Entity = str | int | date

SUGGESTED = 2_000
"""Entities that an unknown one is compared with letter by letter, of those that have most in common with it."""


class UnknownEntityError(KeyError):
    """The run has no such entity."""

    def __str__(self) -> str:
        return str(self.args[0])


def load(uri: str, storage: Storage | None = None) -> Model | EntityModel | AnomalyRun | Extract:
    """The newest complete run below an output's URI, the run whose folder `uri` is, or the model of an entity's folder.

    Raises:
        JobError: SourceNotFound if there is nothing of these, InvalidSpec if it was written by a newer Almanac,
            NotInstalled if a detector needs what is not there, and what storage refuses.
    """
    found = read(uri, storage)
    if not isinstance(found, Findings):
        return found
    try:
        from almanac_jobs.scoring import AnomalyRun  # only now: it takes libraries that others do without
    except ModuleNotFoundError as error:
        if str(error.name).startswith("almanac"):
            raise
        missing = f"uri: anomalies need {error.name}, which is not installed: pip install 'almanac[anomaly]'"
        raise JobError(Reason.NOT_INSTALLED, missing) from error
    return AnomalyRun.load(found.folder, found.report)


def read(uri: str, storage: Storage | None = None) -> Model | EntityModel | Findings | Extract:
    """As `load`, but of an AnomalyJob what it has found, without the detector and the libraries that this takes.

    Raises:
        JobError: as `load`.
    """
    place = open_location(uri, storage, field="uri")
    pointer = latest(place)
    folder = place / pointer["path"] if pointer else place
    report = document(folder / REPORT)
    if report is not None and report["job"]["kind"] == "AnomalyJob":
        return Findings(folder, report)
    if report is not None and report["job"]["kind"] == "ExtractJob":
        return Extract(folder, report)
    if report is not None:
        return Model(folder, report)
    alone = None if pointer else per_entity.read(place)
    if alone is not None:
        return EntityModel(*alone)
    found = f"{LATEST} names run `{pointer['run']}`, which is gone" if pointer else "holds no complete run"
    raise JobError(
        Reason.SOURCE_NOT_FOUND, f"uri: `{uri}` {found}: give the output.uri of a job, or the folder of a run"
    )


def forecast_table(
    parameters: pa.Table, horizon: int, settings: Mapping[str, Any], levels: Sequence[float] | None = None
) -> pa.Table:
    """Forecasts of `horizon` periods from rows of the table `parameters`, as rows of the table `forecasts`.

    `settings` have frequency, timeZone, intervals (which `levels` overrides) and floor. Raises ValueError for a horizon
    below 1, or a level that is not between 0 and 100.
    """
    levels = settings["intervals"] if levels is None else levels
    if horizon < 1 or not all(0 < level < 100 for level in levels):
        raise ValueError(f"horizon {horizon} must be at least 1, and levels {list(levels)} between 0 and 100 percent")
    known = parameters.filter(pc.is_valid(parameters.column("end")))
    ends, entities = (known.column(name).combine_chunks() for name in ("end", "entity"))
    calendar = Calendar(Frequency.parse(settings["frequency"]), ends.type, settings["timeZone"])
    times = tables.future_times(calendar, calendar.periods(ends), horizon)
    ahead = fit.forecast(tables.parameters_from_table(known), horizon)
    return tables.forecasts_table(entities, times, ahead, levels, settings["floor"])


@dataclass(frozen=True, slots=True)
class EntityModel:
    """The model of one entity, from its folder (`layout: perEntity`)."""

    parameters: pa.Table
    """The fitted model, one row."""
    settings: dict[str, Any]
    """Entity, form, and what forecasting needs."""

    def forecast(self, horizon: int, levels: Sequence[float] | None = None) -> pa.Table:
        """As `Model.forecast` for this entity."""
        return forecast_table(self.parameters, horizon, self.settings, levels)


@dataclass(frozen=True, slots=True, repr=False)
class Results:
    """The tables of a run of any kind. Tables are Arrow's: `.to_pandas()` makes frames of them."""

    folder: Location
    """Where the run lies."""
    report: dict[str, Any]
    """report.json of the run."""

    listing: ClassVar[str]
    """The table with one row an entity."""

    def __repr__(self) -> str:
        job, entities = self.report["job"], self.report["entities"]
        about = f"{job['namespace']}/{job['name']}, run {self.report['run']}: {entities:,} entities"
        return f"<{type(self).__name__} of {about} in {self.folder.uri}>"

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the run's tables."""
        paths = (file["path"] for file in self.report["files"])
        return tuple(sorted({path.split("/")[0] for path in paths if path.endswith(".parquet")}))

    @property
    def entities(self) -> pa.ChunkedArray:
        """All entities, by bucket and name."""
        return pa.chunked_array([chunk for part in self.parts(self.listing, ["entity"]) for chunk in part[0].chunks])

    def first_entities(self, count: int) -> list[Entity]:
        """The first `count` entities, by bucket and name: for a look at what there is, without reading all of them."""
        found: list[Entity] = []
        for part in self.parts(self.listing, ["entity"]):
            found += part.column("entity").slice(0, count - len(found)).to_pylist()
            if len(found) == count:
                break
        return found

    def verify(self) -> None:
        """Compare every file of the run with its sha256 in the report.

        Raises:
            JobError: DataError naming the first file that is missing or differs.
        """
        for file in self.report["files"]:
            data = objects.read(self.folder / file["path"])
            if data is None or hashlib.sha256(data).hexdigest() != file["sha256"]:
                state = "is missing" if data is None else "is not what the run has written"
                raise JobError(Reason.DATA_ERROR, f"uri: {(self.folder / file['path']).uri} {state}")

    def parts(self, table: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """A table of the run, or some columns of it, a bucket at a time."""
        for bucket in range(self.report["buckets"]):
            with self._opened(table, bucket) as file:
                yield file.read(columns)

    def rows_of(self, table: str, entity: Entity) -> pa.Table:
        """One entity's rows of a table. Raises UnknownEntityError."""
        wanted = self._typed(entity)
        with self._opened(table, int(bucket_of(wanted, self.report["buckets"])[0])) as file:
            name = wanted[0].as_py()
            groups = [i for i in range(file.num_row_groups) if _may_hold(file.metadata.row_group(i), name)]
            near = file.read_row_groups(groups)
        rows = near.filter(pc.equal(near.column("entity"), wanted[0]))
        if not len(rows) and table == self.listing:
            raise UnknownEntityError(self._unknown(entity))
        if not len(rows):
            self.rows_of(self.listing, entity)  # which raises if the entity is not of this run
        return rows

    @contextmanager
    def _opened(self, table: str, bucket: int) -> Iterator[pq.ParquetFile]:
        location = self.folder / table_path(table, bucket)
        with storage_errors(location), location.filesystem.open_input_file(location.path) as source:
            yield pq.ParquetFile(source, pre_buffer=True)

    def _typed(self, entity: Entity) -> pa.Array:
        """The entity as an array of one, of the type that the run's entities have."""
        kind = pa.type_for_alias(self.report["entityType"])
        try:
            text = str(entity)
            return pa.array([text], pa.string()).cast(kind) if not pa.types.is_string(kind) else pa.array([text])
        except pa.ArrowInvalid as error:
            raise UnknownEntityError(self._unknown(entity)) from error

    def _unknown(self, entity: Entity) -> str:
        near = suggestions(str(entity), pc.cast(self.entities, pa.string()))
        return (
            f"no entity `{entity}` in {self.folder.uri}: there are {', '.join(f'`{name}`' for name in near)} and others"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Model(Results):
    """The models that a ForecastJob has fitted, and its tables."""

    listing = "parameters"

    @property
    def settings(self) -> dict[str, Any]:
        """What forecasting needs besides parameters: frequency, timeZone, intervals, floor."""
        settings: dict[str, Any] = self.report["forecasting"]
        return settings

    def forecasts(self, entity: Entity) -> pa.Table:
        """What the run has forecast for one entity: time, mean and interval bounds. Raises UnknownEntityError."""
        return self.rows_of("forecasts", entity)

    def parameters(self, entity: Entity) -> pa.Table:
        """One entity's fitted model, one row. Raises UnknownEntityError."""
        return self.rows_of("parameters", entity)

    def scores(self, entity: Entity) -> pa.Table | None:
        """How good the forecasts of one entity were, one row; None if the run was not evaluated.

        Raises UnknownEntityError.
        """
        return self.rows_of("scores", entity) if "scores" in self.tables else None

    def history(self, entity: Entity) -> pa.Table:
        """The end of one entity's history, one row. Raises UnknownEntityError."""
        return self.rows_of("history", entity)

    def forecast(self, horizon: int, entity: Entity | None = None, levels: Sequence[float] | None = None) -> pa.Table:
        """Forecast `horizon` periods from the end of each history, for one entity or all, from the fitted models.

        `levels` are those of the intervals in percent; default: the run's. Columns and rows are as in the table
        `forecasts`; entities that have no forecast have no row. Raises UnknownEntityError, and ValueError for a horizon
        or level that cannot be.
        """
        if entity is not None:
            return forecast_table(self.parameters(entity), horizon, self.settings, levels)
        return pa.concat_tables(list(self.forecast_parts(horizon, levels)))

    def forecast_parts(self, horizon: int, levels: Sequence[float] | None = None) -> Iterator[pa.Table]:
        """As `forecast` for all entities, a bucket at a time: memory holds one."""
        for part in self.parts("parameters"):
            yield forecast_table(part, horizon, self.settings, levels)


@dataclass(frozen=True, slots=True, repr=False)
class Findings(Results):
    """What a run of an AnomalyJob has found: its tables and explanations."""

    listing = "entities"

    def scores(self, entity: Entity) -> pa.Table:
        """One entity's rows with their scores, by time. Raises UnknownEntityError."""
        return self.rows_of("scores", entity)

    def contributions(self, entity: Entity) -> pa.Table:
        """The reasons of one entity's flagged rows. Raises UnknownEntityError."""
        return self.rows_of("contributions", entity)

    def explanation(self, entity: Entity) -> dict[str, Any] | None:
        """What explanations/{entity}.json says; None for an entity without one. Raises UnknownEntityError."""
        known = self.rows_of(self.listing, entity).column("entity")[0]
        data = objects.read(self.folder / "explanations" / f"{per_entity.encode(str(known.as_py()))}.json")
        document: dict[str, Any] | None = None if data is None else json.loads(data)
        return document

    def oddest(self, count: int) -> pa.Table:
        """The `count` entities with the most flagged rows: entity, rows, flagged, score, mean_score."""
        order = [("flagged", "descending"), ("score", "descending"), ("entity", "ascending")]
        odd = [part.sort_by(order).slice(0, count) for part in self.parts(self.listing)]
        return pa.concat_tables(odd).sort_by(order).slice(0, count)


def _may_hold(group: pq.RowGroupMetaData, entity: Entity) -> bool:
    """Whether an entity may be in a row group, by the statistics of its first column, `entity`."""
    told = group.column(0).statistics
    return told is None or not told.has_min_max or told.min <= entity <= told.max


def suggestions(entity: str, names: pa.ChunkedArray) -> list[str]:
    """Up to three of `names` that someone who wrote `entity` may have meant, or else the first of them."""
    # difflib takes its time: it sees only names that agree on a beginning, or on an end, as long as there are many.
    candidates = names
    for size in range(1, len(entity) + 1):
        if len(candidates) <= SUGGESTED:
            break
        alike = pc.or_(pc.starts_with(candidates, entity[:size]), pc.ends_with(candidates, entity[-size:]))
        candidates = candidates.filter(alike) if pc.any(alike).as_py() else candidates.slice(0, SUGGESTED)
    found = difflib.get_close_matches(entity, candidates.slice(0, SUGGESTED).to_pylist(), 3, 0.5)
    return found or names.slice(0, 3).to_pylist()
