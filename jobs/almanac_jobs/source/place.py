"""Where a source lies, and its files: all of a folder, or those that a run of an ExtractJob names, and no others."""

from __future__ import annotations

import pyarrow.fs as pafs

from almanac.api import JobError, ParquetSource, Reason, Storage
from almanac_jobs.artefacts import REPORT, document
from almanac_jobs.storage import Location, not_found, open_location, storage_errors

FIELD = "spec.source.uri"
EXTRACT = "spec.source.extract"


def locate(source: ParquetSource, storage: Storage | None) -> Location:
    """The place below which all files of a source are; of an extract, that is the folder of its runs.

    Raises:
        JobError: as `storage.open_location` does, InvalidSpec for an extract whose run is not known.
    """
    if source.extract is None:
        return open_location(source.uri or "", storage, field=FIELD)
    if source.extract.uri is None:
        raise JobError(
            Reason.INVALID_SPEC,
            f"{EXTRACT}: it is not known where the runs of ExtractJob `{source.extract.name}` are: have its manifest "
            "in the same file or folder, or write the folder of a run into spec.source.extract.uri",
        )
    runs = source.extract.uri.rstrip("/").rpartition("/")[0]
    return open_location(runs, storage, field=EXTRACT)


def files_of(source: ParquetSource, location: Location) -> list[pafs.FileInfo]:
    """The files of a source, whose `locate` is `location`, in their order.

    Raises:
        JobError: SourceNotFound, SourceEmpty, DataError for a Delta table or an extract that has lost files, and what
            storage refuses.
    """
    if source.extract is not None:
        return _extracted(source, location)
    filesystem = location.filesystem
    with storage_errors(location):
        info = filesystem.get_file_info(location.path)
        if info.type == pafs.FileType.NotFound:
            raise not_found(location)
        if info.type == pafs.FileType.File:
            return [info]
        found = filesystem.get_file_info(pafs.FileSelector(location.path, recursive=True))
    if any(below(location, one).split("/")[0] == "_delta_log" for one in found):
        raise JobError(
            Reason.DATA_ERROR,
            f"{location.field}: `{location.uri}` is a Delta table, whose folder holds rows of older versions too: "
            "write its current rows to a folder of Parquet files, and name that",
        )
    files = [one for one in found if one.type == pafs.FileType.File and not _is_hidden(below(location, one))]
    if not files:
        raise JobError(Reason.SOURCE_EMPTY, f"{location.field}: the folder `{location.uri}` holds no Parquet file")
    return sorted(files, key=lambda one: one.path)


def _extracted(source: ParquetSource, location: Location) -> list[pafs.FileInfo]:
    run = source.place.rstrip("/").rpartition("/")[2]
    report = document(location / run / REPORT)
    if report is None or "extract" not in report:
        raise JobError(
            Reason.SOURCE_NOT_FOUND, f"{EXTRACT}: `{source.place}` is no complete run of an ExtractJob: run that again"
        )
    names = [one["path"] for one in report["files"] if "rows" in one]
    paths = [name.removeprefix("../") if name.startswith("../") else f"{run}/{name}" for name in names]
    with storage_errors(location):
        infos = location.filesystem.get_file_info([f"{location.path}/{path}" for path in paths])
    gone = next((info for info in infos if info.type != pafs.FileType.File), None)
    if gone is not None:
        raise JobError(
            Reason.DATA_ERROR,
            f"{EXTRACT}: `{gone.path}` of run `{run}` is gone: run the ExtractJob again, and read its new run",
        )
    return sorted(infos, key=lambda one: str(one.path))


def below(location: Location, info: pafs.FileInfo) -> str:
    """A file's path below the location; empty if it is the location itself."""
    return str(info.path).removeprefix(location.path).lstrip("/")


def _is_hidden(path: str) -> bool:
    names = path.split("/")
    return names[-1].endswith(".crc") or any(name.startswith((".", "_")) and "=" not in name for name in names)
