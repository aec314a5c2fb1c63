"""A real Spark for tests: a master, two workers and an executor on each, processes of their own on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from almanac.api import ForecastJob
from almanac_jobs.engines import spark
from ledgers import job

CORES = 1
MEMORY = 1024
"""MiB of each executor."""


@contextmanager
def local_cluster(folder: Path, conf: Mapping[str, str], disk: Path | None = None) -> Iterator[SparkSession]:
    """A session on `local-cluster[2,1,1024]`; executors see the environment as it is now. `folder` is for its files,
    `disk` for what is shuffled, if that is to be elsewhere."""
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("there is no Java, which Spark needs: apt-get install openjdk-17-jre-headless")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_WORKER_DIR", str(folder / "workers"))
        patch.setenv("SPARK_LOCAL_DIRS", str(disk or folder / "local"))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYTHONPATH", os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path))
        settings = spark.settings(ForecastJob.parse(job("lake", "out")))
        settings |= {"spark.executor.extraJavaOptions": settings["spark.driver.extraJavaOptions"]} | dict(conf)
        settings["spark.master"] = f"local-cluster[2,{CORES},{MEMORY}]"
        builder = SparkSession.builder
        for name, value in settings.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        try:
            yield session
        finally:
            session.stop()
            _end_jvm()


def _end_jvm() -> None:
    """The next session is to see the environment of then."""
    gateway: Any = SparkContext._gateway
    SparkContext._gateway = SparkContext._jvm = None
    gateway.shutdown()
    gateway.proc.stdin.close()  # which is what it waits for
    gateway.proc.wait(60)


def executor_pids() -> list[int]:
    """The processes of executors that were started by this process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"CoarseGrainedExecutorBackend" in command and os.getpid() in _ancestors(int(folder.name)):
            found.append(int(folder.name))
    return sorted(found)


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:
            return
        yield pid
