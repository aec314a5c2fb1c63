"""The Dask engine: workers read, aggregate, fit and write; one shuffle brings the rows of an entity together.

What is done is in `shuffled`. A portion of the source becomes pieces, one for each partition, which workers keep, put
on their disks where memory is short, and send to each other as tasks need them. Pieces that are lost with a worker are
made again, from Parquet: Dask knows what each was made from.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dask.task_spec import Task as GraphNode
from dask.task_spec import TaskRef
from distributed import Future

from almanac.api import ForecastJob, ForecastSpec, JobError
from almanac_jobs.engines import dask_session, dask_tasks, shuffled
from almanac_jobs.engines.dask_session import Session
from almanac_jobs.engines.dask_tasks import Guarded
from almanac_jobs.engines.shuffle import Census, Division, Grouping, MapRows, Record, take_census
from almanac_jobs.engines.shuffled import Shuffled, Task, Watch, unwatched
from almanac_jobs.progress import Interrupted, Progress
from almanac_jobs.source import Dataset, Portion
from almanac_jobs.source.partial import Tally

SIDE = 128
"""Most portions, and most places: the scheduler keeps a piece of each pair in mind, at a millisecond each. Beyond 256
million rows portions and places grow, and so does the memory of a task."""
ATTEMPTS = 4
"""Times that a task is tried where it fails for a reason that may pass, such as storage that does not answer."""
PAUSE = 1.0
"""Seconds before the second attempt; twice as many before the third, three times before the fourth."""

Other = TypeVar("Other")
Value = bytes | Tally


@contextmanager
def session(job: ForecastJob, rows: int, progress: Progress) -> Iterator[Dask]:
    """Workers for a source of so many rows: see `dask_session.session`.

    Raises:
        JobError: as that does.
    """
    useful = -(-rows // (shuffled.LEAST_ROWS * job.spec.dask.threads))
    patience = job.spec.start_deadline_seconds + 60.0  # who has started the cluster gives up before, and knows more
    with dask_session.session(job.spec.dask, progress, max(useful, 1), patience, ["almanac_jobs.forecasting"]) as made:
        yield Dask(made)


@dataclass(frozen=True, slots=True)
class Dask:
    """See `engines.Engine`."""

    session: Session

    def read(self, spec: ForecastSpec, dataset: Dataset, progress: Progress) -> Shuffled:
        cores = self.session.count * self.session.threads
        portions = shuffled.shares(dataset, spec, cores, SIDE)
        division = shuffled.division(dataset.rows, cores, SIDE)
        pieces = Pieces.made(self.session, portions, MapRows(spec, division))
        return shuffled.read(spec, dataset, division, pieces, progress)


@dataclass(frozen=True)
class Pieces:
    """Records as workers hold them: see `shuffled.Exchange`. `by_key` has a piece of each portion."""

    session: Session
    division: Division
    read: Sequence[Future[None]]
    """Of each portion, that it is read."""
    by_key: dict[int, Sequence[Future[Sequence[Value]]]]

    @classmethod
    def made(cls, session: Session, portions: Sequence[Portion], work: MapRows) -> Pieces:
        """Have all portions read; everything goes to the scheduler at once, as one graph."""
        keys = sorted({*range(0, work.division.partitions, 2), *work.division.census})
        whole = Guarded(Repeated(Split(work), ATTEMPTS), session.threads, session.topic)
        names = [f"portion-{session.topic}-{i}" for i in range(len(portions))]
        graph: dict[str, GraphNode] = {}
        for name, portion in zip(names, portions, strict=True):
            graph[name] = GraphNode(name, whole, portion)
            graph[f"{name}-read"] = GraphNode(f"{name}-read", _nothing, TaskRef(name))
            graph |= {f"{name}-{key}": GraphNode(f"{name}-{key}", _part, TaskRef(name), key) for key in keys}
        wanted = [[f"{name}-read" for name in names], [[f"{name}-{key}" for name in names] for key in keys]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a graph that Dask finds large
            read, pieces = session.client.get(graph, wanted, sync=False)
        return cls(session, work.division, read, dict(zip(keys, pieces, strict=True)))

    @property
    def counter(self) -> Callable[[], Progress]:
        return Counter(self.session.topic)

    def census(self, progress: Progress, watch: Watch) -> list[Census]:
        self.session.results(self.read, progress, lambda done: watch(done / len(self.read)))
        counting = [
            self.session.submit(Grouped(take_census, key, (key,)), [self.by_key[key]]) for key in self.division.census
        ]
        return [one for some in self.session.results(counting, progress) for one in some]

    def run(
        self, task: Task[Other], grouping: Grouping, groups: Sequence[int], progress: Progress, watch: Watch = unwatched
    ) -> list[Other]:
        under_way = []
        for group in groups:
            keys = grouping.keys_of(group)[::2]
            some = [self.by_key[key] for key in keys]
            under_way.append(self.session.submit(Repeated(Grouped(task, group, tuple(keys)), ATTEMPTS), some))
        done = self.session.results(under_way, progress, lambda count: watch(count / len(groups)))
        return [one for some in done for one in some]


@dataclass(frozen=True, slots=True)
class Counter:
    """Makes counters that stop their task once the session is over."""

    topic: str

    def __call__(self) -> Progress:
        return Progress(guard=self.check)

    def check(self) -> None:
        """Raise Interrupted, if it is."""
        dask_tasks.check(self.topic)


def _nothing(value: Any) -> None:
    """Of a value, that it is there."""


def _part(parts: Mapping[int, Sequence[Value]], key: int) -> Sequence[Value]:
    return parts.get(key, ())


@dataclass(frozen=True, slots=True)
class Split:
    """A portion becomes what its records hold, by their keys."""

    work: MapRows

    def __call__(self, portion: Portion) -> dict[int, list[Value]]:
        parts: dict[int, list[Value]] = {}
        for key, value in self.work(0, (portion,)):
            parts.setdefault(key, []).append(value)
        return parts


@dataclass(frozen=True, slots=True)
class Grouped(Generic[Other]):
    """A task for a group of places, as Dask calls it: with the pieces of each of its keys."""

    task: Task[Other]
    group: int
    keys: tuple[int, ...]

    def __call__(self, pieces: Sequence[Sequence[Sequence[Value]]]) -> list[Other]:
        return list(self.task(self.group, self._records(pieces)))

    def _records(self, pieces: Iterable[Sequence[Sequence[Value]]]) -> Iterator[Record]:
        for key, some in zip(self.keys, pieces, strict=True):
            for piece in some:
                yield from ((key, value) for value in piece)


@dataclass(frozen=True, slots=True)
class Repeated(Generic[Other]):
    """A task that is tried again, up to so many `attempts`, where it fails for a reason that may pass."""

    task: Callable[[Any], Other]
    attempts: int

    def __call__(self, argument: Any) -> Other:
        for attempt in range(1, self.attempts):
            try:
                return self.task(argument)
            except JobError as error:
                if error.exit_code.final or isinstance(error, Interrupted):
                    raise
                time.sleep(PAUSE * attempt)
        return self.task(argument)
