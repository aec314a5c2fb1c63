"""What a run writes, and how it is published: all files, then report.json, then latest.json points to it.

    {output}/runs/{run}/{table}/bucket=0000/part-0.parquet    forecasts, parameters, history, scores
                                                              or scores, contributions, entities, ledger
    {output}/runs/{run}/model.json, *.ubj, explanations/      of an AnomalyJob
    {output}/runs/{run}/data/           of an ExtractJob; report.json may name files of earlier runs besides
    {output}/runs/{run}/.state/         of an ExtractJob that is not complete: what another attempt goes on from
    {output}/runs/{run}/report.html
    {output}/runs/{run}/report.json     last: its presence says that the run is complete; names every file
    {output}/runs/{run}/.open           while processes of several machines write; gone once the run is over
    {output}/latest.json                the newest complete run; replaced in one step
    {output}/spark-events/              event logs of Spark's, if the job wants them; not deleted with runs

A run that fails changes nothing that was there before. Several runs may write to one output at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from almanac.api import JobError, Output, Reason, Storage
from almanac_jobs import objects, tables
from almanac_jobs.progress import Interrupted
from almanac_jobs.storage import Location, check_output, open_location

FORMAT = 1
"""Version of the layout and of the tables' columns: readers refuse what is newer than they know."""
FIELD = "spec.output.uri"
RUNS, REPORT, LATEST, PAGE = "runs", "report.json", "latest.json", "report.html"
EVENTS = "spark-events"
OPEN = ".open"
LATE = 3.0
"""Seconds after which no copy of a writer writes any more: one that was killed could not delete what it had written."""
TABLES = ("forecasts", "parameters", "history", "scores", "contributions", "entities", "ledger", "data")
_DOCUMENTS = (PAGE, "model.json", "model.ubj", "student.ubj", "columns", "explanations")
_MARK = re.compile(r"^\.\./[^/]+/|\.[0-9a-f]{8}(?=\.parquet$)")
STALE = timedelta(days=7)
"""A run that is not complete and has written nothing for so long is not going to be."""


def table_path(table: str, bucket: int) -> str:
    """The path of a bucket's part of a table, below the folder of the run."""
    return f"{table}/bucket={bucket:04d}/part-0.parquet"


Files = Mapping[str, Mapping[str, Any]]
"""Size and sha256 of files by their path below the folder of the run."""


class RunWriter:
    """Writes the files of one run. Threads may write different buckets at once, and so may processes.

    A copy that was pickled opens the same folder in its own process, with that process's credentials, once this one has
    been told to `share` it. It writes files, of which this one hears by `register`; it neither publishes nor abandons
    the run.
    """

    def __init__(self, output: Output, storage: Storage | None, run: str) -> None:
        """Nothing is written yet.

        Raises:
            JobError: InvalidSpec if `run` is there already, and what storage refuses, as far as it tells beforehand.
        """
        self._open(output, storage, run)
        check_output(self.output)
        if complete(self.output, run) is not None:
            raise JobError(Reason.INVALID_SPEC, f"{FIELD}: run `{run}` is complete already: choose another run id")

    def _open(self, output: Output, storage: Storage | None, run: str) -> None:
        self._opened = (output, storage, run)
        self.output = open_location(output.uri, storage, field=FIELD)
        self.run = run
        self.folder = self.output / RUNS / run
        self._files: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()
        self._complete = self._abandoned = self._is_copy = self._shared = False

    def __getstate__(self) -> tuple[Output, Storage | None, str]:
        return self._opened

    def __setstate__(self, opened: tuple[Output, Storage | None, str]) -> None:
        self._open(*opened)
        self._is_copy = True

    def share(self) -> None:
        """Let copies write, until the run is published or abandoned."""
        self._shared = True
        objects.write(self.folder / OPEN, b"")

    def write(self, bucket: int, parts: Mapping[str, pa.Table]) -> Files:
        """Write a bucket's part of each table; rows are sorted by entity, then time. Gives what was written.

        Writing the same again changes nothing: so may who cannot know whether somebody else has.

        Raises:
            JobError: Interrupted if the run was abandoned meanwhile; nothing is left of these then.
        """
        paths = {name: table_path(name, bucket) for name in parts}
        try:
            written = {
                paths[name]: self._write(paths[name], memoryview(tables.parquet(table)))
                for name, table in parts.items()
            }
        finally:
            # Looked up after writing: what was written before the run was abandoned is deleted by who has abandoned it.
            if self._is_copy and objects.read(self.folder / OPEN) is None:
                for path in paths.values():
                    objects.remove(self.folder / path)
                raise Interrupted
        self.register(written)
        return written

    def register(self, files: Files) -> None:
        """Take note of files of the run that were written, here or by a copy of this writer."""
        with self._lock:
            self._files.update(files)

    def write_file(self, path: str, data: bytes) -> Files:
        """Write a file that is no table: a model, a document. Gives what was written."""
        written = {path: self._write(path, data)}
        self.register(written)
        return written

    def write_page(self, html: str) -> None:
        """Write the page that people look at."""
        self.register({PAGE: self._write(PAGE, html.encode())})

    @property
    def checksum(self) -> str:
        """sha256 over the sums of the tables written so far, in the form of sha256sum: equal tables, equal checksum."""
        named = sorted((_lasting(path), file["sha256"]) for path, file in self._files.items() if path != PAGE)
        lines = (f"{digest}  {path}\n" for path, digest in named)
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"

    def publish(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """Make the run complete: write `report` with the files of the run, and point latest.json to it.

        `report` has `job` and, as ISO 8601, `startTime` and `endTime`. Gives report.json as it was written.
        """
        files = [{"path": path, **file} for path, file in sorted(self._files.items())]
        if not self._complete and objects.read(self.folder / REPORT) is not None:
            raise JobError(Reason.INTERRUPTED, f"{FIELD}: another attempt at run `{self.run}` has completed it")
        whole = {"formatVersion": FORMAT, "run": self.run, **report, "checksum": self.checksum, "files": files}
        self._settle()
        objects.write(self.folder / REPORT, _json(whole))
        self._complete = True
        point(self.output, whole)
        return whole

    def abandon(self) -> None:
        """Delete what a run that will not be complete has written, as far as storage lets us; a complete run stays."""
        self._abandoned = True
        if not self._complete:
            with suppress(JobError):
                if objects.read(self.folder / REPORT) is not None:  # another attempt was quicker
                    return
                objects.remove(self.folder / OPEN)
                _remove_run(self.folder)
                if self._shared:
                    time.sleep(LATE)
                    _remove_run(self.folder)

    def _settle(self) -> None:
        """Delete what an earlier attempt at this run has left behind and this one has not written.

        Raises:
            JobError: StorageUnavailable if something that was written is not there: of two drivers of a run, on a node
                that was lost and beyond, one has given up and deleted what the other has written.
        """
        there = {info.path.removeprefix(f"{self.folder.path}/"): info.size for info in objects.files(self.folder)}
        for path in there.keys() - self._files.keys():
            objects.remove(self.folder / path)
        for name in objects.folders(self.folder):
            if name.startswith("."):
                objects.remove(self.folder / name)
        own = {path: file["size"] for path, file in self._files.items() if not path.startswith("..")}
        missing = sorted(path for path, size in own.items() if there.get(path) != size)
        if missing:
            gone = f"`{(self.folder / missing[0]).uri}` is not there any more: somebody deletes what this run writes"
            raise JobError(Reason.STORAGE_UNAVAILABLE, f"{FIELD}: {gone}")

    def _write(self, path: str, data: bytes | memoryview) -> dict[str, Any]:
        objects.write(self.folder / path, data)
        if self._abandoned:  # by another thread, meanwhile
            with suppress(JobError):
                objects.remove(self.folder / path)
        return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def point(output: Location, report: Mapping[str, Any]) -> bool:
    """Point latest.json to the complete run of `report`, unless it names one that began later.

    Gives whether it points to this run now.
    """
    pointer = {"formatVersion": FORMAT, "run": report["run"], "path": f"{RUNS}/{report['run']}"}
    pointer |= {name: report[name] for name in ("startTime", "endTime", "checksum")}
    new, moved = _json(pointer), False

    def forward(old: bytes | None) -> bytes | None:
        nonlocal moved
        moved = _order(_parsed(old)) <= _order(pointer)
        return new if moved and old != new else None

    objects.update(output / LATEST, forward)
    return moved


def prune(output: Location, report: Mapping[str, Any], keep: int, now: datetime) -> None:
    """Delete all but the newest `keep` complete runs of the job of `report`, and what is left of runs that were killed.

    The run of `report`, the one that latest.json names and those of other jobs stay, and so does a run that may still
    be under way: one that is not complete and wrote its last file less than `STALE` before `now`.
    """
    current = _parsed(objects.read(output / LATEST))
    named = {report["run"], current and current.get("run")}
    runs = {run: objects.read(output / RUNS / run / REPORT) for run in objects.folders(output / RUNS)}
    reports = {run: found for run, data in runs.items() if (found := _parsed(data)) is not None}
    ours = sorted((run for run, found in reports.items() if found.get("job") == report["job"]), key=_newest(reports))
    gone = {run for run in ours[keep:] if run not in named}
    needed = {path for run, found in reports.items() if run not in gone for path in _borrowed(found)}
    for run in gone:
        _remove_run(output / RUNS / run, needed)
    for run, data in runs.items():
        if data is None and _left_behind(output / RUNS / run, now):
            _remove_run(output / RUNS / run, needed)


def complete(output: Location, run: str) -> dict[str, Any] | None:
    """report.json of a run; None if it is not complete."""
    return document(output / RUNS / run / REPORT)


def latest(output: Location) -> dict[str, Any] | None:
    """What latest.json says; None if no run is complete."""
    return document(output / LATEST)


def document(location: Location) -> dict[str, Any] | None:
    """A document of Almanac's; None if there is none.

    Raises:
        JobError: DataError if it is something else, InvalidSpec if it is of a newer format.
    """
    data = objects.read(location)
    found = _parsed(data)
    if data is not None and found is None:
        raise JobError(Reason.DATA_ERROR, f"{location.field}: {location.uri} is not a document of Almanac's")
    if found is not None and found["formatVersion"] > FORMAT:
        raise JobError(
            Reason.INVALID_SPEC,
            f"{location.field}: {location.uri} has format {found['formatVersion']}, and this version reads up to "
            f"{FORMAT}: update almanac",
        )
    return found


def _lasting(path: str) -> str:
    """What stays the same of a file's path from run to run: not where the run is, nor the mark of an attempt at it."""
    return _MARK.sub("", path)


def _parsed(data: bytes | None) -> dict[str, Any] | None:
    """A document, of whatever format; None if it is none of Almanac's."""
    try:
        found = json.loads(data or b"null")
    except ValueError:
        return None
    known = isinstance(found, dict) and isinstance(found.get("formatVersion"), int)
    return found if known else None


def _order(report: Mapping[str, Any] | None) -> tuple[str, str]:
    """What sorts runs by when they began."""
    return (str(report.get("startTime", "")), str(report.get("run", ""))) if report else ("", "")


def _newest(reports: Mapping[str, Mapping[str, Any]]) -> Callable[[str], Any]:
    """What sorts runs from the newest to the oldest."""
    ranks = {run: rank for rank, run in enumerate(sorted(reports, key=lambda run: _order(reports[run]), reverse=True))}
    return ranks.__getitem__


def _borrowed(report: Mapping[str, Any]) -> set[str]:
    """Files of other runs that a run goes on using, by their path below the folder of all runs."""
    paths = (str(one.get("path", "")) for one in report.get("files", ()))
    return {path.removeprefix("../") for path in paths if path.startswith("../")}


def _left_behind(folder: Location, now: datetime) -> bool:
    """Whether a folder holds files of a run, nothing else, and no new ones."""
    files = objects.files(folder)
    names = {info.path.removeprefix(f"{folder.path}/").split("/")[0] for info in files}
    own = all(
        name.startswith(".") or name in (*TABLES, *_DOCUMENTS) for name in names
    )  # dots: writes that were cut short
    return bool(files) and own and all(info.mtime < now - STALE for info in files)


def _remove_run(folder: Location, needed: Collection[str] = ()) -> None:
    """Delete a run but for files that other runs need: its report first, so that what is left does not pass for
    complete."""
    objects.remove(folder / REPORT)
    runs, _, run = folder.path.rstrip("/").rpartition("/")
    if not any(path.startswith(f"{run}/") for path in needed):
        objects.remove(folder)
        return
    for info in objects.files(folder):
        if info.path.removeprefix(f"{runs}/") not in needed:
            objects.remove(folder / info.path.removeprefix(f"{folder.path}/"))


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
