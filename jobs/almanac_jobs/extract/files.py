"""Parquet files of a data set: written in bounded memory, beside where they are to be, and put there whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from almanac_jobs import objects
from almanac_jobs.extract.folders import Folders
from almanac_jobs.storage import Location, open_location, storage_errors

DATA = "data"
"""Folder of a run with its data set."""
GROUP_ROWS = 131_072
GROUP_BYTES = 16 << 20
"""Rows and bytes in memory that become a row group."""
LOOKED_AT = 4_096
"""Rows that say how columns are written."""
HELD_BYTES = 48 << 20
"""Bytes that wait for their row groups to be full, of all folders of a range."""


_WRITING = ".writing-"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a data set; `path` is below the run's folder, or leads to an earlier run's (`../{run}/data/...`)."""

    path: str
    size: int
    sha256: str
    rows: int

    @property
    def folder(self) -> str:
        """The folder of the data set that it is in: year=2024/month=03."""
        return "/".join(name for name in self.path.split("/") if "=" in name)

    def to_json(self) -> dict[str, Any]:
        """The file as JSON has it."""
        return {"path": self.path, "size": self.size, "sha256": self.sha256, "rows": self.rows}


@contextmanager
def scratch(run: Location) -> Iterator[Path]:
    """A folder for files that are being written: on the disk of the run, where that is local."""
    if run.bucket is None:
        with storage_errors(run, writing=True):
            Path(run.path).mkdir(parents=True, exist_ok=True)
            for left in Path(run.path).glob(f"{_WRITING}*"):  # by an attempt that was killed
                shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=_WRITING, dir=run.path))
    else:
        folder = Path(tempfile.mkdtemp(prefix="almanac-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class _Open:
    """A file that is being written, and the rows that wait for its next row group. It begins with the first one."""

    place: Path
    writer: pq.ParquetWriter | None = None
    rows: int = 0
    held: list[pa.RecordBatch] = field(default_factory=list)
    held_rows: int = 0
    held_bytes: int = 0


class Writer:
    """Writes rows to one file for each folder: data/{folder}/{name}. Nothing is seen before `close`."""

    def __init__(self, run: Location, scratch: Path, schema: pa.Schema, folders: Folders, name: str) -> None:
        self._run = run
        self._scratch = scratch
        self._beside = run if run.bucket is None else open_location(str(scratch), None, field=run.field)
        """Where files are while they are being written, for messages."""
        self._schema = schema
        self._folders = folders
        self._name = name
        self._open: dict[str, _Open] = {}

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows, each to its folder."""
        for folder, rows in self._folders.split(batch):
            self.write_to(folder, rows)

    def write_to(self, folder: str, rows: pa.RecordBatch) -> None:
        """Write rows that are known to belong to a folder."""
        one = self._open.get(folder)
        if one is None:
            handle, place = tempfile.mkstemp(dir=self._scratch)
            os.close(handle)
            one = self._open[folder] = _Open(Path(place))
        one.held.append(rows)
        one.held_rows += rows.num_rows
        one.held_bytes += rows.nbytes
        if one.held_rows >= GROUP_ROWS or one.held_bytes >= GROUP_BYTES:
            self._flush(one)
        elif sum(other.held_bytes for other in self._open.values()) >= HELD_BYTES:
            self._flush(max(self._open.values(), key=lambda other: other.held_bytes))

    def discard(self) -> None:
        """Give up what was written."""
        for one in self._open.values():
            with suppress(OSError, pa.ArrowException):
                if one.writer is not None:
                    one.writer.close()
            one.place.unlink(missing_ok=True)
        self._open = {}

    def _flush(self, one: _Open) -> None:
        if one.held:
            rows = pa.Table.from_batches(one.held, self._schema)
            with storage_errors(self._beside, writing=True):
                if one.writer is None:
                    one.writer = pq.ParquetWriter(one.place, self._schema, compression="zstd", **encodings(rows))
                one.writer.write_table(rows, row_group_size=one.held_rows)
            one.rows += one.held_rows
            one.held, one.held_rows, one.held_bytes = [], 0, 0

    def close(self) -> list[File]:
        """Put the files where they belong."""
        made = []
        for folder, one in sorted(self._open.items()):
            self._flush(one)
            with storage_errors(self._beside, writing=True):
                assert one.writer is not None  # noqa: S101 - a file is opened for rows
                one.writer.close()
            path = "/".join(filter(None, (DATA, folder, self._name)))
            size, digest = put(one.place, self._run / path)
            made.append(File(path, size, digest, one.rows))
        return made


def encodings(rows: pa.Table) -> dict[str, Any]:
    """How columns like these are best written, as options of pyarrow: a dictionary where values occur again and again,
    differences where they are numbers or times, bytes of a kind side by side where they are floats.

    Half the time and half the size of a dictionary for everything, which is given up late where no values are alike.
    """
    some = rows.slice(0, LOOKED_AT)
    dictionary, others = [], {}
    for column in rows.schema:
        if pa.types.is_nested(column.type):
            dictionary.append(f"{column.name}.list.element")
        elif pc.count_distinct(some.column(column.name)).as_py() * 2 < len(some):
            dictionary.append(column.name)
        elif pa.types.is_integer(column.type) or pa.types.is_temporal(column.type):
            others[column.name] = "DELTA_BINARY_PACKED"
        elif pa.types.is_floating(column.type):
            others[column.name] = "BYTE_STREAM_SPLIT"
    return {"use_dictionary": dictionary, "column_encoding": others or None}


def put(file: Path, location: Location) -> tuple[int, str]:
    """Move a local file to where it belongs, in one step. Gives its size and sha256."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    size = file.stat().st_size
    objects.move(file, location)
    return size, digest


def written(location: Location, schema: pa.Schema) -> tuple[int, str]:
    """Write a file that has columns and no rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    objects.write(location, data)
    return len(data), hashlib.sha256(data).hexdigest()


def at(run: Location, path: str) -> Location:
    """A file of a data set by its path, which may lead out of the run's folder (`../{run}/...`)."""
    place, steps = run, path.split("/")
    if steps[0] == "..":
        runs = run.path.rstrip("/").rsplit("/", 1)[0]
        uri = run.uri.rstrip("/").rsplit("/", 1)[0]
        place = Location(run.filesystem, runs, uri, run.field, run.service, run.credentials, run.s3_client)
        steps = steps[1:]
    for step in steps:
        place = place / step
    return place
