"""Where a run's work is done. An engine reads a source, and does something with each bucket of what it has read.

It knows neither models nor results, and results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

import pyarrow as pa

from almanac.api import AnomalyJob, ForecastJob, ForecastSpec, JobError, Reason
from almanac.api import Engine as Name
from almanac_jobs.calendar import Calendar
from almanac_jobs.crew import Crew
from almanac_jobs.progress import Progress
from almanac_jobs.resources import usable_cores
from almanac_jobs.source import Dataset, Portion
from almanac_jobs.source.observations import Counts, Observations

Result = TypeVar("Result")
Work = Callable[[Observations, int, Progress], Result]
"""Done with all observations of a bucket, its number and what counts its series."""


class Source(Protocol):
    """A source that was read, wherever its observations lie."""

    @property
    def entities(self) -> int:
        """Number of entities."""

    @property
    def entity_type(self) -> pa.DataType: ...

    @property
    def buckets(self) -> int: ...

    @property
    def calendar(self) -> Calendar: ...

    @property
    def first_period(self) -> int:
        """The first period of any entity."""

    @property
    def last_period(self) -> int: ...

    @property
    def counts(self) -> Counts:
        """What became of the rows; `merged` is known once every bucket was mapped."""

    def map_buckets(self, work: Work[Result], progress: Progress) -> Iterator[Result]:
        """Yield what `work` makes of every bucket, as they are done.

        Raises:
            JobError: what `work` raises, and Interrupted. Whatever is under way has been told to stop then.
        """


class Engine(Protocol):
    """Something that computes."""

    def read(self, spec: ForecastSpec, dataset: Dataset, progress: Progress) -> Source:
        """Read the source of a job; `progress` counts its rows.

        Raises:
            JobError: as `almanac_jobs.source.read` does, and Interrupted.
        """


@contextmanager
def needs(name: Name) -> Iterator[None]:
    """Say how to install what an engine's modules, which are imported in the block, import in their turn.

    Raises:
        JobError: NotInstalled.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("almanac"):
            raise
        missing = f"spec.engine: {name} needs {error.name}, which is not installed: pip install 'almanac[{name}]'"
        raise JobError(Reason.NOT_INSTALLED, missing) from error


def opened(name: Name, job: ForecastJob, rows: int, progress: Progress) -> AbstractContextManager[Engine]:
    """The engine of that name, ready to work on a source of so many rows. What it has started ends with the block.

    Raises:
        JobError: NotInstalled where a library is missing, and what keeps a cluster from being reached.
    """
    if name is Name.SPARK:
        with needs(name):
            from almanac_jobs.engines import spark  # only now: it takes a library that others do without
        return spark.session(job, progress)
    if name is Name.DASK:
        with needs(name):
            from almanac_jobs.engines import dask
        return dask.session(job, rows, progress)
    from almanac_jobs.engines import local

    return local.process()


@contextmanager
def crew(
    name: Name, job: AnomalyJob, dataset: Dataset, need: int, progress: Progress
) -> Iterator[tuple[Crew, Sequence[Dataset | Portion]]]:
    """Those who carry out a job whose rows take `need` bytes of memory, with the part of the source of each.

    Raises:
        JobError: as `opened` does.
    """
    if name is not Name.DASK:
        from almanac_jobs.engines import local

        yield local.Alone(usable_cores(), progress), [dataset]
        return
    with needs(name):
        from almanac_jobs.engines import dask_crew
    with dask_crew.crew(job.spec, dataset, need, progress) as (many, parts):
        yield many, parts
