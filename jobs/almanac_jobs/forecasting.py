"""What a ForecastJob does in a run: read, then fit, evaluate and write bucket by bucket. Engines do buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from almanac.api import Engine, Evaluation, ForecastJob, ForecastSpec, Layout
from almanac_jobs import engines, per_entity, reporting, source
from almanac_jobs.artefacts import RunWriter
from almanac_jobs.choice import Footprint
from almanac_jobs.parts import Recipe, Summary
from almanac_jobs.progress import Progress
from almanac_jobs.report.page import ReportData, render
from almanac_jobs.reporting import Facts
from almanac_jobs.resources import memory_limit
from almanac_jobs.source import Dataset
from almanac_jobs.task import Look, Made, Task
from almanac_jobs.work import BucketWork

BYTES_PER_ROW = 64
"""Memory that a row of the source takes at most, besides what it takes in its file: that of an observation."""
SPARK_ROWS = 1_000_000_000
"""Rows from which on Spark's shuffle is the better one: Dask's needs tasks of more and more memory (`engines.dask`)."""


def carry_out(job: ForecastJob, task: Task) -> Made[ReportData]:
    """Do all of a run but publishing it.

    Raises:
        JobError: whatever a person can mend.
    """
    progress = task.progress
    dataset = source.open_dataset(job.spec.source, job.spec.storage)
    engine = task.choose(_footprint(dataset), _clusters(dataset))
    with engines.opened(engine, job, dataset.rows, progress) as machine:
        progress.expect(dataset.rows)
        observed = machine.read(job.spec, dataset, progress)
        if job.spec.output.layout is Layout.PER_ENTITY:
            per_entity.check_number(observed.entities)
        task.begun = True
        if engine is not Engine.LOCAL:
            task.writer.share()
        summary = _fit(job.spec, observed, task.writer, progress)
    progress.start("report")
    label = observed.calendar.label
    facts = Facts(
        **task.circumstances(),
        counts=observed.counts,
        entities=observed.entities,
        entity_type=str(observed.entity_type),
        buckets=observed.buckets,
        frequency=str(observed.calendar.frequency),
        first=label(observed.first_period),
        last=label(observed.last_period),
        summary=summary,
    )
    page = reporting.page_data(facts)
    return Made(page, render(page), reporting.record(facts))


@dataclass(frozen=True, slots=True)
class Sample:
    """One entity, fitted: on how many `observed` periods, from which to which, and its rows of the two tables."""

    entity: str
    observed: int
    first: str
    last: str
    parameters: Mapping[str, Any]
    forecasts: Sequence[Mapping[str, Any]]


def sample(job: ForecastJob, progress: Progress) -> Sample:
    """Fit one entity on 30 of its periods, whatever `minObservations` says, and write nothing.

    Raises:
        JobError: as `carry_out` does.
    """
    progress.start("read")
    observations = source.sample(job.spec)
    progress.start("fit", 1, "series")
    spec = job.spec.model_copy(update={"min_observations": 1, "evaluation": Evaluation(windows=0)})
    fitted = Recipe(spec, observations.calendar).work(observations, 0, 1, progress).tables
    progress.finish()
    label = observations.calendar.label
    return Sample(
        entity=str(observations.entities[0]),
        observed=len(observations.value),
        first=label(int(observations.period[0])),
        last=label(observations.last_period),
        parameters=fitted["parameters"].to_pylist()[0],
        forecasts=fitted["forecasts"].to_pylist(),
    )


def look(job: ForecastJob) -> Look:
    """What there is to read.

    Raises:
        JobError: as `carry_out` does.
    """
    dataset = source.open_dataset(job.spec.source, job.spec.storage)
    return Look(len(dataset.files), dataset.bytes, _footprint(dataset), memory_limit(), _clusters(dataset))


def _clusters(dataset: Dataset) -> tuple[Engine, ...]:
    """Engines besides this process, the one that suits the data best first."""
    return (Engine.DASK, Engine.SPARK) if dataset.rows < SPARK_ROWS else (Engine.SPARK, Engine.DASK)


def _footprint(dataset: Dataset) -> Footprint:
    size = dataset.uncompressed
    return Footprint(dataset.rows, len(dataset.types), size, dataset.rows * BYTES_PER_ROW + size)


def _fit(spec: ForecastSpec, observed: engines.Source, writer: RunWriter, progress: Progress) -> Summary:
    """Fit and write every bucket."""
    progress.start("fit", observed.entities, "series")
    done = list(observed.map_buckets(BucketWork(Recipe(spec, observed.calendar), writer), progress))
    for one in done:
        writer.register(one.files)
    return Summary.sum([one.summary for one in sorted(done, key=lambda one: one.bucket)])
