"""What an AnomalyJob does in a run: read, train, score every row, and explain those that are flagged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before XGBoost: its threads otherwise spin where cores are shared

import numpy as np
import pyarrow.compute as pc
import xgboost as xgb

from almanac.api import AnomalyJob, AnomalySpec, Detector, Engine
from almanac_jobs import engines, judged, verdicts
from almanac_jobs.anomaly import across, artefact, calibration, detectors, explanations, measures
from almanac_jobs.anomaly.artefact import Model
from almanac_jobs.anomaly.calibration import Meaning, Scale
from almanac_jobs.anomaly.detectors import Trained, Training
from almanac_jobs.anomaly.features import Floats32
from almanac_jobs.anomaly.matrix import Flags, Floats, Ints, Matrix
from almanac_jobs.choice import Footprint
from almanac_jobs.crew import Crew, Held, Reach
from almanac_jobs.engines.local import Alone
from almanac_jobs.judged import Rows, Share
from almanac_jobs.progress import Progress
from almanac_jobs.report.anomalies import AnomalyData, render
from almanac_jobs.report.anomalies import Worst as Shown
from almanac_jobs.reporting import Circumstances
from almanac_jobs.resources import memory_limit, usable_cores
from almanac_jobs.source import Dataset
from almanac_jobs.task import Look, Made, Task
from almanac_jobs.verdicts import Layout, Sheet, Worst

CLUSTERS = (Engine.DASK,)
"""Engines besides this process."""
CONTAMINATION = 0.01
"""Share of the rows that is flagged where the job says nothing."""
SURVEY = 2_000
"""Rows that say which features matter over all: drawn by the seed."""
WORST = 8
"""Rows that the page shows one by one."""
TRIED = 10_000
"""Rows of a sample."""


def carry_out(job: AnomalyJob, task: Task) -> Made[AnomalyData]:
    """Do all of a run but publishing it.

    Raises:
        JobError: whatever a person can mend.
    """
    spec, progress = job.spec, task.progress
    dataset = judged.open_source(spec)
    engine = task.choose(_footprint(spec, dataset, external=True), CLUSTERS)
    need = judged.need(spec, dataset, external=False)
    with engines.crew(engine, job, dataset, need, progress) as (crew, parts):
        external = need / crew.size > judged.SHARE * crew.memory
        progress.expect(dataset.rows)
        rows = judged.read(spec, dataset.types, parts, crew, external=external)
        found = find(spec, rows, crew, progress)
        task.begun = True
        if task.engine is not Engine.LOCAL:
            task.writer.share()
        for path, data in artefact.files(found.model, found.golden).items():
            task.writer.write_file(path, data)
        layout = verdicts.write(crew, found.sheets, found.model, spec.explain.top_k, task.writer, progress)
        places = crew.size
    progress.start("report")
    facts = _Facts(Circumstances(**task.circumstances()), job, rows, found, layout, places)
    page = _page(facts)
    return Made(page, render(page), _record(facts))


@dataclass(frozen=True, slots=True)
class Trial:
    """A sample: so many `rows` were learnt from, and these are the oddest of them, each with its reasons."""

    rows: int
    detector: str
    why: str
    oddest: tuple[Mapping[str, Any], ...]


def sample(job: AnomalyJob, progress: Progress) -> Trial:
    """Do all with the first rows, in this process, and write nothing.

    Raises:
        JobError: as `carry_out` does.
    """
    progress.start("read", unit="rows")
    dataset = judged.open_source(job.spec)
    crew = Alone(usable_cores(), progress)
    rows = judged.read(job.spec, dataset.types, [dataset], crew, external=False, most=TRIED)
    found = find(job.spec, rows, crew, progress)
    progress.finish()
    return Trial(rows.count, found.model.detector.value, found.why, tuple(one.row for one in found.worst[:5]))


def look(job: AnomalyJob) -> Look:
    """What there is to read.

    Raises:
        JobError: as `carry_out` does.
    """
    dataset = judged.open_source(job.spec)
    limit = memory_limit()
    external = judged.need(job.spec, dataset, external=False) > judged.SHARE * limit
    return Look(len(dataset.files), dataset.bytes, _footprint(job.spec, dataset, external=external), limit, CLUSTERS)


def _footprint(spec: AnomalySpec, dataset: Dataset, *, external: bool) -> Footprint:
    need = judged.need(spec, dataset, external=external)
    return Footprint(dataset.rows, len(dataset.types), dataset.uncompressed, need)


@dataclass(frozen=True, slots=True)
class Survey:
    """Some rows that stand for all: their features, and what these contribute."""

    values: Floats32
    contributions: Floats


@dataclass(frozen=True, slots=True)
class Found:
    """What a model says of the rows that it has learnt from: `sheets` of all, and what the report needs of them.

    `measured` are scores by name of the rows that were held back, `first` and `last` the ends of the rows' times.
    """

    model: Model
    why: str
    sheets: Held[Sheet]
    flagged: int
    measured: Mapping[str, float]
    survey: Survey
    golden: Floats32
    worst: list[Worst]
    first: str
    last: str


def find(spec: AnomalySpec, rows: Rows, crew: Crew, progress: Progress) -> Found:
    """Train a detector, let it score its rows, and ask it why."""
    detector, why = detectors.resolve(spec.model.detector, rows.positives)
    matrix, labels = crew.each(matrix_of, rows.shares), crew.each(labels_of, rows.shares)
    held = _held_back(crew, rows, labels) if detector is Detector.CLASSIFIER else None
    progress.start("train", detectors.steps(detector, spec.model, len(rows.schema.features)), "trees")
    training = Training(
        matrix,
        rows.sizes,
        rows.schema.features,
        None if rows.positives is None else labels,
        rows.positives or 0,
        held,
    )
    trained = detectors.train(detector, spec.model, training, crew)
    progress.start("score", rows.count, "rows")
    margins = crew.counted(margins_of, matrix, crew.share(trained))
    ordered = crew.each(across.order, margins)
    _check_different(crew, ordered, rows.count)
    measured, scale = _calibrated(crew, detector, labels, held, margins, ordered, rows.count)
    share = spec.contamination or CONTAMINATION
    model = Model(
        detector=detector,
        schema=rows.schema,
        ledger=rows.ledger,
        trained=trained,
        scale=scale,
        margin=None if spec.threshold is not None else calibration.cut(crew, ordered, rows.count, share),
        threshold=spec.threshold,
    )
    known = crew.share(model)
    flagged = sum(crew.fetch(crew.each(_flagged, known, margins)))
    progress.start("explain", flagged, "rows")
    starts = crew.deal((np.cumsum(rows.sizes) - rows.sizes).tolist())
    sheets = crew.counted(verdicts.judge, rows.shares, starts, known, margins, spec.explain.top_k)
    worst = verdicts.worst(crew, rows.shares, sheets, model, WORST)
    drawn = np.sort(np.random.default_rng(spec.model.seed).choice(rows.count, min(SURVEY, rows.count), replace=False))
    values = across.gathered(crew, matrix, rows.sizes, drawn)
    some = np.unique(np.concatenate([_highest(crew, margins, starts, artefact.GOLDEN), drawn[:64]]))
    chosen = across.gathered(crew, matrix, rows.sizes, some)
    ends = [one for one in crew.fetch(crew.each(_ends, rows.shares)) if one is not None]
    return Found(
        model=model,
        why=why,
        sheets=sheets,
        flagged=flagged,
        measured={"flagged": float(flagged), **measured},
        survey=Survey(values, trained.contributions(values)),
        golden=artefact.golden(chosen, model.margins(chosen), spec.model.seed),
        worst=worst,
        first=str(min(first for first, _ in ends)),
        last=str(max(last for _, last in ends)),
    )


def matrix_of(share: Share) -> Matrix:
    """The features of a share."""
    return share.matrix


def labels_of(share: Share) -> Flags:
    """The labels of a share; nothing without a label."""
    return np.empty(0, np.bool_) if share.labels is None else share.labels


def _held_back(crew: Crew, rows: Rows, labels: Held[Flags]) -> Held[Flags] | None:
    """The latest rows, where both parts have enough labels to be of use; else none."""
    later = detectors.latest(crew, crew.each(_ticks, rows.shares), rows.count)
    held = sum(crew.fetch(crew.each(_both, labels, later)))
    enough = min(held, (rows.positives or 0) - held) >= detectors.ENOUGH
    return later if enough else None


def _ticks(share: Share) -> Ints:
    return share.ticks


def _both(one: Flags, other: Flags) -> int:
    return int((one & other).sum())


def margins_of(matrix: Matrix, trained: Trained, reach: Reach) -> Floats:
    """The margin of each row."""
    made = np.empty(matrix.rows)
    start = 0
    for part in matrix.parts():
        made[start : start + len(part)] = trained.margins(part)
        start += len(part)
        reach(start)
    return made


def _check_different(crew: Crew, ordered: Held[across.Codes], count: int) -> None:
    least, most = across.select(crew, ordered, np.array([0, count - 1]))
    if least == most:
        raise detectors.nothing("every row gets the same score")


def _flagged(model: Model, margins: Floats) -> int:
    return int(model.flags(margins).sum())


def _highest(crew: Crew, margins: Held[Floats], starts: Held[int], count: int) -> Ints:
    """The numbers of the rows with the highest margins."""
    found = np.concatenate(crew.fetch(crew.each(_tops, margins, starts, count)))
    return found[np.lexsort((found[:, 1], -found[:, 0]))][:count, 1].astype(np.int64)


def _tops(margins: Floats, start: int, count: int) -> Floats:
    order = np.argsort(-margins, kind="stable")[:count]
    return np.stack([margins[order], order + start], axis=1)


def _ends(share: Share) -> tuple[Any, Any] | None:
    time = share.keys.column("time")
    return (pc.min(time).as_py(), pc.max(time).as_py()) if len(time) else None


def _calibrated(
    crew: Crew,
    detector: Detector,
    labels: Held[Flags],
    held: Held[Flags] | None,
    margins: Held[Floats],
    ordered: Held[across.Codes],
    count: int,
) -> tuple[dict[str, float], Scale]:
    """What scores mean, and how good they are on the rows held back: these come here, with nine bytes each.

    Raises:
        JobError: LearntNothing for a classifier that is no better than chance there.
    """
    if detector is not Detector.CLASSIFIER:
        return {}, calibration.by_share(crew, ordered, count)
    if held is None:
        return {}, Scale(Meaning.PROBABILITY, "none")
    truth, later = (np.concatenate(crew.fetch(crew.each(_chosen, values, held))) for values in (labels, margins))
    area = measures.auc(truth, later)
    if area <= 0.5:
        raise detectors.nothing(
            f"on the latest rows, which it had not seen, it is no better than chance (AUC {area:.2f})"
        )
    scale = calibration.by_labels(truth, later)
    chance = scale.scores(later)
    return {
        "auc": area,
        "average_precision": measures.average_precision(truth, later),
        "brier": measures.brier(truth, chance),
        "brier_skill": measures.brier_skill(truth, chance),
    }, scale


def _chosen(values: Any, which: Flags) -> Any:
    return values[which]


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that is known once the tables are written."""

    circumstances: Circumstances
    job: AnomalyJob
    rows: Rows
    found: Found
    layout: Layout
    places: int

    @property
    def versions(self) -> dict[str, str]:
        return {**self.circumstances.versions, "xgboost": xgb.__version__}


def _record(facts: _Facts) -> dict[str, Any]:
    """What report.json says besides the files."""
    found, rows, layout = facts.found, facts.rows, facts.layout
    return {
        **facts.circumstances.record(),
        "versions": facts.versions,
        "seed": facts.job.spec.model.seed,
        "source": {
            "rows": rows.counts.rows,
            "nullEntities": rows.counts.null_entities,
            "nullTimes": rows.counts.null_times,
        },
        "detection": {
            "detector": found.model.detector.value,
            "why": found.why,
            "labelledPositives": facts.rows.positives,
            "scoreIs": found.model.scale.meaning.value,
            "calibration": found.model.scale.how,
            "flagged": found.flagged,
            "features": list(rows.schema.names),
            "leftOut": dict(rows.left_out),
            "externalMemory": rows.external,
            "workers": facts.places,
        },
        "importance": explanations.importance(rows.schema.names, found.survey.contributions),
        "documents": layout.documents,
        "entitiesWithoutDocument": layout.without_document,
        "buckets": layout.buckets,
        "entityType": layout.entity_type,
        "entities": layout.entities,
        "failedEntities": 0,
        "scores": dict(found.measured),
    }


def _page(facts: _Facts) -> AnomalyData:
    """What the page says."""
    found, rows, circumstances = facts.found, facts.rows, facts.circumstances
    metadata, spec = facts.job.metadata, facts.job.spec
    worst = [Shown(one.keys, one.score, one.contributions, one.shown) for one in found.worst]
    left = {
        "left out: no entity": rows.counts.null_entities,
        "left out: no time": rows.counts.null_times,
    }
    return AnomalyData(
        job=f"{metadata.namespace}/{metadata.name}",
        run=circumstances.run,
        finished=circumstances.finished,
        manifest=circumstances.manifest,
        source=spec.source.place,
        rows=rows.counts.rows,
        entities=facts.layout.entities,
        first=found.first,
        last=found.last,
        notes={what: number for what, number in left.items() if number},
        durations=circumstances.durations,
        versions=facts.versions,
        detector=found.model.detector.value,
        why=found.why,
        positives=facts.rows.positives,
        score_is=found.model.scale.meaning.value,
        calibration=found.model.scale.how,
        flagged=found.flagged,
        flagged_entities=facts.layout.documents + facts.layout.without_document,
        features=rows.schema.names,
        left_out=rows.left_out,
        measured={name: value for name, value in found.measured.items() if name != "flagged"},
        importance=tuple(
            (one["feature"], one["contribution"])
            for one in explanations.importance(rows.schema.names, found.survey.contributions)
        ),
        survey_values=found.survey.values,
        survey_contributions=found.survey.contributions,
        worst=tuple(worst),
        top=spec.explain.top_k,
    )
