"""What a run gives to the kind of its job, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from almanac.api import Engine, Job
from almanac_jobs import choice, provenance
from almanac_jobs.artefacts import RunWriter
from almanac_jobs.choice import Choice, Footprint, Machine
from almanac_jobs.progress import Progress

Page = TypeVar("Page", covariant=True)


@dataclass(slots=True)
class Task:
    """One run of a job. `asked` is the engine that is named for it, or AUTO; `choose` settles what it becomes."""

    job: Job
    manifest: str
    run: str
    asked: Engine
    clock: Callable[[], datetime]
    started: datetime
    progress: Progress
    writer: RunWriter
    machine: Machine
    choice: Choice | None = None
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
            "why": self.choice.why if self.choice else "",
            "started": self.started,
            "finished": self.clock(),
            "durations": {stage.stage: stage.seconds for stage in self.progress.finished()},
            "versions": provenance.versions(),
            "git_revision": provenance.git_revision(),
        }

    def choose(self, footprint: Footprint, clusters: Sequence[Engine]) -> Engine:
        """Settle which engine the run computes on, as `choice.decide` does; to be called before anything is computed.

        Raises:
            JobError: as that does.
        """
        made = choice.decide(self.asked, footprint, clusters, self.machine)
        self.settle(made)
        return made.engine

    def settle(self, made: Choice) -> None:
        """Say which engine the run computes on, where there is nothing to decide."""
        self.choice = self.progress.choice = made

    @property
    def engine(self) -> Engine:
        """The engine that was chosen; AUTO before."""
        return self.choice.engine if self.choice else self.asked


@dataclass(frozen=True, slots=True)
class Made(Generic[Page]):
    """What a run has come to, with its tables written: what its page says, the page, the report."""

    page: Page
    html: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """What footers say of a source: files, bytes, rows, and the `memory` that it may take of the `limit` there is.

    `clusters` are the engines of the job's kind that are more than a process, as `choice.decide` wants them.
    """

    files: int
    bytes: int
    footprint: Footprint
    limit: int
    clusters: Sequence[Engine]
