"""`almanac run` with an engine that is left open: one process as long as memory holds the data, else another engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from almanac.api import Engine
from almanac.cli import main
from almanac_jobs import choice
from ledgers import job, ledger, write_job, write_parquet


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_parquet(ledger(20, 60), tmp_path / "lake" / "a.parquet", row_group_size=200)
    fields = {"dask__workers": 1, "dask__threads": 1}
    return write_job(tmp_path / "job.yaml", job(tmp_path / "lake", tmp_path / "out", **fields))


def run(file: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["run", "-f", str(file), "--quiet", *options], catch_exceptions=False)


def told(ended: Result) -> dict[str, Any]:
    assert ended.exit_code == 0, ended.output
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def test_beyond_the_threshold_dask_carries_it_out(file: Path) -> None:
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    here = told(run(file, "--output", "json"))
    assert here["engine"] == "local"
    assert here["engineReason"].startswith("1,200 rows of 3 columns")
    there = told(run(file, "--output", "json", "--local-memory", "10Ki"))
    assert there["engine"] == "dask"
    assert "one process may take 0.0 MiB" in there["engineReason"]
    assert there["result"]["checksum"] == here["result"]["checksum"]
    summary = run(file, "--local-memory", "10Ki").stdout
    assert "engine   dask: 1,200 rows of 3 columns" in summary


def test_without_another_engine_it_is_this_process_with_one_warning(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "lacks", lambda engine: f"{engine}'s library")
    ended = run(file, "--output", "json", "--local-memory", "10Ki")
    assert told(ended)["engine"] == Engine.LOCAL
    assert ended.stderr.count("warning:") == 1
    assert "dask needs dask's library; spark needs spark's library" in ended.stderr


def test_one_that_is_named_and_not_installed_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "almanac_jobs.engines.dask", raising=False)
    monkeypatch.delitem(sys.modules, "almanac_jobs.engines.dask_session", raising=False)
    monkeypatch.delattr("almanac_jobs.engines.dask", raising=False)
    ended = run(file, "--set", "spec.engine=dask")
    assert ended.exit_code == 64
    assert "pip install 'almanac[dask]'" in ended.stderr


def test_a_dry_run_says_what_would_be(file: Path) -> None:
    shown = run(file, "--dry-run", "--local-memory", "10Ki", "--set", "spec.engine=auto").stdout
    assert "may take 0.1 MiB of memory" in " ".join(shown.split())
    shown = run(file, "--dry-run").stdout
    assert "engine  local: 1,200 rows of 3 columns" in " ".join(shown.split()).replace("engine local", "engine  local")


def test_a_threshold_that_is_none(file: Path) -> None:
    ended = run(file, "--local-memory", "lots")
    assert ended.exit_code == 64
    assert "ALMANAC_LOCAL_MEMORY: `lots` is no memory" in ended.stderr
