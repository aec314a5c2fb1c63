"""A Parquet data set as a job names it: its files, the types of the columns that are read, and their rows in batches.

A data set is one file or a folder, whose folders may be called `column=value` (hive partitions: columns like others).
Names that start with `_` or `.` or end with `.crc` are not data. Files may have been written at different times by
different programs: a column that one lacks is null there, and types widen where nothing is lost (int32 and int64, a
dictionary and its values).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from almanac.api import AnomalySource, JobError, Reason, Source, Storage
from almanac.api.model import nearest
from almanac_jobs.source import filters, partitions
from almanac_jobs.source.columns import check_keys, check_roles, common_type
from almanac_jobs.source.expressions import expression
from almanac_jobs.source.place import FIELD, below, files_of, locate
from almanac_jobs.storage import Location, storage_errors

BATCH_ROWS = 131_072
REMOTE_READS = 16
"""Files of an object store that are looked at side by side: it answers slowly, but many at once."""


@dataclass(frozen=True, slots=True)
class File:
    """A Parquet file with rows. `types` are those of the columns that the job reads, as far as the file has them."""

    uri: str
    fragment: ds.ParquetFileFragment
    rows: int
    types: Mapping[str, pa.DataType]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What footers say of a data set. `types` are those of the columns that the job reads, over all files."""

    location: Location
    source: Source | AnomalySource
    condition: filters.Condition | None
    files: tuple[File, ...]
    types: Mapping[str, pa.DataType]
    bytes: int
    """Size of all files."""

    @property
    def rows(self) -> int:
        """Rows of all files, whether they meet the filter or not."""
        return sum(file.rows for file in self.files)

    @property
    def uncompressed(self) -> int:
        """Bytes of the columns that the job reads, in all files, before they were compressed."""
        return sum(_uncompressed(file.fragment.metadata, self.types) for file in self.files)

    @property
    def columns(self) -> dict[str, str]:
        """The columns of batches (`scan`), and the source's own that they are: by roles, or as they are."""
        if isinstance(self.source, AnomalySource):
            return {name: name for name in self.types}
        return {role: getattr(self.source.columns, role) for role in ("entity", "time", "value")}


@dataclass(frozen=True, slots=True)
class Piece:
    """Some row groups of a file, which follow one another; the other fields are as in `File`."""

    path: str
    uri: str
    partition: ds.Expression
    row_groups: tuple[int, ...]
    rows: int
    types: Mapping[str, pa.DataType]


@dataclass(frozen=True, slots=True)
class Portion:
    """Some rows of a data set, for another process: it holds no connection and no credentials."""

    source: Source | AnomalySource
    storage: Storage | None
    pieces: tuple[Piece, ...]
    types: Mapping[str, pa.DataType]

    @property
    def rows(self) -> int:
        """Rows, whether they meet the filter or not."""
        return sum(piece.rows for piece in self.pieces)

    def open(self) -> Dataset:
        """These rows alone, as a data set; its size in bytes is not known (0).

        Raises:
            JobError: as `storage.open_location` does.
        """
        location = locate(self.source, self.storage)
        layout = _layout(self.source.columns.entity)
        files = [
            File(
                piece.uri,
                layout.make_fragment(piece.path, location.filesystem, piece.partition, row_groups=piece.row_groups),
                piece.rows,
                piece.types,
            )
            for piece in self.pieces
        ]
        condition = filters.parse(self.source.filter) if self.source.filter else None
        return Dataset(location, self.source, condition, tuple(files), self.types, 0)


def portions(dataset: Dataset, storage: Storage | None, rows: int) -> list[Portion]:
    """The data set in portions of about `rows` rows each, as far as its row groups allow, in their order."""
    pieces: list[tuple[int, Piece]] = []
    seen = 0
    for file in dataset.files:
        metadata = file.fragment.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        homes = [
            max(before + size // 2, 0) // rows
            for before, size in zip(accumulate(sizes, initial=seen), sizes, strict=False)
        ]
        for home, groups in groupby(range(len(sizes)), key=homes.__getitem__):
            chosen = tuple(groups)
            count = sum(sizes[group] for group in chosen)
            fragment = file.fragment
            pieces.append(
                (home, Piece(fragment.path, file.uri, fragment.partition_expression, chosen, count, file.types))
            )
        seen += sum(sizes)
    return [
        Portion(dataset.source, storage, tuple(piece for _, piece in some), dataset.types)
        for _, some in groupby(pieces, key=lambda one: one[0])
    ]


def open_dataset(source: Source, storage: Storage | None) -> Dataset:
    """Look at the files of a source and at their footers, not at their rows.

    Raises:
        JobError: InvalidSpec for a filter that cannot be parsed, SourceNotFound, SourceEmpty, DataError (a file is not
            Parquet, a column is missing, types do not agree), or what storage refuses.
    """
    condition = filters.parse(source.filter) if source.filter else None
    fields = dict.fromkeys(sorted(filters.columns(condition)) if condition else (), filters.FIELD)
    fields |= {name: f"spec.source.columns.{role}" for role, name in source.columns.model_dump().items()}
    location = locate(source, storage)
    infos = files_of(source, location)
    files = [file for file in _read_footers(location, infos, source.columns.entity, frozenset(fields)) if file.rows]
    if not files:
        raise JobError(Reason.SOURCE_EMPTY, f"{location.field}: `{source.place}` holds no row")
    types = {name: _type(name, field, files) for name, field in fields.items()}
    check_roles(source.columns, types)
    return Dataset(location, source, condition, tuple(files), types, sum(info.size for info in infos))


def open_columns(
    source: AnomalySource,
    storage: Storage | None,
    wanted: Callable[[Mapping[str, pa.DataType]], Mapping[str, str]],
) -> Dataset:
    """As `open_dataset`, of a source any of whose columns may be read.

    `wanted` is told the columns that there are, each of the type that it has first, and gives those to read besides
    entity, time and id, with the fields of the job that ask for them; it may raise.
    """
    condition = filters.parse(source.filter) if source.filter else None
    location = locate(source, storage)
    infos = files_of(source, location)
    files = [file for file in _read_footers(location, infos, source.columns.entity, None) if file.rows]
    if not files:
        raise JobError(Reason.SOURCE_EMPTY, f"{location.field}: `{source.place}` holds no row")
    there: dict[str, pa.DataType] = dict.fromkeys(files[0].fragment.physical_schema.names, pa.null())
    for file in reversed(files):
        there.update(file.types)
    roles = {name: role for role, name in source.columns.model_dump(exclude_none=True).items()}
    fields = {name: f"spec.source.columns.{role}" for name, role in roles.items()}
    for name, field in fields.items():
        _type(name, field, files)  # which raises if it is not there, before anything else is said
    fields |= {name: field for name, field in wanted(there).items() if name not in fields}
    fields |= dict.fromkeys((sorted(filters.columns(condition)) if condition else ()), filters.FIELD)
    types = {name: _type(name, field, files) for name, field in fields.items()}
    check_keys(source.columns, types)
    files = [replace(file, types={name: kind for name, kind in file.types.items() if name in types}) for file in files]
    return Dataset(location, source, condition, tuple(files), types, sum(info.size for info in infos))


def scan(dataset: Dataset, *, frugal: bool = False) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The rows that meet the filter, with the data set's `columns`, and how many rows are gone through.

    Each column is of its own file's type, entities as dictionaries where they are text. The number counts rows of the
    data set, also those that the filter leaves out. Memory is bounded by a few row groups; `frugal` reads none
    ahead.

    Raises:
        JobError: DataError for a file that cannot be decoded or a filter that does not fit its column, or what storage
            refuses.
    """
    alike: dict[pa.Schema, list[File]] = {}
    for file in dataset.files:
        alike.setdefault(_schema(dataset, file), []).append(file)
    done = 0
    for schema, files in alike.items():
        yield from ((batch, done + seen) for batch, seen in _scan_alike(dataset, schema, files, frugal=frugal))
        done += sum(file.rows for file in files)


def _scan_alike(
    dataset: Dataset, schema: pa.Schema, files: Sequence[File], *, frugal: bool
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Scan files whose columns have the same types."""
    scanner = _scanner(dataset, schema, files, frugal=frugal)
    by_path = {file.fragment.path: at for at, file in enumerate(files)}
    before = [0, *accumulate(file.rows for file in files)]
    at, seen = 0, 0
    batches = scanner.scan_batches()
    while True:
        with _readable(dataset, schema, files[at:]):
            tagged = next(batches, None)
        if tagged is None:
            return _check_rows(dataset, files[at], seen)
        now = by_path[tagged.fragment.path]
        if now != at:
            _check_rows(dataset, files[at], seen)
        seen = tagged.record_batch.num_rows + (seen if now == at else 0)
        at = now
        yield tagged.record_batch, before[at] + min(seen, files[at].rows)


def _check_rows(dataset: Dataset, file: File, rows: int) -> None:
    """Refuse a file that has ended early, which Arrow takes for its end. Where there is a filter, nobody knows."""
    if dataset.condition is None and rows != file.rows:
        words = f"its footer speaks of {file.rows:,} rows, and it holds {rows:,}"
        raise _damaged(file.uri, ValueError(words))


def _scanner(dataset: Dataset, schema: pa.Schema, files: Sequence[File], *, frugal: bool = False) -> ds.Scanner:
    remote = dataset.location.bucket is not None
    condition = None
    if dataset.condition:
        types = dict(zip(schema.names, schema.types, strict=True))
        condition = expression(dataset.condition, types, dataset.source.time_zone)
    fragments = [file.fragment for file in files]
    return ds.FileSystemDataset(fragments, schema, fragments[0].format, dataset.location.filesystem).scanner(
        columns={name: ds.field(column) for name, column in dataset.columns.items()},
        filter=condition,
        batch_size=BATCH_ROWS // 8 if frugal else BATCH_ROWS,
        batch_readahead=0 if frugal else 4,
        fragment_readahead=0 if frugal else 8 if remote else 2,
        # What is read ahead of a local file is in the page cache, and need not be in this process, too.
        fragment_scan_options=_options(ahead=remote or not frugal),
    )


@contextmanager
def _readable(dataset: Dataset, schema: pa.Schema, files: Sequence[File]) -> Iterator[None]:
    """Name the file that cannot be decoded: the first of `files`, in reading order, that fails again by itself."""
    try:
        with storage_errors(dataset.location):
            yield
    except (pa.ArrowException, OSError) as error:
        culprit = next((file for file in files if not _decodes(dataset, schema, file)), files[0])
        raise _damaged(culprit.uri, error) from error


def _decodes(dataset: Dataset, schema: pa.Schema, file: File) -> bool:
    try:
        for _ in _scanner(dataset, schema, [file]).to_batches():
            pass
    except (pa.ArrowException, OSError):
        return False
    return True


def _damaged(uri: str, error: Exception) -> JobError:
    words = str(error).splitlines()[0].split(": ")[-1].rstrip(".")
    return JobError(
        Reason.DATA_ERROR, f"{FIELD}: `{uri}` cannot be read as Parquet ({words}): write it again, or remove it"
    )


def _schema(dataset: Dataset, file: File) -> pa.Schema:
    """The columns that the job reads as `file` has them; those that it lacks are null, of the type of other files."""
    return pa.schema([(name, file.types.get(name, kind)) for name, kind in dataset.types.items()])


def _type(name: str, field: str, files: Sequence[File]) -> pa.DataType:
    """The type of a column over all files; `field` is the job's field that names the column."""
    if any(name in file.types for file in files):
        return common_type(field, name, ((file.uri, file.types[name]) for file in files if name in file.types))
    fragment = files[0].fragment
    names = [*fragment.physical_schema.names, *ds.get_partition_keys(fragment.partition_expression)]
    if name in names:
        return pa.null()
    meant = nearest(name, names)
    shown = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
    raise JobError(
        Reason.DATA_ERROR,
        f"{field}: there is no column `{name}` in `{files[0].uri}`: it has {shown}"
        + (f": did you mean `{meant}`?" if meant else ""),
    )


def _uncompressed(metadata: pq.FileMetaData, names: Container[str]) -> int:
    found = [at for at in range(metadata.num_columns) if metadata.schema.column(at).path.split(".")[0] in names]
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    return sum(group.column(at).total_uncompressed_size for group in groups for at in found)


def _layout(entity: str) -> ds.ParquetFileFormat:
    """How files are read; `entity` is a column of which each text is read once."""
    return ds.ParquetFileFormat(
        # Old timestamps, of 96 bits, reach further than Arrow's nanoseconds, which would wrap around.
        ds.ParquetReadOptions(dictionary_columns=[entity], coerce_int96_timestamp_unit="us"),
        _options(),
    )


def _options(*, ahead: bool = True) -> ds.ParquetFragmentScanOptions:
    return ds.ParquetFragmentScanOptions(page_checksum_verification=True, pre_buffer=ahead)


def _read_footers(
    location: Location, infos: Sequence[pafs.FileInfo], entity: str, needed: frozenset[str] | None
) -> list[File]:
    """The files with the types of the columns that are `needed` (None: of all)."""
    paths = [below(location, info) for info in infos]
    hive = partitions.values_of(paths, exact=entity)
    layout = _layout(entity)

    def read(info: pafs.FileInfo, path: str, values: partitions.Values) -> File:
        uri = (location / path).uri if path else location.uri
        fragment = layout.make_fragment(info.path, location.filesystem, partitions.expression(values))
        try:
            with storage_errors(location):
                rows, schema = fragment.metadata.num_rows, fragment.physical_schema
        except (pa.ArrowException, OSError) as error:
            raise _damaged(uri, error) from error
        inside = set(schema.names)
        asked = inside | set(values) if needed is None else needed
        if inside & set(values):  # what the rows say counts more than the folder's name
            values = {name: value for name, value in values.items() if name not in inside}
            fragment = layout.make_fragment(info.path, location.filesystem, partitions.expression(values))
        twice = [name for name in sorted(asked & inside) if len(schema.get_all_field_indices(name)) > 1]
        if twice:
            raise JobError(Reason.DATA_ERROR, f"{FIELD}: `{uri}` has two columns `{twice[0]}`")
        types = {name: value.type for name, value in values.items()}
        types |= {name: schema.field(name).type for name in schema.names if name in asked}
        known = {name: kind for name, kind in types.items() if name in asked and not pa.types.is_null(kind)}
        return File(uri, fragment, rows, known)

    with ThreadPoolExecutor(REMOTE_READS if location.bucket else 2) as pool:
        return list(pool.map(read, infos, paths, hive))
