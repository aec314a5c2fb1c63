"""Where Spark's event log goes: to the job's output, to another place in storage, or where Spark can write itself."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from almanac.api import ForecastJob, JobError, Reason
from almanac_jobs.engines.spark_events import kept
from ledgers import job
from s3 import S3Server


def logged(output: str | Path, **conf: str) -> ForecastJob:
    """A job with settings of Spark's event log: `logged("out", enabled="true")`."""
    return ForecastJob.parse(job("lake", output, spark__conf={f"spark.eventLog.{name}": conf[name] for name in conf}))


def write(settings: dict[str, str]) -> Path:
    """What Spark writes: a folder of an application's own, beside the checksum of each file."""
    folder = Path(urlsplit(settings["spark.eventLog.dir"]).path)
    (folder / "eventlog_v2_app-1").mkdir()
    (folder / "eventlog_v2_app-1" / "appstatus_app-1").touch()
    (folder / "eventlog_v2_app-1" / "events_1_app-1.zstd").write_bytes(b"events")
    (folder / "eventlog_v2_app-1" / ".events_1_app-1.zstd.crc").write_bytes(b"sum")
    return folder


def test_it_goes_to_the_output_once_spark_has_ended(tmp_path: Path) -> None:
    with kept(logged(tmp_path / "out", enabled="true")) as settings:
        folder = write(settings)
        assert not (tmp_path / "out").exists()
    application = tmp_path / "out" / "spark-events" / "eventlog_v2_app-1"
    assert {one.name: one.read_bytes() for one in application.iterdir()} == {
        "appstatus_app-1": b"",
        "events_1_app-1.zstd": b"events",
    }
    assert not folder.exists()


def test_that_of_a_run_that_fails_is_kept_too(tmp_path: Path) -> None:
    error = JobError(Reason.DATA_ERROR, "the run's own")

    def fail() -> None:
        with kept(logged(tmp_path / "out", enabled="TRUE")) as settings:
            write(settings)
            raise error

    with pytest.raises(JobError) as caught:
        fail()
    assert caught.value is error
    assert len(list((tmp_path / "out").rglob("events_1_*"))) == 1


def test_it_goes_to_another_place_in_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        s3.make_bucket("logs")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)
        with kept(logged(tmp_path, enabled="true", dir="s3://logs/spark")) as settings:
            write(settings)
        found = {f"spark/eventlog_v2_app-1/{name}" for name in ("appstatus_app-1", "events_1_app-1.zstd")}
        assert set(s3.keys("logs")) == found
        nowhere = kept(logged(tmp_path, enabled="true", dir="s3://nowhere/spark"))
        with pytest.raises(JobError, match=r"conf\[spark\.eventLog\.dir\]: .*no bucket `nowhere`"), nowhere:
            pytest.fail("nothing is started")


@pytest.mark.parametrize(
    "conf", [{}, {"enabled": "false"}, {"enabled": "true", "dir": "file:///logs"}, {"dir": "s3://a/b"}]
)
def test_without_it_and_in_folders_of_its_own_spark_is_left_alone(conf: dict[str, str], tmp_path: Path) -> None:
    with kept(logged(tmp_path / "out", **conf)) as settings:
        assert settings == {}
    assert not (tmp_path / "out").exists()


def test_a_log_that_cannot_be_stored_is_said_and_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with kept(logged(tmp_path / "out", enabled="true")) as settings:
        write(settings)
        (tmp_path / "out").write_text("in the way")
    assert capsys.readouterr().err.startswith("Spark's event log is not kept: spec.output.uri: ")
