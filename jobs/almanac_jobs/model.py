"""A complete run, read back: what was forecast for one entity, and forecasts further ahead, without fitting again.

One entity is one small read of a table, whatever their number. Needs neither Spark nor Dask, nor the source.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from almanac.api import JobError, Reason, Storage
from almanac_jobs import objects, per_entity, tables
from almanac_jobs.artefacts import FORMAT, LATEST, REPORT, latest, table_path
from almanac_jobs.buckets import bucket_of
from almanac_jobs.calendar import Calendar, Frequency
from almanac_jobs.forecast import fit
from almanac_jobs.storage import Location, open_location, storage_errors

Entity = str | int | date

SUGGESTED = 200_000
"""Entities among which names like an unknown one are looked for."""


class UnknownEntityError(KeyError):
    """The run has no such entity."""

    def __str__(self) -> str:
        return str(self.args[0])


def load(uri: str, storage: Storage | None = None) -> Model | EntityModel:
    """The newest complete run below an output's URI, the run whose folder `uri` is, or the model of an entity's folder.

    Raises:
        JobError: SourceNotFound if there is nothing of these, InvalidSpec if it was written by a newer Almanac, and
            what storage refuses.
    """
    place = open_location(uri, storage, field="uri")
    pointer = latest(place)
    folder = place / pointer["path"] if pointer else place
    report = objects.read(folder / REPORT)
    if report is None:
        alone = None if pointer else per_entity.read(place)
        if alone is not None:
            return EntityModel(*alone)
        found = f"{LATEST} names run `{pointer['run']}`, which is gone" if pointer else "holds no complete run"
        raise JobError(
            Reason.SOURCE_NOT_FOUND, f"uri: `{uri}` {found}: give the output.uri of a job, or the folder of a run"
        )
    told = json.loads(report)
    if told["formatVersion"] > FORMAT:
        raise JobError(
            Reason.INVALID_SPEC,
            f"uri: `{uri}` has format {told['formatVersion']}, and this version reads up to {FORMAT}: update almanac",
        )
    return Model(folder, told)


def forecast_table(
    parameters: pa.Table, horizon: int, settings: Mapping[str, Any], levels: Sequence[float] | None = None
) -> pa.Table:
    """Forecasts of `horizon` periods from rows of the table `parameters`, as rows of the table `forecasts`.

    `settings` have frequency, timeZone, intervals (which `levels` overrides) and floor.
    """
    known = parameters.filter(pc.is_valid(parameters.column("end")))
    ends, entities = (known.column(name).combine_chunks() for name in ("end", "entity"))
    calendar = Calendar(Frequency.parse(settings["frequency"]), ends.type, settings["timeZone"])
    times = tables.future_times(calendar, calendar.periods(ends), horizon)
    ahead = fit.forecast(tables.parameters_from_table(known), horizon)
    return tables.forecasts_table(entities, times, ahead, levels or settings["intervals"], settings["floor"])


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


@dataclass(frozen=True, slots=True)
class Model:
    """The models that a run has fitted, and its tables. Tables are Arrow's: `.to_pandas()` makes frames of them."""

    folder: Location
    """Where the run lies."""
    report: dict[str, Any]
    """report.json of the run."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the run's tables."""
        return tuple(sorted({file["path"].split("/")[0] for file in self.report["files"] if "/" in file["path"]}))

    @property
    def settings(self) -> dict[str, Any]:
        """What forecasting needs besides parameters: frequency, timeZone, intervals, floor."""
        settings: dict[str, Any] = self.report["forecasting"]
        return settings

    @property
    def entities(self) -> pa.ChunkedArray:
        """All entities, by bucket and name."""
        return pa.chunked_array([chunk for part in self._parts("parameters", ["entity"]) for chunk in part[0].chunks])

    def first_entities(self, count: int) -> list[Entity]:
        """The first `count` entities, by bucket and name: for a look at what there is, without reading all of them."""
        found: list[Entity] = []
        for part in self._parts("parameters", ["entity"]):
            found += part.column("entity").slice(0, count - len(found)).to_pylist()
            if len(found) == count:
                break
        return found

    def forecasts(self, entity: Entity) -> pa.Table:
        """What the run has forecast for one entity: time, mean and interval bounds. Raises UnknownEntityError."""
        return self._rows("forecasts", entity)

    def parameters(self, entity: Entity) -> pa.Table:
        """One entity's fitted model, one row. Raises UnknownEntityError."""
        return self._rows("parameters", entity)

    def scores(self, entity: Entity) -> pa.Table | None:
        """How good the forecasts of one entity were, one row; None if the run was not evaluated.

        Raises UnknownEntityError.
        """
        return self._rows("scores", entity) if "scores" in self.tables else None

    def history(self, entity: Entity) -> pa.Table:
        """The end of one entity's history, one row. Raises UnknownEntityError."""
        return self._rows("history", entity)

    def forecast(self, horizon: int, entity: Entity | None = None, levels: Sequence[float] | None = None) -> pa.Table:
        """Forecast `horizon` periods from the end of each history, for one entity or all, from the fitted models.

        `levels` are those of the intervals in percent; default: the run's. Columns and rows are as in the table
        `forecasts`; entities that have no forecast have no row. Raises UnknownEntityError.
        """
        if entity is not None:
            return forecast_table(self.parameters(entity), horizon, self.settings, levels)
        return pa.concat_tables(list(self.forecast_parts(horizon, levels)))

    def forecast_parts(self, horizon: int, levels: Sequence[float] | None = None) -> Iterator[pa.Table]:
        """As `forecast` for all entities, a bucket at a time: memory holds one."""
        for part in self._parts("parameters", None):
            yield forecast_table(part, horizon, self.settings, levels)

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

    def _rows(self, table: str, entity: Entity) -> pa.Table:
        wanted = self._typed(entity)
        path = table_path(table, int(bucket_of(wanted, self.report["buckets"])[0]))
        with storage_errors(self.folder):
            rows = pq.read_table(
                (self.folder / path).path,
                filesystem=self.folder.filesystem,
                filters=[("entity", "==", wanted[0])],
                partitioning=None,
            )
        if not len(rows) and table == "parameters":
            raise UnknownEntityError(self._unknown(entity))
        if not len(rows):
            self.parameters(entity)  # which raises if the entity is not of this run
        return rows

    def _typed(self, entity: Entity) -> pa.Array:
        """The entity as an array of one, of the type that the run's entities have."""
        kind = pa.type_for_alias(self.report["entityType"])
        try:
            text = str(entity)
            return pa.array([text], pa.string()).cast(kind) if not pa.types.is_string(kind) else pa.array([text])
        except pa.ArrowInvalid as error:
            raise UnknownEntityError(self._unknown(entity)) from error

    def _unknown(self, entity: Entity) -> str:
        names = pc.cast(self.entities.slice(0, SUGGESTED), pa.string()).to_pylist()
        near = difflib.get_close_matches(str(entity), names, 3, 0.5) or names[:3]
        return (
            f"no entity `{entity}` in {self.folder.uri}: there are {', '.join(f'`{name}`' for name in near)} and others"
        )

    def _parts(self, table: str, columns: list[str] | None) -> Iterator[pa.Table]:
        for bucket in np.arange(self.report["buckets"]):
            location = self.folder / table_path(table, int(bucket))
            with storage_errors(self.folder):
                yield pq.read_table(
                    location.path, filesystem=self.folder.filesystem, columns=columns, partitioning=None
                )
