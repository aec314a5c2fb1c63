"""Extracts on a laptop: `almanac extract`, `run`, `show`, `validate`, `render`, and jobs that read an extract."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

import almanac_jobs
from almanac.api import ExtractJob
from almanac.cli import main
from almanac_jobs.model import Model
from almanac_jobs.scoring import AnomalyRun
from extracts import carry_out, extract, newest, rows
from postgres import Server


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "ALMANAC_", "PG"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def journal(postgres: Server) -> Iterator[str]:
    """Entries of 4 accounts on 200 days."""
    postgres.run(
        "CREATE TABLE journal (id int8 PRIMARY KEY, account text, date date, amount numeric(18, 2), version int)",
        "INSERT INTO journal SELECT i, 'A-' || i % 4, date '2024-01-01' + i / 4, 100 + i % 7, i "
        "FROM generate_series(0, 799) i",
    )
    yield "journal"
    postgres.run("DROP TABLE journal")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def manifest(folder: Path, *documents: dict[str, Any], name: str = "jobs.yaml") -> Path:
    file = folder / name
    file.write_text(yaml.safe_dump_all(documents))
    return file


def source_job(server: Server, table: str, uri: Path, **fields: Any) -> dict[str, Any]:
    return extract(source__connection=server.connection, source__table=table, output__uri=str(uri), **fields)


def forecast(uri: Path, **source: Any) -> dict[str, Any]:
    columns = {"entity": "account", "time": "date", "value": "amount"}
    return {
        "apiVersion": "almanac.dev/v1alpha1",
        "kind": "ForecastJob",
        "metadata": {"name": "ledger"},
        "spec": {
            "source": {"extract": {"name": "entries"}, "columns": columns, **source},
            "output": {"uri": str(uri)},
            "evaluation": {"windows": 0},
            "horizon": 3,
        },
    }


def test_a_table_without_a_manifest(postgres: Server, journal: str, tmp_path: Path) -> None:
    url = f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres?sslmode=disable"
    options = ["--table", journal, "--to", str(tmp_path), "--partition-by", "month", "--column", "date"]
    ended = call("extract", *options, "--columns", "id,date,amount", "--filter", "id < 500", "--key", "id", url)
    assert ended.exit_code == 0, ended.output
    assert "✓ 500 rows of journal" in ended.stdout
    assert "numeric(18,2)" in ended.stdout
    assert "read 500 rows" in ended.stderr
    assert set(rows(str(tmp_path), "id")[0]) == {"id", "date", "amount"}
    shown = call("show", str(tmp_path))
    assert "500 rows" in shown.stdout
    assert "decimal128(18, 2)" in shown.stdout


def test_libpq_says_what_the_command_does_not(
    postgres: Server, journal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOST": "127.0.0.1", "PORT": postgres.port, "USER": "postgres", "DATABASE": "postgres"}.items():
        monkeypatch.setenv(f"PG{name}", str(value))
    query = "SELECT account, count(*) AS n FROM journal GROUP BY 1"
    ended = call("extract", "--query", query, "--to", str(tmp_path), "--output", "json", "-q")
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["result"]["rows"] == 4


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:hunter2@db/ledger", "URL: must not hold the password"),
        ("postgresql://db/ledger?password=hunter2", "URL: must not hold the password"),
        ("mysql://db/ledger", "URL: must start with postgresql://"),
        ("postgresql://db:port/ledger", "URL: it cannot be read"),
        ("postgresql://db/ledger?sslrootcert=x", "URL: `sslrootcert` is not read"),
        ("postgresql://db/ledger?sslmode=no", "spec.source.connection.sslmode: must be"),
    ],
)
def test_urls_that_cannot_be(url: str, said: str) -> None:
    ended = call("extract", url)
    assert ended.exit_code == 64
    assert said in ended.stderr
    assert "hunter2" not in ended.output


def test_every_option_is_documented() -> None:
    from almanac.cli.extract import extract as command

    page = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()
    section = page.split("\n## almanac extract\n")[1].split("\n## ")[0]
    for option in command.params:
        assert option.param_type_name == "argument" or any(f"`{name}" in section for name in option.opts), option.name


def test_a_forecast_reads_exactly_the_newest_run(postgres: Server, journal: str, tmp_path: Path) -> None:
    """Of an extract in the same file, with files of two runs."""
    watermark = {"column": "version", "lagSeconds": 0}
    partition = {"by": "month", "column": "date"}
    source = source_job(postgres, journal, tmp_path / "raw", source__watermark=watermark, partition=partition)
    file = manifest(tmp_path, source, forecast(tmp_path / "out"))
    early = call("run", "-f", str(file))
    assert early.exit_code == 66
    assert "has no complete run" in early.stderr
    assert "--name entries" in early.stderr
    assert call("run", "-f", str(file), "--name", "entries").exit_code == 0
    postgres.run("UPDATE journal SET amount = 1000, version = 1000 WHERE id = 799")
    assert call("run", "-f", str(file), "--name", "entries").exit_code == 0
    assert any(one["path"].startswith("../") for one in newest(str(tmp_path / "raw")).report["files"])
    ended = call("run", "-f", str(file), "--output", "json")
    assert ended.exit_code == 0, ended.output
    result = json.loads(ended.stdout)["result"]
    assert (result["rows"], result["entities"]) == (800, 4)
    model = almanac_jobs.load(str(tmp_path / "out"))
    assert isinstance(model, Model)
    read = model.report["spec"]["source"]["extract"]
    assert read == {"name": "entries", "uri": newest(str(tmp_path / "raw")).folder.uri}
    assert model.history("A-3")["values"][0].as_py()[-1] == 1000


def test_anomalies_read_an_extract_of_another_file(postgres: Server, journal: str, tmp_path: Path) -> None:
    carry_out(ExtractJob.parse(source_job(postgres, journal, tmp_path / "raw")))
    manifest(tmp_path, source_job(postgres, journal, tmp_path / "raw"), name="extract.yaml")
    odd = forecast(tmp_path / "out")
    odd["kind"] = "AnomalyJob"
    odd["spec"] = {
        "source": {"extract": {"name": "entries"}, "columns": {"entity": "account", "time": "date", "id": "id"}},
        "model": {"rounds": 5},
        "output": {"uri": str(tmp_path / "out")},
    }
    ended = call("run", "-f", str(manifest(tmp_path, odd, name="anomalies.yaml")))
    assert ended.exit_code == 0, ended.output
    assert isinstance(almanac_jobs.load(str(tmp_path / "out")), AnomalyRun)


def test_an_extract_that_is_nowhere(tmp_path: Path) -> None:
    ended = call("run", "-f", str(manifest(tmp_path, forecast(tmp_path / "out"))))
    assert ended.exit_code == 66
    assert "spec.source.extract.name: " in ended.stderr
    assert "no ExtractJob `entries`" in ended.stderr


@pytest.mark.parametrize(("missing", "said"), [("report", "no complete run"), ("file", "is gone")])
def test_a_run_of_an_extract_that_is_broken(
    postgres: Server, journal: str, tmp_path: Path, missing: str, said: str
) -> None:
    carry_out(ExtractJob.parse(source_job(postgres, journal, tmp_path / "raw")))
    found = newest(str(tmp_path / "raw"))
    Path(found.paths[0] if missing == "file" else f"{found.folder.path}/report.json").unlink()
    job = forecast(tmp_path / "out")
    job["spec"]["source"]["extract"]["uri"] = found.folder.uri
    ended = call("run", "-f", str(manifest(tmp_path, job)))
    assert ended.exit_code in (65, 66)
    assert "spec.source.extract: " in ended.stderr
    assert said in ended.stderr


def test_several_jobs_and_none_is_named(postgres: Server, tmp_path: Path) -> None:
    file = manifest(tmp_path, extract(), {**forecast(tmp_path), "metadata": {"name": "a"}}, forecast(tmp_path))
    ended = call("run", "-f", str(file))
    assert ended.exit_code == 64
    assert "choose with --name" in ended.stderr
    assert call("validate", "-f", str(file)).exit_code == 0


def test_what_a_cluster_would_get(tmp_path: Path) -> None:
    reader = forecast(tmp_path / "out")
    reader["spec"]["output"]["uri"] = "s3://lake/forecasts"
    file = manifest(tmp_path, extract(source__connection={"secretName": "db"}), reader)
    ended = call("render", "-f", str(file), "-o", "json")
    assert ended.exit_code == 0, ended.output
    made = json.loads(ended.stdout)["items"]
    assert [one["kind"] for one in made] == ["ConfigMap", "Job", "ConfigMap", "Job"]
    assert made[1]["spec"]["template"]["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "db"}}]


def test_look_and_sample(postgres: Server, journal: str, tmp_path: Path) -> None:
    file = manifest(tmp_path, source_job(postgres, journal, tmp_path / "raw"))
    sampled = call("run", "-f", str(file), "--sample")
    assert "✓ read the first rows of journal, by id" in sampled.stdout
    assert "numeric(18,2)" in sampled.stdout
    looked = call("run", "-f", str(file), "--dry-run")
    assert "the job is valid and its source can be read" in looked.stdout
    assert not (tmp_path / "raw").exists()


def test_ctrl_c_keeps_what_was_read(postgres: Server, tmp_path: Path) -> None:
    """And says how to go on; the same command with that id does."""
    postgres.run("DROP TABLE IF EXISTS large", "CREATE TABLE large (id int PRIMARY KEY, text text)")
    postgres.run("INSERT INTO large SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 60000) i")
    command = [sys.executable, "-c", SLOW, "extract", "--table", "large", "--to", str(tmp_path), "--run-id", "r1"]
    process = subprocess.Popen([*command, postgres.url], stderr=subprocess.PIPE, text=True)
    state = tmp_path / "runs" / "r1" / ".state"
    deadline = time.monotonic() + 60
    while len(list(state.glob("range-*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command with --run-id r1 goes on" in said
    assert list(state.glob("range-*.json"))
    again = call("extract", "--table", "large", "--to", str(tmp_path), "--run-id", "r1", postgres.url)
    assert again.exit_code == 0, again.output
    assert "were read by an earlier attempt" in " ".join(again.stdout.split())
    assert newest(str(tmp_path)).dataset().count_rows() == 60000
    (tmp_path / "latest.json").unlink()  # as if it had been killed before it could write that
    once_more = call("extract", "--table", "large", "--to", str(tmp_path), "--run-id", "r1", postgres.url)
    assert once_more.exit_code == 0, once_more.output
    assert "run r1 is complete already" in once_more.stdout
    assert newest(str(tmp_path)).report["run"] == "r1"


SLOW = """
import sys, time
from almanac_jobs.extract import relation
from almanac_jobs.extract.reading import Reading
relation.RANGE_BYTES = 1 << 20
read = Reading._read
Reading._read = lambda self, part: (time.sleep(0.1), self.going.check(), read(self, part))[2]
from almanac.cli import main
main(sys.argv[1:])
"""


def test_a_driver_that_is_killed_goes_on_under_the_same_id(postgres: Server, tmp_path: Path) -> None:
    """As Kubernetes starts it again: what it tells in the end is one complete run."""
    postgres.run("DROP TABLE IF EXISTS kept", "CREATE TABLE kept (id int PRIMARY KEY, text text)")
    postgres.run("INSERT INTO kept SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 60000) i")
    job, log = tmp_path / "job.json", tmp_path / "termination"
    job.write_text(json.dumps(source_job(postgres, "kept", tmp_path / "out")))
    arguments = [str(job), "--run-id", "r1", "--termination-log", str(log), "--port", "0"]
    command = [sys.executable, "-c", SLOW.replace("almanac.cli import main", "almanac_jobs.__main__ import main")]
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    state = tmp_path / "out" / "runs" / "r1" / ".state"
    while len(list(state.glob("range-*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not log.exists()
    ended = subprocess.run([sys.executable, "-m", "almanac_jobs", *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(log.read_text())
    assert (report["reason"], report["result"]["rows"]) == ("Completed", 60000)
    assert "entities" not in report["result"]
    assert report["engine"] == "local"
    assert newest(str(tmp_path / "out")).report["source"]["resumedRanges"] >= 2
    again = subprocess.run([sys.executable, "-m", "almanac_jobs", *arguments], capture_output=True, text=True)
    assert again.returncode == 0
    assert json.loads(log.read_text())["result"] == report["result"]
