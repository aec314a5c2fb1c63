"""A run appears whole or not at all, whoever else writes, and the same results are the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from almanac.api import JobError, Output, Reason, Storage
from almanac_jobs import artefacts, model, objects
from almanac_jobs.artefacts import STALE, RunWriter, point, prune
from almanac_jobs.model import Model
from almanac_jobs.storage import open_location
from matrix import Group, Moment, cell
from runs import made, report, write_run
from s3 import Fault, S3Server


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An output's URI and storage settings, on the local disk and in an S3 store."""
    if request.param == "local":
        yield str(tmp_path / "out"), None
        return
    with S3Server() as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        server.make_bucket("results")
        yield "s3://results/models", Storage(endpoint=server.endpoint)


NOW = datetime(2026, 2, 1, tzinfo=UTC)


def loaded(uri: str, storage: Storage | None = None) -> Model:
    found = model.load(uri, storage)
    assert isinstance(found, Model)
    return found


def test_a_run_is_published_last(place: Any) -> None:
    uri, storage = place
    parts = made(["a", "b", "c"])
    writer = RunWriter(Output(uri=uri), storage, "r1")
    for bucket, named in parts.items():
        writer.write(bucket, named)
    with pytest.raises(JobError) as nothing:
        loaded(uri, storage)
    assert nothing.value.reason is Reason.SOURCE_NOT_FOUND
    writer.publish(report(parts))
    assert loaded(uri, storage).report["run"] == "r1"


def test_every_file_is_named_with_its_size_and_sum(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1")
    folder = tmp_path / "runs" / "r1"
    told = json.loads((folder / "report.json").read_text())
    files = {file["path"]: file for file in told["files"]}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"report.json"}
    assert set(files) == there
    for path, file in files.items():
        data = (folder / path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["size"], file["sha256"])


def test_the_same_results_are_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_run(str(tmp_path), "r1"), write_run(str(tmp_path), "r2")
    assert first.checksum == second.checksum
    for path in (tmp_path / "runs" / "r1").rglob("*.parquet"):
        assert path.read_bytes() == Path(str(path).replace("/r1/", "/r2/")).read_bytes()


def test_latest_moves_forward_only(place: Any) -> None:
    uri, storage = place
    write_run(uri, "late", storage=storage, began="2026-01-02T00:00:00Z")
    write_run(uri, "early", storage=storage, began="2026-01-01T00:00:00Z")
    assert loaded(uri, storage).report["run"] == "late"
    assert loaded(f"{uri}/runs/early", storage).report["run"] == "early"


@cell(
    Group.STORAGE,
    "Another run moves latest.json at the same moment (412, 409)",
    Moment.PUBLISHING,
    "It is read anew, and moved forward only: the newest run that is complete has it in the end.",
)
def test_many_runs_that_end_at_once_leave_the_newest(place: Any) -> None:
    uri, storage = place
    began = [f"2026-01-{day:02d}T00:00:00Z" for day in range(1, 9)]
    threads = [
        threading.Thread(target=write_run, args=(uri, f"r{day}"), kwargs={"storage": storage, "began": time})
        for day, time in enumerate(began, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded(uri, storage).report["run"] == "r8"


def test_an_abandoned_run_leaves_nothing_and_disturbs_nothing(place: Any) -> None:
    uri, storage = place
    write_run(uri, "r1", storage=storage)
    writer = RunWriter(Output(uri=uri), storage, "r2")
    writer.write(0, made(["a", "b", "c"])[0])
    writer.abandon()
    output = open_location(uri, storage, field="uri")
    assert objects.folders(output / "runs") == ["r1"]
    assert loaded(uri, storage).report["run"] == "r1"


TWO = "Two drivers write one run (a node was lost, and comes back)"


@cell(Group.STORAGE, TWO, Moment.PUBLISHING, "The first publishes; the second is told so, and changes nothing.")
def test_one_of_two_drivers_publishes(place: Any) -> None:
    uri, storage = place
    parts = made(["a", "b", "c"])
    writers = [RunWriter(Output(uri=uri), storage, "r1") for _ in range(2)]
    for bucket, named in parts.items():
        for writer in writers:
            writer.write(bucket, named)
    record = writers[0].publish(report(parts))
    with pytest.raises(JobError, match="has completed it"):
        writers[1].publish(report(parts))
    writers[1].abandon()
    assert loaded(uri, storage).report == record
    loaded(uri, storage).verify()


@cell(Group.STORAGE, TWO, Moment.AFTER, "The one that fails late leaves the complete run of the other alone.")
def test_a_driver_that_gives_up_leaves_a_complete_run_alone(place: Any) -> None:
    uri, storage = place
    parts = made(["a", "b", "c"])
    late = RunWriter(Output(uri=uri), storage, "r1")
    late.write(0, parts[0])
    write_run(uri, "r1", storage=storage)
    late.abandon()
    assert loaded(uri, storage).report["run"] == "r1"
    loaded(uri, storage).verify()


@cell(
    Group.STORAGE,
    TWO,
    Moment.WRITING,
    "If one fails and deletes what the other has written, the other does not publish: StorageUnavailable, and a retry.",
)
def test_a_driver_whose_files_another_one_has_deleted_publishes_nothing(place: Any) -> None:
    uri, storage = place
    write_run(uri, "r0", storage=storage)
    parts = made(["a", "b", "c"])
    first, second = (RunWriter(Output(uri=uri), storage, "r1") for _ in range(2))
    for bucket, named in parts.items():
        first.write(bucket, named)
    second.write(0, parts[0])
    second.abandon()
    with pytest.raises(JobError, match="somebody deletes what this run writes") as caught:
        first.publish(report(parts, "2026-01-02T00:00:00Z"))
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    first.abandon()
    assert loaded(uri, storage).report["run"] == "r0"
    write_run(uri, "r1", storage=storage, began="2026-01-02T00:00:00Z")
    loaded(uri, storage).verify()


def test_a_run_that_is_complete_is_not_written_again(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1")
    with pytest.raises(JobError, match="`r1` is complete already"):
        RunWriter(Output(uri=str(tmp_path)), None, "r1")


def test_keep_runs_deletes_the_oldest_complete_ones(place: Any) -> None:
    uri, storage = place
    output = open_location(uri, storage, field="uri")
    half = RunWriter(Output(uri=uri), storage, "half")
    half.write(0, made(["a"])[0])
    for day in range(1, 6):
        write_run(uri, f"r{day}", storage=storage, began=f"2026-01-0{day}T00:00:00Z", keep=2 if day > 3 else None)
    assert objects.folders(output / "runs") == ["half", "r4", "r5"]


def test_runs_of_others_are_kept(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1")
    path = tmp_path / "runs" / "r1" / "report.json"
    path.write_text(path.read_text().replace('"name": "made"', '"name": "another"'))
    for name, text in {"notes": "some text", "list": "[1]", "foreign": '{"startTime": 3}'}.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "report.json").write_text(text)
    (tmp_path / "runs" / "README.md").write_text("hands off")
    write_run(str(tmp_path), "r2", began="2026-01-02T00:00:00Z")
    write_run(str(tmp_path), "r3", began="2026-01-03T00:00:00Z", keep=1)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "README.md",
        "foreign",
        "list",
        "notes",
        "r1",
        "r3",
    }


def test_a_late_run_deletes_neither_itself_nor_the_newest(tmp_path: Path) -> None:
    write_run(str(tmp_path), "old")
    write_run(str(tmp_path), "new", began="2026-01-03T00:00:00Z")
    write_run(str(tmp_path), "late", began="2026-01-02T00:00:00Z", keep=1)
    assert objects.folders(open_location(str(tmp_path / "runs"), None, field="uri")) == ["late", "new"]
    assert loaded(str(tmp_path)).report["run"] == "new"


def test_what_killed_runs_left_behind_goes_once_it_is_old(tmp_path: Path) -> None:
    for name in ("dead", "alive", "strange"):
        RunWriter(Output(uri=str(tmp_path)), None, name).write(0, made(["a"])[0])
    (tmp_path / "runs" / "strange" / "notes.txt").write_text("mine")
    (tmp_path / "runs" / "dead" / "forecasts" / ".part-0.parquet.17-4").write_text("cut short")
    (tmp_path / "runs" / "empty").mkdir()
    for path in (tmp_path / "runs").rglob("*"):
        old = NOW - STALE - timedelta(hours=1) if "alive" not in path.parts else NOW - timedelta(hours=1)
        os.utime(path, (old.timestamp(), old.timestamp()))
    record = write_run(str(tmp_path), "r1").publish(report(made(["a"])))
    prune(open_location(str(tmp_path), None, field="uri"), record, 5, NOW)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"alive", "empty", "r1", "strange"}


def test_an_earlier_attempt_leaves_nothing_in_the_next_ones_run(place: Any) -> None:
    uri, storage = place
    RunWriter(Output(uri=uri), storage, "r1").write(9, made(["a"])[0])
    writer = write_run(uri, "r1", storage=storage)
    there = {info.path.removeprefix(f"{writer.folder.path}/") for info in objects.files(writer.folder)}
    assert there == {file["path"] for file in loaded(uri, storage).report["files"]} | {"report.json"}


def test_a_complete_run_stays_though_latest_cannot_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("almanac_jobs.storage.ATTEMPTS", 1)
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("lake")
        write_run("s3://lake/out", "r1")
        parts = made(["a"])
        writer = RunWriter(Output(uri="s3://lake/out"), None, "r2")
        for bucket, named in parts.items():
            writer.write(bucket, named)
        server.faults.append(Fault(lambda method, path: method == "PUT" and "latest" in path, 503))
        with pytest.raises(JobError) as unavailable:
            writer.publish(report(parts, "2026-01-02T00:00:00Z"))
        assert unavailable.value.reason is Reason.STORAGE_UNAVAILABLE
        writer.abandon()
        assert loaded("s3://lake/out").report["run"] == "r1"
        record = artefacts.complete(writer.output, "r2")
        assert record is not None
        assert point(writer.output, record)
        assert loaded("s3://lake/out").report["run"] == "r2"
        loaded("s3://lake/out").verify()


def test_an_abandoned_first_run_leaves_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("lake")
        writer = RunWriter(Output(uri="s3://lake/out"), None, "r1")
        writer.write(0, made(["a"])[0])
        writer.abandon()
        assert server.keys("lake") == []
        writer.write(1, made(["a"])[1])  # a thread that had not noticed
        assert server.keys("lake") == []


@cell(Group.STORAGE, "latest.json is broken", Moment.PUBLISHING, "It is replaced by the run that is complete now.")
@pytest.mark.parametrize("broken", ["", "{", "[]", '{"formatVersion": "x"}', '{"formatVersion": 1}'])
def test_a_broken_pointer_is_replaced(tmp_path: Path, broken: str) -> None:
    (tmp_path / "latest.json").write_text(broken)
    write_run(str(tmp_path), "r1", keep=2)
    assert loaded(str(tmp_path)).report["run"] == "r1"


KILLED = """
import sys
from runs import write_run
for i in range(1000):
    write_run(sys.argv[1], f"r{i:03}", began=f"2026-01-01T00:00:{i:03}Z", keep=3)
    print(i, flush=True)
"""


@pytest.mark.parametrize("after", [0.0, 0.013, 0.029])
def test_a_process_that_is_killed_leaves_whole_runs(tmp_path: Path, after: float) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as writing:
        assert writing.stdout is not None
        told = [int(writing.stdout.readline()) for _ in range(4)]
        threading.Event().wait(after)
        writing.send_signal(signal.SIGKILL)
    model = loaded(str(tmp_path))
    assert model.report["run"] >= f"r{told[-1]:03}"
    model.verify()
    for folder in (tmp_path / "runs").iterdir():
        if (folder / "report.json").exists():
            loaded(str(folder)).verify()


@cell(
    Group.STORAGE,
    "The store knows no conditional writes (501)",
    Moment.PUBLISHING,
    "latest.json is written without a condition: runs that end at the same moment are not ordered there.",
)
def test_a_store_without_conditional_puts_is_written_to_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("plain")
        conditional = Fault(lambda method, path: method == "PUT" and "latest" in path, 501, "NotImplemented")
        server.faults.append(conditional)
        write_run("s3://plain/out", "r1")
        assert conditional.times == 0
        assert loaded("s3://plain/out").report["run"] == "r1"


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1")
    path = tmp_path / "runs" / "r1" / "report.json"
    path.write_text(path.read_text().replace(f'"formatVersion": {artefacts.FORMAT}', '"formatVersion": 99'))
    with pytest.raises(JobError, match="has format 99, and this version reads up to 1: update almanac"):
        loaded(str(tmp_path))


@pytest.mark.parametrize("name", ["latest.json", "runs/r1/report.json"])
def test_what_almanac_has_not_written_is_refused(tmp_path: Path, name: str) -> None:
    write_run(str(tmp_path), "r1")
    (tmp_path / name).write_text("{")
    with pytest.raises(JobError, match=f"{name} is not a document of Almanac's") as refused:
        loaded(str(tmp_path))
    assert refused.value.reason is Reason.DATA_ERROR


def test_the_checksum_is_that_of_sha256sum(tmp_path: Path) -> None:
    writer = write_run(str(tmp_path), "r1")
    tables = sorted(path.relative_to(writer.folder.path) for path in Path(writer.folder.path).rglob("*.parquet"))
    command = ["sha256sum", *map(str, tables)]
    sums = subprocess.run(command, cwd=writer.folder.path, capture_output=True, check=True).stdout
    assert writer.checksum == f"sha256:{hashlib.sha256(sums).hexdigest()}"


# --- several processes ------------------------------------------------------------------------------------------------


def test_copies_in_other_processes_write_and_one_publishes(tmp_path: Path) -> None:
    writer = RunWriter(Output(uri=str(tmp_path)), None, "r1")
    writer.share()
    copy = pickle.loads(pickle.dumps(writer))  # noqa: S301 - of our own making
    parts = made(["a", "b", "c"])
    for bucket in (0, 1):
        writer.register(copy.write(bucket, parts[bucket]))
    copy.write(1, parts[1])  # a task that was repeated
    record = writer.publish(report(parts))
    alone = RunWriter(Output(uri=str(tmp_path)), None, "r2")
    for bucket in (0, 1):
        alone.write(bucket, parts[bucket])
    assert record["checksum"] == alone.checksum
    assert len(record["files"]) == 6
    assert not (tmp_path / "runs" / "r1" / ".open").exists()


@pytest.mark.parametrize("fails", [False, True])
def test_a_copy_that_comes_late_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    monkeypatch.setattr(artefacts, "LATE", 0.0)
    writer = RunWriter(Output(uri=str(tmp_path)), None, "r1")
    writer.share()
    copy = pickle.loads(pickle.dumps(writer))  # noqa: S301 - of our own making
    copy.write(0, made(["a"])[0])
    writer.abandon()
    assert not (tmp_path / "runs" / "r1").exists()
    parts = made(["a"])[1]
    if fails:  # in the middle
        parts = parts | {"scores": None}  # type: ignore[dict-item]
    with pytest.raises(JobError) as caught:
        copy.write(1, parts)
    assert caught.value.reason is Reason.INTERRUPTED
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []


def test_what_a_copy_has_left_that_was_killed_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter(Output(uri=str(tmp_path)), None, "r1")
    writer.share()
    late = tmp_path / "runs" / "r1" / "scores" / "part-0.parquet"

    def killed(seconds: float) -> None:
        late.parent.mkdir(parents=True)
        late.write_bytes(b"")

    monkeypatch.setattr("almanac_jobs.artefacts.time.sleep", killed)
    writer.abandon()
    assert not late.exists()
