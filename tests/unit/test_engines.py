"""What is said where an engine cannot be had, and how Spark is set up."""

from __future__ import annotations

import sys

import pytest

from almanac.api import Engine, ForecastJob, JobError, Reason
from almanac_jobs import engines
from almanac_jobs.progress import Progress
from ledgers import job


@pytest.fixture
def spark_job() -> ForecastJob:
    conf = {"spark.speculation": "true", "spark.shuffle.reduceLocality.enabled": "true"}
    return ForecastJob.parse(job("lake", "out", engine="spark", spark__conf=conf))


def test_without_pyspark_the_extra_is_named(spark_job: ForecastJob, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("almanac_jobs.engines.spark")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(engines, "spark", raising=False)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(JobError, match=r"spec\.engine: .*pip install 'almanac\[spark\]'") as caught:
        engines.opened(Engine.SPARK, spark_job, 1, Progress())
    assert caught.value.reason is Reason.NOT_INSTALLED


def test_without_java_it_is_named(spark_job: ForecastJob, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark")
    monkeypatch.setattr("pyspark.SparkContext._active_spark_context", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(JobError, match="needs Java 17") as caught,
        engines.opened(Engine.SPARK, spark_job, 1, Progress()),
    ):
        pass
    assert caught.value.reason is Reason.NOT_INSTALLED


def test_settings_on_this_machine_and_in_a_cluster(spark_job: ForecastJob, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark")
    from almanac_jobs.engines.spark import settings

    for name in ("SPARK_CONF_DIR", "SPARK_MASTER"):
        monkeypatch.delenv(name, raising=False)
    here = settings(spark_job)
    assert here["spark.master"].startswith("local[")
    assert here["spark.speculation"] == "true"
    assert here["spark.app.name"] == "finance/ledger"
    assert here["spark.shuffle.reduceLocality.enabled"] == "false"
    monkeypatch.setenv("SPARK_MASTER", "spark://there:7077")
    assert settings(spark_job)["spark.master"] == "spark://there:7077"
    monkeypatch.setenv("SPARK_CONF_DIR", "/etc/almanac/spark")  # whose spark-defaults.conf says everything else
    assert settings(spark_job) == {"spark.shuffle.reduceLocality.enabled": "false"}
