"""`layout: perEntity`: besides the tables, a folder with each entity's model, in the shape of a saved Spark ML model.

    {output}/{entity}/metadata/part-00000                  one JSON line: class, uid, parameters, as Spark ML writes it
    {output}/{entity}/data/part-00000-c000.snappy.parquet  its row of the parameters table
    .../_SUCCESS                                      beside each

Written once the run is complete. The same models give the same bytes: `timestamp` is the end of the entity's history.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from almanac.api import JobError, Reason
from almanac_jobs import objects
from almanac_jobs.artefacts import EVENTS, LATEST, RUNS
from almanac_jobs.storage import Location

MAX_ENTITIES = 10_000
"""Four objects an entity are slow to write and dear to list: beyond this, the bucketed tables serve better."""
MAX_NAME = 255
"""Bytes that the name of a folder may have."""
METADATA, DATA, SUCCESS = "metadata/part-00000", "data/part-00000-c000.snappy.parquet", "_SUCCESS"
_EMPTY = "%"
_SPARK = "4.0.0"  # whose layout this is: Spark ML reads the field before all others


def check_number(entities: int) -> None:
    """Refuse more entities than may have a folder each: InvalidSpec."""
    if entities > MAX_ENTITIES:
        raise JobError(
            Reason.INVALID_SPEC,
            f"spec.output.layout: perEntity is for at most {MAX_ENTITIES} entities, and the source has {entities}:"
            " use bucketed, from which one entity is as quick to read",
        )


def check_names(entities: pa.Array) -> None:
    """Refuse a name that no folder can have: DataError."""
    for name in pc.cast(entities, pa.string()).to_pylist():
        if len(encode(name)) > MAX_NAME:
            raise JobError(
                Reason.DATA_ERROR,
                f"spec.output.layout: entity `{name[:40]}…` is too long for the name of a folder: use bucketed",
            )


def encode(entity: str) -> str:
    """The name of an entity's folder: percent-encoded, and so that it is none of Almanac's own and never hidden."""
    encoded = quote(entity, safe="")
    if not encoded:
        return _EMPTY
    if encoded[0] in "._" or encoded in (RUNS, LATEST, EVENTS):
        encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
    return encoded


def decode(name: str) -> str:
    """The entity of a folder: the inverse of `encode`."""
    return "" if name == _EMPTY else unquote(name)


def write(output: Location, parameters: pa.Table, settings: Mapping[str, Any]) -> Iterator[str]:
    """Write the model of every row of `parameters`; yields each entity as it is done.

    `settings` are what forecasting needs besides: frequency, timeZone, intervals, floor. A folder that is there already
    is replaced file by file; each file is self-contained, and a reader of one needs no other of the same age.
    """
    names = pc.cast(parameters.column("entity"), pa.string()).to_pylist()
    ends = pc.cast(pc.cast(parameters.column("end"), pa.timestamp("ms")), pa.int64()).to_pylist()

    def work(row: int) -> str:
        _write_one(output / encode(names[row]), parameters.slice(row, 1), names[row], ends[row] or 0, settings)
        return str(names[row])

    with ThreadPoolExecutor(objects.THREADS) as pool:
        yield from pool.map(work, range(len(names)))
    objects.sync(output)


def _write_one(folder: Location, row: pa.Table, entity: str, end: int, settings: Mapping[str, Any]) -> None:
    model, form = (row.column(name)[0].as_py() for name in ("model", "form"))
    sink = pa.BufferOutputStream()
    pq.write_table(row, sink, compression="snappy")
    line = {
        "class": "almanac_jobs.model.EntityModel",
        "timestamp": end,
        "sparkVersion": _SPARK,
        "uid": f"{model}_{encode(entity)}",
        "paramMap": {"entity": entity, "form": form, **settings},
        "defaultParamMap": {},
    }
    files: dict[str, bytes | memoryview] = {
        DATA: memoryview(sink.getvalue()),
        f"data/{SUCCESS}": b"",
        METADATA: (json.dumps(line, ensure_ascii=False) + "\n").encode(),
        f"metadata/{SUCCESS}": b"",
    }
    for path, data in files.items():
        objects.write(folder / path, data, durable=False)


def read(folder: Location) -> tuple[pa.Table, dict[str, Any]] | None:
    """The row of the parameters table in a folder, and `paramMap`; None if the folder holds no model."""
    metadata = objects.read(folder / METADATA)
    data = None if metadata is None else objects.read(folder / DATA)
    if metadata is None or data is None:
        return None
    return pq.read_table(pa.BufferReader(data)), json.loads(metadata)["paramMap"]
