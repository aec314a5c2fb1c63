"""Features: what becomes of each type of column, what is left out and why."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from almanac.api import Features, JobError, Reason
from almanac_jobs.anomaly import features
from almanac_jobs.anomaly.features import Learner, Schema, candidates, check_names

TABLE = pa.table(
    {
        "account": ["a", "a", "b", "c"],
        "when": pa.array(
            [datetime(2026, 1, day, 23, 30, tzinfo=UTC) for day in (1, 2, 3, 4)], pa.timestamp("us", "UTC")
        ),
        "amount": [1.5, None, 3.0, -2.0],
        "price": pa.array([Decimal("1.10"), Decimal("2.20"), Decimal("1.10"), None], pa.decimal128(9, 2)),
        "open": [True, False, True, None],
        "city": pa.array(["Rome", "Oslo", "Rome", None]).dictionary_encode(),
        "due": [date(2026, 1, 5), date(2026, 1, 6), None, date(2026, 1, 31)],
        "empty": pa.nulls(4, pa.float64()),
        "same": [7, 7, 7, 7],
        "tags": [["x"], ["y"], ["z"], []],
    }
)
ROLES = ("account", "when")


def learn(table: pa.Table, zone: str | None = None, **fields: Any) -> tuple[Schema, dict[str, str]]:
    spec = Features(**fields)
    types = dict(zip(table.schema.names, table.schema.types, strict=True))
    check_names(spec, types)
    learner = Learner(spec, types, candidates(spec, types, ROLES))
    for batch in table.to_batches(max_chunksize=3):
        learner.add(batch)
    return learner.finish(zone)


def refused(table: pa.Table, **fields: Any) -> str:
    with pytest.raises(JobError) as caught:
        learn(table, **fields)
    assert caught.value.reason is Reason.DATA_ERROR
    return caught.value.message


def test_every_type_has_its_feature() -> None:
    schema, left_out = learn(TABLE)
    assert schema.names == ("amount", "price", "open", "city", "due.weekday", "due.day")
    assert left_out == {"empty": "holds nothing but nulls", "same": "has the same value everywhere"}
    nan = np.nan
    expected = [
        [1.5, 1.1, 1, 0, 0, 5],
        [nan, 2.2, 0, 1, 1, 6],
        [3.0, 1.1, 1, 0, nan, nan],
        [-2.0, nan, nan, nan, 5, 31],
    ]
    np.testing.assert_array_equal(schema.encode(TABLE), np.array(expected, np.float32))


def test_batches_make_the_same_as_the_whole() -> None:
    schema, _ = learn(TABLE)
    parts = [schema.encode(batch) for batch in TABLE.to_batches(max_chunksize=1)]
    np.testing.assert_array_equal(np.concatenate(parts), schema.encode(TABLE))
    again = Schema(tuple(features.Feature.from_json(one.as_json()) for one in schema.features), schema.time_zone)
    assert again == schema


@pytest.mark.parametrize(("zone", "hour", "day"), [(None, 23.5, 1), ("Europe/Berlin", 0.5, 2)])
def test_hours_are_those_of_the_wall_clock(zone: str | None, hour: float, day: int) -> None:
    schema, _ = learn(TABLE, zone, columns=("when",))
    assert schema.names == ("when.weekday", "when.day", "when.hour")
    assert schema.encode(TABLE)[0].tolist()[1:] == [day, hour]


def test_a_new_category_is_rarer_than_all() -> None:
    schema, _ = learn(TABLE, columns=("city",))
    new = pa.table({"city": ["Oslo", "Lima", "Rome", None]})
    np.testing.assert_array_equal(schema.encode(new)[:, 0], [1, 2, 0, np.nan])


def test_another_type_is_refused() -> None:
    schema, _ = learn(TABLE, columns=("amount",))
    with pytest.raises(JobError, match=r"`amount` is of type string, and the model has learnt it as numbers"):
        schema.encode(pa.table({"amount": ["1"]}))
    with pytest.raises(JobError, match=r"no column `amount`"):
        schema.encode(pa.table({"sum": [1]}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"columns": ("amout",)}, "spec.features.columns: the source has no column `amout`: did you mean `amount`?"),
        ({"exclude": ("amout",)}, "spec.features.exclude: the source has no column `amout`"),
        ({"columns": ("tags",)}, "column `tags` is of type list"),
        ({"columns": ("empty",)}, "column `empty` holds nothing but nulls"),
        ({"columns": ("same",)}, "column `same` has the same value everywhere"),
    ],
)
def test_columns_that_cannot_be(fields: dict[str, Any], words: str) -> None:
    assert words in refused(TABLE, **fields)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39])
def test_infinite_values_are_refused(value: float) -> None:
    table = pa.table({"account": ["a"] * 3, "when": TABLE["when"][:3], "x": [1.0, value, 2.0]})
    assert "column `x` holds 1 infinite value (or above 3.4e+38)" in refused(table)


def test_names_of_rows_are_no_feature() -> None:
    rows = 200
    table = pa.table({"code": [f"n{row}" for row in range(rows)], "kind": [f"k{row % 3}" for row in range(rows)]})
    schema, left_out = learn(table)
    assert schema.names == ("kind",)
    assert left_out == {"code": "has 200 different values in 200 rows, as names of rows have"}
    assert "column `code` has 200 different values" in refused(table, columns=("code",))


def test_a_hundred_thousand_categories() -> None:
    """The common ones are told apart; the rest are one."""
    values = [f"v{at}" for at in range(100_000)] * 2 + ["common"] * 100_000
    schema, _ = learn(pa.table({"code": values}))
    made = schema.encode(pa.table({"code": ["common", "v0", "v99999", "new"]}))[:, 0]
    assert made.tolist() == [0, 1, features.CATEGORIES, features.CATEGORIES]
