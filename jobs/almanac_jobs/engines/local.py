"""The local engine: threads of this process. The kernel, numpy and Arrow release the interpreter while they compute."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from almanac_jobs.progress import Progress

GRACE = 5.0
"""Seconds that units under way get to notice that the run has stopped."""

Item = TypeVar("Item")
Result = TypeVar("Result")


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
