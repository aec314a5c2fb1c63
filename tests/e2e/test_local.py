"""`almanac run` from Parquet to a published folder: what it writes, what it says, and how it ends when it cannot."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

import almanac_jobs
import disks
from almanac.api import ExitCode, JobError, Reason, Report
from almanac.cli import main
from almanac_jobs import objects
from almanac_jobs.model import Model
from almanac_jobs.storage import Location
from ledgers import job, ledger, write_job, write_parquet
from matrix import Group, Moment, cell
from s3 import Fault, S3Server


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """What stands on stdout, in one line of plain spaces."""
        return " ".join(self.out.split())

    @property
    def errors(self) -> list[str]:
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "ALMANAC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Ten accounts over sixty days, in two files."""
    table = ledger(10, 60)
    write_parquet(table.slice(0, 300), tmp_path / "lake" / "january.parquet")
    write_parquet(table.slice(300), tmp_path / "lake" / "february.parquet")
    return tmp_path / "lake"


def run(document: dict[str, Any], *options: str) -> Ended:
    """`almanac run` in this process, the job on standard input."""
    result = CliRunner().invoke(main, ["run", "-f", "-", *options], input=yaml.safe_dump(document, sort_keys=False))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def loaded(output: str | Path) -> Model:
    found = almanac_jobs.load(str(output))
    assert isinstance(found, Model)
    return found


def tables(folder: Path) -> dict[str, bytes]:
    """The bytes of every table of a run."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


# --- what a run writes and says ---------------------------------------------------------------------------------------


def test_a_run_from_source_to_a_model_that_forecasts_further(lake: Path, tmp_path: Path) -> None:
    end = run(job(lake, tmp_path / "out"), "--run-id", "first")
    assert (end.code, end.errors) == (0, [])
    folder = tmp_path / "out" / "runs" / "first"
    assert json.loads((tmp_path / "out" / "latest.json").read_text())["path"] == "runs/first"
    report = json.loads((folder / "report.json").read_text())
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"report.json"}
    assert {file["path"] for file in report["files"]} == written
    for file in report["files"]:
        assert file["sha256"] == hashlib.sha256((folder / file["path"]).read_bytes()).hexdigest()
    assert report["statuses"].keys() <= {"ok", "over_differenced", "weakly_identified"}
    assert report["source"]["rows"] == 600
    assert report["scores"]["mase"] > 0
    forecasts = pq.read_table(folder / "forecasts", partitioning=None)
    assert forecasts.column_names == ["entity", "time", "mean", "lo80", "hi80", "lo95", "hi95"]
    assert len(forecasts) == 70
    assert np.isfinite(forecasts["mean"].to_numpy()).all()
    assert forecasts["time"].to_numpy().min() == np.datetime64("2026-03-06")
    scores = pq.read_table(folder / "scores", partitioning=None)
    assert {"entity", "windows", "mase", "coverage_80", "seasonalnaive_mase"} <= set(scores.column_names)
    model = loaded(tmp_path / "out")
    model.verify()
    assert model.forecast(20, "account-0000003").slice(0, 7) == model.forecasts("account-0000003")
    page = (folder / "report.html").read_text()
    assert "finance/ledger" in page
    assert "account-0000003" in page


def test_the_summary_says_how_good_it_was_and_what_to_type_next(lake: Path, tmp_path: Path) -> None:
    end = run(job(lake, tmp_path / "my out", model__seasonLength=7, model__family="theta"))
    assert end.code == 0
    assert "MASE" in end.out
    assert "theta[7], 10 entities" in end.said
    assert f"almanac show '{tmp_path}/my out' --entity account-" in end.out
    assert "read 600 rows" in end.err
    assert "fit 10 series" in end.err
    assert "\x1b" not in end.out + end.err


def test_quiet_says_nothing_but_the_result(lake: Path, tmp_path: Path) -> None:
    end = run(job(lake, tmp_path / "out"), "--quiet")
    assert end.err == ""
    assert "entities" in end.out


def test_the_report_for_programs(lake: Path, tmp_path: Path) -> None:
    end = run(job(lake, tmp_path / "out"), "--output", "json", "--run-id", "r1")
    report = Report.model_validate_json(end.out)
    assert (report.run, report.reason, report.exit_code) == ("r1", Reason.COMPLETED, ExitCode.DONE)
    assert report.result is not None
    assert (report.result.entities, report.result.failed_entities, report.result.rows) == (10, 0, 600)
    assert report.result.scores["seasonalnaive_mase"] > 0
    assert report.start_time is not None
    assert report.end_time is not None
    assert report.start_time <= report.end_time
    end = run(job(lake, tmp_path / "out"), "--output", "yaml")
    assert yaml.safe_load(end.out)["result"]["checksum"] == report.result.checksum
    end = run(job(tmp_path / "nowhere", tmp_path / "out"), "--output", "json")
    report = Report.model_validate_json(end.out)
    assert (end.code, report.exit_code, report.reason) == (66, 66, Reason.SOURCE_NOT_FOUND)
    assert [report.message] == end.errors


def test_an_invalid_job_is_reported_too(lake: Path, tmp_path: Path) -> None:
    end = run(job(lake, tmp_path / "out", horizon=0, floor="low"), "--output", "json")
    assert end.code == 64
    assert Report.model_validate_json(end.out).reason is Reason.INVALID_SPEC
    assert [error.split(": ")[1] for error in end.errors] == ["spec.horizon", "spec.floor"]


def test_fields_are_set_from_the_command_line(lake: Path, tmp_path: Path) -> None:
    end = run(job(lake, tmp_path / "out"), "--set", "spec.horizon=3", "--set", "spec.intervals=[50]", "--run-id", "r")
    assert end.code == 0
    forecasts = pq.read_table(tmp_path / "out" / "runs" / "r" / "forecasts", partitioning=None)
    assert forecasts.column_names == ["entity", "time", "mean", "lo50", "hi50"]
    assert len(forecasts) == 30
    assert run(job(lake, tmp_path / "out"), "--set", "spec.horizons=3").errors == [
        "--set spec.horizons=3: there is no field spec.horizons, did you mean spec.horizon?"
    ]


def test_a_run_is_of_one_job(lake: Path, tmp_path: Path) -> None:
    two = yaml.safe_dump_all([job(lake, tmp_path / "out"), job(lake, tmp_path / "out")])
    result = CliRunner().invoke(main, ["run", "-f", "-"], input=two)
    assert result.exit_code == 64
    assert "holds 2 jobs, and a run is of one: ledger (line 1), ledger (line " in result.stderr
    result = CliRunner().invoke(main, ["run", "-f", "-"], input="kind: ConfigMap\napiVersion: v1\n")
    assert result.stderr == "error: -: holds no job of Almanac's\n"


def test_run_ids_are_names(lake: Path, tmp_path: Path) -> None:
    assert run(job(lake, tmp_path / "out"), "--run-id", "../x").code == 2
    assert run(job(lake, tmp_path / "out"), "--run-id", "x").code == 0
    again = run(job(lake, tmp_path / "out"), "--run-id", "x")
    assert again.code == 64
    assert "run `x` is complete already" in again.errors[0]
    loaded(tmp_path / "out").verify()


def test_a_sample_trains_one_entity_and_writes_nothing(lake: Path, tmp_path: Path) -> None:
    end = run(job(lake, tmp_path / "out", minObservations=50), "--sample")
    assert end.code == 0
    assert end.out.startswith("✓ trained account-0000000\n")
    assert "30 observed periods, 2026-01-05 to 2026-02-03" in end.said
    assert "nothing was written" in end.out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_reads_footers_only(lake: Path, tmp_path: Path) -> None:
    end = run(job(lake, tmp_path / "out"), "--dry-run")
    assert end.code == 0
    assert "600 rows, 2 files" in end.out
    assert not (tmp_path / "out").exists()
    assert run(job(lake, tmp_path / "out", source__columns__value="amout"), "--dry-run").code == 65
    assert run(job(lake, tmp_path / "out"), "--dry-run", "--sample").code == 2
    assert run(job(lake, tmp_path / "out"), "--sample", "--output", "json").code == 2


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_job_gives_the_same_bytes(
    lake: Path, tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("almanac_jobs.buckets.BUCKET_ENTITIES", 3)
    document = job(lake, tmp_path / "out")
    assert run(document, "--run-id", "r1").code == 0
    monkeypatch.setattr("almanac_jobs.engines.local.usable_cores", lambda: threads)
    shuffled = ledger(10, 60).take(np.random.default_rng(1).permutation(600))
    write_parquet(shuffled, tmp_path / "other" / "all.parquet", row_group_size=70)
    assert run(document, "--set", f"spec.source.uri={tmp_path / 'other'}", "--run-id", "r2").code == 0
    runs = tmp_path / "out" / "runs"
    assert len(tables(runs / "r1")) == 4 * 4
    assert tables(runs / "r1") == tables(runs / "r2")
    reports = [json.loads((runs / name / "report.json").read_text()) for name in ("r1", "r2")]
    assert reports[0]["checksum"] == reports[1]["checksum"]
    assert reports[0]["scores"] == reports[1]["scores"]


def test_entities_get_folders_of_their_own(lake: Path, tmp_path: Path) -> None:
    assert run(job(lake, tmp_path / "out", output__layout="perEntity")).code == 0
    alone = almanac_jobs.load(str(tmp_path / "out" / "account-0000004"))
    assert alone.forecast(7) == loaded(tmp_path / "out").forecasts("account-0000004")


def test_old_runs_go_and_what_cannot_be_deleted_is_said(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = job(lake, tmp_path / "out", output__keepRuns=2)
    for name in ("r1", "r2", "r3"):
        assert run(document, "--run-id", name).code == 0
    assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == ["r2", "r3"]

    def refuse(location: Location) -> None:
        raise JobError(Reason.ACCESS_DENIED, f"no permission to delete {location.path}")

    monkeypatch.setattr(objects, "remove", refuse)
    end = run(document, "--run-id", "r4")
    assert (end.code, end.errors) == (0, [])
    assert "warning: older runs could not be deleted: no permission" in end.err
    assert loaded(tmp_path / "out").report["run"] == "r4"


def test_s3_in_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("lake")
        table = ledger(5, 40)
        for month, part in enumerate((table.slice(0, 100), table.slice(100))):
            sink = pa.BufferOutputStream()
            pq.write_table(part, sink)
            server.put("lake", f"raw/month={month}/part-0.parquet", sink.getvalue().to_pybytes())
        end = run(job("s3://lake/raw", "s3://lake/models/forecast"), "--run-id", "r1", "--output", "json")
        assert (end.code, end.errors) == (0, [])
        assert Report.model_validate_json(end.out).result.uri == "s3://lake/models/forecast/runs/r1"  # type: ignore[union-attr]
        keys = server.keys("lake")
        assert "models/forecast/latest.json" in keys
        assert "models/forecast/runs/r1/report.html" in keys
        model = loaded("s3://lake/models/forecast")
        model.verify()
        assert len(model.forecasts("account-0000001")) == 7
        for source, output, code, words in (
            ("s3://pond/raw", "s3://lake/models", 66, "has no bucket `pond`"),
            ("s3://lake/raw", "s3://pond/models", 64, "has no bucket `pond`"),
        ):
            end = run(job(source, output), "-q")
            assert (end.code, len(end.errors)) == (code, 1)
            assert words in end.errors[0]
        for status, name, code, words in (
            (403, "AccessDenied", 77, "no permission to write `s3://lake/models/forecast"),
            (507, "InsufficientStorage", 75, "no space is left"),
        ):
            late = Fault(lambda method, path: method == "PUT" and "scores" in path, status, name, times=99)
            server.faults[:] = [late]
            end = run(job("s3://lake/raw", "s3://lake/models/forecast"), "-q")
            assert (end.code, len(end.errors)) == (code, 1)
            assert words in end.errors[0]
            assert server.keys("lake") == keys
        loaded("s3://lake/models/forecast").verify()


# --- how it ends when it cannot ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusal:
    """A job that cannot be done: how a good lake or job is spoilt, and what is said."""

    code: int
    words: str
    fields: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[Path], None] = lambda lake: None


def _replace(**columns: pa.Array) -> Callable[[Path], None]:
    """Write columns of all files anew."""

    def spoil(lake: Path) -> None:
        for path in lake.glob("*.parquet"):
            table = pq.read_table(path)
            for name, column in columns.items():
                table = table.set_column(table.column_names.index(name), name, column.slice(0, len(table)))
            pq.write_table(table, path)

    return spoil


def _empty(lake: Path) -> None:
    for path in lake.glob("*.parquet"):
        pq.write_table(pq.read_table(path).slice(0, 0), path)


def _remove(lake: Path) -> None:
    for path in lake.glob("*.parquet"):
        path.unlink()


def _cut(lake: Path) -> None:
    content = (lake / "february.parquet").read_bytes()
    (lake / "february.parquet").write_bytes(content[: len(content) // 2])


def _damage(lake: Path) -> None:
    content = bytearray((lake / "february.parquet").read_bytes())
    content[40:400] = b"\xff" * 360  # in the first page: footers are fine
    (lake / "february.parquet").write_bytes(content)


def _text(lake: Path) -> None:
    (lake / "february.parquet").write_text("account,date,amount\n")


WORDS = pa.array(["a lot"] * 600)
NOBODY_THERE = {"storage__endpoint": "http://127.0.0.1:1"}
BROKEN = "february.parquet` cannot be read as Parquet"
REFUSALS = {
    "wrong column": Refusal(
        65,
        "spec.source.columns.value: there is no column `amout` in .* did you mean `amount`",
        {"source__columns__value": "amout"},
    ),
    "wrong type of value": Refusal(
        65, "spec.source.columns.value: column `amount` is of type string", spoil=_replace(amount=WORDS)
    ),
    "wrong type of time": Refusal(
        65, "spec.source.columns.time: column `date` is of type string", spoil=_replace(date=WORDS)
    ),
    "no row": Refusal(66, "holds no row", spoil=_empty),
    "no file": Refusal(66, "holds no Parquet file", spoil=_remove),
    "nothing there": Refusal(66, "does not exist: check the path", {"source__uri": "/nowhere/at/all"}),
    "no row meets the filter": Refusal(
        66, "spec.source.filter: no row of .* meets", {"source__filter": "amount > 1000"}
    ),
    "filter of an unknown column": Refusal(
        65, "spec.source.filter: there is no column `x`", {"source__filter": "x > 1"}
    ),
    "not Parquet": Refusal(65, BROKEN, spoil=_text),
    "truncated Parquet": Refusal(65, BROKEN, spoil=_cut),
    "damaged Parquet": Refusal(65, BROKEN, spoil=_damage),
    "frequency too fine": Refusal(65, "spec.frequency: `H` does not fit column `date`", {"frequency": "H"}),
    "gap that is to fail": Refusal(
        65,
        "spec.missing: entity `account-000000.` has no row for 2026-01-20",
        {"missing": "fail", "source__filter": "date != '2026-01-20'"},
    ),
    "unreachable source": Refusal(
        75, "http://127.0.0.1:1 does not serve `s3://lake/raw`", {"source__uri": "s3://lake/raw", **NOBODY_THERE}
    ),
    "unreachable output": Refusal(
        75, "http://127.0.0.1:1 does not serve `s3://lake/out", {"output__uri": "s3://lake/out", **NOBODY_THERE}
    ),
    "output below a file": Refusal(
        64, "spec.output.uri: .* because `/proc/version` is a file", {"output__uri": "/proc/version/out"}
    ),
    "too many folders": Refusal(
        64, "spec.output.layout: perEntity is for at most 5 entities", {"output__layout": "perEntity"}
    ),
}


NAMED = "DataError, and the file by its name: nothing is written, earlier results are as they were."
SHOWN = {
    name: cell(Group.DATA, fault, Moment.READING, NAMED)
    for name, fault in {
        "not Parquet": "A file is something else than Parquet",
        "truncated Parquet": "A file was cut short",
        "damaged Parquet": "A page of a file is damaged",
    }.items()
}


@pytest.mark.parametrize("name", [pytest.param(one, marks=SHOWN.get(one, ())) for one in REFUSALS])
def test_one_clear_message_and_the_last_complete_run_stays(
    name: str, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = REFUSALS[name]
    assert run(job(lake, tmp_path / "out"), "--run-id", "before", "--quiet").code == 0
    before = tables(tmp_path / "out")
    monkeypatch.setattr("almanac_jobs.storage.ATTEMPTS", 1)
    monkeypatch.setattr("almanac_jobs.per_entity.MAX_ENTITIES", 5)
    refusal.spoil(lake)
    end = run(job(lake, tmp_path / "out", **refusal.fields), "--quiet")
    assert (end.code, len(end.errors)) == (refusal.code, 1), end.err
    assert re.search(refusal.words, end.errors[0])
    assert end.err == f"error: {end.errors[0]}\n"
    assert end.out == ""
    assert tables(tmp_path / "out") == before
    assert loaded(tmp_path / "out").report["run"] == "before"
    loaded(tmp_path / "out").verify()
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir()] == ["before"]


DISK_FULL = "StorageFull, tried again; what it wrote is deleted, and earlier results are as they were."


@cell(Group.STORAGE, "The disk is full, or a quota used up", Moment.WRITING, DISK_FULL)
@pytest.mark.parametrize("full", ["write", "fsync"])
def test_a_full_disk(full: str, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(job(lake, tmp_path / "out"), "--run-id", "before").code == 0
    calls = iter(range(100))

    def fail(*_: Any) -> None:
        if next(calls) >= 2:  # some files have been written by then
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(objects.os, "fsync" if full == "fsync" else "replace", fail)
    if full == "write":
        monkeypatch.setattr(Path, "replace", fail)
    end = run(job(lake, tmp_path / "out"), "--quiet")
    assert (end.code, len(end.errors)) == (75, 1)
    assert "spec.output.uri: no space is left on the local disk to write" in end.errors[0]
    assert loaded(tmp_path / "out").report["run"] == "before"
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir()] == ["before"]


@cell(Group.STORAGE, "The disk is full, or a quota used up", Moment.WRITING, DISK_FULL)
def test_a_disk_that_really_is_full(tmp_path: Path) -> None:
    with disks.mounted(tmp_path / "disk", "600k") as disk:
        lake = write_parquet(ledger(2000, 40), tmp_path / "lake" / "t.parquet")
        assert (
            run(job(lake, disk / "out", evaluation__windows=0, source__filter="account < 'account-0000100'")).code == 0
        )
        end = run(job(lake, disk / "out"), "--quiet")
        assert (end.code, len(end.errors)) == (75, 1)
        assert "no space is left on the local disk" in end.errors[0]
        assert len(list((disk / "out" / "runs").iterdir())) == 1
        loaded(disk / "out").verify()


AS_NOBODY = """
import os, sys
import almanac.cli.run, almanac_jobs.run
from almanac.cli import main
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
main(sys.argv[1:])
"""


@pytest.mark.parametrize("closed", ["lake", "out"])
def test_no_permission(closed: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        place = Path(folder)
        place.chmod(0o755)
        write_parquet(ledger(3, 40), place / "lake" / "t.parquet")
        (place / "out").mkdir()
        (place / "out").chmod(0o777)
        (place / closed).chmod(0o555 if closed == "out" else 0)
        file = write_job(place / "job.yaml", job(place / "lake", place / "out"))
        command = [sys.executable, "-c", AS_NOBODY, "run", "-q", "-f", str(file)]
        end = subprocess.run(command, capture_output=True, text=True)
        (place / closed).chmod(0o755)
        assert list((place / "out").iterdir()) == []
    verb, name = ("write", "output.uri") if closed == "out" else ("read", "source.uri")
    assert end.returncode == 77, end.stderr
    assert re.fullmatch(
        rf"error: spec\.{name}: no permission to {verb} `{folder}/{closed}.* on the local disk.*\n", end.stderr
    )


# --- data that are hard, and not wrong --------------------------------------------------------------------------------


def test_a_horizon_longer_than_history(tmp_path: Path) -> None:
    lake = write_parquet(ledger(4, 30), tmp_path / "lake" / "t.parquet")
    end = run(job(lake, tmp_path / "out", horizon=90))
    assert (end.code, end.errors) == (0, [])
    assert "no entity is long enough to be tested on 90 days" in end.said
    forecasts = loaded(tmp_path / "out").forecasts("account-0000002")
    assert len(forecasts) == 90
    assert np.isfinite(forecasts["hi95"].to_numpy()).all()
    assert np.diff(forecasts["hi95"].to_numpy() - forecasts["lo95"].to_numpy()).min() >= 0


def test_entities_with_one_row(tmp_path: Path) -> None:
    table = pa.concat_tables([ledger(3, 40), ledger(9, 1).slice(5)])
    lake = write_parquet(table, tmp_path / "lake" / "t.parquet")
    end = run(job(lake, tmp_path / "out", missing="drop"), "--output", "json")
    assert (end.code, end.errors) == (0, [])
    model = loaded(tmp_path / "out")
    assert model.report["statuses"]["too_short"] == 4
    one = model.forecasts("account-0000007")
    assert one["mean"].to_pylist() == [table["amount"][-2].as_py()] * 7
    assert one["lo95"].null_count == 7
    assert model.scores("account-0000007")["windows"].to_pylist() == [0]  # type: ignore[index]


def test_values_that_no_model_takes(tmp_path: Path) -> None:
    good = ledger(2, 40)
    days = good["date"].take(np.arange(0, 80, 2))
    odd = {
        "infinite": [1.0] * 20 + [float("inf")] + [2.0] * 19,
        "constant": [5.0] * 40,
        "null": [None] * 40,
        "huge": list(1e300 * np.sin(np.arange(40))),
        "alternating": [1.0, -1.0] * 20,
    }
    parts = [
        pa.table({"account": [name] * 40, "date": days, "amount": pa.array(values, pa.float64())})
        for name, values in odd.items()
    ]
    lake = write_parquet(pa.concat_tables([good, *parts]), tmp_path / "lake" / "t.parquet")
    end = run(job(lake, tmp_path / "out"))
    assert (end.code, end.errors) == (0, [])
    model = loaded(tmp_path / "out")
    status = {name: model.parameters(name)["status"][0].as_py() for name in odd}
    assert (status["infinite"], status["constant"], status["null"]) == ("not_finite", "constant", "empty")
    assert status["huge"] == "not_finite"
    assert model.report["failedEntities"] == 3
    assert len(model.forecasts("infinite")) == 0
    assert model.forecasts("constant")["lo95"].to_pylist() == [5.0] * 7
    assert model.parameters("account-0000000") == _alone(good, tmp_path).parameters("account-0000000")


def _alone(table: pa.Table, tmp_path: Path) -> Model:
    lake = write_parquet(table, tmp_path / "alone" / "t.parquet")
    assert run(job(lake, tmp_path / "alone-out")).code == 0
    return loaded(tmp_path / "alone-out")


def test_a_million_entities_with_one_row(tmp_path: Path) -> None:
    table = ledger(1_000_000, 1)
    lake = write_parquet(table, tmp_path / "lake" / "t.parquet")
    end = run(job(lake, tmp_path / "out"), "--output", "json", "--run-id", "r")
    assert (end.code, end.errors) == (0, [])
    model = loaded(tmp_path / "out")
    assert model.report["statuses"] == {"too_short": 1_000_000}
    assert model.forecasts("account-0765432")["mean"].to_pylist() == [table["amount"][765_432].as_py()] * 7


def test_any_kind_of_entity_time_and_value(tmp_path: Path) -> None:
    table = ledger(3, 60)
    number = pa.array(np.tile([7, 10, -1], 60))
    decimal = table["amount"].cast(pa.decimal128(20, 2))
    instant = table["date"].cast(pa.timestamp("us", "UTC"))
    typed = pa.table({"account": number, "date": instant, "amount": decimal})
    lake = write_parquet(typed, tmp_path / "lake" / "t.parquet")
    end = run(job(lake, tmp_path / "out", frequency="auto", source__timeZone="Europe/Berlin"))
    assert (end.code, end.errors) == (0, [])
    forecasts = loaded(tmp_path / "out").forecasts(-1)
    assert forecasts["entity"].to_pylist() == [-1] * 7
    assert str(forecasts.schema.field("time").type) == "timestamp[us, tz=UTC]"


# --- stopping ---------------------------------------------------------------------------------------------------------

SMALL_BUCKETS = """
import sys
import almanac_jobs.buckets
almanac_jobs.buckets.BUCKET_ENTITIES = 20
from almanac.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def under_way(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a run of many buckets beside a complete one, and gives it once it has written its first bucket."""
    lake = write_parquet(ledger(4000, 80), tmp_path / "lake" / "t.parquet")
    document = job(lake, tmp_path / "out")
    assert run(document, "--set", "spec.source.filter=account < 'account-0000010'", "--run-id", "before").code == 0
    document["spec"]["evaluation"]["windows"] = 8
    command = ["run", "-f", str(write_job(tmp_path / "job.yaml", document)), "--run-id", "stopped"]
    processes: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", SMALL_BUCKETS, *command], stderr=subprocess.PIPE, text=True)
        processes.append(process)
        while not list((tmp_path / "out" / "runs").glob("stopped/forecasts/*/*.parquet")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@cell(
    Group.PODS,
    "The driver is asked to stop (SIGTERM: eviction, deletion, a deadline)",
    Moment.WRITING,
    "It deletes what it wrote and ends with 143, which is tried again where Kubernetes does so.",
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_no_trace(
    number: signal.Signals, code: int, under_way: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = under_way()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "error: stopped before it was complete: results of earlier runs are as they were\n" in err
    assert "Traceback" not in err
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir()] == ["before"]
    assert loaded(tmp_path / "out").report["run"] == "before"


@cell(
    Group.PODS,
    "The driver is killed (SIGKILL) between two buckets of many",
    Moment.WRITING,
    "Nothing points to what it wrote; the next attempt writes it anew, and is complete.",
)
def test_a_killed_run_changes_nothing_that_was_there(
    under_way: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = under_way()
    process.kill()
    process.communicate(timeout=60)
    model = loaded(tmp_path / "out")
    assert model.report["run"] == "before"
    model.verify()
    assert (tmp_path / "out" / "runs" / "stopped").exists()
    again = run(job(tmp_path / "lake", tmp_path / "out"), "--run-id", "stopped")  # as a driver's retry does
    assert again.code == 0
    loaded(tmp_path / "out").verify()
    assert loaded(tmp_path / "out").report["run"] == "stopped"
