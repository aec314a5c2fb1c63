"""Workers on Dask, as processes of this machine: what they give back, and what happens when they or the run end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

import dask

from almanac.api import Dask, JobError, Reason
from almanac_jobs.engines import dask_session
from almanac_jobs.engines.dask_session import Session
from almanac_jobs.engines.dask_tasks import Voice
from almanac_jobs.progress import Interrupted, Progress
from kube.real import free_port
from matrix import Group, Moment, cell


def pid_of(value: int) -> tuple[int, int]:
    return os.getpid(), value


def double(made: tuple[int, int]) -> tuple[int, int, int]:
    return made[0], os.getpid(), 2 * made[1]


def refuse() -> None:
    raise JobError(Reason.DATA_ERROR, "spec.label: no")


def exhaust() -> None:
    raise MemoryError


def wait_for(file: str, voice: Voice) -> int:
    while not Path(file).exists():
        voice(1)
        time.sleep(0.05)
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with dask_session.session(Dask(workers=2, threads=1), Progress()) as made:
        made.take_places(made.count, Progress())
        yield made


def test_results_come_in_the_order_of_tasks(session: Session) -> None:
    heard: list[int] = []
    futures = [session.submit(pow, at, 2) for at in range(8)]
    assert session.results(futures, Progress(), heard.append) == [at * at for at in range(8)]


def fill() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/scratch")


def miss() -> None:
    raise FileNotFoundError(errno.ENOENT, "No such file", "/gone")


@pytest.mark.parametrize(
    ("task", "reason", "words"),
    [
        (refuse, Reason.DATA_ERROR, "spec.label: no"),
        (exhaust, Reason.CLUSTER_UNAVAILABLE, "spec.dask.memory: a task"),
        (fill, Reason.STORAGE_FULL, "spec.dask: no space is left on the disk of a worker, .*'/scratch'"),
        (miss, Reason.INTERNAL_ERROR, "FileNotFoundError: .*'/gone'"),
    ],
)
def test_errors_of_tasks(session: Session, task: Callable[[], None], reason: Reason, words: str) -> None:
    with pytest.raises(JobError, match=words) as caught:
        session.results([session.submit(pow, 2, 2), session.submit(task)], Progress())
    assert caught.value.reason is reason


def test_a_place_is_manned_again_and_makes_again_what_was_lost(session: Session, tmp_path: Path) -> None:
    places = range(session.count)
    made = [session.submit(pid_of, place, place=place) for place in places]
    before = [pid for pid, _ in session.results(made, Progress())]
    assert len(set(before)) == session.count
    held = [session.submit(wait_for, str(tmp_path / "go"), session.voice(place), place=place) for place in places]
    started = threading.Event()
    with session.listening(lambda place, what, value: started.set()):
        assert started.wait(30)
        os.kill(before[-1], signal.SIGKILL)
        (tmp_path / "go").touch()
        session.wait(held, Progress())
    doubled = session.results([session.submit(double, one, place=at) for at, one in enumerate(made)], Progress())
    assert [value for _, _, value in doubled] == [2 * place for place in places]
    assert [pid for pid, _, _ in doubled[:-1]] == before[:-1]
    assert doubled[-1][0] == doubled[-1][1] != before[-1]


def test_a_run_that_is_stopped_waits_for_no_task(session: Session, tmp_path: Path) -> None:
    progress = Progress()
    future = session.submit(wait_for, str(tmp_path / "go"), session.voice(0))
    threading.Timer(0.3, progress.stop).start()
    with pytest.raises(Interrupted):
        session.results([future], progress)
    (tmp_path / "go").touch()


def loaded(module: str) -> bool:
    return module in sys.modules


def test_workers_import_what_they_are_to_before_their_first_task() -> None:
    bounds = Dask(workers=1, threads=1)
    with dask_session.session(bounds, Progress(), preload=["almanac_jobs.forecasting"]) as made:
        assert made.results([made.submit(loaded, "almanac_jobs.forecasting")], Progress()) == [True]


@cell(
    Group.CLUSTERS,
    "Worker after worker of Dask dies of the same task (out of memory)",
    Moment.WHILE,
    "ClusterUnavailable, tried again; the message names the field that raises their memory.",
)
def test_a_task_that_ends_its_workers_is_given_up() -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        dask_session.session(Dask(workers=1, threads=1, memory="1Gi"), Progress()) as made,
        pytest.raises(
            JobError, match=r"spec\.dask\.memory: 2 workers in turn died .* give each more than 1Gi"
        ) as caught,
    ):
        made.results([made.submit(die)], Progress())
    assert caught.value.reason is Reason.CLUSTER_UNAVAILABLE


@cell(
    Group.CLUSTERS,
    "The scheduler of Dask does not answer the driver",
    Moment.BEFORE,
    "The driver asks for five minutes; then ClusterUnavailable, tried again, with its address.",
)
def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    with (
        pytest.raises(JobError, match=r"DASK_SCHEDULER_ADDRESS: the scheduler at `tcp://127\.0\.0\.1:9`") as caught,
        dask_session.session(Dask(), Progress(), patience=0.0),
    ):
        pass
    assert caught.value.reason is Reason.CLUSTER_UNAVAILABLE


@contextmanager
def processes(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler at a port, and a worker of it, which end with the block; gives the scheduler's process."""
    path = os.pathsep.join(one for one in sys.path if one)
    scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = ["dask_worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    begun = []
    for program, *options in (scheduler, worker):
        command = [sys.executable, "-m", f"distributed.cli.{program}", *options]
        with (folder / program).open("ab") as log:
            begun.append(subprocess.Popen(command, stderr=log, cwd=folder, env={**os.environ, "PYTHONPATH": path}))
    try:
        yield begun[0]
    finally:
        for one in begun:
            one.kill()
            one.wait()


@cell(
    Group.CLUSTERS,
    "The scheduler of Dask is killed (SIGKILL), and all that it knows is lost",
    Moment.WHILE,
    "ClusterUnavailable, tried again: the next attempt finds the scheduler that is there by then.",
)
def test_a_scheduler_that_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tcp://127.0.0.1:{port}")
    one = Dask(workers=1, threads=1)
    with processes(tmp_path, port) as scheduler, dask_session.session(one, Progress(), patience=30.0) as made:
        made.take_places(1, Progress())
        started = threading.Event()
        held = made.submit(wait_for, str(tmp_path / "go"), made.voice(0), place=0)
        with made.listening(lambda place, what, value: started.set()):
            assert started.wait(30)
        scheduler.kill()
        with pytest.raises(JobError, match=r"spec\.dask: the scheduler, or all workers .*, are gone") as caught:
            made.results([held], Progress())
    assert caught.value.reason is Reason.CLUSTER_UNAVAILABLE
    with processes(tmp_path, port), dask_session.session(one, Progress(), patience=30.0) as made:
        assert made.results([made.submit(pow, 2, 5)], Progress()) == [32]


def test_tasks_of_a_session_that_is_over_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's only thread is free for the next session, although nothing that its task waits for has come."""
    port = free_port()
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tcp://127.0.0.1:{port}")
    one = Dask(workers=1, threads=1)
    with processes(tmp_path, port):
        with dask_session.session(one, Progress(), patience=30.0) as made:
            made.take_places(1, Progress())
            started = threading.Event()
            made.submit(wait_for, str(tmp_path / "go"), made.voice(0), place=0)
            with made.listening(lambda place, what, value: started.set()):
                assert started.wait(30)
        progress = Progress()
        timer = threading.Timer(30, progress.stop)
        timer.start()
        with dask_session.session(one, Progress(), patience=30.0) as made:
            assert made.results([made.submit(pow, 2, 5)], progress) == [32]
        timer.cancel()


def test_a_program_without_a_guard_says_nothing_but_its_own(tmp_path: Path) -> None:
    """Worker processes do not run it again, and Dask writes nothing."""
    (tmp_path / "program.py").write_text(
        "from almanac.api import Dask\n"
        "from almanac_jobs.engines import dask_session\n"
        "from almanac_jobs.progress import Progress\n"
        "with dask_session.session(Dask(workers=1, threads=1), Progress()) as session:\n"
        "    print(session.results([session.submit(pow, 2, 3)], Progress()))\n"
    )
    command = [sys.executable, str(tmp_path / "program.py")]
    path = os.pathsep.join(one for one in sys.path if one)
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert (ended.stdout, ended.stderr) == ("[8]\n", "")
