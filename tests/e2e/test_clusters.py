"""Runs on a real Spark and a real Dask of several processes, against a real S3 API: the same bytes as on one machine,
whatever happens to the cluster."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from almanac.api import Engine, ForecastJob, JobError, Reason, Report
from almanac_jobs import __main__ as driver
from almanac_jobs import run
from almanac_jobs.progress import Progress
from ledgers import FIRST_DAY, job, ledger
from matrix import Group, Moment, cell
from s3 import Fault, S3Server, lake

pytestmark = pytest.mark.timeout(600)
OF_THE_RUN = ("run", "engine", "engineReason", "startTime", "endTime", "gitRevision")  # code may be committed meanwhile
WORKERS = {"dask": {"workers": 2, "threads": 1}}
_ids = (f"r{number:03}" for number in itertools.count())


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with lake() as server:
        yield server


@dataclass(frozen=True)
class Cluster:
    """A cluster of two workers with a core each. `pids` are their processes."""

    engine: Engine
    pids: Callable[[], list[int]]


@pytest.fixture(scope="module", params=["spark", "dask"])
def cluster(
    request: pytest.FixtureRequest, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    if request.param == "spark":
        pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
        import sparks

        conf = {"spark.task.maxFailures": "2"}  # what never works is given up soon
        with sparks.local_cluster(tmp_path_factory.mktemp("spark"), conf):
            yield Cluster(Engine.SPARK, sparks.executor_pids)
    else:
        pytest.importorskip("distributed", reason="the extra `dask` is not installed")
        import dasks

        with dasks.local_cluster() as pids, pytest.MonkeyPatch.context() as patch:
            patch.setattr("almanac_jobs.engines.dask.ATTEMPTS", 2)
            yield Cluster(Engine.DASK, pids)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    """Small data are divided as big ones are: many portions, many buckets, a sample of some of them."""
    monkeypatch.setattr("almanac_jobs.engines.shuffled.LEAST_ROWS", 600)
    monkeypatch.setattr("almanac_jobs.engines.shuffled.MOST_ROWS", 600)
    monkeypatch.setattr("almanac_jobs.buckets.BUCKET_ENTITIES", 8)
    for module in ("engines.shuffled", "source.reader"):
        monkeypatch.setattr(f"almanac_jobs.{module}.SAMPLE", 100)


def put(s3: S3Server, name: str, *tables: pa.Table, **options: Any) -> str:
    """A data set of a file a table; its URI."""
    for number, table in enumerate(tables):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        s3.put("lake", f"{name}/part-{number}.parquet", sink.getvalue().to_pybytes())
    return f"s3://lake/{name}"


def shuffled(table: pa.Table, seed: int = 1) -> pa.Table:
    return table.take(np.random.default_rng(seed).permutation(len(table)))


def carry_out(document: dict[str, Any], engine: Engine, progress: Progress | None = None) -> tuple[str, Report]:
    """A run of a job on an engine: its id and its report."""
    identity = next(_ids)
    outcome = run.run(
        ForecastJob.parse({**document, "spec": document["spec"] | WORKERS}),
        engine=engine,
        run_id=identity,
        clock=lambda: datetime.now(UTC),
        progress=progress or Progress(),
        manifest="",
    )
    return identity, outcome.report


def record(s3: S3Server, output: str, identity: str) -> dict[str, Any]:
    """report.json, without what differs between two runs of the same job."""
    body = s3.client.get_object(Bucket="lake", Key=f"{output}/runs/{identity}/report.json")["Body"].read()
    told = json.loads(body)
    told["files"] = [file for file in told["files"] if file["path"] != "report.html"]
    for file in told["files"]:
        data = s3.client.get_object(Bucket="lake", Key=f"{output}/runs/{identity}/{file['path']}")["Body"].read()
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
    return {name: value for name, value in told.items() if name not in OF_THE_RUN}


def assert_equal_to_local(cluster: Cluster, s3: S3Server, document: dict[str, Any]) -> dict[str, Any]:
    """A job gives the same files on a cluster as on one machine; gives report.json."""
    output = document["spec"]["output"]["uri"].removeprefix("s3://lake/")
    (there, report), (here, _) = carry_out(document, cluster.engine), carry_out(document, Engine.LOCAL)
    assert report.engine is cluster.engine
    told = record(s3, output, there)
    assert told == record(s3, output, here)
    return told


# --- the same bytes ---------------------------------------------------------------------------------------------------


def many_rows_a_day() -> pa.Table:
    """Thirty accounts, several rows a day of amounts in cents, some without amount, date or account, days missing."""
    rng = np.random.default_rng(5)
    rows = 6000
    day, entity = rng.integers(0, 70, rows), rng.integers(0, 30, rows)
    cents = [None if rng.random() < 0.01 else Decimal(int(cent)).scaleb(-2) for cent in rng.normal(0, 1e6, rows)]
    seconds = np.datetime64("2026-01-05", "s") + day * 86400 + rng.integers(0, 86400, rows)
    return pa.table(
        {
            "account": pa.array([None if rng.random() < 0.01 else f"account-{one}" for one in entity]),
            "date": pa.array(seconds, mask=rng.random(rows) < 0.01),
            "amount": pa.array(cents, pa.decimal128(18, 2)),
            "status": pa.array(np.where(rng.random(rows) < 0.8, "posted", "draft")),
        }
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"source__aggregate": "sum", "source__filter": "status == 'posted'", "missing": "zero"},
        {"source__aggregate": "mean", "missing": "interpolate", "model__family": "ets"},
        {"source__aggregate": "last", "missing": "drop"},
        {"source__aggregate": "count", "model__family": "seasonalnaive", "model__seasonLength": 7},
        {"source__aggregate": "max", "frequency": "W", "evaluation__windows": 0, "model__family": "theta"},
        {"source__aggregate": "min", "output__layout": "perEntity", "floor": -5e6},
    ],
    ids=lambda fields: fields["source__aggregate"],
)
@pytest.mark.usefixtures("small")
def test_the_same_bytes_as_on_one_machine(fields: dict[str, Any], s3: S3Server, cluster: Cluster) -> None:
    table = many_rows_a_day()
    uri = put(s3, "cents", table.slice(0, 2500), table.slice(2500), row_group_size=600)
    defaults = {"frequency": "D", "missing": "zero"}
    told = assert_equal_to_local(cluster, s3, job(uri, "s3://lake/out", **(defaults | fields)))
    assert told["entities"] == 30
    assert told["buckets"] == 4
    assert told["source"]["nullEntities"] > 0
    assert told["source"]["merged"] > 0


@pytest.mark.usefixtures("small")
def test_a_frequency_is_inferred_from_all_that_there_is(s3: S3Server, cluster: Cluster) -> None:
    months = np.datetime64("2020-01") + np.arange(48)
    tables = [
        pa.table(
            {
                "account": pa.array(np.repeat(np.arange(first, first + 20), 48)),
                "date": pa.array(np.tile(months.astype("datetime64[D]"), 20)),
                "amount": pa.array(np.random.default_rng(first).normal(100, 9, 960)),
            }
        )
        for first in (0, 20)
    ]
    uri = put(s3, "months", *map(shuffled, tables), row_group_size=200)
    told = assert_equal_to_local(cluster, s3, job(uri, "s3://lake/out", frequency="auto"))
    assert told["source"]["frequency"] == "M"
    assert told["entityType"] == "int64"


def test_data_of_one_portion(s3: S3Server, cluster: Cluster) -> None:
    told = assert_equal_to_local(cluster, s3, job(put(s3, "one", ledger(3, 40)), "s3://lake/out"))
    assert told["buckets"] == 1


@pytest.mark.usefixtures("small")
def test_one_entity_with_nine_rows_in_ten(s3: S3Server, cluster: Cluster) -> None:
    """Its rows become one value a day before they are shuffled: no task holds more than its share of them."""
    rng = np.random.default_rng(3)
    rows = 40_000
    entity = np.where(rng.random(rows) < 0.9, 0, rng.integers(1, 200, rows))
    table = pa.table(
        {
            "account": pa.array([f"account-{one:04}" for one in entity]),
            "date": pa.array((FIRST_DAY + rng.integers(0, 50, rows)).astype("datetime64[D]")),
            "amount": pa.array(rng.normal(0, 1e9, rows)),
        }
    )
    uri = put(s3, "skew", table, row_group_size=2000)
    told = assert_equal_to_local(cluster, s3, job(uri, "s3://lake/out", frequency="D"))
    assert told["source"]["merged"] > 30_000


# --- what happens to it -----------------------------------------------------------------------------------------------


def left_behind(s3: S3Server, output: str) -> list[str]:
    """Keys below an output, once tasks that were under way when their job was cancelled have come to their end."""
    asked = -1
    while asked != len(s3.requests):
        asked = len(s3.requests)
        time.sleep(2)
    return [key for key in s3.keys("lake") if key.startswith(f"{output}/")]


@pytest.fixture
def watched(s3: S3Server) -> Iterator[Callable[..., None]]:
    """Does something, once, when the first request of a method for a key with some words comes in, from a time on."""

    def watch(method: str, words: str, act: Callable[[], None], begun: Callable[[], object] = lambda: True) -> None:
        acted = threading.Lock()

        def see(came: str, path: str) -> bool:
            if came == method and words in path and begun() and acted.acquire(blocking=False):
                act()
            return False

        s3.faults.append(Fault(see))

    yield watch
    s3.faults.clear()


MOMENTS = {Moment.READING: ("GET", "/part-"), Moment.WRITING: ("PUT", "/parameters/")}
"""The requests of workers at a moment: the method, and words in the path."""
SAME = "the run is complete, with the same bytes as on one machine."
NOTHING = "Nothing points to what it wrote, and that is deleted."


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(
            one,
            marks=cell(
                Group.CLUSTERS,
                "A worker's process is killed (SIGKILL): an executor of Spark, a worker of Dask",
                one,
                f"Another does its tasks: {SAME}",
            ),
        )
        for one in MOMENTS
    ],
)
@pytest.mark.usefixtures("small")
def test_a_lost_worker_costs_its_tasks_only(moment: Moment, s3: S3Server, watched: Any, cluster: Cluster) -> None:
    uri = put(s3, "kill", shuffled(ledger(40, 40)), row_group_size=100)
    victims = cluster.pids()
    assert len(victims) == 2
    killed = threading.Event()

    def kill() -> None:
        os.kill(victims[0], signal.SIGKILL)
        killed.set()

    def counted() -> bool:
        """Whether the driver knows its workers by now: on Dask it counts those that it has seen."""
        return cluster.engine is Engine.SPARK or bool(progress.workers and progress.workers.running)

    progress = Progress()
    document = job(uri, "s3://lake/killed")
    here, _ = carry_out(document, Engine.LOCAL)
    watched(*MOMENTS[moment], kill, counted)
    s3.faults.append(Fault(lambda came, path: came == "PUT" and "/scores/" in path, delay=5.0))  # Dask tells it later
    there, _ = carry_out(document, cluster.engine, progress)
    assert killed.is_set()
    assert record(s3, "killed", there) == record(s3, "killed", here)
    assert progress.workers is not None
    assert progress.workers.failed >= 1
    wait_for(lambda: len(cluster.pids()) == 2)  # the next test wants its two


def damaged(s3: S3Server) -> str:
    """Two files, of which one has lost the middle of its rows."""
    uri = put(s3, "damaged", ledger(20, 40), ledger(20, 40), row_group_size=200, compression="none")
    body = s3.client.get_object(Bucket="lake", Key="damaged/part-1.parquet")["Body"].read()
    s3.put("lake", "damaged/part-1.parquet", body[:2000] + bytes(4000) + body[6000:])
    return uri


@cell(
    Group.CLUSTERS,
    "A file was damaged, for a worker",
    Moment.READING,
    "DataError, and the file by its name, not tried again: nothing is left of the run.",
)
@pytest.mark.usefixtures("small")
def test_bad_data_are_named(s3: S3Server, cluster: Cluster) -> None:
    table = ledger(20, 40)
    uri = put(s3, "gap", table.slice(0, 300), table.slice(301), row_group_size=100)
    with pytest.raises(JobError, match=r"spec\.missing: entity `account-0000000` has no row for 2026-01-20") as caught:
        carry_out(job(uri, "s3://lake/bad", missing="fail"), cluster.engine)
    assert caught.value.reason is Reason.DATA_ERROR
    with pytest.raises(JobError, match=r"damaged/part-1\.parquet` cannot be read as Parquet"):
        carry_out(job(damaged(s3), "s3://lake/bad"), cluster.engine)
    with pytest.raises(JobError, match=r"spec\.frequency: `H` does not fit"):
        carry_out(job(uri, "s3://lake/bad", frequency="H"), cluster.engine)
    assert left_behind(s3, "bad") == []


@cell(
    Group.CLUSTERS,
    "The driver is asked to stop (SIGTERM) while workers write",
    Moment.WRITING,
    f"Interrupted: its tasks stop. {NOTHING}",
)
@pytest.mark.usefixtures("small")
def test_a_run_that_is_stopped_leaves_nothing_behind(s3: S3Server, watched: Any, cluster: Cluster) -> None:
    uri = put(s3, "stop", ledger(400, 40), row_group_size=1000)
    progress = Progress()
    watched("PUT", "/history/", progress.stop)
    with pytest.raises(JobError) as caught:
        carry_out(job(uri, "s3://lake/stopped"), cluster.engine, progress)
    assert caught.value.reason is Reason.INTERRUPTED
    assert left_behind(s3, "stopped") == []


@pytest.mark.usefixtures("small")
def test_progress_follows_the_tasks_of_a_stage(s3: S3Server, monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    """A cluster tells of tasks that end together as of one, or later: there are enough of them to be seen."""
    for rows in ("LEAST_ROWS", "MOST_ROWS"):
        monkeypatch.setattr(f"almanac_jobs.engines.shuffled.{rows}", 200)
    uri = put(s3, "watch", shuffled(ledger(40, 60)), row_group_size=100)
    s3.faults.append(Fault(lambda came, path: came == "GET" and "watch/part" in path, delay=0.5, times=-1))
    s3.faults.append(Fault(lambda came, path: came == "PUT" and "/forecasts/" in path, delay=4, times=-1))
    progress = Progress()
    seen: dict[str, set[int]] = {"read": set(), "fit": set()}
    reach = progress.reach

    def told(done: int) -> None:
        now = progress.snapshot()
        assert now is not None
        seen[now.stage].add(done)
        reach(done)

    monkeypatch.setattr(progress, "reach", told)
    try:
        carry_out(job(uri, "s3://lake/watched"), cluster.engine, progress)
    finally:
        s3.faults.clear()
    assert [(stage.stage, stage.done, stage.unit) for stage in progress.finished()[:2]] == [
        ("read", 2400, "rows"),
        ("fit", 40, "series"),
    ]
    assert any(0 < done < 2400 for done in seen["read"])
    assert any(0 < done < 40 for done in seen["fit"]), seen


@pytest.mark.usefixtures("small")
def test_the_driver(s3: S3Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    fields = {"engine": cluster.engine.value, "evaluation__windows": 0, **WORKERS}
    document = job(put(s3, "driver", ledger(20, 40)), "s3://lake/driven", **fields)

    def drive() -> tuple[int, Report]:
        (tmp_path / "job.json").write_text(json.dumps(document))
        code = driver.main(
            [
                str(tmp_path / "job.json"),
                "--run-id",
                next(_ids),
                "--termination-log",
                str(tmp_path / "log"),
                "--port",
                "0",
            ]
        )
        return code, Report.model_validate_json((tmp_path / "log").read_text())

    code, report = drive()
    assert (code, report.engine, report.reason) == (0, cluster.engine, Reason.COMPLETED)
    assert report.result is not None
    assert report.result.entities == 20
    document["spec"]["engine"] = "auto"
    monkeypatch.setenv("ALMANAC_ENGINE", cluster.engine.value)  # what did not fit into one process comes back with this
    monkeypatch.setattr("almanac_jobs.run.memory_limit", lambda: 10_000)
    assert drive()[1].engine is cluster.engine
    document["spec"]["source"]["filter"] = "amount > 1e9"
    code, report = drive()
    assert (code, report.engine, report.reason) == (66, cluster.engine, Reason.SOURCE_EMPTY)


def test_the_event_log_of_a_driver_on_spark(s3: S3Server, tmp_path: Any) -> None:
    """A session of its own, in a process of its own: the log is whole, and no file of the run."""
    pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
    conf = {"spark.eventLog.enabled": "true"}
    source = put(s3, "logged", ledger(5, 40))
    document = job(source, "s3://lake/logged-out", engine="spark", evaluation__windows=0, spark__conf=conf)
    (tmp_path / "job.json").write_text(json.dumps(document))
    identity = next(_ids)
    arguments = [str(tmp_path / "job.json"), "--run-id", identity, "--termination-log", str(tmp_path / "log")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "almanac_jobs", *arguments, "--port", "0"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    logs = [key for key in s3.keys("lake") if key.startswith("logged-out/spark-events/")]
    (events,) = [key for key in logs if key.endswith(".zstd")]
    with s3.filesystem.open_input_stream(f"lake/{events}", compression="zstd") as stream:
        told = [json.loads(line)["Event"] for line in stream.read().splitlines()]
    assert (told[0], told[-1]) == ("SparkListenerLogStart", "SparkListenerApplicationEnd")
    assert not [file for file in record(s3, "logged-out", identity)["files"] if "spark-events" in file["path"]]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
