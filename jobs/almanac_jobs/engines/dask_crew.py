"""A crew on Dask: each worker has a place, and what is held there is made again by the worker that follows a lost one.

Work that all places do together is XGBoost's: its collective connects the places in their order, as `xgboost.dask` does
with workers, by a tracker at the first place. If a place is lost meanwhile, all begin again with what was kept last.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distributed import Future, Worker

from almanac.api import AnomalySpec, JobError, Reason, checks
from almanac_jobs import source
from almanac_jobs.crew import Held, Link
from almanac_jobs.engines import dask_session
from almanac_jobs.engines.dask_session import Session
from almanac_jobs.engines.dask_tasks import Voice
from almanac_jobs.progress import Progress
from almanac_jobs.source import Dataset, Portion

T = TypeVar("T")

ATTEMPTS = 5
"""Times that work is done together before it is given up, if a place is lost each time."""
NOTICE = 10.0
"""Seconds after which the loss of a place that others have noticed is known here, too."""
BOOTSTRAP = 600
"""Seconds that the places may take to meet: one that is lost before makes its rows again first."""
HALF = 0.5
"""Share of a worker's memory that rows are to take, where the number of workers is left open."""


class _GoneError(Exception):
    """A worker is gone, and others may wait for it."""


@contextmanager
def crew(
    spec: AnomalySpec, dataset: Dataset, need: int, progress: Progress
) -> Iterator[tuple[DaskCrew, Sequence[Portion]]]:
    """A crew for rows that take `need` bytes, with the part of the source of each place: as many rows, about, in the
    source's order.

    Raises:
        JobError: as `dask_session.session` does.
    """
    useful = -(-need // int(HALF * checks.amount(spec.dask.memory)))
    # The operator says better than a driver what keeps a cluster from starting: it is not to be outrun.
    patience = spec.start_deadline_seconds + 60.0
    with dask_session.session(spec.dask, progress, useful, patience, ["almanac_jobs.detecting"]) as session:
        parts = source.portions(dataset, spec.storage, -(-dataset.rows // session.count))
        session.take_places(len(parts), progress)
        made = DaskCrew(session, len(parts), checks.amount(spec.dask.memory), progress)
        with session.listening(made.hear):
            yield made, parts


@dataclass
class DaskCrew:
    """See `crew.Crew`."""

    session: Session
    size: int
    memory: int
    progress: Progress
    _step: int = 0
    _done: dict[int, int] = field(default_factory=dict)
    _kept: bytes | None = None

    @property
    def threads(self) -> int:
        return self.session.threads

    def deal(self, values: Sequence[T]) -> Held[T]:
        return Held(tuple(values))

    def share(self, value: T) -> Held[T]:
        return Held((self.session.put(value),) * self.size)

    def each(self, work: Callable[..., T], *arguments: Any) -> Held[T]:
        return Held(tuple(self._submit(place, work, *arguments) for place in range(self.size)))

    def counted(self, work: Callable[..., T], *arguments: Any) -> Held[T]:
        self._step += 1
        self._done = {}
        return self.each(work, *arguments, Held(self._voices()))

    def fetch(self, held: Held[T]) -> list[T]:
        if not any(isinstance(one, Future) for one in held.parts):
            return list(held.parts)
        return self.session.results(held.parts, self.progress)

    def exchange(self, held: Held[Sequence[T]]) -> Held[list[T]]:
        places = range(self.size)
        pieces = [
            [self.session.submit(operator.getitem, one, to, place=place) for to in places]
            for place, one in enumerate(held.parts)
        ]
        return Held(tuple(self.session.submit(_listed, *(row[to] for row in pieces), place=to) for to in places))

    def together(self, work: Callable[..., T], *arguments: Any) -> T:
        self._kept = None
        for attempt in range(ATTEMPTS):
            lost = self.session.lost
            self._step += 1
            try:
                return self._attempt(work, arguments)
            except JobError:
                raise
            except Exception as error:
                if not self._lost_since(lost):
                    raise
                if attempt == ATTEMPTS - 1:
                    raise JobError(
                        Reason.CLUSTER_UNAVAILABLE,
                        f"spec.dask: a worker was lost in each of {ATTEMPTS} attempts to train: the usual cause is "
                        f"memory: give them more than {self.session.memory} (spec.dask.memory), or set more workers",
                    ) from error
        raise AssertionError("there is an attempt")

    def hear(self, place: int, what: str, value: Any) -> None:
        """What tasks say, in a thread of its own."""
        name, step = what.rsplit("-", 1)
        if int(step) != self._step:
            return
        if name == "done":
            self._done[place] = value
            self.progress.reach(sum(self._done.values()))
        elif name == "tick":
            self.progress.advance()
        elif name == "keep":
            self._kept = value

    def _attempt(self, work: Callable[..., T], arguments: Sequence[Any]) -> T:
        # A place that waits for the others can make nothing that these need: all there is to make is made before.
        held = [one for one in arguments if isinstance(one, Held)]
        self.fetch(self.each(_none, *held))
        lost = self.session.lost

        def watch(done: int) -> None:
            if self.session.lost > lost:
                raise _GoneError

        name = f"{self.session.topic}-{self._step}"
        try:
            meeting = self.session.run_at(0, _meet, name, self.size)
            futures = [
                self._submit(place, _linked, work, meeting, place, self._kept, voice, *arguments)
                for place, voice in enumerate(self._voices())
            ]
            made: T = self.session.results(futures, self.progress, watch)[0]
        finally:
            self.session.try_at(0, _part, name)
        return made

    def _lost_since(self, before: int) -> bool:
        """Whether a worker is lost that was not before, as soon as that can be known."""
        deadline = time.monotonic() + NOTICE
        while time.monotonic() < deadline:
            self.progress.check()
            self.session.look()
            if self.session.lost > before:
                return True
            time.sleep(dask_session.POLL)
        return False

    def _voices(self) -> tuple[_Voice, ...]:
        return tuple(_Voice(self.session.voice(place), self._step) for place in range(self.size))

    def _submit(self, place: int, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        own = (one.parts[place] if isinstance(one, Held) else one for one in arguments)
        return self.session.submit(work, *own, place=place)


@dataclass(frozen=True, slots=True)
class _Voice:
    """What work at a place says, in one of its steps."""

    voice: Voice
    step: int

    def __call__(self, done: int) -> None:
        self.send("done", done)

    def send(self, what: str, value: Any = None) -> None:
        self.voice.send(f"{what}-{self.step}", value)


def _listed(*values: Any) -> list[Any]:
    return list(values)


def _none(*values: Any) -> None:
    """Of values, that they are there."""


_trackers: dict[str, Any] = {}


def _meet(name: str, size: int, dask_worker: Worker) -> dict[str, Any]:
    """Start what so many places meet at, on this worker; gives how they get there."""
    from xgboost.tracker import RabitTracker

    host = dask_worker.address.split("://")[-1].rsplit(":", 1)[0].strip("[]")
    tracker = RabitTracker(n_workers=size, host_ip=host, sortby="task", timeout=BOOTSTRAP)
    tracker.start()
    _trackers[name] = tracker
    return dict(tracker.worker_args())


def _part(name: str) -> None:
    """End a meeting: who still waits for others there waits no longer."""
    tracker = _trackers.pop(name, None)
    if tracker is not None:
        threading.Thread(target=_freed, args=(tracker,), daemon=True).start()


def _freed(tracker: Any) -> None:
    from xgboost.core import XGBoostError

    with suppress(XGBoostError):  # which says that a place was lost
        tracker.free()


def _linked(
    work: Callable[..., T], meeting: dict[str, Any], place: int, kept: bytes | None, voice: _Voice, *arguments: Any
) -> T | None:
    """Work at one of the places that are connected; what it makes, at the first."""
    from xgboost.collective import CommunicatorContext

    first = place == 0

    def tick() -> None:
        if first:
            voice.send("tick")
        else:
            voice.voice.check()

    def keep(state: bytes) -> None:
        if first:
            voice.send("keep", state)

    with CommunicatorContext(**meeting, dmlc_task_id=f"{place:06d}"):
        made = work(*arguments, Link(tick, keep, kept))
    return made if first else None
