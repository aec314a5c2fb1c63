"""Storage that fails executors of Spark and workers of Dask, and disks of theirs that are full: a run ends as it would
in one process. Only requests that workers have signed fail; what the driver asks for is answered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import anomalies
import disks
from almanac.api import Engine, Reason, Report
from driven import drive, published
from faults import FULL, GONE, LASTS, PASSES, ends
from kube.waiting import eventually
from ledgers import job, ledger
from matrix import Group, Moment, cell
from s3 import Fault, S3Server, lake

pytestmark = pytest.mark.timeout(600)
WORKERS = "workers"
"""The id of the key that workers sign with."""
REQUESTS: dict[Moment, Callable[[str, str], bool]] = {
    Moment.READING: lambda method, path: method == "GET" and "/raw/" in path,
    Moment.WRITING: lambda method, path: method == "PUT" and "/forecasts/" in path,
}
"""What workers ask for at a moment."""
_ids = (f"r{number:03}" for number in itertools.count())


@dataclass(frozen=True)
class Cluster:
    """Two workers, with one disk."""

    engine: Engine
    disk: Path


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with lake() as server:
        put(server, "raw/t.parquet", ledger(20, 40))
        yield server


def put(s3: S3Server, key: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    rows = np.random.default_rng(1).permutation(len(table))
    pq.write_table(table.take(rows), sink, row_group_size=100)
    s3.put("lake", key, sink.getvalue().to_pybytes())


@pytest.fixture(scope="module", params=["spark", "dask"])
def cluster(
    request: pytest.FixtureRequest, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Each fails for good the second time; storage is given up soon (`impatient`)."""
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("almanac_jobs.artefacts.LATE", 1.0)
        disk = folder / "disk"
        try:
            stack.enter_context(disks.mounted(disk, "64m"))
        except pytest.skip.Exception:  # those do that need a disk that can be full
            disk.mkdir(exist_ok=True)
        if request.param == "spark":
            pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
            import sparks

            conf = {"spark.task.maxFailures": "2", "spark.python.daemon.module": "impatient"}
            with pytest.MonkeyPatch.context() as theirs:
                theirs.setenv("AWS_ACCESS_KEY_ID", WORKERS)
                session = stack.enter_context(sparks.local_cluster(folder, conf, disk))
            # The driver has a disk of its own, as in a pod of its own.
            (folder / "driver").mkdir()
            patch.setattr(session.sparkContext, "_temp_dir", str(folder / "driver"))
            yield Cluster(Engine.SPARK, disk)
        else:
            pytest.importorskip("distributed", reason="the extra `dask` is not installed")
            import dask

            import dasks

            patch.setattr("almanac_jobs.engines.dask.ATTEMPTS", 2)
            environment = {"AWS_ACCESS_KEY_ID": WORKERS, "TMPDIR": str(disk)}
            stack.enter_context(dask.config.set({"distributed.worker.memory.target": 1e-6}))  # the rest is spilled
            stack.enter_context(dasks.local_cluster(preload=["impatient"], local_directory=str(disk), env=environment))
            yield Cluster(Engine.DASK, disk)


@pytest.fixture
def before(s3: S3Server, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Small data are divided as big ones are; what is published so far, by the first test's first run at least."""
    monkeypatch.setattr("almanac_jobs.engines.shuffled.LEAST_ROWS", 400)
    monkeypatch.setattr("almanac_jobs.engines.shuffled.MOST_ROWS", 400)
    monkeypatch.setattr("almanac_jobs.buckets.BUCKET_ENTITIES", 16)
    if f"{cluster.engine.value}/latest.json" not in s3.keys("lake"):
        assert carried_out(cluster, tmp_path, "before").reason is Reason.COMPLETED
    return published(output(cluster))


def output(cluster: Cluster) -> str:
    return f"s3://lake/{cluster.engine.value}"


def carried_out(cluster: Cluster, folder: Path, run: str) -> Report:
    fields = {"engine": cluster.engine.value, "frequency": "D", "dask": {"workers": 2, "threads": 1}}
    return drive(job("s3://lake/raw", output(cluster), evaluation__windows=0, **fields), folder, run)


def assert_said_plainly(report: Report, reason: Reason) -> None:
    """One sentence or two about the job, with nothing of Java's, Python's or Dask's around them."""
    assert (report.reason, report.exit_code) == (reason, reason.exit_code), report.message
    assert report.message.startswith("spec."), report.message
    for word in ("\n", "Traceback", "org.apache", "java.", "Exception", "Lost task", "stage", "JobError", "ndarray"):
        assert word not in report.message
    assert len(report.message) < 600


def assert_gone(s3: S3Server, run: str) -> None:
    """A task that was under way deletes what it has written itself, once it knows."""
    eventually(lambda: not [key for key in s3.keys("lake") if f"/{run}/" in key], f"all files of {run} to be gone")


def assert_kept_and_then_as_ever(
    cluster: Cluster, s3: S3Server, before: tuple[str, str], folder: Path, run: str
) -> None:
    """A run has left nothing behind, and is complete once it is tried again."""
    assert published(output(cluster)) == before
    assert_gone(s3, run)
    assert carried_out(cluster, folder, run).reason is Reason.COMPLETED
    assert published(output(cluster)) == (run, before[1])


@pytest.fixture
def failing(s3: S3Server) -> Iterator[Callable[[Fault, Moment], Fault]]:
    """Lets a fault happen to what workers ask for at a moment."""

    def arm(fault: Fault, moment: Moment) -> Fault:
        s3.faults.append(replace(fault, matches=REQUESTS[moment], signed_by=WORKERS))
        return s3.faults[-1]

    yield arm
    s3.faults.clear()


# --- what passes ------------------------------------------------------------------------------------------------------

SAME = "The request is sent again, or the task done again: the run is complete, with the same bytes as any other."


def passing() -> Iterator[Any]:
    """What passes by itself, at each moment at which it can be."""
    for name in ("slow-down", "reset", "stall", "half"):
        fault, how = PASSES[name]
        for moment in (Moment.READING,) if how.truncate else REQUESTS:
            mark = cell(Group.CLUSTERS, f"{fault}, for a worker", moment, SAME)
            yield pytest.param(how, moment, id=f"{name}-{moment.name.lower()}", marks=mark)


@pytest.mark.parametrize(("fault", "moment"), list(passing()))
def test_what_passes_is_ridden_out(
    fault: Fault, moment: Moment, cluster: Cluster, before: tuple[str, str], failing: Any, tmp_path: Path
) -> None:
    armed, run = failing(fault, moment), next(_ids)
    assert carried_out(cluster, tmp_path, run).reason is Reason.COMPLETED
    assert armed.times == 0
    assert published(output(cluster)) == (run, before[1])


# --- what lasts -------------------------------------------------------------------------------------------------------

SILENT = ("The store takes requests, and never answers", Fault(delay=5.0, reset=True), Reason.STORAGE_UNAVAILABLE)
SHORT = ("Half an object arrives, again and again", Fault(truncate=100), Reason.STORAGE_UNAVAILABLE)
ALL = {**LASTS, "silent": SILENT, "half": SHORT, "full": FULL, "gone": GONE}
OF_MOMENTS = {
    Moment.READING: ("cut-off", "denied", "expired", "silent", "half"),
    Moment.WRITING: ("overloaded", "denied", "expired", "silent", "full", "gone"),
}


def lasting() -> Iterator[Any]:
    """What lasts."""
    for moment, names in OF_MOMENTS.items():
        for name in names:
            fault, how, reason = ALL[name]
            mark = cell(Group.CLUSTERS, f"{fault}, for workers", moment, ends(reason))
            yield pytest.param(how, moment, reason, id=f"{name}-{moment.name.lower()}", marks=mark)


@pytest.mark.parametrize(("fault", "moment", "reason"), list(lasting()))
def test_what_lasts_ends_the_run_and_nothing_else(
    fault: Fault,
    moment: Moment,
    reason: Reason,
    s3: S3Server,
    cluster: Cluster,
    before: tuple[str, str],
    failing: Any,
    tmp_path: Path,
) -> None:
    run = next(_ids)
    failing(replace(fault, times=-1), moment)
    ended = carried_out(cluster, tmp_path, run)
    assert_said_plainly(ended, reason)
    assert "s3://lake/" in ended.message
    s3.faults.clear()
    assert_kept_and_then_as_ever(cluster, s3, before, tmp_path, run)


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(cluster: Cluster) -> AbstractContextManager[None]:
    """What leaves no room on the disk of all workers."""
    if not cluster.disk.is_mount():
        pytest.skip("takes a disk that can be full, and mounting one is not allowed here")
    return disks.filled(cluster.disk)


@pytest.mark.parametrize("cluster", ["spark"], indirect=True)
@pytest.mark.parametrize(
    "whose",
    [
        pytest.param(whose, marks=cell(Group.CLUSTERS, fault, Moment.READING, ends(Reason.STORAGE_FULL)))
        for whose, fault in {
            "executors": "The disk of an executor of Spark is full (ENOSPC), as it shuffles",
            "driver": "The disk of a driver on Spark is full (ENOSPC)",
        }.items()
    ],
)
def test_spark_without_room(
    whose: str,
    s3: S3Server,
    cluster: Cluster,
    before: tuple[str, str],
    full: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pyspark import SparkContext

    run = next(_ids)
    if whose == "driver":
        monkeypatch.setattr(SparkContext._active_spark_context, "_temp_dir", str(cluster.disk))
    with full:
        ended = carried_out(cluster, tmp_path, run)
    assert_said_plainly(ended, Reason.STORAGE_FULL)
    assert ended.message.startswith(f"spec.spark.{whose}: no space is left on the")
    assert_kept_and_then_as_ever(cluster, s3, before, tmp_path, run)


@pytest.mark.parametrize("cluster", ["dask"], indirect=True)
@cell(
    Group.CLUSTERS,
    "The disk of a worker of Dask is full (ENOSPC), and would be spilled to",
    Moment.WHILE,
    "What it holds stays in memory: the run is complete, with the same bytes as any other.",
)
def test_what_cannot_be_spilled_stays_in_memory(
    cluster: Cluster, before: tuple[str, str], full: Any, tmp_path: Path
) -> None:
    import dasks

    counts, runs = [dasks.spilled()], [next(_ids), next(_ids)]
    assert carried_out(cluster, tmp_path, runs[0]).reason is Reason.COMPLETED
    counts.append(dasks.spilled())
    with full:
        assert carried_out(cluster, tmp_path, runs[1]).reason is Reason.COMPLETED
    counts.append(dasks.spilled())
    assert counts[0] < counts[1] == counts[2]
    assert published(output(cluster)) == (runs[1], before[1])


# --- an AnomalyJob, whose workers keep their rows ---------------------------------------------------------------------

ODD = "s3://lake/odd"


def anomalies_found(folder: Path, run: str) -> Report:
    fields = {"engine": "dask", "dask": {"workers": 2, "threads": 1}, "features": {"columns": ["amount", "lines"]}}
    made = anomalies.document(model__rounds=2, model__detector="student", **fields)
    made["spec"]["source"]["uri"], made["spec"]["output"]["uri"] = "s3://lake/entries", ODD
    return drive(made, folder, run)


ANOMALY: dict[str, tuple[str, Moment, Fault | None, Reason]] = {
    "denied": (f"{LASTS['denied'][0]}, for workers of an AnomalyJob", Moment.READING, *LASTS["denied"][1:]),
    "full": (f"{FULL[0]}, for workers of an AnomalyJob", Moment.WRITING, *FULL[1:]),
    "disk": (
        "The disk of a worker of Dask is full (ENOSPC), where an AnomalyJob keeps features that memory does not hold",
        Moment.READING,
        None,
        Reason.STORAGE_FULL,
    ),
}


@pytest.mark.parametrize("cluster", ["dask"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "moment", "reason"),
    [
        pytest.param(how, moment, reason, id=name, marks=cell(Group.CLUSTERS, fault, moment, ends(reason)))
        for name, (fault, moment, how, reason) in ANOMALY.items()
    ],
)
def test_workers_of_an_anomaly_job(
    fault: Fault | None,
    moment: Moment,
    reason: Reason,
    s3: S3Server,
    cluster: Cluster,
    full: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("almanac_jobs.judged.SHARE", 0.0)  # of memory, for features: none
    for part in range(2):
        put(s3, f"entries/part-{part}.parquet", anomalies.entries(600, 30, seed=part))
    if "odd/latest.json" not in s3.keys("lake"):
        assert anomalies_found(tmp_path, "before").reason is Reason.COMPLETED
    before, run = published(ODD), next(_ids)
    if fault is None:
        with full:
            ended = anomalies_found(tmp_path, run)
        assert "disk of a worker" in ended.message
    else:
        words = {Moment.READING: ("GET", "/entries/"), Moment.WRITING: ("PUT", "/scores/")}[moment]
        here = replace(fault, times=-1, signed_by=WORKERS)
        s3.faults.append(replace(here, matches=lambda method, path: method == words[0] and words[1] in path))
        ended = anomalies_found(tmp_path, run)
        s3.faults.clear()
    assert_said_plainly(ended, reason)
    assert published(ODD) == before
    assert_gone(s3, run)
    assert anomalies_found(tmp_path, run).reason is Reason.COMPLETED
    assert published(ODD) == (run, before[1])
