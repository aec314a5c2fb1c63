"""What runs in Dask's workers: tasks that say how far they are, that can be told to stop, and whose errors travel.

A task is a function and its arguments, all of which can be pickled. What it tells goes to the driver as events of the
topic of its session; a session that is over makes its tasks stop at the next thing that they tell.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, ParamSpec, TypeVar

import pyarrow as pa
from distributed import Scheduler, Worker, get_worker
from distributed.comm.core import CommClosedError

from almanac.api import JobError, Reason
from almanac_jobs.launch import is_full, job_error
from almanac_jobs.progress import Interrupted

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

LIBRARIES = ("almanac", "cloudpickle", "dask", "distributed", "numpy", "pyarrow", "scikit-learn", "xgboost-cpu")
"""What driver and workers must have of the same version: results, or what they send each other, follow from it."""

_over: set[str] = set()


@dataclass(frozen=True, slots=True)
class Voice:
    """What a task calls to say how much it has done, in all; `place` tells the tasks of a step apart."""

    topic: str
    place: int

    def __call__(self, done: int) -> None:
        """Say so.

        Raises:
            Interrupted: the session is over.
        """
        self.send("done", done)

    def send(self, what: str, value: Any) -> None:
        """Tell the driver anything of Python's own plain types."""
        check(self.topic)
        get_worker().log_event(self.topic, [self.place, what, value])

    def check(self) -> None:
        """Raise `Interrupted` if the session is over."""
        check(self.topic)


@dataclass(frozen=True, slots=True)
class Guarded(Generic[Parameters, Result]):
    """A task that uses so many `threads`, and whose errors the driver understands."""

    task: Callable[Parameters, Result]
    threads: int
    topic: str

    def __call__(self, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        check(self.topic)
        pa.set_cpu_count(self.threads)
        try:
            return self.task(*arguments, **named)
        except (MemoryError, pa.ArrowMemoryError) as error:
            raise JobError(
                Reason.CLUSTER_UNAVAILABLE,
                "spec.dask.memory: a task ran out of memory: give workers more, or set more workers",
            ) from error
        except (ConnectionError, CommClosedError, TimeoutError):  # the scheduler or another worker may be gone
            raise
        except OSError as error:
            raise (_full_disk(error) if is_full(error) else job_error(error)) from error


def _full_disk(error: OSError) -> JobError:
    return JobError(
        Reason.STORAGE_FULL,
        f"spec.dask: no space is left on the disk of a worker, where it keeps what memory does not hold ({error}): "
        "give workers a larger one (TMPDIR names the folder), more memory, or set more workers",
    )


def same(value: Result) -> Result:
    """A value for other tasks."""
    return value


async def end(topic: str) -> None:
    """Stop the tasks of a session, on the worker that this runs on. A coroutine: Dask waits for anything else."""
    _over.add(topic)


def check(topic: str) -> None:
    """Go on, unless a session has ended here.

    Raises:
        Interrupted: it has.
    """
    if topic in _over:
        raise Interrupted


def installed() -> dict[str, str]:
    """Versions of Python and of `LIBRARIES`, as far as they are installed."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


async def man(place: str, dask_worker: Worker) -> None:
    """Let this worker do the tasks of a place."""
    await dask_worker.set_resources(**{place: 1})


def call(address: str, dask_scheduler: Scheduler) -> None:
    """Send what has waited for it to a worker that mans a place now: the scheduler looks at new workers only."""
    state = dask_scheduler.workers.get(address)
    if state is not None:
        waiting = dask_scheduler.bulk_schedule_unrunnable_after_adding_worker(state)
        dask_scheduler.transitions(waiting, stimulus_id=f"almanac-{address}")


def mute() -> None:
    """Keep what libraries print in this process from the terminal of the driver, which it shares."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def unpaused(dask_worker: Worker) -> None:
    """Let this worker begin tasks however full its memory is: they are where its memory goes, and they free it."""
    dask_worker.memory_manager.memory_pause_fraction = False
