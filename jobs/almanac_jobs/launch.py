"""What the command line and the driver share: signals, and a Report for every way in which a run can end."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import TextIO

import pyarrow as pa

from almanac.api import Engine, JobError, Reason, Report
from almanac_jobs.progress import Interrupted, Progress

GRACE = 15.0
"""Seconds that a run gets to clean up once a signal has asked it to stop; after that the process just ends."""

DEBUG = "ALMANAC_DEBUG"
"""Environment variable: set to anything but nothing, failures show their traceback."""


def new_run_id(now: datetime, token: str) -> str:
    """The id of a run that begins `now`: `20261121-021500-3f9a2c`, UTC, so that ids sort as runs began."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{token}"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: its report, and the exit code of the process, which also tells the signals apart."""

    report: Report
    exit_code: int
    stuck: bool = False
    """The run did not stop when it was asked to: only leaving the process without further ado ends it."""


def launch(
    work: Callable[[Progress], Report], run_id: str, progress: Progress, log: TextIO, *, debug: bool = False
) -> Ended:
    """Do `work` and report how it ended. Nothing is raised; SIGINT and SIGTERM stop the run, a second one the process.

    `work` has a thread of its own, so that a signal is heard at once, whatever library the run is waiting for.
    """
    started = datetime.now(UTC)
    failed: list[BaseException] = []
    done: list[Report] = []

    def serve() -> None:
        try:
            done.append(work(progress))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=serve, name="run", daemon=True)
    with _signals(progress, log) as heard:
        thread.start()
        stuck = not _wait(thread, heard)
    if done:
        report = done[0]
    else:
        error = failed[0] if failed and not heard else Interrupted()
        if debug and not isinstance(error, Interrupted):
            log.write("".join(traceback.format_exception(error)))
        report = Report.failure(run_id, Engine.LOCAL, job_error(error))
    report = report.model_copy(update={"start_time": started, "end_time": datetime.now(UTC)})
    return Ended(report, 128 + heard[0] if heard and not done else int(report.exit_code), stuck)


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
    return JobError(
        Reason.INTERNAL_ERROR,
        f"{type(error).__name__}: {words}: this is a fault of Almanac's, not of the job: "
        f"run it again with {DEBUG}=1 and report what it shows",
    )


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
