"""What the command line and the driver share: signals, and one error for every way in which a run can fail."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Generic, TextIO, TypeVar

import pyarrow as pa

from almanac.api import JobError, Reason
from almanac_jobs.progress import Interrupted, Progress
from almanac_jobs.resources import usable_cores

GRACE = 10.0
"""Seconds that a run gets to clean up once a signal has asked it to stop; after that the process just ends."""

DEBUG = "ALMANAC_DEBUG"
"""Environment variable: set to anything but nothing, failures show their traceback."""


Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Done(Generic[Value]):
    """Work that came to its end."""

    value: Value


@dataclass(frozen=True, slots=True)
class Failed:
    """Work that did not. `exit_code` is that of the error, or tells which signal it was."""

    error: JobError
    exit_code: int
    stuck: bool = False
    """The work did not stop when it was asked to: only leaving the process without further ado ends it."""


def launch(work: Callable[[], Value], progress: Progress, log: TextIO, *, debug: bool = False) -> Done[Value] | Failed:
    """Do `work`, which counts by `progress`. Nothing is raised. SIGINT and SIGTERM stop the work, a second one the
    process.

    The work has a thread of its own, so that a signal is heard at once, whatever library it is waiting for.
    """
    pa.set_cpu_count(usable_cores())  # Arrow knows the machine's cores, but not the container's share of them
    done: list[Value] = []
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=serve, name="run", daemon=True)
    with _signals(progress, log) as heard:
        thread.start()
        stuck = not _wait(thread, heard)
    if done:
        return Done(done[0])
    if heard:
        return Failed(Interrupted(), 128 + heard[0], stuck)
    if debug:
        log.write("".join(traceback.format_exception(failed[0])))
    error = job_error(failed[0])
    return Failed(error, error.exit_code)


def job_error(error: BaseException) -> JobError:
    """Any exception as one that a person can do something about."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, MemoryError | pa.ArrowMemoryError):
        return JobError(
            Reason.TOO_BIG_FOR_LOCAL,
            "out of memory: give the run more, or read less with spec.source.filter or a longer spec.frequency",
        )
    words = " ".join(str(error).split())
    if is_full(error):
        return JobError(
            Reason.STORAGE_FULL,
            f"no space is left on the local disk, where the run keeps what memory does not hold ({words}): make room "
            "there, or give it a larger one (TMPDIR names the folder of temporary files)",
        )
    return JobError(
        Reason.INTERNAL_ERROR,
        f"{type(error).__name__}: {words}: this is a fault of Almanac's, not of the job: "
        f"run it again with {DEBUG}=1 and report what it shows",
    )


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full, or a quota used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def _signals(progress: Progress, log: TextIO) -> Iterator[list[int]]:
    """Listen to SIGINT and SIGTERM; gives the list in which their numbers arrive."""
    heard: list[int] = []

    def listen(number: int, frame: FrameType | None) -> None:
        if heard:
            os._exit(128 + number)
        heard.append(number)
        progress.stop()
        with suppress(RuntimeError):  # the signal may have come in the middle of another write to the same stream
            log.write("\nStopping, and removing what this run has written. Once more: exit at once.\n")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, listen) for number in numbers]
    try:
        yield heard
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _wait(thread: threading.Thread, heard: list[int]) -> bool:
    """Wait for the run; False if it was asked to stop and has not within `GRACE` seconds."""
    deadline = float("inf")
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(0.1)
        if heard and deadline == float("inf"):
            deadline = time.monotonic() + GRACE
    return not thread.is_alive()
