"""A run's workers on Dask: those of a cluster that is there already, or processes of this machine.

A cluster is where DASK_SCHEDULER_ADDRESS says. Tasks go to any worker, or to a *place*: places are numbered, each is
manned by one worker, and a worker that takes over from one that is lost mans the same place. What a place's tasks have
made is made again there; nothing is moved or stolen, so that what is computed does not depend on who was lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as Later
from concurrent.futures import TimeoutError as NotYet
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, LocalCluster

from almanac.api import Dask, JobError, Reason, checks
from almanac.api.common import LEAST_WORKER
from almanac_jobs.engines import dask_tasks
from almanac_jobs.engines.dask_tasks import Guarded, Voice
from almanac_jobs.launch import DEBUG
from almanac_jobs.progress import Progress, Workers
from almanac_jobs.resources import memory_limit, usable_cores

ADDRESS = "DASK_SCHEDULER_ADDRESS"
"""Environment variable: where the scheduler of a cluster is."""
WORKERS = 4
"""Workers where a job says nothing."""
PATIENCE = 300.0
"""Seconds that a scheduler, or a worker, may take to come, or to come back, where nobody says otherwise."""
POLL = 0.2
"""Seconds between two looks at tasks."""
ROLL_CALL = 1.0
"""Seconds between two looks at workers."""
LOSSES = 10
"""Times that workers may be lost in a run; Dask itself gives up a task that was lost four times with its worker."""
SHARE = 0.8
"""Share of the memory of this machine that worker processes may take together."""

Heard = Callable[[int, str, Any], None]
"""Told the place, what it is, and the value of everything that a task says."""
Watch = Callable[[int], None]
"""Told how many of the tasks that are waited for are done."""


def _nothing(done: int) -> None:
    pass


def wanted(bounds: Dask, useful: int = 1000) -> int:
    """Workers that a run is to have in a cluster, where there is work for `useful` of them."""
    if bounds.maximum is None:
        return bounds.workers or WORKERS
    return min(max(useful, bounds.minimum or 1), bounds.maximum)


@contextmanager
def session(
    bounds: Dask, progress: Progress, useful: int = 1000, patience: float = PATIENCE, preload: Sequence[str] = ()
) -> Iterator[Session]:
    """Workers, ready to work. Processes that were started end with the block; so do tasks that are under way.

    `useful` is the number of workers that there is work for: between bounds, a cluster gets as many. `patience` are the
    seconds that a scheduler, or a worker, may take to come, or to come back. `preload` are modules that processes which
    are started here import as they start, and not in their first task; in a cluster the operator says so.

    Raises:
        JobError: ClusterUnavailable where the scheduler does not answer, or fewer workers come than there must be;
            NotInstalled where workers have other versions of a library than this process; Interrupted.
    """
    address = os.environ.get(ADDRESS)
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if address:
            count, threads = wanted(bounds, useful), bounds.threads
            client = stack.enter_context(_connected(address, progress, patience))
            progress.workers = Workers(count, 0, 0)
        else:
            count, threads = fitting(bounds, useful, usable_cores(), memory_limit())
            client = stack.enter_context(_processes(bounds, count, threads, preload))
        made = Session(client, count, threads, remote=bool(address), memory=bounds.memory, patience=patience)
        loop: Any = client.loop
        loop.asyncio_loop.set_exception_handler(_forget)
        made.wait_for_workers(progress)
        stack.callback(made.end)
        yield made


def fitting(bounds: Dask, useful: int, cores: int, memory: int) -> tuple[int, int]:
    """Worker processes for a machine of so many cores and bytes, and threads of each: what is wanted, as far as it
    goes, workers before threads."""
    count = max(1, min(wanted(bounds, useful), cores, int(SHARE * memory) // LEAST_WORKER))
    return count, max(1, min(bounds.threads, cores // count))


@dataclass
class Session:
    """Runs tasks on `count` workers, of so many `threads` each."""

    client: Client
    count: int
    threads: int
    remote: bool
    memory: str
    """What each worker has, as the job says it, for messages."""
    patience: float = PATIENCE
    topic: str = field(default_factory=lambda: f"almanac-{secrets.token_hex(4)}")
    _places: list[str | None] = field(default_factory=list)
    """The address of the worker that mans each place; None: nobody, at the moment."""
    _taken: int = 0
    """Times that places were taken: those of another time are others."""
    _known: set[str] = field(default_factory=set)
    lost: int = 0
    """Times that a worker has gone."""
    _short_since: float | None = None
    _looked: float = 0.0
    _number: int = 0

    def submit(self, task: Callable[..., Any], *arguments: Any, place: int | None = None) -> Future[Any]:
        """Have a task done, by any worker or at a place (one after the other there). Arguments may be futures.

        Whatever its worker has made is made again if the worker is lost, as long as somebody holds the future.
        """
        self._number += 1
        where = {} if place is None else {"resources": {self._resource(place): 1}}
        guarded = Guarded(task, self.threads, self.topic)
        name = getattr(task, "__name__", type(task).__name__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of arguments that Dask finds large
            return self.client.submit(
                guarded, *arguments, key=f"{name}-{self.topic}-{self._number}", pure=False, **where
            )

    def put(self, value: Any) -> Future[Any]:
        """A value that many tasks take: it is sent once, and workers pass it on."""
        return self.submit(dask_tasks.same, value)

    def voice(self, place: int) -> Voice:
        """What a task at a place tells the driver by (`listening`)."""
        return Voice(self.topic, place)

    @contextmanager
    def listening(self, heard: Heard) -> Iterator[None]:
        """Hear what tasks say, in a thread of its own; what `heard` raises is lost."""

        def listen(event: tuple[float, list[Any]]) -> None:
            place, what, value = event[1]
            heard(place, what, value)

        self.client.subscribe_topic(self.topic, listen)
        try:
            yield
        finally:
            with suppress(Exception):  # where the scheduler is gone
                self.client.unsubscribe_topic(self.topic)

    def results(self, futures: Sequence[Future[Any]], progress: Progress, watch: Watch = _nothing) -> list[Any]:
        """What tasks have made, in their order, once all are done.

        When one fails, or the run is stopped, those that are not done are cancelled.

        Raises:
            JobError: what a task raises; ClusterUnavailable where workers are lost again and again, or do not come
                back; Interrupted.
        """
        gathered = self._begin(self.client._gather(list(futures)))
        try:
            while True:
                try:
                    return list(gathered.result(timeout=POLL))
                except NotYet:
                    if gathered.done():
                        raise
                self._look_after_workers()
                watch(sum(one.status == "finished" for one in futures))
                progress.check()
                self._tell(progress)
        except BaseException as error:
            gathered.cancel()
            with suppress(Exception):  # where the scheduler is gone
                self._begin(self.client._cancel(list(futures)))
            known = self._job_error(error)
            if known is error:
                raise
            raise known from error

    def wait(self, futures: Sequence[Future[Any]], progress: Progress, watch: Watch = _nothing) -> None:
        """As `results`, but what tasks have made stays where it is."""
        self.results([self.submit(_none, one) for one in futures], progress, watch)

    def take_places(self, count: int, progress: Progress) -> None:
        """Have places 0 to `count` - 1 manned, each by a worker of its own; of at most `self.count`."""
        assert count <= self.count  # noqa: S101 - who asks knows how many there are
        self._places = [None] * count
        self._taken += 1
        self._man()
        self.wait_for_workers(progress)

    def address(self, place: int) -> str | None:
        """The worker that mans a place now."""
        return self._places[place]

    def wait_for_workers(self, progress: Progress) -> None:
        """Wait until as many workers are there as there must be, and hold their versions against this process's.

        Raises:
            JobError: as `session` does.
        """
        began = time.monotonic()
        while True:
            there = self.look()
            progress.check()
            self._tell(progress)
            if len(there) >= self.count and None not in self._places:
                break
            if time.monotonic() - began > self.patience:
                raise self._too_few(len(there))
            time.sleep(POLL)
        self._check_versions()

    def end(self) -> None:
        """Stop what is under way."""
        if self.remote:  # processes of this machine are simply ended
            with suppress(Exception):
                self.client.run(dask_tasks.end, self.topic, wait=False)

    def run_at(self, place: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a short function gives on the worker of a place, at once, whatever else goes on there.

        Raises:
            OSError: the worker is gone.
        """
        address = self._places[place]
        if address is None:
            raise OSError(f"there is no worker at place {place}")
        found = self.client.run(function, *arguments, workers=[address])
        if address not in found:
            raise OSError(f"the worker at {address} is gone")
        return found[address]

    def try_at(self, place: int, function: Callable[..., Any], *arguments: Any) -> None:
        """As `run_at`, as far as the worker is there."""
        with suppress(OSError, KeyError, ValueError):
            self.run_at(place, function, *arguments)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> Later[Any]:
        """Have the client do something in its own thread."""
        loop: Any = self.client.loop
        return asyncio.run_coroutine_threadsafe(work, loop.asyncio_loop)

    def _resource(self, place: int) -> str:
        return f"{self.topic}-{self._taken}-{place}"

    def _look_after_workers(self) -> None:
        """Man places that are empty, and give up where that cannot be done any more."""
        now = time.monotonic()
        if now - self._looked < ROLL_CALL:
            return
        self._looked = now
        there = self.look()
        if self.lost > LOSSES:
            raise JobError(
                Reason.CLUSTER_UNAVAILABLE,
                f"spec.dask: workers were lost {self.lost} times: the usual cause is memory: give them more than "
                f"{self.memory} (spec.dask.memory), or set more workers",
            )
        if there and None not in self._places:
            self._short_since = None
            return
        self._short_since = self._short_since or now
        if now - self._short_since > self.patience:
            raise self._too_few(len(there))

    def look(self) -> list[str]:
        """The addresses of the workers that are there, by name; places of others are manned anew."""
        info = self.client.scheduler_info()["workers"]
        there = sorted(info, key=lambda address: (str(info[address]["name"]), address))
        fresh = [address for address in there if address not in self._known]
        if fresh:
            self.client.run(dask_tasks.unpaused, workers=fresh, on_error="ignore")
            if not (self.remote or os.environ.get(DEBUG)):
                self.client.run(dask_tasks.mute, workers=fresh, on_error="ignore")
        self.lost += len(self._known - set(there))
        self._known = set(there)
        self._places = [one if one in self._known else None for one in self._places]
        self._man()
        return there

    def _man(self) -> None:
        """Give empty places to workers that have none."""
        free = sorted(self._known - set(self._places))
        for place, address in enumerate(self._places):
            if address is not None or not free:
                continue
            chosen = free.pop(0)
            with suppress(OSError):  # it is gone again, which the next look tells
                self.client.run(dask_tasks.man, self._resource(place), workers=[chosen])
                self._places[place] = chosen
                self.client.run_on_scheduler(dask_tasks.call, chosen)

    def _tell(self, progress: Progress) -> None:
        if self.remote:
            progress.workers = Workers(self.count, len(self._known), self.lost)

    def _too_few(self, there: int) -> JobError:
        return JobError(
            Reason.CLUSTER_UNAVAILABLE,
            f"spec.dask: {there} of {self.count} workers are there after {self.patience:.0f} s: see what keeps the "
            "others from starting, or ask for fewer",
        )

    def _check_versions(self) -> None:
        own = dask_tasks.installed()
        for address, theirs in self.client.run(dask_tasks.installed, on_error="ignore").items():
            other = next((name for name, known in own.items() if theirs.get(name) != known), None)
            if other is not None:
                raise JobError(
                    Reason.NOT_INSTALLED,
                    f"spec.dask: the worker at {address} has {other} {theirs.get(other, 'none')}, and the driver has "
                    f"{own[other]}: run both from the same image",
                )

    def _job_error(self, error: BaseException) -> BaseException:
        """What Dask raises, as something that a person can do something about."""
        if isinstance(error, JobError) or not isinstance(error, Exception):
            return error
        if isinstance(error, KilledWorker):
            return JobError(
                Reason.CLUSTER_UNAVAILABLE,
                f"spec.dask.memory: {error.allowed_failures + 1} workers in turn died of the same task: the usual "
                f"cause is memory: give each more than {self.memory}, or set more workers",
            )
        if isinstance(error, CancelledError | OSError) or self.client.status != "running":
            said = " ".join(str(error).split()) or type(error).__name__
            return JobError(
                Reason.CLUSTER_UNAVAILABLE, f"spec.dask: the scheduler, or all workers with the data, are gone: {said}"
            )
        return error


def _none(value: Any) -> None:
    """Of a future, that it is done."""


def _forget(loop: Any, context: Any) -> None:
    """Of what was cancelled in the client's own thread, which would be told once the program ends."""


@contextmanager
def _connected(address: str, progress: Progress, patience: float) -> Iterator[Client]:
    began = time.monotonic()
    while True:
        progress.check()
        try:
            client = Client(address, timeout=5, set_as_default=False)
            break
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or time.monotonic() - began > patience:
                raise JobError(
                    Reason.CLUSTER_UNAVAILABLE,
                    f"{ADDRESS}: the scheduler at `{address}` does not answer: {' '.join(str(error).split())}",
                ) from error
            time.sleep(POLL)
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=5)


@contextmanager
def _processes(bounds: Dask, count: int, threads: int, preload: Sequence[str]) -> Iterator[Client]:
    """Worker processes on this machine, which end with the block whatever they are doing."""
    memory = min(checks.amount(bounds.memory), int(SHARE * memory_limit()) // count)
    settings = {"distributed.scheduler.active-memory-manager.start": False, "distributed.worker.memory.pause": False}
    with dask.config.set(settings), _without_main(), ExitStack() as stack:
        try:
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=threads,
                memory_limit=memory,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
                preload=list(preload),
                env={"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"},
            )
            stack.callback(_closed, cluster)
            client = Client(cluster, set_as_default=False)
        except (OSError, RuntimeError, TimeoutError) as error:
            raise JobError(
                Reason.CLUSTER_UNAVAILABLE,
                f"spec.engine: dask: no worker process starts here: {' '.join(str(error).split())}",
            ) from error
        stack.callback(_closed, client)
        yield client


def _closed(one: Client | LocalCluster) -> None:
    with suppress(Exception):
        if isinstance(one, LocalCluster):
            for nanny in one.workers.values():
                process = getattr(nanny.process, "process", None)
                if process is not None:  # a task in the middle of its work would be waited for
                    nanny.auto_restart = False
                    process.kill()
        one.close(timeout=10)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep worker processes from running the program that has started them: it need not be made for that."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: main.__dict__[name] for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log lines from the terminal: what they say of a run, its errors say."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado")]
    before: list[Mapping[str, Any]] = [{"level": one.level} for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for one, was in zip(loggers, before, strict=True):
            one.setLevel(was["level"])
