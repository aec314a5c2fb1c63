"""What an AnomalyJob does in a run: read, train, score every row, and explain those that are flagged."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before XGBoost: its threads otherwise spin where cores are shared

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xgboost as xgb
from numpy.typing import NDArray

from almanac.api import AnomalyJob, AnomalySpec, Detector, Engine, JobError, Reason
from almanac_jobs import judged, objects, per_entity
from almanac_jobs.anomaly import artefact, calibration, detectors, explanations, measures
from almanac_jobs.anomaly.artefact import Model
from almanac_jobs.anomaly.calibration import Meaning, Scale
from almanac_jobs.anomaly.detectors import Machine, Trained, Training
from almanac_jobs.anomaly.explanations import Reasons
from almanac_jobs.anomaly.features import Floats32
from almanac_jobs.anomaly.matrix import Flags, Floats, Ints, take
from almanac_jobs.artefacts import RunWriter
from almanac_jobs.buckets import bucket_count, bucket_of
from almanac_jobs.judged import Rows
from almanac_jobs.progress import Progress
from almanac_jobs.report.anomalies import AnomalyData, Worst, render
from almanac_jobs.reporting import Circumstances
from almanac_jobs.resources import memory_limit, usable_cores
from almanac_jobs.task import Look, Made, Task

CONTAMINATION = 0.01
"""Share of the rows that is flagged where the job says nothing."""
DOCUMENTS = 10_000
"""Entities that get a JSON document of their own, the oddest first: more files are slow to write and dear to list."""
SURVEY = 2_000
"""Rows that say which features matter over all: drawn by the seed."""
EXPLAINED = 10_000
"""Rows that are explained at a time."""
WORST = 8
"""Rows that the page shows one by one."""
TRIED = 10_000
"""Rows of a sample."""


def carry_out(job: AnomalyJob, task: Task) -> Made[AnomalyData]:
    """Do all of a run but publishing it.

    Raises:
        JobError: whatever a person can mend.
    """
    if task.engine is not Engine.LOCAL:
        raise JobError(
            Reason.NOT_INSTALLED, f"spec.engine: an AnomalyJob does not run on {task.engine} yet: write local"
        )
    spec, progress = job.spec, task.progress
    dataset = judged.open_source(spec)
    task.check_memory(dataset.rows, judged.need(spec, dataset, external=True))
    progress.expect(dataset.rows)
    with ExitStack() as stack:
        folder = None
        if judged.need(spec, dataset, external=False) > judged.SHARE * memory_limit():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="almanac-")))
        rows = judged.read(spec, dataset, folder, progress.reach)
        found = find(spec, rows, folder, progress)
        task.begun = True
        progress.start("write", unit="files")
        layout = _write(spec, rows, found, task.writer, progress)
        progress.start("report")
        facts = _Facts(Circumstances(**task.circumstances()), job, rows, found, layout)
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
    """Do all with the first rows, and write nothing.

    Raises:
        JobError: as `carry_out` does.
    """
    progress.start("read", unit="rows")
    dataset = judged.open_source(job.spec)
    rows = judged.read(job.spec, dataset, None, progress.reach, TRIED)
    found = find(job.spec, rows, None, progress)
    progress.finish()
    worst = [_row(found, rows, place) for place in found.worst(5)]
    return Trial(rows.matrix.rows, found.model.detector.value, found.why, tuple(worst))


def look(job: AnomalyJob) -> Look:
    """What there is to read.

    Raises:
        JobError: as `carry_out` does.
    """
    dataset = judged.open_source(job.spec)
    need = judged.need(job.spec, dataset, external=False)
    limit = memory_limit()
    if need > judged.SHARE * limit:
        need = judged.need(job.spec, dataset, external=True)
    return Look(len(dataset.files), dataset.bytes, dataset.rows, need, limit)


@dataclass(frozen=True, slots=True)
class Survey:
    """Some rows that stand for all: their features, and what these contribute."""

    values: Floats32
    contributions: Floats


@dataclass(frozen=True, slots=True)
class Found:
    """What a model says of the rows that it has learnt from.

    `margins`, `scores` and `flags` have an entry a row; `flagged` are the numbers of flagged rows, of which `reasons`
    and `contributions` tell more. `measured` are scores by name of the rows that were held back.
    """

    model: Model
    why: str
    margins: Floats
    scores: Floats
    flags: Flags
    flagged: Ints
    reasons: Reasons
    contributions: Floats
    measured: Mapping[str, float]
    survey: Survey
    golden: Floats32

    def worst(self, count: int) -> list[int]:
        """Places in `flagged` of the oddest rows."""
        order: list[int] = np.argsort(-self.margins[self.flagged], kind="stable")[:count].tolist()
        return order


def find(spec: AnomalySpec, rows: Rows, folder: Path | None, progress: Progress) -> Found:
    """Train a detector, let it score its rows, and ask it why."""
    positives = None if rows.labels is None else int(rows.labels.sum())
    detector, why = detectors.resolve(spec.model.detector, positives)
    held = _held_back(rows) if detector is Detector.CLASSIFIER else np.zeros(rows.matrix.rows, np.bool_)
    threads = usable_cores()
    progress.start("train", detectors.steps(detector, spec.model, len(rows.schema.features)), "trees")
    training = Training(rows.matrix, rows.schema.features, rows.labels, held)
    trained = detectors.train(detector, spec.model, training, Machine(threads, folder, progress.advance))
    progress.start("score", rows.matrix.rows, "rows")
    margins = _margins(trained, rows, progress)
    measured, scale = _calibrated(detector, rows.labels, held, margins)
    model = Model(
        detector=detector,
        schema=rows.schema,
        ledger=rows.ledger,
        trained=trained,
        scale=scale,
        margin=None if spec.threshold is not None else calibration.cut(margins, spec.contamination or CONTAMINATION),
        threshold=spec.threshold,
    )
    flags = model.flags(margins)
    flagged = np.flatnonzero(flags)
    progress.start("explain", len(flagged), "rows")
    reasons, contributions = _explained(model, take(rows.matrix, flagged), spec.explain.top_k, progress)
    drawn = np.random.default_rng(spec.model.seed).choice(len(margins), min(SURVEY, len(margins)), replace=False)
    values = take(rows.matrix, np.sort(drawn))
    some = np.unique(np.concatenate([np.argsort(-margins, kind="stable")[: artefact.GOLDEN], np.sort(drawn)[:64]]))
    return Found(
        model=model,
        why=why,
        margins=margins,
        scores=scale.scores(margins),
        flags=flags,
        flagged=flagged,
        reasons=reasons,
        contributions=contributions,
        measured={"flagged": float(len(flagged)), **measured},
        survey=Survey(values, trained.contributions(values)),
        golden=artefact.golden(take(rows.matrix, some), margins[some], spec.model.seed),
    )


def _held_back(rows: Rows) -> Flags:
    """The latest rows, where both parts have enough labels to be of use; else none."""
    assert rows.labels is not None  # noqa: S101 - a classifier has a label
    later = detectors.latest(rows.ticks)
    enough = min(int(rows.labels[later].sum()), int(rows.labels[~later].sum())) >= detectors.ENOUGH
    return later if enough else np.zeros(len(later), np.bool_)


def _margins(trained: Trained, rows: Rows, progress: Progress) -> Floats:
    made = np.empty(rows.matrix.rows)
    start = 0
    for part in rows.matrix.parts():
        made[start : start + len(part)] = trained.margins(part)
        start += len(part)
        progress.reach(start)
    if not np.ptp(made):
        raise detectors.nothing("every row gets the same score")
    return made


def _calibrated(
    detector: Detector, labels: Flags | None, held: Flags, margins: Floats
) -> tuple[dict[str, float], Scale]:
    """What scores mean, and how good they are on the rows held back.

    Raises:
        JobError: LearntNothing for a classifier that is no better than chance there.
    """
    if detector is not Detector.CLASSIFIER or labels is None:
        return {}, calibration.by_share(margins)
    if not held.any():
        return {}, Scale(Meaning.PROBABILITY, "none")
    truth, later = labels[held], margins[held]
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


def _explained(model: Model, values: Floats32, top: int, progress: Progress) -> tuple[Reasons, Floats]:
    parts: list[Floats] = []
    for start in range(0, max(len(values), 1), EXPLAINED):
        parts.append(model.trained.contributions(values[start : start + EXPLAINED]))
        progress.reach(min(start + EXPLAINED, len(values)))
    contributions = np.concatenate(parts)
    shown = [one.shown(values[:, at]) for at, one in enumerate(model.schema.features)]
    return explanations.reasons(model.schema.names, shown, contributions, top), contributions


@dataclass(frozen=True, slots=True)
class _Layout:
    """How tables are cut, and what was left out of the documents."""

    entities: int
    entity_type: str
    buckets: int
    documents: int
    without_document: int


def _write(spec: AnomalySpec, rows: Rows, found: Found, writer: RunWriter, progress: Progress) -> _Layout:
    """Write the model, the tables bucket by bucket, and the documents of entities."""
    for path, data in artefact.files(found.model, found.golden).items():
        writer.write_file(path, data)
        progress.advance()
    encoded = rows.keys.column("entity").combine_chunks().dictionary_encode()
    names: pa.Array = encoded.dictionary
    code = np.asarray(encoded.indices.to_numpy(zero_copy_only=False))
    buckets = bucket_count(len(names))
    bucket = bucket_of(names, buckets)[code]
    order = _order(rows, encoded)
    ordered = bucket[order]
    place = np.full(len(code), -1)
    place[found.flagged] = np.arange(len(found.flagged))
    for number in range(buckets):
        inside = order[ordered == number]
        told = place[inside]
        writer.write(number, _tables(rows, found, inside, told[told >= 0]))
        progress.advance()
    documents, without = _documents(spec, rows, found, code, names, writer, progress)
    return _Layout(len(names), str(names.type), buckets, documents, without)


def _order(rows: Rows, encoded: pa.DictionaryArray) -> Ints:
    """Rows by entity, then time, then as they were read."""
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(encoded.dictionary))
    own = rank[np.asarray(encoded.indices.to_numpy(zero_copy_only=False))]
    return np.lexsort((rows.ticks, own))


def _tables(rows: Rows, found: Found, inside: Ints, told: Ints) -> dict[str, pa.Table]:
    """The tables of some rows; `told` are the places in `found.flagged` of those that are flagged."""
    index = pa.array(inside)
    keys = rows.keys.take(index)
    scores = {
        "score": pa.array(found.scores[inside]),
        "margin": pa.array(found.margins[inside]),
        "flagged": pa.array(found.flags[inside]),
    }
    label = {} if rows.labels is None else {"label": pa.array(rows.labels[inside])}
    made = {"scores": pa.table({**_columns(keys), **label, **scores})}
    flagged = found.flagged[told]
    reasons = Reasons(
        found.reasons.names,
        found.reasons.feature[told],
        found.reasons.contribution[told],
        tuple(found.reasons.value[at] for at in told.tolist()),
    )
    made["contributions"] = explanations.table(rows.keys.take(pa.array(flagged)), found.scores[flagged], reasons)
    by_entity = pa.table({"entity": keys.column("entity"), "score": scores["score"], "flagged": scores["flagged"]})
    grouped = by_entity.group_by("entity", use_threads=False).aggregate(
        [([], "count_all"), ("flagged", "sum"), ("score", "max"), ("score", "mean")]
    )
    made["entities"] = grouped.select(["entity", "count_all", "flagged_sum", "score_max", "score_mean"]).rename_columns(
        ["entity", "rows", "flagged", "score", "mean_score"]
    )
    if rows.history is not None and rows.ledger is not None:
        past = rows.history.take(index)
        names = [{rows.ledger.entity: "entity", rows.ledger.time: "time"}.get(one, one) for one in past.column_names]
        made["ledger"] = past.rename_columns(names)
    return made


def _columns(table: pa.Table) -> dict[str, Any]:
    return {name: table.column(name) for name in table.column_names}


def _documents(
    spec: AnomalySpec,
    rows: Rows,
    found: Found,
    code: NDArray[Any],
    names: pa.Array,
    writer: RunWriter,
    progress: Progress,
) -> tuple[int, int]:
    """explanations/{entity}.json of the entities with flagged rows: how many, and how many more there would be."""
    by_entity: dict[int, list[int]] = {}
    for at in np.argsort(-found.margins[found.flagged], kind="stable").tolist():  # dicts keep order: the oddest first
        by_entity.setdefault(int(code[found.flagged[at]]), []).append(at)
    counts = np.bincount(code, minlength=len(names))
    texts = pc.cast(names, pa.string())

    def write(item: tuple[int, list[int]]) -> bool:
        entity, told = item
        name = f"{per_entity.encode(texts[entity].as_py())}.json"
        if len(name) > per_entity.MAX_NAME:
            return False
        document = {
            "entity": names[entity].as_py() if pa.types.is_integer(names.type) else texts[entity].as_py(),
            "rows": int(counts[entity]),
            "flagged": len(told),
            "score": float(found.scores[found.flagged[told]].max()),
            "features": explanations.of_entity(
                found.reasons.names, found.contributions[told], found.scores[found.flagged[told]], spec.explain.top_k
            ),
            "anomalies": [_row(found, rows, at) for at in told],
        }
        text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
        writer.write_file(f"explanations/{name}", text.encode())
        progress.advance()
        return True

    chosen = list(by_entity.items())[:DOCUMENTS]
    with ThreadPoolExecutor(objects.THREADS) as pool:
        written = sum(pool.map(write, chosen))
    return written, len(by_entity) - written


def _row(found: Found, rows: Rows, at: int) -> dict[str, Any]:
    """A flagged row as JSON, by its place among the flagged ones."""
    row = int(found.flagged[at])
    told = {name: rows.keys.column(name)[row].as_py() for name in rows.keys.column_names if name != "entity"}
    return {
        **{name: value if isinstance(value, int) else str(value) for name, value in told.items()},
        "score": float(found.scores[row]),
        "margin": float(found.margins[row]),
        "features": found.reasons.of_row(at),
    }


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that is known once the tables are written."""

    circumstances: Circumstances
    job: AnomalyJob
    rows: Rows
    found: Found
    layout: _Layout

    @property
    def versions(self) -> dict[str, str]:
        return {**self.circumstances.versions, "xgboost": xgb.__version__}

    @property
    def positives(self) -> int | None:
        return None if self.rows.labels is None else int(self.rows.labels.sum())


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
            "labelledPositives": facts.positives,
            "scoreIs": found.model.scale.meaning.value,
            "calibration": found.model.scale.how,
            "flagged": len(found.flagged),
            "features": list(rows.schema.names),
            "leftOut": dict(rows.left_out),
            "externalMemory": rows.matrix.external,
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
    worst = []
    for at in found.worst(WORST):
        row = int(found.flagged[at])
        keys = {name: str(rows.keys.column(name)[row].as_py()) for name in rows.keys.column_names}
        shown = [one.shown(take(rows.matrix, np.array([row]))[:, i])[0] for i, one in enumerate(rows.schema.features)]
        worst.append(Worst(keys, float(found.scores[row]), found.contributions[at], tuple(shown)))
    time = rows.keys.column("time")
    first, last = (str(one.as_py()) for one in (pc.min(time), pc.max(time)))
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
        first=first,
        last=last,
        notes={what: number for what, number in left.items() if number},
        durations=circumstances.durations,
        versions=facts.versions,
        detector=found.model.detector.value,
        why=found.why,
        positives=facts.positives,
        score_is=found.model.scale.meaning.value,
        calibration=found.model.scale.how,
        flagged=len(found.flagged),
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
