"""Storage that fails while a driver reads, writes and publishes: it is ridden out, or the run ends as it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import anomalies
import disks
from almanac.api import Reason
from driven import drive, published
from faults import FULL, GONE, LASTS, PASSES, ends
from ledgers import job, ledger, write_parquet
from matrix import Group, Moment, cell
from s3 import Fault, S3Server

OUTPUT = "s3://lake/out"
REQUESTS: dict[Moment, Callable[[str, str], bool]] = {
    Moment.READING: lambda method, path: method == "GET" and path.endswith(".parquet") and "/raw/" in path,
    Moment.WRITING: lambda method, path: method == "PUT" and "/forecasts/" in path,
    Moment.PUBLISHING: lambda method, path: method == "PUT" and path.endswith("report.json"),
    Moment.AFTER: lambda method, path: method == "PUT" and path.endswith("latest.json"),
}
"""The requests of a moment. What comes after the end is that latest.json is pointed to a run that is complete."""
WHOLE = (Moment.READING, Moment.WRITING, Moment.PUBLISHING, Moment.AFTER)

RIDDEN_OUT = "The request is sent again, with growing pauses: the run is complete, with the same bytes as any other."


def passing() -> Iterator[Any]:
    """What passes, at each moment at which it can be."""
    for name, (fault, how) in PASSES.items():
        for moment in (Moment.READING,) if how.truncate else WHOLE:
            mark = cell(Group.STORAGE, fault, moment, RIDDEN_OUT)
            yield pytest.param(how, moment, id=f"{name}-{moment.name.lower()}", marks=mark)


def lasting() -> Iterator[Any]:
    """What lasts, at each moment at which it can be."""
    for name, (fault, how, reason) in {**LASTS, "full": FULL}.items():
        for moment in WHOLE if name != "full" else WHOLE[1:]:
            short = f"{reason} ({Reason.STORAGE_UNAVAILABLE} where a short read leaves no room for the store's word)"
            told = (
                ends(reason).replace(reason, short) if (name, moment) == ("expired", Moment.READING) else ends(reason)
            )
            mark = cell(Group.STORAGE, fault, moment, told)
            yield pytest.param(how, moment, reason, id=f"{name}-{moment.name.lower()}", marks=mark)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A store with a ledger in it."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "ALMANAC_"))]:
        monkeypatch.delenv(name)
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("lake")
        sink = pa.BufferOutputStream()
        pq.write_table(ledger(3, 40), sink)
        server.put("lake", "raw/t.parquet", sink.getvalue().to_pybytes())
        yield server


@pytest.mark.parametrize(("fault", "moment"), list(passing()))
def test_what_passes_is_ridden_out(
    fault: Fault, moment: Moment, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drive(job("s3://lake/raw", OUTPUT), tmp_path, "before").reason is Reason.COMPLETED
    _, checksum = published(OUTPUT)
    if fault.delay:
        monkeypatch.setattr("almanac_jobs.storage.REQUEST_TIMEOUT", fault.delay / 2)
    armed = replace(fault, matches=REQUESTS[moment])
    s3.faults.append(armed)
    assert drive(job("s3://lake/raw", OUTPUT), tmp_path, "next").reason is Reason.COMPLETED
    assert armed.times == 0
    assert published(OUTPUT) == ("next", checksum)


@pytest.mark.parametrize(("fault", "moment", "reason"), list(lasting()))
def test_what_lasts_ends_the_run_and_nothing_else(
    fault: Fault, moment: Moment, reason: Reason, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drive(job("s3://lake/raw", OUTPUT), tmp_path, "before").reason is Reason.COMPLETED
    before = published(OUTPUT)
    monkeypatch.setattr("almanac_jobs.storage.ATTEMPTS", 2)
    s3.faults.append(replace(fault, matches=REQUESTS[moment], times=1000))
    ended = drive(job("s3://lake/raw", OUTPUT), tmp_path, "next")
    if (fault.code, moment, ended.reason) == ("ExpiredToken", Moment.READING, Reason.STORAGE_UNAVAILABLE):
        reason = ended.reason  # Arrow gives the answer to a read the room of what is read: an error's may be cut
    assert (ended.reason, ended.exit_code) == (reason, reason.exit_code), ended.message
    assert "s3://lake/" in ended.message
    s3.faults.clear()
    assert published(OUTPUT) == before
    left = [key for key in s3.keys("lake") if "/next/" in key]
    assert bool(left) == (moment is Moment.AFTER)  # the run is complete by then
    assert drive(job("s3://lake/raw", OUTPUT), tmp_path, "next").reason is Reason.COMPLETED
    assert published(OUTPUT) == ("next", before[1])


@cell(
    Group.STORAGE,
    GONE[0],
    Moment.WRITING,
    "InvalidSpec, and which bucket; a run does not make one.",
)
def test_a_bucket_that_goes(s3: S3Server, tmp_path: Path) -> None:
    s3.make_bucket("results")
    s3.faults.append(replace(GONE[1], matches=REQUESTS[Moment.WRITING], times=1000))
    ended = drive(job("s3://lake/raw", "s3://results/out"), tmp_path, "next")
    assert ended.reason is Reason.INVALID_SPEC
    assert "no bucket `results`" in ended.message


KILLED = """
import os, signal, sys
from almanac_jobs import __main__ as driver
from almanac_jobs import artefacts, objects, source

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

stage = sys.argv.pop(1)
write, update = objects.write, objects.update

def writing(location, *rest, **named):
    if stage in location.path and stage != "after:" :
        kill()
    write(location, *rest, **named)
    if stage.startswith("after:") and stage.removeprefix("after:") in location.path:
        kill()

objects.write = writing
if stage == "start":
    artefacts.RunWriter.__init__ = kill
if stage == "read":
    source.open_dataset = kill
if stage == "latest":
    objects.update = kill
sys.exit(driver.main())
"""
STAGES = {
    "start": (Moment.BEFORE, "as it starts"),
    "read": (Moment.READING, "before the first row"),
    "/forecasts/": (Moment.WRITING, "before its first table"),
    "after:/forecasts/": (Moment.WRITING, "after a table"),
    "report.html": (Moment.WRITING, "before its page"),
    "report.json": (Moment.PUBLISHING, "before its report, which makes the run complete"),
    "after:report.json": (Moment.PUBLISHING, "after its report, before latest.json"),
    "latest": (Moment.PUBLISHING, "as it is about to point latest.json to the run"),
}
UNDONE = "Nothing points to what it wrote. Tried again, the run has the same bytes as one that was left alone."


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(stage, id=what, marks=cell(Group.PODS, f"The driver is killed (SIGKILL) {what}", moment, UNDONE))
        for stage, (moment, what) in STAGES.items()
    ],
)
def test_a_driver_that_is_killed_and_tried_again(stage: str, tmp_path: Path) -> None:
    lake = write_parquet(ledger(3, 40), tmp_path / "lake" / "t.parquet")
    document = job(lake, tmp_path / "out")
    assert drive(document, tmp_path, "before").reason is Reason.COMPLETED
    before = published(tmp_path / "out")
    command = [
        str(tmp_path / "job.json"),
        "--run-id",
        "next",
        "--termination-log",
        str(tmp_path / "log"),
        "--port",
        "0",
    ]
    ended = subprocess.run([sys.executable, "-c", KILLED, stage, *command], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert published(tmp_path / "out") == before
    assert drive(document, tmp_path, "next").reason is Reason.COMPLETED
    assert published(tmp_path / "out") == ("next", before[1])


@cell(
    Group.STORAGE,
    "The disk for temporary files is full (ENOSPC), where an AnomalyJob keeps features that memory does not hold",
    Moment.READING,
    ends(Reason.STORAGE_FULL),
)
@pytest.mark.parametrize("free", [0, 110_000], ids=["none", "to read, and not to train"])
def test_features_without_room(free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xgboost", reason="the extra `anomaly` is not installed")
    monkeypatch.setattr("almanac_jobs.judged.SHARE", 0.0)
    write_parquet(anomalies.entries(6000, 100), tmp_path / "in" / "t.parquet")
    columns = {"columns": ["amount", "lines", "user"]}
    document = anomalies.job(tmp_path / "in", tmp_path / "out", model__rounds=2, features=columns)
    with disks.mounted(tmp_path / "disk", "4m") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        assert drive(document, tmp_path, "before").reason is Reason.COMPLETED
        before = published(tmp_path / "out")
        with disks.filled(disk, all_but=free):
            ended = drive(document, tmp_path, "next")
        assert (ended.reason, ended.exit_code) == (Reason.STORAGE_FULL, Reason.STORAGE_FULL.exit_code), ended.message
        assert "no space is left on the local disk" in ended.message
        assert ("MiB are needed" in ended.message) == bool(free)
        assert published(tmp_path / "out") == before
        assert not (tmp_path / "out" / "runs" / "next").exists()
        assert drive(document, tmp_path, "next").reason is Reason.COMPLETED
        assert published(tmp_path / "out") == ("next", before[1])
