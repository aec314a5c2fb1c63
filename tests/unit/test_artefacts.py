"""A run appears whole or not at all, whoever else writes, and the same results are the same bytes."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from almanac.api import JobError, Output, Reason, Storage
from almanac_jobs import artefacts, model, objects
from almanac_jobs.artefacts import RunWriter
from almanac_jobs.model import Model
from almanac_jobs.storage import open_location
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
    with pytest.raises(JobError, match="has format 99"):
        loaded(str(tmp_path))
