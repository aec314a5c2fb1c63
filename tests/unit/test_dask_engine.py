"""What the Dask engine makes of its tasks, without Dask: pieces by key, and attempts."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from almanac.api import JobError, Reason
from almanac_jobs.engines import dask, dask_tasks
from almanac_jobs.engines.dask import Grouped, Repeated
from almanac_jobs.engines.shuffle import Division, Grouping
from almanac_jobs.progress import Interrupted


def failing(*errors: Exception) -> Callable[[int], int]:
    left = list(errors)

    def task(value: int) -> int:
        if left:
            raise left.pop(0)
        return value

    return task


AWAY = JobError(Reason.STORAGE_UNAVAILABLE, "lake: it is away")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "PAUSE", 0)


def test_what_may_pass_is_tried_again() -> None:
    assert Repeated(failing(AWAY, AWAY), 3)(7) == 7
    with pytest.raises(JobError, match="lake: it is away"):
        Repeated(failing(AWAY, AWAY), 2)(7)


@pytest.mark.parametrize("error", [JobError(Reason.DATA_ERROR, "a gap"), Interrupted(), ZeroDivisionError()], ids=repr)
def test_what_stays_is_not(error: Exception) -> None:
    with pytest.raises(type(error)):
        Repeated(failing(error), 3)(7)


def test_a_counter_stops_its_task_once_the_session_is_over() -> None:
    progress = pickle.loads(pickle.dumps(dask.Counter("one")))()  # noqa: S301 - of our own making
    progress.advance()
    asyncio.run(dask_tasks.end("other"))
    progress.advance()
    asyncio.run(dask_tasks.end("one"))
    with pytest.raises(Interrupted):
        progress.advance()


def test_records_of_a_group_are_those_of_its_keys() -> None:
    task = Grouped(lambda group, records: iter([(group, list(records))]), 1, (4, 6))
    assert task([[(b"a",), ()], [(b"b", b"c"), (b"d",)]]) == [(1, [(4, b"a"), (6, b"b"), (6, b"c"), (6, b"d")])]


def test_keys_of_groups_are_all_keys() -> None:
    grouping = Grouping(Division(8), 4)
    assert [key for group in range(4) for key in grouping.keys_of(group)] == list(range(16))
    assert all(grouping.of_key(key) == group for group in range(4) for key in grouping.keys_of(group))
