"""Every way in which a run can fail is one error and one exit code; signals stop it."""

from __future__ import annotations

import errno
import io
import os
import signal
import threading
from collections.abc import Callable

import pyarrow as pa
import pytest

from almanac.api import JobError, Reason
from almanac_jobs import launch
from almanac_jobs.launch import Done, Failed
from almanac_jobs.progress import Progress

Work = Callable[[Progress], str]


def ended(work: Work, *, debug: bool = False) -> tuple[Done[str] | Failed, str]:
    log, progress = io.StringIO(), Progress()
    return launch.launch(lambda: work(progress), progress, log, debug=debug), log.getvalue()


def failed(work: Work) -> Failed:
    end, _ = ended(work)
    assert isinstance(end, Failed)
    return end


def raises(error: BaseException) -> Work:
    def work(_: Progress) -> str:
        raise error

    return work


def until_stopped(number: signal.Signals) -> Work:
    def work(progress: Progress) -> str:
        os.kill(os.getpid(), number)
        while True:
            progress.check()

    return work


def test_work_that_is_done_gives_its_value() -> None:
    assert ended(lambda _: "value") == (Done("value"), "")


def test_an_error_has_its_exit_code() -> None:
    error = JobError(Reason.ACCESS_DENIED, "spec.source.uri: s3://ledger: access denied")
    end, log = ended(raises(error))
    assert end == Failed(error, 77)
    assert log == ""


@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowMemoryError("malloc of size 1 failed")])
def test_running_out_of_memory_asks_for_more(error: Exception) -> None:
    end = failed(raises(error))
    assert (end.exit_code, end.error.reason) == (79, Reason.TOO_BIG_FOR_LOCAL)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(number: int) -> None:
    end = failed(raises(OSError(number, os.strerror(number), "/tmp/almanac-1")))  # noqa: S108 - of nobody
    assert (end.exit_code, end.error.reason) == (75, Reason.STORAGE_FULL)
    assert "'/tmp/almanac-1'" in end.error.message
    assert "TMPDIR" in end.error.message


def test_the_unforeseen_is_our_fault_worth_a_retry_and_one_line() -> None:
    end, log = ended(raises(ZeroDivisionError("float\ndivision")))
    assert isinstance(end, Failed)
    assert end.error.reason is Reason.INTERNAL_ERROR
    assert end.error.exit_code.worth_a_retry
    assert end.error.message.startswith("ZeroDivisionError: float division: this is a fault of Almanac's")
    assert "ALMANAC_DEBUG=1" in end.error.message
    assert log == ""


def test_debugging_shows_where_it_failed() -> None:
    _, log = ended(raises(ZeroDivisionError("boom")), debug=True)
    assert "Traceback" in log
    assert "ZeroDivisionError: boom" in log


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_at_its_next_count(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    end, log = ended(until_stopped(number))
    assert isinstance(end, Failed)
    assert (end.exit_code, end.error.reason, end.stuck) == (code, Reason.INTERRUPTED, False)
    assert "Once more: exit at once" in log
    assert signal.getsignal(number) is before


def test_a_run_that_is_complete_stays_complete_when_a_signal_comes_late() -> None:
    def work(_: Progress) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "complete"

    assert ended(work)[0] == Done("complete")


def test_a_run_that_does_not_stop_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.05)
    released = threading.Event()

    def work(_: Progress) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        released.wait(30)
        return "too late"

    end = failed(work)
    released.set()
    assert (end.exit_code, end.error.reason, end.stuck) == (130, Reason.INTERRUPTED, True)


def test_a_second_signal_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)

    def work(progress: Progress) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            progress.check()

    ended(work)
    assert codes in ([143], [130])  # whichever of two signals at once is delivered last
