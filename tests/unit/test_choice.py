"""Which engine a job runs on: what it names, else what its source's footers and the memory here say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from almanac.api import Engine, ForecastSpec, JobError, Reason
from almanac_jobs import choice
from almanac_jobs.choice import Choice, Footprint, Machine
from almanac_jobs.resources import GIB
from almanac_jobs.source import open_dataset

CLUSTERS = (Engine.DASK, Engine.SPARK)
BIG = Footprint(1_000_000_000, 3, 20 * GIB, 80 * GIB)


def here(
    most: int = 8 * GIB,
    *,
    hand_over: bool = False,
    environment: Mapping[str, str] | None = None,
    lacking: tuple[Engine, ...] = (),
) -> Machine:
    return Machine(
        10 * GIB, most, hand_over, environment or {}, lambda engine: f"lib of {engine}" if engine in lacking else ""
    )


@pytest.mark.parametrize(
    ("asked", "environment", "used"),
    [
        (Engine.AUTO, {}, Engine.AUTO),
        (Engine.AUTO, {"ALMANAC_ENGINE": ""}, Engine.AUTO),
        (Engine.AUTO, {"ALMANAC_ENGINE": "spark"}, Engine.SPARK),
        (Engine.AUTO, {"ALMANAC_ENGINE": "dask"}, Engine.DASK),
        (Engine.LOCAL, {"ALMANAC_ENGINE": "spark"}, Engine.LOCAL),
        (Engine.SPARK, {}, Engine.SPARK),
    ],
)
def test_the_job_decides_and_then_the_environment(asked: Engine, environment: dict[str, str], used: Engine) -> None:
    assert choice.named(asked, environment) is used


@pytest.mark.parametrize("name", ["auto", "ray"])
def test_an_engine_that_is_none(name: str) -> None:
    with pytest.raises(JobError, match=f"ALMANAC_ENGINE: `{name}` is no engine") as caught:
        choice.named(Engine.AUTO, {"ALMANAC_ENGINE": name})
    assert caught.value.reason is Reason.INVALID_SPEC


def test_what_memory_holds_stays_here() -> None:
    small = Footprint(12_000_000, 3, GIB // 4, GIB)
    assert choice.decide(Engine.AUTO, small, CLUSTERS, here()) == Choice(
        Engine.LOCAL,
        "12,000,000 rows of 3 columns (0.2 GiB) take 1.0 GiB of memory at most, and one process may take 8.0 GiB",
    )
    assert choice.decide(Engine.AUTO, small, CLUSTERS, here(GIB - 1)).engine is Engine.DASK
    assert choice.decide(Engine.AUTO, small, CLUSTERS, here(GIB)).engine is Engine.LOCAL


@pytest.mark.parametrize(
    ("machine", "engine"),
    [
        (here(), Engine.DASK),
        (here(lacking=(Engine.DASK,)), Engine.SPARK),
        (here(environment={"SPARK_MASTER": "spark://there:7077"}), Engine.SPARK),
        (here(environment={"SPARK_MASTER": "spark://there:7077"}, lacking=(Engine.SPARK,)), Engine.DASK),
    ],
)
def test_what_it_does_not_hold_goes_to_a_cluster_that_is_there(machine: Machine, engine: Engine) -> None:
    made = choice.decide(Engine.AUTO, BIG, CLUSTERS, machine)
    figures = "1,000,000,000 rows of 3 columns (20.0 GiB) may take 80.0 GiB of memory, and one process may take 8.0 GiB"
    assert made == Choice(engine, f"{figures} of 10.0 GiB")


def test_without_any_other_engine_it_is_tried_here_with_one_warning() -> None:
    made = choice.decide(Engine.AUTO, BIG, CLUSTERS, here(lacking=CLUSTERS))
    assert made.engine is Engine.LOCAL
    assert made.warning.endswith("for want of memory: dask needs lib of dask; spark needs lib of spark")
    alone = choice.decide(Engine.AUTO, BIG, (), here(hand_over=True))  # there is nobody to hand over to
    assert (alone.engine, alone.warning) == (Engine.LOCAL, "")


def test_an_operator_starts_the_cluster() -> None:
    with pytest.raises(JobError, match=r"spec\.source\.uri: 1,000,000,000 rows .* of 10\.0 GiB") as caught:
        choice.decide(Engine.AUTO, BIG, CLUSTERS, here(hand_over=True))
    assert caught.value.exit_code == 79


def test_what_is_named_is_taken_as_it_is() -> None:
    for engine in (Engine.LOCAL, Engine.SPARK, Engine.DASK):
        made = choice.decide(engine, BIG, CLUSTERS, here(hand_over=True, lacking=CLUSTERS))
        assert (made.engine, made.warning) == (engine, "")
        assert "1,000,000,000 rows" in made.why


@pytest.mark.parametrize(
    ("setting", "most"), [("", 8 * GIB), ("50%", 5 * GIB), ("12.5 %", 5 * GIB // 4), ("2Gi", 2 * GIB), ("300", 300)]
)
def test_the_threshold_is_a_setting(setting: str, most: int) -> None:
    assert choice.machine(10 * GIB, {"ALMANAC_LOCAL_MEMORY": setting}, hand_over=False).most == most


@pytest.mark.parametrize("setting", ["much", "-1Gi", "0", "%"])
def test_a_threshold_that_is_none(setting: str) -> None:
    with pytest.raises(JobError, match=r"ALMANAC_LOCAL_MEMORY: `.*` is no memory: write an amount"):
        choice.machine(10 * GIB, {"ALMANAC_LOCAL_MEMORY": setting}, hand_over=False)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choice.lacks(Engine.DASK) == "distributed (pip install 'almanac[dask]')"
    assert choice.lacks(Engine.SPARK) == "pyspark (pip install 'almanac[spark]')"
    assert choice.lacks(Engine.LOCAL) == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert choice.lacks(Engine.DASK) == ""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert choice.lacks(Engine.SPARK).startswith("Java 17")


def test_columns_that_are_not_read_do_not_count(tmp_path: Path) -> None:
    rows = 10_000
    days = pa.array((np.datetime64("2026-01-01") + np.arange(rows) % 100).astype("datetime64[D]"))
    table = {"id": pa.array(["x"] * rows), "day": days, "amount": np.arange(rows, dtype=float)}
    pq.write_table(pa.table(table), tmp_path / "a.parquet", use_dictionary=False, row_group_size=3000)
    wide = table | {"note": pa.array([f"{number:0100}" for number in range(rows)])}
    pq.write_table(pa.table(wide), tmp_path / "b.parquet", use_dictionary=False, compression="zstd")
    columns = {"entity": "id", "time": "day", "value": "amount"}
    spec = ForecastSpec.model_validate(
        {"source": {"uri": str(tmp_path), "columns": columns}, "frequency": "D", "output": {"uri": "/nowhere"}}
    )
    plain = rows * (5 + 4 + 8)  # of a text of one letter, its length and the letter
    assert open_dataset(spec.source, None).uncompressed == pytest.approx(2 * plain, rel=0.01)
