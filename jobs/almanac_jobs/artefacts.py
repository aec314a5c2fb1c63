"""What a run writes, and how it is published: all files, then report.json, then latest.json points to it.

    {output}/runs/{run}/{table}/bucket=0000/part-0.parquet    forecasts, parameters, history, scores
    {output}/runs/{run}/report.html
    {output}/runs/{run}/report.json     last: its presence says that the run is complete; names every file
    {output}/latest.json                the newest complete run; replaced in one step

A run that fails changes nothing that was there before. Several runs may write to one output at a time.
"""

from __future__ import annotations

import hashlib
import json
import platform
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa

from almanac.api import JobError, Output, Reason, Storage
from almanac_jobs import objects, tables
from almanac_jobs.storage import Location, check_output, open_location

FORMAT = 1
"""Version of the layout and of the tables' columns: readers refuse what is newer than they know."""
FIELD = "spec.output.uri"
RUNS, REPORT, LATEST, PAGE = "runs", "report.json", "latest.json", "report.html"


def table_path(table: str, bucket: int) -> str:
    """The path of a bucket's part of a table, below the folder of the run."""
    return f"{table}/bucket={bucket:04d}/part-0.parquet"


def versions() -> dict[str, str]:
    """What computed a run: versions that could change its bytes."""
    found = {"python": platform.python_version()}
    for name in ("almanac", "numpy", "pyarrow"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class RunWriter:
    """Writes the files of one run. Threads may write different buckets at once."""

    def __init__(self, output: Output, storage: Storage | None, run: str) -> None:
        """Nothing is written yet.

        Raises:
            JobError: InvalidSpec if `run` is there already, and what storage refuses, as far as it tells beforehand.
        """
        self.output = open_location(output.uri, storage, field=FIELD)
        self.run = run
        self.folder = self.output / RUNS / run
        self._keep = output.keep_runs
        self._files: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        check_output(self.output)
        if objects.read(self.folder / REPORT) is not None:
            raise JobError(Reason.INVALID_SPEC, f"{FIELD}: run `{run}` is complete already: choose another run id")

    def write(self, bucket: int, parts: Mapping[str, pa.Table]) -> None:
        """Write a bucket's part of each table; rows are sorted by entity, then time."""
        for name, table in parts.items():
            self._write(table_path(name, bucket), memoryview(tables.parquet(table)))

    def write_page(self, html: str) -> None:
        """Write the page that people look at."""
        self._write(PAGE, html.encode())

    @property
    def checksum(self) -> str:
        """sha256 over the sums of the tables written so far: equal tables, equal checksum."""
        lines = (f"{path} {file['sha256']}\n" for path, file in sorted(self._files.items()) if path != PAGE)
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"

    def publish(self, report: Mapping[str, Any]) -> None:
        """Make the run complete: write `report` with the files of the run, and point latest.json to it.

        `report` has `startTime` and `endTime` as ISO 8601. A run that began later and is complete keeps latest.json.
        """
        files = [{"path": path, **file} for path, file in sorted(self._files.items())]
        whole = {"formatVersion": FORMAT, "run": self.run, **report, "checksum": self.checksum, "files": files}
        objects.write(self.folder / REPORT, _json(whole))
        pointer = {"formatVersion": FORMAT, "run": self.run, "path": f"{RUNS}/{self.run}"}
        pointer |= {name: whole[name] for name in ("startTime", "endTime", "checksum")}

        def forward(old: bytes | None) -> bytes | None:
            newer = old is not None and json.loads(old)["startTime"] > pointer["startTime"]
            return None if newer else _json(pointer)

        objects.update(self.output / LATEST, forward)

    def prune(self) -> None:
        """Delete all but the newest complete runs, as many as the job keeps. Others may be under way, and are left."""
        if self._keep is None:
            return
        began = {}
        for run in objects.folders(self.output / RUNS):
            report = objects.read(self.output / RUNS / run / REPORT)
            if report is not None:
                began[run] = json.loads(report)["startTime"]
        for run in sorted(began, key=lambda run: (began[run], run), reverse=True)[self._keep :]:
            if run != self.run:
                objects.remove(self.output / RUNS / run / REPORT)  # first, so that what is half deleted is not complete
                objects.remove(self.output / RUNS / run)

    def abandon(self) -> None:
        """Delete what a run that will not be complete has written, as far as storage lets us."""
        with suppress(JobError):
            objects.remove(self.folder)

    def _write(self, path: str, data: bytes | memoryview) -> None:
        objects.write(self.folder / path, data)
        with self._lock:
            self._files[path] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def latest(output: Location) -> dict[str, Any] | None:
    """What latest.json says; None if no run is complete."""
    found = objects.read(output / LATEST)
    return None if found is None else json.loads(found)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
