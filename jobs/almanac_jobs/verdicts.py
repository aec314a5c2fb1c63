"""What a detector says of rows, as tables bucket by bucket and as a document for each entity with flagged rows.

Rows are judged where they lie. The rows of a bucket come together to be written, without their features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac_jobs import objects, per_entity
from almanac_jobs.anomaly import explanations
from almanac_jobs.anomaly.artefact import Model
from almanac_jobs.anomaly.explanations import Reasons
from almanac_jobs.anomaly.ledger import Ledger
from almanac_jobs.anomaly.matrix import Flags, Floats, Ints, take
from almanac_jobs.artefacts import Files, RunWriter
from almanac_jobs.buckets import bucket_count, bucket_of
from almanac_jobs.crew import Crew, Held, Reach
from almanac_jobs.judged import Share
from almanac_jobs.progress import Progress

DOCUMENTS = 10_000
"""Entities that get a JSON document of their own, the oddest first: more files are slow to write and dear to list."""
EXPLAINED = 10_000
"""Rows that are explained at a time."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """n rows with what is said of them; `number` are their numbers over all rows.

    Of the m rows that are flagged, `place` are the places among the n, in their order; `reasons` and `contributions`
    tell more of them.
    """

    number: Ints
    keys: pa.Table
    labels: Flags | None
    history: pa.Table | None
    margins: Floats
    scores: Floats
    flags: Flags
    place: Ints
    reasons: Reasons
    contributions: Floats

    def take(self, rows: Ints) -> Sheet:
        """Some rows, in the order that is asked for."""
        told = np.full(len(self.number), -1)
        told[self.place] = np.arange(len(self.place))
        some = told[rows]
        flagged = some[some >= 0]
        return Sheet(
            self.number[rows],
            self.keys.take(pa.array(rows)),
            None if self.labels is None else self.labels[rows],
            None if self.history is None else self.history.take(pa.array(rows)),
            self.margins[rows],
            self.scores[rows],
            self.flags[rows],
            np.flatnonzero(some >= 0),
            self.reasons.take(flagged),
            self.contributions[flagged],
        )

    def row(self, at: int) -> dict[str, Any]:
        """A flagged row as JSON, by its number among the flagged ones."""
        row = int(self.place[at])
        told = {name: self.keys.column(name)[row].as_py() for name in self.keys.column_names if name != "entity"}
        return {
            **{name: value if isinstance(value, int) else str(value) for name, value in told.items()},
            "score": float(self.scores[row]),
            "margin": float(self.margins[row]),
            "features": self.reasons.of_row(at),
        }


@dataclass(frozen=True, slots=True)
class Worst:
    """One of the oddest rows: its keys, and of each feature the value and what it adds; `row` is as in documents."""

    number: int
    margin: float
    score: float
    keys: Mapping[str, str]
    shown: tuple[str | None, ...]
    contributions: Floats
    row: Mapping[str, Any]


def judge(share: Share, first: int, model: Model, margins: Floats, top: int, reach: Reach) -> Sheet:
    """What a detector says of rows by their margins, the first of which has the number `first`."""
    flags = model.flags(margins)
    place = np.flatnonzero(flags)
    values = take(share.matrix, place)
    parts: list[Floats] = []
    for start in range(0, max(len(values), 1), EXPLAINED):
        parts.append(model.trained.contributions(values[start : start + EXPLAINED]))
        reach(min(start + EXPLAINED, len(values)))
    contributions = np.concatenate(parts)
    shown = [one.shown(values[:, at]) for at, one in enumerate(model.schema.features)]
    return Sheet(
        number=np.arange(first, first + len(margins)),
        keys=share.keys,
        labels=share.labels,
        history=share.history,
        margins=margins,
        scores=model.scale.scores(margins),
        flags=flags,
        place=place,
        reasons=explanations.reasons(model.schema.names, shown, contributions, top),
        contributions=contributions,
    )


def worst(crew: Crew, shares: Held[Share], sheets: Held[Sheet], model: Model, count: int) -> list[Worst]:
    """The flagged rows with the highest margins, the oddest first."""
    found = [one for some in crew.fetch(crew.each(_worst, shares, sheets, model, count)) for one in some]
    return sorted(found, key=lambda one: (-one.margin, one.number))[:count]


def _worst(share: Share, sheet: Sheet, model: Model, count: int) -> list[Worst]:
    order = np.argsort(-sheet.margins[sheet.place], kind="stable")[:count].tolist()
    made = []
    for at in order:
        row = int(sheet.place[at])
        values = take(share.matrix, np.array([row]))
        made.append(
            Worst(
                int(sheet.number[row]),
                float(sheet.margins[row]),
                float(sheet.scores[row]),
                {name: str(sheet.keys.column(name)[row].as_py()) for name in sheet.keys.column_names},
                tuple(one.shown(values[:, at])[0] for at, one in enumerate(model.schema.features)),
                sheet.contributions[at],
                sheet.row(at),
            )
        )
    return made


@dataclass(frozen=True, slots=True)
class Layout:
    """How tables are cut, and what was left out of the documents."""

    entities: int
    entity_type: str
    buckets: int
    documents: int
    without_document: int


def write(crew: Crew, sheets: Held[Sheet], model: Model, top: int, writer: RunWriter, progress: Progress) -> Layout:
    """Write the tables bucket by bucket, and the documents of entities."""
    names = crew.each(_names, sheets)
    if crew.size > 1:
        names = crew.each(_distinct, crew.exchange(crew.each(_by_name, names, crew.size)))
    numbers, kinds = zip(*crew.fetch(crew.each(_count, names)), strict=True)
    entities = sum(numbers)
    buckets = bucket_count(entities)
    if crew.size > 1:
        sheets = crew.each(_one, crew.exchange(crew.each(_by_bucket, sheets, buckets, crew.size)))
    progress.start("write", buckets, "buckets")
    places = crew.deal(list(range(crew.size)))
    files = crew.counted(_write_tables, sheets, places, crew.size, buckets, model.ledger, writer)
    for written in crew.fetch(files):
        writer.register(written)
    oddest = crew.fetch(crew.each(_oddest, sheets))
    ranked = sorted(one for some in oddest for one in some)[:DOCUMENTS]
    chosen = [sum(one in of for one in ranked) for of in (set(some) for some in oddest)]
    progress.start("documents", sum(chosen), "entities")
    done = crew.fetch(crew.counted(_write_documents, sheets, crew.deal(chosen), top, writer))
    for written in done:
        writer.register(written)
    documents = sum(map(len, done))
    return Layout(entities, kinds[0], buckets, documents, sum(map(len, oddest)) - documents)


def _names(sheet: Sheet) -> pa.Array:
    return pc.unique(sheet.keys.column("entity"))


def _by_name(names: pa.Array, places: int) -> list[pa.Array]:
    home = bucket_of(names, 1 << 16) % places
    return [names.filter(pa.array(home == at)) for at in range(places)]


def _distinct(there: list[pa.Array]) -> pa.Array:
    return pc.unique(pa.chunked_array(there))


def _count(names: pa.Array) -> tuple[int, str]:
    return len(names), str(names.type)


def _by_bucket(sheet: Sheet, buckets: int, places: int) -> list[Sheet]:
    home = _bucket(sheet, buckets) % places
    return [sheet.take(np.flatnonzero(home == at)) for at in range(places)]


def _bucket(sheet: Sheet, buckets: int) -> NDArray[np.int32]:
    code, names = _coded(sheet)
    return bucket_of(names, buckets)[code]


def _coded(sheet: Sheet) -> tuple[Ints, pa.Array]:
    encoded = sheet.keys.column("entity").combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False)).astype(np.int64), encoded.dictionary


def _one(there: Sequence[Sheet]) -> Sheet:
    """Sheets that follow one another as one."""

    def tables(found: list[pa.Table | None]) -> pa.Table | None:
        return None if found[0] is None else pa.concat_tables(found).combine_chunks()

    starts = np.cumsum([0, *(len(one.number) for one in there)])
    return Sheet(
        number=np.concatenate([one.number for one in there]),
        keys=pa.concat_tables([one.keys for one in there]).combine_chunks(),
        labels=None if there[0].labels is None else np.concatenate([one.labels for one in there]),
        history=tables([one.history for one in there]),
        margins=np.concatenate([one.margins for one in there]),
        scores=np.concatenate([one.scores for one in there]),
        flags=np.concatenate([one.flags for one in there]),
        place=np.concatenate([one.place + start for one, start in zip(there, starts, strict=False)]),
        reasons=Reasons.concat([one.reasons for one in there]),
        contributions=np.concatenate([one.contributions for one in there]),
    )


def _write_tables(
    sheet: Sheet, place: int, places: int, buckets: int, ledger: Ledger | None, writer: RunWriter, reach: Reach
) -> Files:
    """The buckets of a place."""
    bucket = _bucket(sheet, buckets)
    order = _order(sheet)
    ordered = bucket[order]
    written: dict[str, Mapping[str, Any]] = {}
    for done, number in enumerate(range(place, buckets, places), 1):
        written |= writer.write(number, _tables(sheet.take(order[ordered == number]), ledger))
        reach(done)
    return written


def _order(sheet: Sheet) -> Ints:
    """Rows by entity, then time, then as they were read."""
    code, names = _coded(sheet)
    rank = np.empty(len(names), np.int64)
    rank[pc.sort_indices(names).to_numpy()] = np.arange(len(names))
    time = sheet.keys.column("time")
    ticks = np.asarray(time.cast(pa.int32() if pa.types.is_date32(time.type) else pa.int64()).to_numpy(), np.int64)
    return np.lexsort((ticks, rank[code]))


def _tables(sheet: Sheet, ledger: Ledger | None) -> dict[str, pa.Table]:
    keys = sheet.keys
    scores = {"score": pa.array(sheet.scores), "margin": pa.array(sheet.margins), "flagged": pa.array(sheet.flags)}
    label = {} if sheet.labels is None else {"label": pa.array(sheet.labels)}
    made = {"scores": pa.table({**_columns(keys), **label, **scores})}
    made["contributions"] = explanations.table(
        keys.take(pa.array(sheet.place)), sheet.scores[sheet.place], sheet.reasons
    )
    by_entity = pa.table({"entity": keys.column("entity"), "score": scores["score"], "flagged": scores["flagged"]})
    grouped = by_entity.group_by("entity", use_threads=False).aggregate(
        [([], "count_all"), ("flagged", "sum"), ("score", "max"), ("score", "mean")]
    )
    made["entities"] = grouped.select(["entity", "count_all", "flagged_sum", "score_max", "score_mean"]).rename_columns(
        ["entity", "rows", "flagged", "score", "mean_score"]
    )
    if sheet.history is not None and ledger is not None:
        past = sheet.history
        names = [{ledger.entity: "entity", ledger.time: "time"}.get(one, one) for one in past.column_names]
        made["ledger"] = past.rename_columns(names)
    return made


def _columns(table: pa.Table) -> dict[str, Any]:
    return {name: table.column(name) for name in table.column_names}


def _by_entity(sheet: Sheet) -> Iterator[tuple[int, list[int]]]:
    """The entities with flagged rows, and these, by their numbers among the flagged ones: the oddest first."""
    code, _ = _coded(sheet)
    found: dict[int, list[int]] = {}
    for at in np.lexsort((sheet.number[sheet.place], -sheet.margins[sheet.place])).tolist():  # dicts keep order
        found.setdefault(int(code[sheet.place[at]]), []).append(at)
    yield from found.items()


def _oddest(sheet: Sheet) -> list[tuple[float, int]]:
    """Of each entity with flagged rows, what sorts it: less the margin of its oddest row, and the row's number."""
    rows = [int(sheet.place[told[0]]) for _, told in _by_entity(sheet)]
    return [(-float(sheet.margins[row]), int(sheet.number[row])) for row in rows]


def _write_documents(sheet: Sheet, count: int, top: int, writer: RunWriter, reach: Reach) -> Files:
    """explanations/{entity}.json of the `count` oddest entities with flagged rows."""
    code, names = _coded(sheet)
    counts = np.bincount(code, minlength=len(names))
    texts = pc.cast(names, pa.string())

    def write(item: tuple[int, list[int]]) -> Files:
        entity, told = item
        name = f"{per_entity.encode(texts[entity].as_py())}.json"
        if len(name) > per_entity.MAX_NAME:
            return {}
        scores = sheet.scores[sheet.place[told]]
        document = {
            "entity": names[entity].as_py() if pa.types.is_integer(names.type) else texts[entity].as_py(),
            "rows": int(counts[entity]),
            "flagged": len(told),
            "score": float(scores.max()),
            "features": explanations.of_entity(sheet.reasons.names, sheet.contributions[told], scores, top),
            "anomalies": [sheet.row(at) for at in told],
        }
        text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
        return writer.write_file(f"explanations/{name}", text.encode())

    written: dict[str, Mapping[str, Any]] = {}
    chosen = [item for item, _ in zip(_by_entity(sheet), range(count), strict=False)]
    with ThreadPoolExecutor(objects.THREADS) as pool:
        for done, files in enumerate(pool.map(write, chosen), 1):
            written |= files
            reach(done)
    return written
