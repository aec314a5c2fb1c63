"""What Spark's executors run: partitions that belong together, and errors that find their way to the driver."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from almanac.api import JobError, Reason
from almanac_jobs.engines.shuffle import Division, Grouping
from almanac_jobs.engines.spark_actions import job_error
from almanac_jobs.engines.spark_tasks import Coalesced, Guarded, failure, root_cause


def test_partitions_that_do_not_belong_together_are_refused() -> None:
    same = Coalesced(lambda group, records: iter([(group, list(records))]), Grouping(Division(4), 2))
    first = [(0, b"a"), (3, b"b")]
    assert list(same(0, first)) == [(0, first)]
    with pytest.raises(JobError, match=r"spark\.shuffle\.reduceLocality\.enabled"):
        list(same(0, [*first, (4, b"c")]))


class Heard:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def add(self, term: list[tuple[str, str]]) -> None:
        self.said += term


def task(error: BaseException) -> Any:
    def fail(index: int, items: Any) -> Iterator[int]:
        yield index
        raise error

    return fail


def test_an_error_that_stays_is_told_and_not_tried_again() -> None:
    heard = Heard()
    error = JobError(Reason.DATA_ERROR, "spec.missing: a gap\nand more")
    assert list(Guarded(task(error), heard)(3, [])) == [3]
    assert heard.said == [("DataError", "spec.missing: a gap\nand more")]


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (
            JobError(Reason.STORAGE_UNAVAILABLE, "lake: `x\ny` is away"),
            Reason.STORAGE_UNAVAILABLE,
            "lake: `x\ny` is away",
        ),
        (MemoryError(), Reason.CLUSTER_UNAVAILABLE, "spec.spark.executors.memory"),
        (pa.ArrowMemoryError("x"), Reason.CLUSTER_UNAVAILABLE, "spec.spark.executors.memory"),
        (OSError(errno.ENOSPC, "No space left on device"), Reason.STORAGE_FULL, "disk of an executor"),
        (ZeroDivisionError("oh"), Reason.INTERNAL_ERROR, "ZeroDivisionError: oh"),
    ],
    ids=repr,
)
def test_other_errors_are_raised_for_spark_to_try_again(error: BaseException, reason: Reason, words: str) -> None:
    heard = Heard()
    with pytest.raises(RuntimeError) as caught:
        list(Guarded(task(error), heard)(0, []))
    found = failure(
        f"Job aborted due to stage failure\nTraceback:\nRuntimeError: {caught.value}\n\tat org.apache.spark"
    )
    assert found is not None
    assert found.reason is reason
    assert words in found.message
    assert heard.said == []


def test_what_spark_itself_says_is_no_failure_of_a_task() -> None:
    assert failure("Job aborted: ExecutorLostFailure (executor 3 exited)") is None


STAGE = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.runJob.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 16.0 failed 2 times, \
most recent failure: Lost task 0.1 in stage 16.0 (TID 17) (127.0.0.1 executor 1): {}
\tat org.apache.spark.network.shuffle.Writer.write(Writer.java:42)

Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.failJobAndIndependentStages(DAGScheduler.scala:2844)
"""


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (Exception(STAGE.format("java.io.IOException: No space left on device")), Reason.STORAGE_FULL, "an executor"),
        (Exception(STAGE.format("java.io.IOException: Disk quota exceeded")), Reason.STORAGE_FULL, "an executor"),
        (OSError(errno.ENOSPC, "No space left on device"), Reason.STORAGE_FULL, "spec.spark.driver"),
        (Exception(STAGE.format("ExecutorLostFailure (executor 1 exited)")), Reason.CLUSTER_UNAVAILABLE, "(executor 1"),
        (
            Exception(STAGE.format("java.lang.IllegalStateException: odd")),
            Reason.INTERNAL_ERROR,
            "Spark: IllegalStateException: odd: this is a fault",
        ),
    ],
    ids=range(5),
)
def test_what_spark_says_of_a_stage_in_the_words_of_a_job(error: Exception, reason: Reason, words: str) -> None:
    found = job_error(error)
    assert found.reason is reason
    assert words in found.message
    assert "org.apache" not in found.message


def test_the_cause_of_an_error_of_java_is_its_last_one() -> None:
    text = """An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.
: org.apache.spark.SparkException: External scheduler cannot be instantiated
\tat org.apache.spark.SparkContext$.org$apache$spark(SparkContext.scala:3204)
Caused by: io.fabric8.kubernetes.client.KubernetesClientException: Message: pods "x" is forbidden: exceeded quota: few.
\tat io.fabric8.kubernetes.client.dsl.internal.OperationSupport(OperationSupport.java:507)
"""
    said = 'KubernetesClientException: Message: pods "x" is forbidden: exceeded quota: few.'
    assert root_cause(text) == said
    assert root_cause("Java is not there\n  at all") == "Java is not there"
    assert root_cause("") == ""
