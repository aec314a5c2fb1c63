"""What becomes of files once they are read: rows of an earlier run that have changed leave it, small files are merged,
and buckets of entities are sorted. Files that nothing happens to stay where they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from almanac.api import JobError, Partition, PartitionBy, Reason
from almanac_jobs.engines.local import map_unordered
from almanac_jobs.extract.files import GROUP_ROWS, File, Writer, at
from almanac_jobs.extract.folders import Folders
from almanac_jobs.progress import Progress
from almanac_jobs.resources import memory_limit
from almanac_jobs.storage import Location, storage_errors

SMALL = 8 << 20
"""Bytes below which a file is small."""
MANY = 4
"""Small files of a folder that become fewer."""
LARGE = 64 << 20
"""Bytes of small files that become one."""
KEYS = 5_000_000
"""Rows that may have changed since the last run; above that, reading everything is quicker."""
SHARE = 0.5
"""Share of the memory that sorting may take."""
SORTING = 4
"""Memory that sorting takes, by the size of what is sorted."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Arranging:
    """Where files of a run lie, and what they are like. `mark` is part of the names of new ones."""

    run: Location
    scratch: Path
    schema: pa.Schema
    partition: Partition
    key: tuple[str, ...]
    mark: str
    threads: int
    progress: Progress

    def without(self, files: Sequence[File], changed: pa.Table) -> list[File]:
        """Files of an earlier run without the rows of some keys: those that have none stay, others are written anew."""

        def one(file: File) -> File | None:
            with self._opened(file) as source:
                hit = self._hits(source, changed)
                if hit is None or not hit.any():
                    return file
                return self._kept(file, source, hit)

        self.progress.start("merge", len(files), "files")
        return sorted(filter(None, self._each(one, files)), key=lambda file: file.path)

    def keys(self, files: Iterable[File]) -> pa.Table:
        """The keys of all rows of files."""
        parts = []
        for file in files:
            with self._opened(file) as source:
                parts.append(source.read(list(self.key)))
        schema = pa.schema([self.schema.field(name) for name in self.key]).remove_metadata()
        return pa.concat_tables([part.cast(schema) for part in parts]) if parts else schema.empty_table()

    def arrange(self, files: Sequence[File]) -> list[File]:
        """All files of a data set, with few of them small and buckets in one file each."""
        by_folder = {folder: list(some) for folder, some in groupby(sorted(files, key=_place), lambda one: one.folder)}
        work = {
            folder: some for folder, some in by_folder.items() if any(not one.path.startswith("..") for one in some)
        }
        self.progress.start("arrange", len(work), "folders")
        if self.partition.by is PartitionBy.ENTITY:
            self._check_memory(work)
            done = self._each(lambda folder: [self._sorted(folder, work[folder])], list(work))
        else:
            done = self._each(lambda folder: self._merged(folder, work[folder]), list(work))
        arranged = [file for some in done for file in some]
        return sorted(
            [*arranged, *(one for folder in by_folder.keys() - work.keys() for one in by_folder[folder])], key=_place
        )

    def _each(self, work: Any, items: Sequence[Any]) -> list[Any]:
        made = []
        for one in map_unordered(work, items, self.threads, self.progress):
            made.append(one)
            self.progress.advance()
        return made

    @contextmanager
    def _opened(self, file: File) -> Iterator[pq.ParquetFile]:
        place = at(self.run, file.path)
        with storage_errors(place), place.filesystem.open_input_file(place.path) as source:
            yield pq.ParquetFile(source)

    def _hits(self, source: pq.ParquetFile, changed: pa.Table) -> Flags | None:
        """Which rows have one of the keys; None if it is plain that none has."""
        near = _near(source, self.key[0], changed)
        if not len(near):
            return None
        own = source.read(list(self.key)).replace_schema_metadata(None)
        own = own.cast(near.schema)
        if len(self.key) == 1:
            return np.asarray(pc.is_in(own.column(0), near.column(0).combine_chunks()).to_numpy())
        numbered = own.append_column("almanac_row", pa.array(np.arange(len(own))))
        rows = numbered.join(near, list(self.key), join_type="left semi").column("almanac_row").to_numpy()
        hit = np.zeros(len(own), np.bool_)
        hit[rows] = True
        return hit

    def _kept(self, file: File, source: pq.ParquetFile, hit: Flags) -> File | None:
        name = f"kept-{hashlib.sha256(file.path.encode()).hexdigest()[:8]}"
        start = 0
        with self._writer(name) as (writer, made):
            for batch in source.iter_batches(GROUP_ROWS):
                stays = ~hit[start : start + batch.num_rows]
                start += batch.num_rows
                if stays.any():
                    writer.write_to(file.folder, self._cast(batch.filter(pa.array(stays))))
        return made[0] if made else None

    def _merged(self, folder: str, files: Sequence[File]) -> list[File]:
        """The files of a folder, of which small ones become larger ones if they are many."""
        small = [file for file in files if file.size < SMALL]
        if len(small) < MANY:
            return list(files)
        made = [file for file in files if file.size >= SMALL]
        starts = np.cumsum([0, *(file.size for file in small)])[:-1] // LARGE
        for number in np.unique(starts).tolist():
            with self._writer(f"merged-{number:05d}") as (writer, some):
                for file, start in zip(small, starts.tolist(), strict=True):
                    if start == number:
                        self._copy(file, folder, writer)
            made += some
        return made

    def _copy(self, file: File, folder: str, writer: Writer) -> None:
        with self._opened(file) as source:
            for batch in source.iter_batches(GROUP_ROWS):
                writer.write_to(folder, self._cast(batch))

    def _sorted(self, folder: str, files: Sequence[File]) -> File:
        """The rows of a bucket by entity, then key, in one file."""
        parts = []
        for file in files:
            with self._opened(file) as source:
                parts.append(source.read().cast(self.schema))
        table = pa.concat_tables(parts)
        by = [(name, "ascending") for name in dict.fromkeys((self.partition.column, *self.key))]
        order = pc.sort_indices(table, sort_keys=by)
        with self._writer("sorted") as (writer, made):
            for start in range(0, len(order), GROUP_ROWS):
                for batch in table.take(order.slice(start, GROUP_ROWS)).combine_chunks().to_batches():
                    writer.write_to(folder, batch)
        return made[0]

    def _check_memory(self, work: Mapping[str, Sequence[File]]) -> None:
        """Refuse buckets that cannot be sorted in memory, as many at a time as there are threads."""
        largest = 0
        for files in work.values():
            size = 0
            for file in files:
                with self._opened(file) as source:
                    groups = range(source.metadata.num_row_groups)
                    size += sum(source.metadata.row_group(group).total_byte_size for group in groups)
            largest = max(largest, size)
        need, limit = largest * SORTING * self.threads, SHARE * memory_limit()
        if need > limit:
            raise JobError(
                Reason.TOO_BIG_FOR_LOCAL,
                f"spec.partition.buckets: the largest of {self.partition.buckets} buckets has {largest / 2**20:,.0f} "
                f"MiB, and {self.threads} at a time do not fit into memory: write a larger power of two, fewer "
                "connections, or give the run more memory",
            )

    @contextmanager
    def _writer(self, name: str) -> Iterator[tuple[Writer, list[File]]]:
        """A writer, and the files that it has written at the end of the block."""
        folders = Folders(Partition())
        writer = Writer(self.run, self.scratch, self.schema, folders, f"{name}.{self.mark}.parquet")
        made: list[File] = []
        try:
            yield writer, made
        except BaseException:
            writer.discard()
            raise
        made += writer.close()

    def _cast(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)


def referred(files: Iterable[File], run: str) -> list[File]:
    """Files of an earlier run as another run of the same output names them."""
    return [file if file.path.startswith("..") else replace(file, path=f"../{run}/{file.path}") for file in files]


def _place(file: File) -> tuple[str, str]:
    return file.folder, file.path.rsplit("/", 1)[-1]


def _near(source: pq.ParquetFile, name: str, changed: pa.Table) -> pa.Table:
    """The keys that may be in a file, by the statistics of their first column."""
    metadata = source.metadata
    place = next(at for at in range(metadata.num_columns) if metadata.schema.column(at).path == name)
    column, found = changed.column(name), None
    for group in range(metadata.num_row_groups):
        told = metadata.row_group(group).column(place).statistics
        if told is None or not told.has_min_max:
            return changed
        try:
            low, high = (pa.scalar(bound, column.type) for bound in (told.min, told.max))
        except (pa.ArrowException, TypeError, ValueError):
            return changed
        inside = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
        found = inside if found is None else pc.or_(found, inside)
    return changed if found is None else changed.filter(found)
