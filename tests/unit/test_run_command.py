"""`almanac run` before anything runs: its options, the job it takes, and what must be installed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

from almanac.api import JobError, Reason
from almanac.cli import main
from almanac.cli.run import load, new_run_id
from almanac.cli.run import run as command
from ledgers import job, write_job

DOCS = Path(__file__).parents[2] / "docs"


def test_run_ids_sort_as_runs_began_wherever_they_did() -> None:
    berlin = timezone(timedelta(hours=1))
    assert new_run_id(datetime(2026, 11, 21, 3, 15, tzinfo=berlin), "3f9a2c") == "20261121-021500-3f9a2c"
    assert new_run_id(datetime(2026, 11, 21, 2, 14, 59, tzinfo=UTC), "ffffff") < "20261121-021500-000000"


def test_the_job_of_a_file(tmp_path: Path) -> None:
    file = write_job(tmp_path / "job.yaml", job("lake", "out"))
    assert load(str(file), ("spec.horizon=3",)).spec.horizon == 3
    with pytest.raises(JobError, match=r"job\.yaml:.*: spec\.horizon: must be at least 1"):
        load(str(write_job(tmp_path / "job.yaml", job("lake", "out", horizon=0))))
    with pytest.raises(JobError, match="there is no such file") as refused:
        load(str(tmp_path / "nothing.yaml"))
    assert refused.value.reason is Reason.SOURCE_NOT_FOUND


def test_help_has_examples() -> None:
    said = CliRunner().invoke(main, ["run", "--help"]).stdout
    for option in ("--set", "--sample", "--dry-run", "--output", "--run-id", "--quiet", "--debug"):
        assert option in said
    assert "almanac run -f job.yaml --set spec.horizon=14" in said


def test_the_reference_has_every_option_and_troubleshooting_every_reason() -> None:
    reference = (DOCS / "reference" / "cli.md").read_text().split("\n## ")[1]
    for option in command.params:
        assert all(f"`{name}" in reference for name in option.opts), option.name
    sections = {line.removeprefix("## ") for line in (DOCS / "troubleshooting.md").read_text().splitlines()}
    assert {reason.value for reason in Reason if reason is not Reason.COMPLETED} <= sections


@pytest.mark.parametrize("missing", ["pyarrow", "matplotlib"])
def test_what_is_not_installed_is_named(missing: str, tmp_path: Path) -> None:
    file = write_job(tmp_path / "job.yaml", job("lake", "out"))
    code = f"import sys; sys.modules['{missing}'] = None; from almanac.cli import main; main(sys.argv[1:])"
    ended = subprocess.run([sys.executable, "-c", code, "run", "-f", str(file)], capture_output=True, text=True)
    assert ended.returncode == 64
    wanted = f"error: almanac run needs {missing}, which is not installed: pip install 'almanac[local]'\n"
    assert ended.stderr == wanted
