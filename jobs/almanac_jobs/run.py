"""A run from beginning to end, for every kind of job; what a kind does is in `forecasting`, `detecting`, `extracting`.

What a run writes is in a folder of its own, which counts once its report is there: a run that fails or is stopped
changes nothing that was there before. The clock and ids are arguments; nothing is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from almanac.api import AnomalyJob, Engine, ExtractJob, ForecastJob, Job, JobError, Layout, Output, Reason, Report
from almanac_jobs import artefacts, choice, forecasting, per_entity, reporting
from almanac_jobs.artefacts import RunWriter
from almanac_jobs.model import Model
from almanac_jobs.progress import Progress
from almanac_jobs.resources import memory_limit
from almanac_jobs.storage import Location, open_location
from almanac_jobs.task import Look, Made, Task

if TYPE_CHECKING:
    from almanac_jobs.detecting import Trial
    from almanac_jobs.forecasting import Sample
    from almanac_jobs.report.anomalies import AnomalyData
    from almanac_jobs.report.extract import ExtractData, Preview
    from almanac_jobs.report.page import ReportData

    Page = ReportData | AnomalyData | ExtractData


@dataclass(frozen=True, slots=True)
class Outcome:
    """A complete run: its report, and what its page says."""

    report: Report
    page: Page


def run(
    job: Job,
    *,
    engine: Engine,
    run_id: str,
    clock: Callable[[], datetime],
    progress: Progress,
    manifest: str,
    environment: Mapping[str, str] | None = None,
    hand_over: bool = False,
) -> Outcome:
    """Carry out a job on an engine (`choice.named`); AUTO is settled once the source's footers are seen.

    `manifest` is the job as a person wrote it, for the page. `environment` may say how AUTO is settled (`choice`).
    `hand_over` is for a driver that somebody else follows with a cluster, where one process does not do.

    Raises:
        JobError: whatever a person can mend. What this run has written is deleted then, and results of earlier runs
            are as they were.
    """
    kind = _kind(job)
    started = clock()
    progress.start("read", unit="rows")
    writer = RunWriter(job.spec.output, job.spec.storage, run_id)
    machine = choice.machine(memory_limit(), environment or {}, hand_over=hand_over)
    task = Task(job, manifest, run_id, engine, clock, started, progress, writer, machine)
    try:
        made: Made[Page] = kind.carry_out(job, task)
        writer.write_page(made.html)
        progress.check()
        record = writer.publish(made.record)
    except BaseException as error:
        again = task.resumable and not (isinstance(error, JobError) and error.exit_code.final)
        if task.begun and not again:  # only now, when the engine is gone with all that may still have written
            writer.abandon()
        raise
    settled = _settle(job.spec.output, writer.output, record, clock(), progress)
    message = "; ".join(said for said in (task.choice.warning if task.choice else "", settled) if said)
    return Outcome(reporting.report(record, writer.folder.uri, message), made.page)


def resume(job: Job, *, run_id: str, now: datetime, progress: Progress) -> Report | None:
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


def sample(job: Job, progress: Progress) -> Sample | Trial | Preview:
    """Try a job on a little of its data, and write nothing.

    Raises:
        JobError: as `run` does.
    """
    tried: Sample | Trial | Preview = _kind(job).sample(job, progress)
    return tried


def look(job: Job) -> Look:
    """Look at a job's source without reading a row of it, and at its output without writing to it.

    Raises:
        JobError: as `run` does.
    """
    seen: Look = _kind(job).look(job)
    RunWriter(job.spec.output, job.spec.storage, "none")
    return seen


def _kind(job: Job) -> ModuleType:
    """The module with what the job's kind does: `carry_out`, `sample` and `look`.

    Raises:
        JobError: NotInstalled, if a library is missing that only this kind needs.
    """
    if isinstance(job, ForecastJob):
        return forecasting
    module, extra = ("detecting", "anomaly") if isinstance(job, AnomalyJob) else ("extracting", "extract")
    assert isinstance(job, AnomalyJob | ExtractJob)  # noqa: S101 - there is no other kind
    try:
        return import_module(f"almanac_jobs.{module}")  # only now: it takes libraries that others do without
    except ModuleNotFoundError as error:
        if str(error.name).startswith("almanac"):
            raise
        missing = f"kind: an {job.kind} needs {error.name}, which is not installed: pip install 'almanac[{extra}]'"
        raise JobError(Reason.NOT_INSTALLED, missing) from error


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
