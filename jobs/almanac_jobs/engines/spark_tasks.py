"""What Spark's executors run besides the work itself (`shuffle`): a check of what they get, errors that travel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import pyarrow as pa

from almanac.api import JobError, Reason
from almanac_jobs.engines.shuffle import Grouping, Record
from almanac_jobs.launch import is_full, job_error

One = TypeVar("One")
Other = TypeVar("Other")


@dataclass(frozen=True, slots=True)
class Coalesced(Generic[Other]):
    """A task for groups of places, which Spark puts together from partitions: these, and no others."""

    task: Callable[[int, Iterable[Record]], Iterator[Other]]
    grouping: Grouping

    def __call__(self, group: int, records: Iterable[Record]) -> Iterator[Other]:
        return self.task(group, self._checked(group, records))

    def _checked(self, group: int, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if self.grouping.of_key(record[0]) != group:
                raise JobError(
                    Reason.INTERNAL_ERROR,
                    "spec.spark.conf: Spark has put partitions together that do not belong together: leave "
                    "spark.shuffle.reduceLocality.enabled as it is, false",
                )
            yield record


class Failures(Protocol):
    """Where a task says why it gave up; the driver hears of it once the task has ended."""

    def add(self, term: list[tuple[str, str]]) -> None: ...


_MARK = "almanac: task failed: "


@dataclass(frozen=True, slots=True)
class Guarded(Generic[One, Other]):
    """A task that gives up where another attempt would do the same, and says why in words that the driver can read.

    An error that may pass is raised, so that Spark tries the task again.
    """

    task: Callable[[int, Iterable[One]], Iterator[Other]]
    failures: Failures = field(repr=False)

    def __call__(self, index: int, items: Iterable[One]) -> Iterator[Other]:
        pa.set_cpu_count(1)  # Spark runs a task a core
        try:
            yield from self.task(index, items)
        except Exception as error:
            if isinstance(error, JobError) and error.exit_code.final:
                self.failures.add([(error.reason.value, error.message)])
                return
            raise marked(error) from error


def marked(error: Exception) -> RuntimeError:
    """An error that the driver finds again in what Spark says of it (`failure`)."""
    if isinstance(error, MemoryError | pa.ArrowMemoryError):
        found = _out_of_memory()
    else:
        found = full_disk() if is_full(error) else job_error(error)
    return RuntimeError(f"{_MARK}{json.dumps((found.reason.value, found.message))}")


def root_cause(text: str) -> str:
    """What an error of Java's says of how it came about: its last cause, else its first line; on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    cause = (causes or lines or [""])[-1 if causes else 0]
    return re.sub(r"^([a-z]\w*\.)+(\w+(Exception|Error): )", r"\2", cause)[:600]


def failure(text: str) -> JobError | None:
    """The error that was `marked`, from the text that Spark makes of it; None if there is none."""
    found = re.search(rf"{_MARK}(\[.*\])", text)
    if found is None:
        return None
    reason, message = json.loads(found[1])
    return JobError(Reason(reason), message)


def full_disk() -> JobError:
    """The error for an executor that cannot keep what it shuffles."""
    return JobError(
        Reason.STORAGE_FULL,
        "spec.spark.executors: no space is left on the disk of an executor, where rows are kept between tasks: give "
        "executors a larger one (spark.local.dir), or set more of them",
    )


def full_disk_of_driver() -> JobError:
    """The error for a driver that cannot hand over what executors are to do."""
    return JobError(
        Reason.STORAGE_FULL,
        "spec.spark.driver: no space is left on the driver's disk, where it keeps what it sends to executors: give it "
        "a larger one (spark.local.dir)",
    )


def _out_of_memory() -> JobError:
    return JobError(
        Reason.CLUSTER_UNAVAILABLE,
        "spec.spark.executors.memory: a task ran out of memory: give executors more, or fewer cores",
    )
