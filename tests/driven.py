"""Runs by the driver in this process, and what they have published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import almanac_jobs
from almanac.api import Report
from almanac_jobs import __main__ as driver
from almanac_jobs.model import Model
from almanac_jobs.scoring import AnomalyRun


def drive(document: dict[str, Any], folder: Path, run: str) -> Report:
    """Carry out a job; gives what its pod's termination message says. `folder` is for files of the driver's own."""
    (folder / "job.json").write_text(json.dumps(document))
    driver.main([str(folder / "job.json"), "--run-id", run, "--termination-log", str(folder / "log"), "--port", "0"])
    return Report.model_validate_json((folder / "log").read_text())


def published(uri: str | Path) -> tuple[str, str]:
    """The run that latest.json names, all of whose files are as its report says, and their checksum."""
    found = almanac_jobs.load(str(uri))
    assert isinstance(found, Model | AnomalyRun)
    found.verify()
    return found.report["run"], found.report["checksum"]
