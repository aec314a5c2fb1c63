from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from almanac.api import ExitCode
from almanac.cli import main
from almanac_jobs import per_entity, tables
from almanac_jobs.storage import open_location
from runs import HORIZON, made, report, write_run

SETTINGS = report(made(["a"]))["forecasting"]


def show(*arguments: object, colour: bool = False) -> Result:
    environment = {"COLUMNS": "120", "LINES": "40", "NO_COLOR": "" if colour else "1"}
    environment |= {"FORCE_COLOR": "1"} if colour else {}
    return CliRunner(env=environment).invoke(main, ["show", *map(str, arguments)])


def test_an_entity_is_drawn_with_what_is_known_of_it(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1", ["A-1", "B 2"])
    result = show(tmp_path, "--entity", "A-1")
    assert result.exit_code == 0
    first, second, *_ = result.output.splitlines()
    assert first.startswith("A-1   arima(1,1,1)   ok: the model was fitted")
    assert second == "default/made, run r1, 60 periods to 1970-01-01"
    assert set("░▒") < set(result.output)
    for word in ("history", "80 %", "1970-01-02", "lo80", "ar1", "sigma2"):
        assert word in result.output
    assert max(map(len, result.output.splitlines())) <= 120


def test_output_has_colours_only_where_they_are_wanted(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1", ["a"])
    assert "\x1b[" in show(tmp_path, "-e", "a", colour=True).output
    assert "\x1b[" not in show(tmp_path, "-e", "a").output


def test_the_forecast_can_reach_further(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1", ["a"])
    assert "40 in all" in show(tmp_path, "-e", "a", "--horizon", 40).output
    assert "1970-02-10" in show(tmp_path, "-e", "a", "--horizon", 40).output  # the axis ends there
    assert f"{HORIZON} in all" not in show(tmp_path, "-e", "a").output


def test_without_an_entity_a_few_are_listed_with_the_command_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    write_run(str(folder), "r1", [f"e {i:02d}" for i in range(25)])
    result = show(folder)
    assert result.output.startswith("25 entities, among them:\n")
    assert len(re.findall(r"^  e \d\d$", result.output, re.MULTILINE)) == 10
    assert re.search(r"--entity 'e \d\d'$", result.output.strip())
    assert f"almanac show '{folder}'" in result.output


def test_a_run_of_few_lists_them_all(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1", [7, 8], kind=pa.int64())
    assert show(tmp_path).output.startswith("2 entities:\n")
    assert "ok: " in show(tmp_path, "-e", 7).output


def test_an_unknown_entity_is_told_with_names_that_are_near(tmp_path: Path) -> None:
    write_run(str(tmp_path), "r1", ["A-1007", "A-1008", "zebra"])
    result = show(tmp_path, "-e", "A-107")
    assert result.exit_code == ExitCode.SOURCE_MISSING
    assert "no entity `A-107`" in result.output
    assert "`A-1007`" in result.output
    assert "zebra" not in result.output


def test_a_place_without_a_run_is_told(tmp_path: Path) -> None:
    result = show(tmp_path, "-e", "a")
    assert result.exit_code == ExitCode.SOURCE_MISSING
    assert "holds no complete run" in result.output


@pytest.mark.parametrize("name", ["f.png", "f.SVG"])
def test_a_picture_is_written(tmp_path: Path, name: str) -> None:
    write_run(str(tmp_path / "runs"), "r1", ["a"])
    picture = tmp_path / name
    result = show(tmp_path / "runs", "-e", "a", "-o", picture)
    assert result.exit_code == 0
    assert picture.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


@pytest.mark.parametrize(("name", "words"), [("f.pdf", "must end in .png or .svg"), ("none/f.png", "No such file")])
def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path, name: str, words: str) -> None:
    write_run(str(tmp_path / "runs"), "r1", ["a"])
    result = show(tmp_path / "runs", "-e", "a", "-o", tmp_path / name)
    assert result.exit_code == 2
    assert words in result.output


def test_the_folder_of_one_entity_needs_no_name(tmp_path: Path) -> None:
    part = next(part for part in made(["a/b"]).values() if len(part["parameters"]))
    list(per_entity.write(open_location(str(tmp_path), None, field="x"), part["parameters"], SETTINGS))
    folder = tmp_path / per_entity.encode("a/b")
    result = show(folder, "--horizon", 9)
    assert result.output.startswith("a/b   arima(1,1,1)   ok")
    assert "9 in all" in result.output
    other = show(folder, "-e", "c")
    assert other.exit_code == ExitCode.SOURCE_MISSING
    assert "the folder of entity `a/b`" in other.output


def test_an_entity_without_a_forecast_is_described(tmp_path: Path) -> None:
    writer = write_run(str(tmp_path), "r1", ["a"])
    folder = tmp_path / "runs" / writer.run
    for name, drop in (("forecasts", True), ("parameters", False)):
        for path in (folder / name).rglob("*.parquet"):
            table = pa.parquet.read_table(path, partitioning=None)
            if len(table):
                empty = table.slice(0, 0)
                failed = table.set_column(3, "status", pa.array(["not_finite"] * len(table)))
                path.write_bytes(tables.parquet(empty if drop else failed))
    result = show(tmp_path, "-e", "a")
    assert result.exit_code == 0
    assert "not_finite: an infinite value in the data: nothing is forecast" in result.output
    assert "░" not in result.output
