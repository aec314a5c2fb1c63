"""The pipeline of a run: read, then fit, evaluate and write bucket by bucket, then publish.

An engine reads and does the buckets; all else happens here. The clock and ids are arguments; nothing is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from almanac.api import Engine, Evaluation, ForecastJob, ForecastSpec, JobError, Layout, Output, Reason, Report
from almanac_jobs import artefacts, engines, per_entity, provenance, reporting, source
from almanac_jobs.artefacts import RunWriter
from almanac_jobs.model import Model
from almanac_jobs.parts import Recipe, Summary
from almanac_jobs.progress import Progress
from almanac_jobs.report.page import ReportData, render
from almanac_jobs.reporting import Facts
from almanac_jobs.resources import GIB, memory_limit
from almanac_jobs.source import Dataset
from almanac_jobs.storage import Location, open_location
from almanac_jobs.work import BucketWork

BYTES_PER_ROW = 64
"""Memory that a row of the source takes at most: that of an observation of its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A complete run: its report, and what its page says."""

    report: Report
    page: ReportData


def run(
    job: ForecastJob,
    *,
    engine: Engine,
    run_id: str,
    clock: Callable[[], datetime],
    progress: Progress,
    manifest: str,
    escalate: bool = False,
) -> Outcome:
    """Carry out a job on an engine (`engines.chosen`).

    `manifest` is the job as a person wrote it, for the page. `escalate` refuses a source whose footers allow more rows
    than memory holds, for a driver that a cluster can take over from.

    Raises:
        JobError: whatever a person can mend. What this run has written is deleted then, and results of earlier runs
            are as they were.
    """
    started = clock()
    progress.start("read", unit="rows")
    writer = RunWriter(job.spec.output, job.spec.storage, run_id)
    begun = False
    try:
        with engines.opened(engine, job, progress) as machine:
            dataset = _dataset(job.spec, escalate=escalate)
            progress.expect(dataset.rows)
            observed = machine.read(job.spec, dataset, progress)
            if job.spec.output.layout is Layout.PER_ENTITY:
                per_entity.check_number(observed.entities)
            begun = True
            summary = _fit(job.spec, observed, writer, progress)
        progress.start("report")
        label = observed.calendar.label
        facts = Facts(
            job=job,
            manifest=manifest,
            run=run_id,
            engine=engine,
            started=started,
            finished=clock(),
            durations={stage.stage: stage.seconds for stage in progress.finished()},
            versions=provenance.versions(),
            git_revision=provenance.git_revision(),
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
        writer.write_page(render(page))
        progress.check()
        record = writer.publish(reporting.record(facts))
    except BaseException:
        if begun:  # only now, when the engine is gone with all that may still have written
            writer.abandon()
        raise
    message = _settle(job.spec.output, writer.output, record, clock(), progress)
    return Outcome(reporting.report(record, writer.folder.uri, message), page)


def resume(job: ForecastJob, *, run_id: str, now: datetime, progress: Progress) -> Report | None:
    """The report of a run of this job that is complete already; None if there is none of this id.

    For a driver that is started again: the attempt before may have ended before it had told anybody, or before it had
    done what follows a complete run, which is done here.

    Raises:
        JobError: what storage refuses.
    """
    output = open_location(job.spec.output.uri, job.spec.storage, field=artefacts.FIELD)
    record = artefacts.complete(output, run_id)
    if record is None or record.get("specHash") != job.spec.hash:
        return None
    message = _settle(job.spec.output, output, record, now, progress)
    return reporting.report(record, (output / artefacts.RUNS / run_id).uri, message)


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
        JobError: as `run` does.
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


@dataclass(frozen=True, slots=True)
class Look:
    """What footers say of a source: files, bytes, rows, and the `memory` that it may take of the `limit` there is."""

    files: int
    bytes: int
    rows: int
    memory: int
    limit: int


def look(job: ForecastJob) -> Look:
    """Look at a job's source without reading a row of it, and at its output without writing to it.

    Raises:
        JobError: as `run` does.
    """
    dataset = source.open_dataset(job.spec.source, job.spec.storage)
    RunWriter(job.spec.output, job.spec.storage, "none")
    need = dataset.rows * BYTES_PER_ROW
    return Look(len(dataset.files), dataset.bytes, dataset.rows, need, memory_limit())


def _dataset(spec: ForecastSpec, *, escalate: bool) -> Dataset:
    dataset = source.open_dataset(spec.source, spec.storage)
    limit = memory_limit()
    if escalate and dataset.rows * BYTES_PER_ROW > limit:
        raise JobError(
            Reason.TOO_BIG_FOR_LOCAL,
            f"spec.source.uri: {dataset.rows:,} rows may take {dataset.rows * BYTES_PER_ROW / GIB:.1f} GiB of memory, "
            f"and this process has {limit / GIB:.1f} GiB",
        )
    return dataset


def _fit(spec: ForecastSpec, observed: engines.Source, writer: RunWriter, progress: Progress) -> Summary:
    """Fit and write every bucket."""
    progress.start("fit", observed.entities, "series")
    done = list(observed.map_buckets(BucketWork(Recipe(spec, observed.calendar), writer), progress))
    for one in done:
        writer.register(one.files)
    return Summary.sum([one.summary for one in sorted(done, key=lambda one: one.bucket)])


def _settle(output: Output, place: Location, record: Mapping[str, Any], now: datetime, progress: Progress) -> str:
    """What follows once a run is complete, in any case if it is the newest: latest.json, the folders of its entities,
    and the deletion of old runs. May be repeated.

    Gives a sentence on what did not work of the latter: the run is complete all the same.
    """
    newest = artefacts.point(place, record)
    if newest and output.layout is Layout.PER_ENTITY:
        progress.start("write models", record["entities"], "entities")
        for parameters in Model(place / artefacts.RUNS / record["run"], dict(record)).parts("parameters"):
            for _ in per_entity.write(place, parameters, record["forecasting"]):
                progress.advance()
    progress.finish()
    try:
        if output.keep_runs is not None:
            artefacts.prune(place, record, output.keep_runs, now)
    except JobError as error:
        return f"older runs could not be deleted: {error.message}"
    return ""
