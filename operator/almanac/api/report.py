"""What a run says at its end: one JSON document that fits into the termination message of a container."""

from __future__ import annotations

from almanac.api.common import Count, Engine, Time
from almanac.api.errors import ExitCode, JobError, Reason
from almanac.api.model import Model

LIMIT = 4096
"""Bytes that Kubernetes keeps of a termination message."""


class Result(Model):
    """What a complete run has written."""

    uri: str
    """Folder of the run."""
    entities: Count | None = None
    """Entities of the source. An ExtractJob does not count them."""
    failed_entities: Count = 0
    """Entities that have no forecast, with the reason in the parameters table."""
    rows: Count
    """Rows read from the source; of an extract, those of its data set."""
    scores: dict[str, float] = {}
    """Accuracy over all entities by name (mase ...), beside that of seasonal naive (seasonalnaive_mase ...)."""
    checksum: str = ""
    """sha256:... over the tables of the run: equal for equal results."""


class Report(Model):
    """How a run ended. `reason` and `exit_code` are Completed and 0 where all is well, and `result` is there."""

    run: str
    """Id of the run."""
    reason: Reason
    """Why the run ended as it did."""
    exit_code: ExitCode
    """Exit code of the process; it follows from the reason, and of an interrupted run from what has stopped it."""
    message: str = ""
    """One sentence for a person."""
    engine: Engine
    """The engine that computed it; never auto."""
    engine_reason: str = ""
    """Why on this engine: what the source's footers and the memory there say."""
    start_time: Time | None = None
    """When the run began."""
    end_time: Time | None = None
    """When the run ended."""
    result: Result | None = None
    """What was written; absent where the run is not complete."""

    @classmethod
    def failure(cls, run: str, engine: Engine, error: JobError) -> Report:
        """The report of a run that `error` ended."""
        return cls(run=run, engine=engine, reason=error.reason, exit_code=error.exit_code, message=error.message)

    def to_json(self, limit: int = LIMIT) -> str:
        """JSON of at most `limit` bytes of UTF-8. What is too long loses the end of its message, then its scores."""
        fitting = self
        if self.result is not None and _size(self.model_copy(update={"message": ""})) > limit:
            fitting = self.model_copy(update={"result": self.result.model_copy(update={"scores": {}})})
        length = len(fitting.message)
        while _size(fitting) > limit and length:
            length = length * 3 // 4
            fitting = fitting.model_copy(update={"message": f"{self.message[:length]}…" if length else ""})
        return _json(fitting)


def _json(report: Report) -> str:
    return report.model_dump_json(exclude_none=True)


def _size(report: Report) -> int:
    return len(_json(report).encode())
