"""Reading a run back: one entity, all entities, further ahead, without fitting again."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import almanac_jobs
from almanac.api import JobError, Output, Reason
from almanac_jobs import per_entity, tables
from almanac_jobs.artefacts import RunWriter
from almanac_jobs.model import EntityModel, Model, UnknownEntityError, suggestions
from almanac_jobs.storage import open_location
from runs import HORIZON, made, report, write_run
from s3 import S3Server

NASTY = ["../../x", "a/b", "a=b", ".", "..", "", "%", "runs", "latest.json", "_x", "ä ö\n", "<script>", "A" * 200]


def loaded(uri: Path) -> Model:
    found = almanac_jobs.load(str(uri))
    assert isinstance(found, Model)
    return found


@pytest.mark.parametrize(
    ("entities", "kind"),
    [(NASTY, pa.string()), ([1, -5, 10**12], pa.int64()), ([date(2026, 1, day) for day in range(1, 9)], pa.date32())],
)
def test_each_entity_is_found_by_its_name(tmp_path: Path, entities: list[Any], kind: pa.DataType) -> None:
    write_run(str(tmp_path), "r1", entities, kind=kind)
    model = loaded(tmp_path)
    assert sorted(map(str, model.entities.to_pylist())) == sorted(map(str, entities))
    for entity in entities:
        assert model.parameters(entity).column("entity").to_pylist() == [entity]
        assert model.forecasts(entity).num_rows == HORIZON
        assert model.history(entity).num_rows == 1
        assert model.parameters(str(entity)) == model.parameters(entity)
    assert model.scores(entities[0]) is None


def test_forecasting_further_continues_what_the_run_forecast(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1", ["a", "b", "c", "d"])
    model = loaded(tmp_path)
    for entity in "abcd":
        further = model.forecast(20, entity)
        assert further.slice(0, HORIZON) == model.forecasts(entity)
        assert pc.max(further.column("time")).as_py() == date(1970, 1, 21)
    every = model.forecast(20)
    assert every.num_rows == 4 * 20
    assert every.filter(pc.field("entity") == "b") == model.forecast(20, "b")
    assert "lo50" in model.forecast(3, "a", levels=[50]).column_names


def test_an_unknown_entity_is_named_with_those_like_it(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1", ["customer-17", "customer-18", "other"])
    with pytest.raises(UnknownEntityError, match=r"no entity `customer-71` .* `customer-17`"):
        loaded(tmp_path).forecasts("customer-71")


def test_names_like_an_unknown_one_are_found_among_many() -> None:
    names = pa.chunked_array([[f"customer-{i:06}" for i in range(50_000)], ["Zürich", "zebra"]])
    assert suggestions("customer-0471x1", names)[0].startswith("customer-047")
    assert suggestions("zurich", pa.chunked_array([["Zürich", "zebra"]])) == ["Zürich"]
    assert suggestions("nothing alike", names) == ["customer-000000", "customer-000001", "customer-000002"]
    assert suggestions("", names) == ["customer-000000", "customer-000001", "customer-000002"]


def test_an_entity_of_the_wrong_type_is_unknown(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1", [1, 2, 3], kind=pa.int64())
    with pytest.raises(UnknownEntityError, match="no entity `one`"):
        loaded(tmp_path).forecasts("one")


def test_a_place_without_a_run_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"holds no complete run: give the output\.uri") as refused:
        almanac_jobs.load(str(tmp_path / "nowhere"))
    assert refused.value.reason is Reason.SOURCE_NOT_FOUND


def test_a_run_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1")
    (tmp_path / "runs" / "r1" / "report.json").unlink()
    with pytest.raises(JobError, match=r"latest\.json names run `r1`, which is gone"):
        almanac_jobs.load(str(tmp_path))


@pytest.mark.parametrize(("horizon", "levels"), [(0, None), (-1, None), (3, [0]), (3, [100]), (3, [95, 120])])
def test_impossible_horizons_and_levels(tmp_path: Path, horizon: int, levels: list[float] | None) -> None:
    write_run(str(tmp_path), "r1")
    with pytest.raises(ValueError, match="must be at least 1, and levels"):
        loaded(tmp_path).forecast(horizon, "a", levels)


def test_forecasts_without_intervals(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1")
    assert loaded(tmp_path).forecast(3, "a", levels=[]).column_names == ["entity", "time", "mean"]


def test_importing_the_package_costs_nothing() -> None:
    check = "import sys, almanac_jobs; sys.exit(bool({'numpy', 'pyarrow', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_verify_notices_a_changed_byte(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1")
    model = loaded(tmp_path)
    model.verify()
    victim = next((tmp_path / "runs" / "r1").rglob("*.parquet"))
    data = bytearray(victim.read_bytes())
    data[40] ^= 1
    victim.write_bytes(data)
    with pytest.raises(JobError, match="is not what the run has written"):
        model.verify()


def test_parameters_survive_the_table() -> None:
    table = pa.concat_tables([part["parameters"] for part in made(["a", "b", "c", "d"]).values()])
    again = tables.parameters_from_table(table)
    ends = table.column("end").combine_chunks()
    assert tables.parameters_table(table.column("entity").combine_chunks(), again, ends) == table.combine_chunks()
    middle = tables.parameters_from_table(table.slice(1, 2))
    np.testing.assert_array_equal(middle.sigma2, again.sigma2[1:3])
    np.testing.assert_array_equal(middle.coefficients[0], again.coefficients[1])


def many(entities: int, horizon: int) -> dict[str, pa.Table]:
    """A bucket of incompressible forecasts and parameters."""
    names = pa.array([f"entity-{i:06d}" for i in range(entities)])
    rng, days = np.random.default_rng(1), np.arange(20_000, 20_000 + horizon).astype("datetime64[D]")
    ahead = {"entity": names.take(pa.array(np.repeat(np.arange(entities), horizon))), "time": np.tile(days, entities)}
    state = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=3 * entities)), 3).cast(pa.list_(pa.float64()))
    return {
        "forecasts": pa.table(ahead | {name: rng.normal(size=entities * horizon) for name in ("mean", "lo80", "hi80")}),
        "parameters": pa.table({"entity": names, "sigma2": rng.normal(size=entities), "state": state}),
    }


def test_one_entity_of_many_is_one_small_read(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = many(8192, 30)
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("lake")
        writer = RunWriter(Output(uri="s3://lake/out"), None, "r1")
        writer.write(0, parts)
        writer.publish(report({0: parts}) | {"buckets": 1})
        model = almanac_jobs.load("s3://lake/out")
        assert isinstance(model, Model)
        for read in (model.forecasts, model.parameters):
            before = len(server.requests)
            rows = read("entity-004711")
            requests = server.requests[before:]
            ranges = [one["HTTP_RANGE"].removeprefix("bytes=").split("-") for one in requests if "HTTP_RANGE" in one]
            assert len(rows) in (1, 30)
            assert set(rows.column("entity").to_pylist()) == {"entity-004711"}
            assert [one["REQUEST_METHOD"] for one in requests] == ["HEAD", "GET", "GET"]
            assert sum(int(last) - int(first) + 1 for first, last in ranges) < 200_000


@pytest.mark.parametrize("entities", [0, 1, 3, 500])
def test_no_entity_is_cut_by_a_row_group(entities: int) -> None:
    table = many(entities, 7)["forecasts"]
    data = tables.parquet(table)
    file = pq.ParquetFile(data)
    assert file.read() == table
    assert {file.metadata.row_group(i).num_rows % 7 for i in range(file.num_row_groups)} == {0}
    assert [column.column_index for column in file.metadata.row_group(0).sorting_columns] == [0, 1]
    assert file.metadata.serialized_size < tables.FOOTER


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@example("runs")
@example("spark-events")
def test_names_of_folders_round_trip(entity: str) -> None:
    name = per_entity.encode(entity)
    assert per_entity.decode(name) == entity
    assert not set(name) & set("/\\=\n ")
    assert name not in ("", ".", "..", "runs", "latest.json", "spark-events")
    assert name[0] not in "._"


def test_per_entity_folders_are_models_of_their_own(tmp_path: Path) -> None:
    parts = made(NASTY)
    everyone = pa.concat_tables([part["parameters"] for part in parts.values()])
    per_entity.check_names(everyone.column("entity").combine_chunks())
    settings = report(parts)["forecasting"]
    for folder in ("one", "two"):
        output = open_location(str(tmp_path / folder), None, field="uri")
        assert sorted(per_entity.write(output, everyone, settings)) == sorted(NASTY)
    written = {
        path.relative_to(tmp_path / "one"): path.read_bytes()
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    }
    assert written == {
        p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*") if p.is_file()
    }
    for entity in NASTY:
        folder = tmp_path / "one" / per_entity.encode(entity)
        assert folder.parent == tmp_path / "one"
        assert {path.name for path in (folder / "metadata").iterdir()} == {"_SUCCESS", "part-00000"}
        alone = almanac_jobs.load(str(folder))
        assert isinstance(alone, EntityModel)
        assert alone.forecast(HORIZON).column("entity").to_pylist() == [entity] * HORIZON


def test_per_entity_refuses_too_many_and_too_long() -> None:
    with pytest.raises(JobError, match="at most 10000 entities") as many:
        per_entity.check_number(10_001)
    assert many.value.reason is Reason.INVALID_SPEC
    with pytest.raises(JobError, match="too long for the name of a folder") as long:
        per_entity.check_names(pa.array(["x" * 300]))
    assert long.value.reason is Reason.DATA_ERROR


def test_a_look_at_the_entities_reads_no_more_than_it_shows(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1", list("abcdefghij"))
    model = loaded(tmp_path)
    every = model.entities.to_pylist()
    assert [model.first_entities(count) for count in (0, 3, 10, 99)] == [[], every[:3], every, every]
