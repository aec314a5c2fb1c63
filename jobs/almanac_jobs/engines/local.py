"""The local engine: threads of this process. The kernel, numpy and Arrow release the interpreter while they compute."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from almanac.api import ForecastSpec
from almanac_jobs import source
from almanac_jobs.calendar import Calendar
from almanac_jobs.crew import Held, Link
from almanac_jobs.engines import Work
from almanac_jobs.progress import Progress
from almanac_jobs.resources import memory_limit, usable_cores
from almanac_jobs.source import Counts, Dataset, Observations

GRACE = 5.0
"""Seconds that units under way get to notice that the run has stopped."""

Item = TypeVar("Item")
Result = TypeVar("Result")
T = TypeVar("T")


@contextmanager
def process() -> Iterator[Local]:
    """This process, with as many threads as it has cores."""
    yield Local(usable_cores())


@dataclass(frozen=True, slots=True)
class Local:
    """Memory holds all observations, and one bucket a thread."""

    threads: int

    def read(self, spec: ForecastSpec, dataset: Dataset, progress: Progress) -> InMemory:
        """See `engines.Engine`."""
        return InMemory(source.read(spec, dataset, lambda done, _: progress.reach(done)), self.threads)


@dataclass(frozen=True, slots=True)
class InMemory:
    """A source that this process has read: see `engines.Source`."""

    observations: Observations
    threads: int

    @property
    def entities(self) -> int:
        return len(self.observations)

    @property
    def entity_type(self) -> pa.DataType:
        return self.observations.entities.type

    @property
    def buckets(self) -> int:
        return self.observations.buckets

    @property
    def calendar(self) -> Calendar:
        return self.observations.calendar

    @property
    def first_period(self) -> int:
        return int(self.observations.period.min())

    @property
    def last_period(self) -> int:
        return self.observations.last_period

    @property
    def counts(self) -> Counts:
        return self.observations.counts

    def map_buckets(self, work: Work[Result], progress: Progress) -> Iterator[Result]:
        def one(bucket: int) -> Result:
            return work(self.observations, bucket, progress)

        return map_unordered(one, range(self.buckets), self.threads, progress)


@dataclass(frozen=True, slots=True)
class Alone:
    """A crew of one, in this process: see `crew.Crew`."""

    threads: int
    progress: Progress

    @property
    def size(self) -> int:
        return 1

    @property
    def memory(self) -> int:
        return memory_limit()

    def deal(self, values: Sequence[T]) -> Held[T]:
        return Held(tuple(values))

    def share(self, value: T) -> Held[T]:
        return Held((value,))

    def each(self, work: Callable[..., T], *arguments: Any) -> Held[T]:
        return Held((work(*(one.parts[0] if isinstance(one, Held) else one for one in arguments)),))

    def counted(self, work: Callable[..., T], *arguments: Any) -> Held[T]:
        return self.each(work, *arguments, self.progress.reach)

    def fetch(self, held: Held[T]) -> list[T]:
        return list(held.parts)

    def exchange(self, held: Held[Sequence[T]]) -> Held[list[T]]:
        return Held((list(held.parts[0]),))

    def together(self, work: Callable[..., T], *arguments: Any) -> T:
        link = Link(self.progress.advance, lambda state: None, None)
        made: T = self.each(work, *arguments, link).parts[0]
        return made


def map_unordered(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int, progress: Progress
) -> Iterator[Result]:
    """Yield `work(item)` of every item as it is done, at most `threads` items being under way at a time.

    When one raises, or the caller stops iterating, no further item is begun and `progress` is stopped, so that units
    under way leave at their next count; those that do not within `GRACE` seconds are left behind. Threads are daemons:
    one that computes for long holds up neither an error nor the end of the process.
    """
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    done: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((work(item), None))
            except BaseException as error:
                done.put((None, error))
                return

    workers = [threading.Thread(target=serve, name=f"local-{i}", daemon=True) for i in range(min(threads, len(items)))]
    for worker in workers:
        worker.start()
    try:
        for _ in items:
            result, error = _next(done, progress)
            if error is not None:
                raise error
            yield result  # type: ignore[misc]
    except BaseException:
        over.set()
        progress.stop()
        deadline = time.monotonic() + GRACE
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        raise


def _next(done: queue.SimpleQueue[Result], progress: Progress) -> Result:
    """The next result; `Interrupted` as soon as the run is stopped, even if every unit under way takes long."""
    while True:
        progress.check()
        try:
            return done.get(timeout=0.2)
        except queue.Empty:
            continue
