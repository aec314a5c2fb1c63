"""The driver: a job as JSON in, the report in the termination message, and the exit code out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import almanac_jobs
from almanac.api import Engine, ExitCode, Reason, Report
from almanac_jobs import __main__ as driver
from almanac_jobs.progress import Progress
from ledgers import job, ledger, write_parquet


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    return job(write_parquet(ledger(4, 40), tmp_path / "lake" / "t.parquet"), tmp_path / "out")


def drive(document: Any, tmp_path: Path) -> tuple[int, Report]:
    """The driver in this process: its exit code, and what it leaves as the termination message."""
    file, log = tmp_path / "job.json", tmp_path / "termination-log"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    code = driver.main([str(file), "--run-id", "20261121-021500-3f9a2c", "--termination-log", str(log)])
    assert log.stat().st_size <= 4096
    return code, Report.model_validate_json(log.read_text())


def test_a_complete_run(document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = drive(document, tmp_path)
    assert (code, report.exit_code, report.reason) == (0, ExitCode.DONE, Reason.COMPLETED)
    assert (report.run, report.engine) == ("20261121-021500-3f9a2c", Engine.LOCAL)
    assert report.result is not None
    assert report.result.entities == 4
    assert report.result.uri == f"{tmp_path}/out/runs/20261121-021500-3f9a2c"
    assert len(almanac_jobs.load(str(tmp_path / "out")).forecast(7)) == 28
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "run 20261121-021500-3f9a2c ended: Completed"


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"source__columns__value": "amout"}, 65, Reason.DATA_ERROR),
        ({"source__uri": "/nowhere"}, 66, Reason.SOURCE_NOT_FOUND),
        ({"horizon": 0, "floor": "low"}, 64, Reason.INVALID_SPEC),
        ({"source__filter": "x" * 4000}, 65, Reason.DATA_ERROR),
    ],
    ids=str,
)
def test_a_failure_is_reported_too(
    fields: dict[str, Any], code: int, reason: Reason, document: dict[str, Any], tmp_path: Path
) -> None:
    spoilt = job(document["spec"]["source"]["uri"], tmp_path / "out", **fields)
    ended, report = drive(spoilt, tmp_path)
    assert (ended, report.exit_code, report.reason) == (code, code, reason)
    assert report.message
    assert report.start_time is not None
    assert report.end_time is not None
    assert report.result is None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is no job"),
        ("{}", "kind: must be ForecastJob or AnomalyJob or ExtractJob (got null)"),
        ('{"kind": ["ForecastJob"]}', "kind: must be ForecastJob or AnomalyJob"),
        ('{"kind": "AnomalyJob"}', "`metadata` is missing; `spec` is missing"),
    ],
)
def test_what_is_no_job(text: str, words: str, tmp_path: Path) -> None:
    code, report = drive(text, tmp_path)
    assert (code, report.reason) == (64, Reason.INVALID_SPEC)
    assert words in report.message


def test_data_that_may_not_fit_go_to_a_cluster(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("almanac_jobs.run.memory_limit", lambda: 10_000)
    code, report = drive(document, tmp_path)
    assert (code, report.reason) == (79, Reason.TOO_BIG_FOR_LOCAL)
    assert "160 rows of 3 columns" in report.message
    document["spec"]["engine"] = "local"  # asked for by name: only memory that is really used counts
    assert drive(document, tmp_path)[0] == 0


def test_data_that_do_not_fit_are_noticed_while_they_are_read(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document["spec"]["engine"] = "local"
    monkeypatch.setattr("almanac_jobs.resources.memory_used", lambda root: 99)
    monkeypatch.setattr(driver, "memory_limit", lambda: 100)
    code, report = drive(document, tmp_path)
    assert (code, report.reason) == (79, Reason.TOO_BIG_FOR_LOCAL)
    assert "the data do not fit into this process" in report.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_by_what(
    number: signal.Signals, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, progress: Progress, **__: Any) -> None:
        os.kill(os.getpid(), number)
        while True:
            progress.check()

    monkeypatch.setattr(driver.run, "run", stopped)
    code, report = drive(document, tmp_path)
    assert (code, report.exit_code, report.reason) == (128 + number, 128 + number, Reason.INTERRUPTED)
    assert report.exit_code.worth_a_retry


def test_as_a_process_without_a_termination_log(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(document))
    environment = {**os.environ, "ALMANAC_TERMINATION_LOG": str(tmp_path / "nowhere" / "log")}
    command = [sys.executable, "-m", "almanac_jobs", str(tmp_path / "job.json"), "--run-id", "r1"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "the report could not be written to" in ended.stderr
    assert "Traceback" not in ended.stderr
