"""A real Dask for tests: a scheduler, and two workers as processes of this machine, which start again when they end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from distributed import Client, LocalCluster, Worker

from almanac_jobs.engines.dask_session import ADDRESS, _without_main


@contextmanager
def local_cluster(**options: Any) -> Iterator[Callable[[], list[int]]]:
    """A cluster that runs find by the environment; gives what lists its workers' processes. `options` are Dask's."""
    size = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "1GiB"}
    with (
        _without_main(),
        pytest.MonkeyPatch.context() as patch,
        LocalCluster(**size, dashboard_address=None, **options) as cluster,
    ):
        patch.setenv(ADDRESS, cluster.scheduler_address)

        def pids() -> list[int]:
            with Client(cluster, set_as_default=False) as client:
                return sorted(client.run(_pid).values())

        yield pids


def spilled() -> int:
    """How often workers have put something on their disk because memory was short."""
    with Client(os.environ[ADDRESS], set_as_default=False) as client:
        return sum(client.run(_spilled).values())


def _spilled(dask_worker: Worker) -> int:
    return int(dask_worker.data.cumulative_metrics["disk-write", "count"])


def _pid() -> int:
    return os.getpid()
