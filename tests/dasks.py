"""A real Dask for tests: a scheduler, and two workers as processes of this machine, which start again when they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from distributed import Client, LocalCluster

from almanac_jobs.engines.dask_session import ADDRESS, _without_main


@contextmanager
def local_cluster() -> Iterator[Callable[[], list[int]]]:
    """A cluster that runs find by the environment; gives what lists its workers' processes."""
    with (
        _without_main(),
        pytest.MonkeyPatch.context() as patch,
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="1GiB", dashboard_address=None) as cluster,
    ):
        patch.setenv(ADDRESS, cluster.scheduler_address)

        def pids() -> list[int]:
            with Client(cluster, set_as_default=False) as client:
                return sorted(client.run(_pid).values())

        yield pids


def _pid() -> int:
    import os

    return os.getpid()
