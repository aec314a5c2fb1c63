"""How many Dask workers a run gets, and errors that travel from one process to another."""

from __future__ import annotations

import pickle

import pytest

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from almanac.api import Dask, JobError, Reason
from almanac_jobs.engines.dask_session import fitting, wanted
from almanac_jobs.progress import Interrupted

GIB = 1 << 30


@pytest.mark.parametrize(
    ("bounds", "useful", "expected"),
    [
        (Dask(), 1000, 4),
        (Dask(workers=3), 1, 3),
        (Dask(minimum=2, maximum=8), 1, 2),
        (Dask(minimum=2, maximum=8), 5, 5),
        (Dask(minimum=2, maximum=8), 50, 8),
        (Dask(maximum=8), 0, 1),
    ],
)
def test_workers_of_a_cluster(bounds: Dask, useful: int, expected: int) -> None:
    assert wanted(bounds, useful) == expected


@pytest.mark.parametrize(
    ("bounds", "cores", "memory", "expected"),
    [
        (Dask(), 16, 64 * GIB, (4, 2)),
        (Dask(workers=2, threads=8), 8, 64 * GIB, (2, 4)),
        (Dask(), 2, 64 * GIB, (2, 1)),
        (Dask(), 1, 64 * GIB, (1, 1)),
        (Dask(), 16, 2 * GIB, (3, 2)),
        (Dask(workers=2), 16, GIB // 4, (1, 2)),
    ],
)
def test_processes_of_a_machine(bounds: Dask, cores: int, memory: int, expected: tuple[int, int]) -> None:
    """As many as wanted, where there are as many cores, and memory for each."""
    assert fitting(bounds, 1000, cores, memory) == expected


def test_errors_of_other_processes_arrive_as_they_left() -> None:
    arrived = pickle.loads(pickle.dumps(JobError(Reason.DATA_ERROR, "spec.label: no")))  # noqa: S301 - our own
    assert isinstance(arrived, JobError)
    assert (arrived.reason, arrived.message) == (Reason.DATA_ERROR, "spec.label: no")
    assert pickle.loads(pickle.dumps(Interrupted())).reason is Reason.INTERRUPTED  # noqa: S301
