"""What a complete run says of itself: to people (the page), to programs (report.json), to who started it (the Report).

Pure: facts in, documents out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from almanac.api import Engine, ExitCode, Family, ForecastJob, ForecastModel, Job, JobSpec, Reason, Report, Result
from almanac_jobs.forecast.types import FAILED
from almanac_jobs.parts import Summary
from almanac_jobs.report.page import ReportData
from almanac_jobs.source.observations import Counts

_NAMES = {
    Family.ARIMA: "ARIMA",
    Family.AUTOARIMA: "AutoARIMA",
    Family.ETS: "ETS",
    Family.SEASONALNAIVE: "seasonal naive",
}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of a run of any kind once its tables are written. `manifest` is the job as a person wrote it, `why`
    says why it was computed on this engine.
    """

    job: Job
    manifest: str
    run: str
    engine: Engine
    why: str
    started: datetime
    finished: datetime
    durations: Mapping[str, float]
    versions: Mapping[str, str]
    git_revision: str | None

    def record(self) -> dict[str, Any]:
        """What report.json says of every kind."""
        job = self.job
        return {
            "job": {"kind": job.kind, "namespace": job.metadata.namespace, "name": job.metadata.name},
            "startTime": _timestamp(self.started),
            "endTime": _timestamp(self.finished),
            "engine": self.engine.value,
            "engineReason": self.why,
            "versions": dict(self.versions),
            "gitRevision": self.git_revision,
            "specHash": job.spec.hash,
            "spec": _shareable(job.spec),
        }


@dataclass(frozen=True, slots=True)
class Facts(Circumstances):
    """All that is known once the tables of a forecast are written.

    `counts` say what became of the rows that meet the job's filter; `first` and `last` are the first and the last
    period of the data.
    """

    job: ForecastJob
    counts: Counts
    entities: int
    entity_type: str
    buckets: int
    frequency: str
    first: str
    last: str
    summary: Summary

    @property
    def failed_entities(self) -> int:
        """Entities without a forecast."""
        return sum(number for status, number in self.summary.statuses.items() if status in FAILED)

    @property
    def scores(self) -> dict[str, float]:
        """Overall scores by name; none where evaluation is off."""
        return self.summary.totals.summary() if self.summary.totals else {}


def page_data(facts: Facts) -> ReportData:
    """What the page says."""
    spec, metadata, summary = facts.job.spec, facts.job.metadata, facts.summary
    return ReportData(
        job=f"{metadata.namespace}/{metadata.name}",
        run=facts.run,
        finished=facts.finished,
        manifest=facts.manifest,
        source=spec.source.place,
        rows=facts.counts.rows,
        entities=facts.entities,
        first=facts.first,
        last=facts.last,
        model=model_in_words(spec.model),
        frequency=facts.frequency,
        horizon=spec.horizon,
        windows=spec.evaluation.windows,
        notes=notes(facts.counts),
        statuses=summary.statuses,
        durations=facts.durations,
        versions=facts.versions,
        totals=summary.totals,
        mase=summary.mase,
        baseline_mase=summary.baseline_mase,
        highlights=summary.highlights,
        failures=summary.failures,
    )


def record(facts: Facts) -> dict[str, Any]:
    """What report.json says besides the files."""
    job, counts = facts.job, facts.counts
    return {
        **facts.record(),
        "seed": None,  # nothing is random: series are searched from fixed points
        "source": {
            "rows": counts.rows,
            "nullEntities": counts.null_entities,
            "nullTimes": counts.null_times,
            "nullValues": counts.null_values,
            "merged": counts.merged,
            "frequency": facts.frequency,
            "firstPeriod": facts.first,
            "lastPeriod": facts.last,
        },
        "forecasting": {
            "frequency": facts.frequency,
            "timeZone": job.spec.source.time_zone,
            "intervals": list(job.spec.intervals),
            "floor": job.spec.floor,
        },
        "buckets": facts.buckets,
        "entityType": facts.entity_type,
        "entities": facts.entities,
        "failedEntities": facts.failed_entities,
        "statuses": dict(sorted(facts.summary.statuses.items())),
        "scores": facts.scores,
    }


def report(record: Mapping[str, Any], uri: str, message: str) -> Report:
    """What the end of a run says to who started it: report.json in short. `uri` is the folder of the run."""
    return Report(
        run=record["run"],
        reason=Reason.COMPLETED,
        exit_code=ExitCode.DONE,
        message=message,
        engine=Engine(record["engine"]),
        engine_reason=record.get("engineReason", ""),
        start_time=datetime.fromisoformat(record["startTime"]),
        end_time=datetime.fromisoformat(record["endTime"]),
        result=Result(
            uri=uri,
            entities=record.get("entities"),
            failed_entities=record["failedEntities"],
            rows=record["source"]["rows"],
            scores=record["scores"],
            checksum=record["checksum"],
        ),
    )


_SECRET = re.compile("secret|password|token|credential|key", re.IGNORECASE)  # as Spark's own redaction has it


def _shareable(spec: JobSpec) -> dict[str, Any]:
    """The spec with its defaults, for whoever may read results: without what may hold secrets."""
    told: dict[str, Any] = spec.model_dump(mode="json", exclude={"pod_template"}, exclude_none=True)
    if "spark" in told:
        conf = told["spark"]["conf"]
        told["spark"]["conf"] = {name: "(redacted)" if _SECRET.search(name) else value for name, value in conf.items()}
    return told


def _timestamp(time: datetime) -> str:
    """ISO 8601 in UTC, of a width that makes texts sort as times do."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def model_in_words(model: ForecastModel) -> str:
    """The model as people write it: ARIMA (0,1,1)(0,1,1)[12], ETS[7], theta."""
    season = f"[{model.season_length}]" if model.season_length > 1 else ""
    if model.family is not Family.ARIMA:
        return _NAMES.get(model.family, model.family.value) + season
    orders = [model.order, model.seasonal_order] if any(model.seasonal_order) else [model.order]
    written = "".join(f"({','.join(map(str, order))})" for order in orders)
    return f"ARIMA {written}{season if len(orders) > 1 else ''}"


def notes(counts: Counts) -> dict[str, int]:
    """What became of rows that are not simply observations, in words."""
    told = {
        "left out: no entity": counts.null_entities,
        "left out: no time": counts.null_times,
        "left out: no value": counts.null_values,
        "merged with others of the same entity and period": counts.merged,
    }
    return {what: number for what, number in told.items() if number}
