import datetime

import pyarrow as pa
import pytest

from almanac_jobs.source.partitions import expression, values_of

D = datetime.date


def column(*folders: str, exact: bool = False) -> tuple[list[object], pa.DataType]:
    found = values_of([f"{folder}/0.parquet" for folder in folders], exact="x" if exact else "")
    return [one["x"].as_py() for one in found], found[0]["x"].type


@pytest.mark.parametrize(
    ("folders", "values", "kind"),
    [
        (["x=1", "x=02", "x=-3"], [1, 2, -3], pa.int64()),
        (["x=1", "x=b"], ["1", "b"], pa.string()),
        (["x=2024-01-31", "x=2024-02-01"], [D(2024, 1, 31), D(2024, 2, 1)], pa.date32()),
        (["x=2024-01-31", "x=2024-02-30"], ["2024-01-31", "2024-02-30"], pa.string()),
        (["x=1", "x=__HIVE_DEFAULT_PARTITION__"], [1, None], pa.int64()),
        (["x=__HIVE_DEFAULT_PARTITION__"], [None], pa.string()),
        (["x=a%2Fb%3Dc", "x=", "x=a=b"], ["a/b=c", "", "a=b"], pa.string()),
        (["x=99999999999999999999"], ["99999999999999999999"], pa.string()),
        (["x=٣"], ["٣"], pa.string()),
    ],
)
def test_values_have_the_type_that_all_of_them_fit(folders: list[str], values: list[object], kind: pa.DataType) -> None:
    assert column(*folders) == (values, kind)


def test_identifiers_are_integers_only_where_no_digit_is_lost() -> None:
    assert column("x=7", "x=10", exact=True) == ([7, 10], pa.int64())
    assert column("x=7", "x=007", exact=True) == (["7", "007"], pa.string())


def test_paths_may_name_different_columns_and_none() -> None:
    found = values_of(["a=1/b=x/0.parquet", "a=2/0.parquet", "0.parquet", "a=b.parquet"], exact="")
    assert [{name: value.as_py() for name, value in one.items()} for one in found] == [
        {"a": 1, "b": "x"},
        {"a": 2},
        {},
        {},
    ]


def test_the_condition_of_a_file() -> None:
    (one,) = values_of(["a=1/b=__HIVE_DEFAULT_PARTITION__/0.parquet"], exact="")
    assert "(a == 1)" in str(expression(one))
    assert "is_null(b" in str(expression(one))
