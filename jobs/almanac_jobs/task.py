"""What a run gives to the kind of its job, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from almanac.api import Engine, Job, JobError, Reason
from almanac_jobs import provenance
from almanac_jobs.artefacts import RunWriter
from almanac_jobs.progress import Progress
from almanac_jobs.resources import GIB, memory_limit

Page = TypeVar("Page", covariant=True)


@dataclass(slots=True)
class Task:
    """One run of a job. `escalate` refuses what memory does not hold, where a cluster can take over."""

    job: Job
    manifest: str
    run: str
    engine: Engine
    clock: Callable[[], datetime]
    started: datetime
    progress: Progress
    writer: RunWriter
    escalate: bool
    begun: bool = False
    """Whether anything may have been written: the run's folder is to be deleted if the run fails."""
    resumable: bool = False
    """Whether another attempt goes on from what was written: it stays where that is worth a try."""

    def circumstances(self) -> dict[str, Any]:
        """The fields of `reporting.Circumstances`, once the tables are written."""
        return {
            "job": self.job,
            "manifest": self.manifest,
            "run": self.run,
            "engine": self.engine,
            "started": self.started,
            "finished": self.clock(),
            "durations": {stage.stage: stage.seconds for stage in self.progress.finished()},
            "versions": provenance.versions(),
            "git_revision": provenance.git_revision(),
        }

    def check_memory(self, rows: int, need: int) -> None:
        """Refuse a source that may take more memory than there is, where somebody else can do better.

        Raises:
            JobError: TooBigForLocal.
        """
        limit = memory_limit()
        if self.escalate and need > limit:
            raise JobError(
                Reason.TOO_BIG_FOR_LOCAL,
                f"spec.source.uri: {rows:,} rows may take {need / GIB:.1f} GiB of memory, and this process has "
                f"{limit / GIB:.1f} GiB",
            )


@dataclass(frozen=True, slots=True)
class Made(Generic[Page]):
    """What a run has come to, with its tables written: what its page says, the page, the report."""

    page: Page
    html: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """What footers say of a source: files, bytes, rows, and the `memory` that it may take of the `limit` there is."""

    files: int
    bytes: int
    rows: int
    memory: int
    limit: int
