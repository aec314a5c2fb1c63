"""What Spark's executors run: partitions that belong together, and errors that find their way to the driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from almanac.api import JobError, Reason
from almanac_jobs.engines.shuffle import Division, Grouping
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
