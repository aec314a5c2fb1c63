"""Spark's event log, of which its History Server makes Spark's pages once a run is over, kept where results are.

Spark itself writes where Hadoop's libraries reach, and those for object stores are half a gigabyte. So it writes to a
folder of this process's own, whose files go to storage as everything else does, once Spark has ended.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from almanac.api import ForecastJob, JobError
from almanac_jobs import objects
from almanac_jobs.artefacts import EVENTS, FIELD
from almanac_jobs.storage import Location, check_output, open_location

ENABLED, DIRECTORY = "spark.eventLog.enabled", "spark.eventLog.dir"


@contextmanager
def kept(job: ForecastJob) -> Iterator[dict[str, str]]:
    """Settings for a session that ends within the block; afterwards its event log is where the job wants it.

    That is `spark-events` in the job's output, or the folder in an object store that spark.eventLog.dir names. Other
    folders are left to Spark. A log that cannot be stored is said on stderr: results do not depend on it.

    Raises:
        JobError: what `storage.check_output` refuses, before anything is started.
    """
    place = _place(job)
    if place is None:
        yield {}
        return
    check_output(place)
    with TemporaryDirectory(prefix=f"{EVENTS}-") as folder:
        try:
            yield {DIRECTORY: Path(folder).as_uri()}
        finally:
            _store(Path(folder), place)


def _place(job: ForecastJob) -> Location | None:
    """Where the log goes; None where there is none, or Spark writes it itself."""
    conf, storage = job.spec.spark.conf, job.spec.storage
    if conf.get(ENABLED, "").strip().lower() != "true":
        return None
    named = conf.get(DIRECTORY, "")
    if not named:
        return open_location(job.spec.output.uri, storage, field=FIELD) / EVENTS
    if named.startswith(("s3://", "gs://")):
        return open_location(named, storage, field=f"spec.spark.conf[{DIRECTORY}]")
    return None


def _store(folder: Path, place: Location) -> None:
    try:
        for file in sorted(one for one in folder.rglob("*") if one.is_file() and not one.name.startswith(".")):
            objects.write(place / file.relative_to(folder).as_posix(), file.read_bytes())
    except JobError as error:
        sys.stderr.write(f"Spark's event log is not kept: {error.message}\n")
