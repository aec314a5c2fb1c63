"""A complete run of an ExtractJob, read back: exactly its files, of this run and of those that it went on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from almanac.api import ExtractJob, JobError, Reason
from almanac_jobs.artefacts import latest
from almanac_jobs.storage import Location, open_location, storage_errors


def newest(job: ExtractJob) -> str:
    """The folder of the newest complete run of a job.

    Raises:
        JobError: SourceNotFound if there is none, and what storage refuses.
    """
    output = open_location(job.spec.output.uri, job.spec.storage, field="spec.source.extract")
    pointer = latest(output)
    if pointer is None:
        raise JobError(
            Reason.SOURCE_NOT_FOUND,
            f"spec.source.extract: ExtractJob `{job.metadata.name}` has no complete run in `{job.spec.output.uri}`: "
            f"run it first (almanac run -f FILE --name {job.metadata.name})",
        )
    return f"{job.spec.output.uri.rstrip('/')}/{pointer['path']}"


@dataclass(frozen=True, slots=True, repr=False)
class Extract:
    """A data set: a table of a database as of one moment."""

    folder: Location
    report: dict[str, Any]

    def __repr__(self) -> str:
        job, rows = self.report["job"], self.report["source"]["rows"]
        about = f"{job['namespace']}/{job['name']}, run {self.report['run']}: {rows:,} rows"
        return f"<{type(self).__name__} of {about} in {self.folder.uri}>"

    @property
    def paths(self) -> list[str]:
        """The paths of its files, as the filesystem of `folder` has them."""
        runs, _, run = self.folder.path.rstrip("/").rpartition("/")
        names = [one["path"] for one in self.report["files"] if "rows" in one]
        return [f"{runs}/{name[3:]}" if name.startswith("../") else f"{runs}/{run}/{name}" for name in names]

    @property
    def uris(self) -> list[str]:
        """The URIs of its files, for any other reader of Parquet."""
        runs, _, run = self.folder.uri.rstrip("/").rpartition("/")
        names = [one["path"] for one in self.report["files"] if "rows" in one]
        return [f"{runs}/{name[3:]}" if name.startswith("../") else f"{runs}/{run}/{name}" for name in names]

    def dataset(self) -> ds.Dataset:
        """The data set as pyarrow has them, with the columns of its folders: nothing is read before it is asked for.

        Raises:
            JobError: what storage refuses.
        """
        with storage_errors(self.folder):
            return ds.dataset(
                self.paths,
                filesystem=self.folder.filesystem,
                format="parquet",
                partitioning=ds.partitioning(flavor="hive"),
            )

    def to_table(self, **scan: Any) -> pa.Table:
        """All rows, or those and the columns that `scan` asks for (`columns`, `filter`), in memory.

        Raises:
            JobError: what storage refuses.
        """
        with storage_errors(self.folder):
            return self.dataset().to_table(**scan)
