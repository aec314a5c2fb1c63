"""The Spark engine: executors read, aggregate, fit and write; one shuffle brings the rows of an entity together.

Three jobs, of which the first leaves behind the shuffled data that the others start from:

    1  portions of Parquet -> partial aggregates by entity, shuffled; names and tallies -> how many entities there are
    2  the first buckets   -> a sample of observations, which the frequency is inferred from or checked against
    3  all buckets         -> fitted and written where they are; summaries come back

The driver sees no row, and the JVM none either: what is shuffled are Arrow's bytes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from almanac.api import ForecastJob, ForecastSpec, JobError, Reason
from almanac_jobs.buckets import MAX_BUCKETS, bucket_count
from almanac_jobs.calendar import Calendar
from almanac_jobs.engines import Work, spark_events
from almanac_jobs.engines.spark_actions import Actions
from almanac_jobs.engines.spark_tasks import (
    Division,
    Gather,
    Grouping,
    MapBuckets,
    MapRows,
    Periods,
    Record,
    Sample,
    root_cause,
    take_census,
)
from almanac_jobs.forecast.types import Ints
from almanac_jobs.progress import Progress
from almanac_jobs.resources import usable_cores
from almanac_jobs.source import Counts, Dataset, portions
from almanac_jobs.source.partial import Tally
from almanac_jobs.source.reader import SAMPLE, SPARSE, check_rows, check_span, plan, settled
from almanac_jobs.source.rows import Plan

MOST_ROWS, LEAST_ROWS = 2_000_000, 131_072
"""Rows that a task reads: few enough to be held in memory and repeated, enough to be worth a task."""
PLACE_ROWS = 2_000_000
"""Rows of the source that a place of the shuffle holds, about: at most so many observations, usually far fewer."""
MASTER, CONF_DIR = "SPARK_MASTER", "SPARK_CONF_DIR"

Result = TypeVar("Result")


@contextmanager
def session(job: ForecastJob, progress: Progress) -> Iterator[Spark]:
    """Spark as the environment has it; what was started for this ends with the block.

    In a cluster spark-defaults.conf in `SPARK_CONF_DIR` says how to reach it. Elsewhere `spec.spark.conf` does, or
    `SPARK_MASTER`, else Spark runs on the cores of this machine. A context that this process has already is used.

    Raises:
        JobError: NotInstalled without Java, ClusterUnavailable where Spark does not start, and what `spark_events.kept`
            refuses.
    """
    existing = SparkContext._active_spark_context
    if existing is not None:
        yield Spark(existing)
        return
    with spark_events.kept(job) as events:
        context = _started(settings(job) | events)
        try:
            yield Spark(context)
        finally:
            context.stop()


def _started(wanted: Mapping[str, str]) -> SparkContext:
    java = os.environ.get("JAVA_HOME")
    if not (shutil.which("java") or (java and shutil.which("java", path=f"{java}/bin"))):
        raise JobError(
            Reason.NOT_INSTALLED,
            "spec.engine: spark needs Java 17 or newer, and there is none on the PATH and no JAVA_HOME: install it, or "
            "run the job here with --set spec.engine=local",
        )
    if not os.environ.get(CONF_DIR):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # tasks run in processes of their own
    builder = SparkSession.builder
    for name, value in wanted.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate().sparkContext
    except (PySparkException, OSError, Exception) as error:
        said = root_cause(str(error)) or type(error).__name__
        raise JobError(Reason.CLUSTER_UNAVAILABLE, f"spec.spark: Spark does not start: {said}") from error


def settings(job: ForecastJob) -> dict[str, str]:
    """What a session of this job's own is started with."""
    # Partitions of the shuffle are put together by their place, not by where their data are (`Grouping`).
    own = {"spark.shuffle.reduceLocality.enabled": "false"}
    if os.environ.get(CONF_DIR):
        return own
    here = {
        "spark.app.name": f"{job.metadata.namespace}/{job.metadata.name}",
        "spark.ui.showConsoleProgress": "false",
        "spark.master": os.environ.get(MASTER) or f"local[{usable_cores()}]",
        "spark.ui.enabled": "false",
        "spark.log.level": "ERROR",
        # A JVM that does little and not for long: most of its work would be compiling itself.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    return here | job.spec.spark.conf | own


@dataclass(frozen=True)
class Spark:
    """See `engines.Engine`."""

    context: SparkContext

    def read(self, spec: ForecastSpec, dataset: Dataset, progress: Progress) -> Shuffled:
        actions = Actions(self.context)
        division = _division(dataset.rows, self.context.defaultParallelism)
        rows = dataset.rows // (3 * self.context.defaultParallelism) + 1
        shares = portions(dataset, spec.storage, min(max(rows, LEAST_ROWS), MOST_ROWS))
        finest = plan(spec, dataset.types)
        mapped = self.context.parallelize(shares, len(shares)).mapPartitionsWithIndex(
            actions.guarded(MapRows(spec, division)).__call__  # Spark wants to see a function
        )
        records = mapped.partitionBy(division.partitions, int)  # a record's key is its partition
        census = actions.run(
            records,
            take_census,
            division.census,
            progress,
            watch=lambda share: progress.reach(int(share * dataset.rows)),
            stage=0,
        )
        tally = reduce(add, (tally for one in census for tally in one.tallies))
        check_rows(spec, tally.counts)
        entities = sum(one.entities for one in census)
        buckets = bucket_count(entities)
        whole = Shuffled(actions, spec, records, Grouping(division, buckets), finest, entities, tally)
        whole.settle(progress)
        progress.reach(dataset.rows)
        return whole


def _division(rows: int, cores: int) -> Division:
    """Places for a source of so many rows: enough for every core, few enough for the shuffle."""
    wanted = max(rows // PLACE_ROWS, 2 * cores, 1)
    return Division(min(1 << (wanted - 1).bit_length(), MAX_BUCKETS))


@dataclass
class Shuffled:
    """A source that lies in Spark's shuffle: see `engines.Source`."""

    actions: Actions
    spec: ForecastSpec
    records: RDD[Record]
    grouping: Grouping
    plan: Plan
    entities: int
    tally: Tally
    calendar: Calendar = field(init=False)
    first_period: int = field(init=False)
    last_period: int = field(init=False)
    counts: Counts = field(init=False)

    def __post_init__(self) -> None:
        self.calendar, self.counts = self.plan.calendar, self.tally.counts

    @property
    def entity_type(self) -> pa.DataType:
        return self.plan.entity_type

    @property
    def buckets(self) -> int:
        return self.grouping.buckets

    def settle(self, progress: Progress) -> None:
        """Find out what depends on all rows: the frequency, and how far the periods reach.

        Raises:
            JobError: DataError, as `source.read` does.
        """
        finest = self.plan.calendar
        self.calendar = settled(self.spec, finest, self.tally.weekdays, *self._sample(progress))
        assert self.tally.first is not None  # noqa: S101 - a row counts, as `check_rows` has seen
        assert self.tally.last is not None  # noqa: S101
        reach = np.array([self.tally.first, self.tally.last])
        if self.calendar != finest:
            reach = self.calendar.periods(finest.times(reach))
        self.first_period, self.last_period = reach.tolist()
        check_span(
            self.spec, self.calendar, self.first_period, self.last_period, lambda: self._distinct_periods(progress)
        )

    def map_buckets(self, work: Work[Result], progress: Progress) -> Iterator[Result]:
        """See `engines.Source`."""
        task = MapBuckets(self._gather, self.calendar, self.last_period, work)
        groups = range(self.grouping.groups)
        done = self.actions.run(
            self._grouped(), task, groups, progress, watch=lambda share: progress.reach(int(share * self.entities))
        )
        self.counts = replace(self.counts, merged=self.tally.counted - sum(one.observations for one in done))
        progress.reach(self.entities)
        return (result for one in done for result in one.results)

    @property
    def _gather(self) -> Gather:
        return Gather(self.plan, self.spec.source.columns.time, self.grouping)

    def _grouped(self) -> RDD[Record]:
        return self.records.coalesce(self.grouping.groups)

    def _sample(self, progress: Progress) -> tuple[NDArray[np.int32], Ints]:
        """Observations of the first entities, by bucket and then by name, as an aggregation of all rows would give."""
        found: list[tuple[NDArray[np.int32], Ints]] = []
        bucket, observations, entities = 0, 0, 0
        while bucket < self.buckets and observations < SAMPLE:
            some = range(bucket, min(2 * bucket + 1, self.buckets))
            groups: dict[int, tuple[int, ...]] = {}
            for one in some:
                group = self.grouping.of_bucket(one)
                groups[group] = (*groups.get(group, ()), one)
            task = Sample(self._gather, groups, SAMPLE)
            for _, entity, period in sorted(
                self.actions.run(self._grouped(), task, sorted(groups), progress), key=lambda one: one[0]
            ):
                found.append((entity + np.int32(entities), period))
                entities += int(entity[-1]) + 1 if len(entity) else 0
                observations += len(period)
            bucket = some.stop
        entity = np.concatenate([one for one, _ in found])
        period = np.concatenate([one for _, one in found])
        lengths = np.bincount(entity)
        last = int(np.searchsorted(np.cumsum(lengths), SAMPLE))
        kept = int(lengths[: last + 1].sum())
        return entity[:kept], period[:kept]

    def _distinct_periods(self, progress: Progress) -> int:
        """How many different periods have a row; at least as many as are enough, if these are."""
        enough = (self.last_period - self.first_period + 1) // SPARSE + 1
        task = Periods(self._gather, self.calendar, enough)
        found = self.actions.run(self._grouped(), task, range(self.grouping.groups), progress)
        known = [one for one in found if one is not None]
        return enough if len(known) < len(found) else len(np.unique(np.concatenate(known)))
