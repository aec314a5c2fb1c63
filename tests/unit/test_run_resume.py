"""A driver that is started again for a run that is complete does what is left to do, and computes nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import almanac_jobs
from almanac.api import Reason, Report
from almanac_jobs import __main__ as driver
from almanac_jobs.model import EntityModel
from ledgers import job, ledger, write_parquet
from matrix import Group, Moment, cell


def drive(document: dict[str, Any], folder: Path, run: str = "r1") -> Report:
    (folder / "job.json").write_text(json.dumps(document))
    driver.main([str(folder / "job.json"), "--run-id", run, "--termination-log", str(folder / "log")])
    return Report.model_validate_json((folder / "log").read_text())


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    lake = write_parquet(ledger(3, 40), tmp_path / "lake" / "t.parquet")
    return job(lake, tmp_path / "out", output__layout="perEntity", output__keepRuns=1)


@cell(
    Group.API,
    "The cluster is restored from a backup of etcd",
    Moment.PUBLISHING,
    "A driver that runs once more finds its run complete: it does what is left to do, and computes nothing.",
)
def test_what_a_complete_run_lacks_is_done(document: dict[str, Any], tmp_path: Path) -> None:
    drive(document, tmp_path, "r0")
    first = drive(document, tmp_path)
    output, result = tmp_path / "out", first.result
    assert result is not None
    tables = {path: path.stat().st_mtime_ns for path in output.rglob("*.parquet") if "runs" in path.parts}
    model = output / "account-0000001" / "data" / "part-00000-c000.snappy.parquet"
    before = model.read_bytes()
    (output / "latest.json").unlink()
    model.unlink()
    (tmp_path / "lake" / "t.parquet").unlink()
    again = drive(document, tmp_path)
    assert again.reason is Reason.COMPLETED
    assert again.result == result
    assert again.end_time is not None
    assert json.loads((output / "latest.json").read_text())["run"] == "r1"
    assert model.read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in tables} == tables
    assert [path.name for path in (output / "runs").iterdir()] == ["r1"]


def test_another_job_does_not_pass_for_it(document: dict[str, Any], tmp_path: Path) -> None:
    drive(document, tmp_path)
    document["spec"]["horizon"] = 9
    assert "`r1` is complete already" in drive(document, tmp_path).message


def test_an_older_run_does_not_replace_newer_models(document: dict[str, Any], tmp_path: Path) -> None:
    drive(document, tmp_path, "new")
    latest = tmp_path / "out" / "latest.json"
    latest.write_text(latest.read_text().replace('"startTime": "20', '"startTime": "21'))
    document["spec"]["model"] = {"family": "mean"}
    assert drive(document, tmp_path, "old").reason is Reason.COMPLETED
    alone = almanac_jobs.load(str(tmp_path / "out" / "account-0000001"))
    assert isinstance(alone, EntityModel)
    assert alone.parameters.column("model").to_pylist() == ["arima"]


def test_a_report_says_what_ran(document: dict[str, Any], tmp_path: Path) -> None:
    document["spec"]["podTemplate"] = {"spec": {"containers": [{"env": [{"name": "P", "value": "hunter2"}]}]}}
    document["spec"]["spark"] = {"conf": {"spark.hadoop.fs.s3a.secret.key": "hunter2", "spark.speculation": "true"}}
    drive(document, tmp_path)
    text = (tmp_path / "out" / "runs" / "r1" / "report.json").read_text()
    told = json.loads(text)
    assert {"gitRevision", "seed", "versions", "specHash", "checksum", "scores", "files"} <= told.keys()
    assert told["spec"]["horizon"] == 7
    assert told["spec"]["missing"] == "zero"
    assert told["spec"]["spark"]["conf"] == {
        "spark.hadoop.fs.s3a.secret.key": "(redacted)",
        "spark.speculation": "true",
    }
    assert "hunter2" not in text
