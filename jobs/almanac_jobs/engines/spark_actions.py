"""Spark jobs that can be watched and stopped, and whose failures are errors that a person can do something about."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyspark import RDD, Accumulator, AccumulatorParam, SparkContext, TaskContext

from almanac.api import JobError, Reason
from almanac_jobs.engines import spark_tasks
from almanac_jobs.engines.spark_tasks import Guarded
from almanac_jobs.launch import is_full
from almanac_jobs.progress import Progress, Workers

POLL = 0.2
"""Seconds between two looks at a job."""
GRACE = 2.0
"""Seconds to wait until a job that was cancelled is over. Its tasks may go on for longer, see `RunWriter.share`."""

One = TypeVar("One")
Other = TypeVar("Other")
Task = Callable[[int, Iterable[One]], Iterator[Other]]

_numbers = itertools.count()


class _Said(AccumulatorParam[list[tuple[str, str]]]):
    """What tasks say as they give up."""

    def zero(self, value: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return []

    def addInPlace(  # noqa: N802 - named by Spark
        self, value1: list[tuple[str, str]], value2: list[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        return value1 + value2


@dataclass
class Actions:
    """Runs jobs on a context, one at a time."""

    context: SparkContext
    failures: Accumulator[list[tuple[str, str]]] = field(init=False)

    def __post_init__(self) -> None:
        self.failures = self.context.accumulator([], _Said())

    def guarded(self, task: Task[One, Other]) -> Guarded[One, Other]:
        """A task whose errors the driver understands."""
        return Guarded(task, self.failures)

    def run(
        self,
        rdd: RDD[One],
        task: Task[One, Other],
        partitions: Sequence[int],
        progress: Progress,
        watch: Callable[[float], None] = lambda share: None,
        stage: int = -1,
    ) -> list[Other]:
        """What a task gives for some partitions of an RDD, in their order.

        `watch` hears what share of the tasks of a stage is done: of the last one, or the one that `stage` says (0: of
        the first).

        Raises:
            JobError: what a task raises, ClusterUnavailable where executors are lost again and again, and Interrupted.
        """
        group = f"almanac-{next(_numbers)}"
        done: list[list[Other]] = []
        failed: list[BaseException] = []
        call = _Call(self.guarded(task))

        def serve() -> None:
            try:
                self.context.setJobGroup(group, group, interruptOnCancel=True)
                done.append(self.context.runJob(rdd, call, partitions))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=serve, name=group, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(POLL)
                self._raise_failures()
                progress.workers = executors(self.context)
                watch(self._share(group, stage))
                progress.check()
        except BaseException:
            self.context.cancelJobGroup(group)
            thread.join(GRACE)
            raise
        self._raise_failures()
        if failed:
            raise job_error(failed[0]) from failed[0]
        return done[0]

    def _raise_failures(self) -> None:
        for reason, message in self.failures.value:
            raise JobError(Reason(reason), message)

    def _share(self, group: str, stage: int) -> float:
        tracker = self.context.statusTracker()
        for job in tracker.getJobIdsForGroup(group):
            info = tracker.getJobInfo(job)
            at = tracker.getStageInfo(sorted(info.stageIds)[stage]) if info and info.stageIds else None
            if at is not None and at.numTasks:
                return float(at.numCompletedTasks / at.numTasks)
        return 0.0


@dataclass(frozen=True, slots=True)
class _Call:
    """A task as Spark calls it."""

    task: Callable[[int, Iterable[Any]], Iterator[Any]]

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        context = TaskContext.get()
        assert context is not None  # noqa: S101 - a task has one
        return self.task(context.partitionId(), items)


def executors(context: SparkContext) -> Workers | None:
    """How many executors there are; None where the driver does all the work."""
    master = str(context.master)
    if re.fullmatch(r"local(\[[^\]]*\])?", master):
        return None
    running = failed = 0
    for one in _executors(context):
        if one.isActive():
            running += 1
        elif not re.search("decommission|idle|killed by driver", str(one.removeReason()), re.IGNORECASE):
            failed += 1
    return Workers(_wanted(context, running), running, failed)


def _wanted(context: SparkContext, running: int) -> int:
    manager = context._jsc.sc().executorAllocationManager()
    if manager.isDefined():
        targets = manager.get().numExecutorsTargetPerResourceProfileId().values().toList()
        return sum(int(targets.apply(i)) for i in range(targets.size()))
    asked = context.getConf().get("spark.executor.instances")
    cluster = re.match(r"local-cluster\[(\d+)", str(context.master))
    return int(asked) if asked else int(cluster[1]) if cluster else running


def _executors(context: SparkContext) -> Iterator[Any]:
    """What Spark knows of each executor, dead ones as well."""
    found = context._jsc.sc().statusStore().executorList(False)
    return (one for one in (found.apply(i) for i in range(found.size())) if one.id() != "driver")


_LOST = re.compile(
    "ExecutorLostFailure|ExecutorLost|exited unexpectedly|FetchFailed|SparkContext was shut down|stopped SparkContext"
    "|Max number of executor failures|OutOfMemoryError|crashed"
)
_FULL = re.compile("No space left on device|Disk quota exceeded")


def job_error(error: BaseException) -> JobError:
    """What Spark raises, as one that a person can do something about."""
    text = str(error)
    known = spark_tasks.failure(text)
    if known is not None:
        return known
    if is_full(error):
        return spark_tasks.full_disk_of_driver()
    if _FULL.search(text):
        return spark_tasks.full_disk()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in lines if _LOST.search(line)), None)
    if said is None:
        told = next((line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)), _last_failure(lines))
        return JobError(
            Reason.INTERNAL_ERROR,
            f"Spark: {told}: this is a fault of Almanac's or of the cluster's, not of the job: see the driver's log",
        )
    return JobError(
        Reason.CLUSTER_UNAVAILABLE,
        f"spec.spark.executors: executors were lost again and again ({_last_failure([said])[:300]}): give them more "
        "memory, or look at what ends them",
    )


def _last_failure(lines: list[str]) -> str:
    """What ended the last attempt of a task, else what Spark begins with; without the classes of Java around it."""
    told = next((line for line in lines if "most recent failure: " in line), "")
    attempt = re.sub(r"^Lost task .*? \(TID \d+\) \(.*?\): ", "", told.partition("most recent failure: ")[2])
    begins = next((line[2:] for line in lines if line.startswith(": ")), " ".join(lines[:2]))
    return spark_tasks.root_cause(attempt or begins)
