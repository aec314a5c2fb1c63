import datetime
import decimal
import sqlite3
from contextlib import suppress

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac.api import JobError, Reason
from almanac_jobs.source.expressions import expression
from almanac_jobs.source.filters import columns, parse

DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12)
TABLE = pa.table(
    {
        "row": [0, 1, 2, 3],
        "status": ["posted", "it's", None, "draft"],
        "kind": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "amount": [1.5, -2.0, None, 1e6],
        "price": pa.array(
            [decimal.Decimal("1.10"), decimal.Decimal("0.05"), None, decimal.Decimal("9.99")], pa.decimal128(9, 2)
        ),
        "count": pa.array([1, 2, None, 4], pa.int32()),
        "big": [-(2**63), 2**53 + 1, None, 0],
        "posted": [True, False, None, True],
        "day": pa.array([DAY, DAY + datetime.timedelta(1), None, datetime.date(2023, 1, 1)]),
        "time": pa.array([NOON, NOON + datetime.timedelta(hours=1), None, NOON], pa.timestamp("us")),
        "zoned": pa.array([NOON, NOON + datetime.timedelta(hours=1), None, NOON], pa.timestamp("ns", "UTC")),
        "odd name": [1, 2, 3, 4],
        "Straße": [1, 2, 3, 4],
        "blob": [b"x", b"x", b"x", b"x"],
    }
)
TYPES = {field.name: field.type for field in TABLE.schema}


def rows(text: str, zone: str | None = None) -> list[int]:
    found = ds.dataset(TABLE).to_table(columns=["row"], filter=expression(parse(text), TYPES, zone))
    return found["row"].to_pylist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status == 'posted'", [0]),
        ('status == "posted"', [0]),
        ("status == 'it''s'", [1]),
        ("status != 'posted'", [1, 3]),
        ("'posted' == status", [0]),
        ("status in ('posted', 'draft')", [0, 3]),
        ("status not in ('posted')", [1, 3]),
        ("not status in ('posted')", [1, 3]),
        ("status is null", [2]),
        ("status IS NOT NULL AND NOT status = 'x'".replace("= ", "== "), [0, 1, 3]),
        ("kind == 'a' and kind in ('a', 'c')", [0, 3]),
        ("amount > 1", [0, 3]),
        ("1 < amount", [0, 3]),
        ("amount >= -2.0e0 and amount <= 1.5", [0, 1]),
        ("amount in (1.5, 1000000)", [0, 3]),
        ("price == 1.1 or price < .06", [0, 1]),
        ("price in (1.10, 9.99)", [0, 3]),
        ("price > 1.105", [3]),
        ("count == 2 or count == 3.5", [1]),
        ("count in (1, 2.0, 4.5)", [0, 1]),
        ("count < 99999999999999999999", [0, 1, 3]),
        ("count != 1.5", [0, 1, 3]),
        ("not count == 1.5", [0, 1, 3]),
        ("count >= 1.5 and count < 4.000001", [1, 3]),
        ("count > -1e30 and count > 3.99", [3]),
        ("count <= -99999999999", []),
        ("big == 9007199254740993", [1]),
        ("big > 0.5", [1]),
        ("big in (9007199254740992, 0.5)", []),
        ("price != 1.1000001 and price <= 9.9899999", [0, 1]),
        ("price < 123456789012345678901234567890", [0, 1, 3]),
        ("posted", [0, 3]),
        ("not posted", [1]),
        ("posted == false", [1]),
        ("day == '2024-02-29'", [0]),
        ("day < '2024-02-29'", [3]),
        ("day in ('2024-02-29', '2023-01-01')", [0, 3]),
        ("time > '2024-02-29'", [0, 1, 3]),
        ("time > '2024-02-29T12:00:00'", [1]),
        ("zoned == '2024-02-29T12:00:00'", [0, 3]),
        ("zoned == '2024-02-29T13:00:00+01:00'", [0, 3]),
        ("`odd name` > 2 and `row` < 3", [2]),
        ("Straße == 1", [0]),
        ("(count == 1 or count == 2) and (amount > 0)", [0]),
        ("count == 1 or count == 2 and amount > 0", [0]),
        ("not (count == 1 or count == 2)", [3]),
    ],
)
def test_conditions(text: str, expected: list[int]) -> None:
    assert rows(text) == expected


def test_a_long_filter() -> None:
    several = " or ".join(f"count == {i}" for i in range(250))
    assert rows(several) == [0, 1, 3]
    assert rows(f"count in ({', '.join(map(str, range(1000)))})") == [0, 1, 3]


def test_wall_clock_times_are_of_the_declared_zone() -> None:
    assert rows("zoned == '2024-02-29T13:00:00'", "Europe/Berlin") == [0, 3]
    assert rows("zoned == '2024-02-29T14:00:00'", "Europe/Berlin") == [1]


def test_columns_that_a_condition_reads() -> None:
    assert columns(parse("not (a == 1 or `b c` is null) and d in (1) and e")) == {"a", "b c", "d", "e"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a column, a value, `not` or `(`, found the end, at character 1"),
        ("status ==", "expected a value, found the end, at character 10"),
        ("status == posted", "found `posted`: put text between quotes, at character 11"),
        ("status = 'x'", "write `==` instead of `=`, at character 8"),
        ("status <> 'x'", "write `!=` instead of `<>`, at character 8"),
        ("a == 1 && b == 2", "write `and` instead of `&&`, at character 8"),
        ("status == 'x", "the quote ' is not closed, at character 11"),
        ("status == null", "write `is null`"),
        ("day > 2024-01-01", "expected `and`, `or` or the end, found `-01`: put dates between quotes"),
        ("(a == 1", "expected `)`, found the end"),
        ("a in 1", "expected `(`, found `1`"),
        ("a in ()", "expected a value, found `)`"),
        ("a not 1", "expected `in`, found `1`"),
        ("1 == 2", "expected a column, found `2`"),
        ("a == b", "found `b`"),
        ("__import__('os')", "found `(`"),
        ("a; drop", "`;` is not understood, at character 2"),
        ("(" * 1000 + "a" + ")" * 1000, "nested more than 50 deep"),
        ("not " * 1000 + "a", "nested more than 50 deep"),
        ("a == 1e99999", "not understood"),
    ],
)
def test_what_is_no_condition_is_refused_by_position(text: str, words: str) -> None:
    with pytest.raises(JobError) as caught:
        parse(text)
    assert caught.value.reason is Reason.INVALID_SPEC
    assert caught.value.message.startswith("spec.source.filter: ")
    assert words in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("status == 1", "column `status` is of type string, which 1 does not fit: put the value between quotes"),
        ("amount == '1'", "a number without quotes"),
        ("posted == 1", "write true or false"),
        ("amount == true", "column `amount` is of type double, which true does not fit"),
        ("day == '29.2.2024'", "write it as '2024-12-31'"),
        ("day == '2024-02-29T12:00:00'", "write it as '2024-12-31'"),
        ("day == 1", "write it as '2024-12-31'"),
        ("time == 'noon'", "'2024-12-31T23:59:59'"),
        ("time == '2024-02-29T12:00:00Z'", "without an offset"),
        ("status", "compare it with a value"),
        ("blob == 'x'", "type binary, which cannot be compared"),
    ],
)
def test_values_of_another_kind_than_the_column(text: str, words: str) -> None:
    with pytest.raises(JobError) as caught:
        rows(text)
    assert caught.value.reason is Reason.DATA_ERROR
    assert words in caught.value.message


texts = st.text("ab'\"", max_size=2)
numbers = st.integers(-3, 3) | st.sampled_from([-0.5, 1.25, 2.5])
signs = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def quote(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def about(column: str, values: st.SearchStrategy[object]) -> st.SearchStrategy[str]:
    written = values.map(quote)
    return st.one_of(
        st.builds("{} {} {}".format, st.just(column), signs, written),
        st.builds("{} {} {}".format, written, signs, st.just(column)),
        st.builds(
            lambda negated, several: f"{column} {negated}in ({', '.join(several)})",
            st.sampled_from(["", "not "]),
            st.lists(written, min_size=1, max_size=3),
        ),
        st.sampled_from([f"{column} is null", f"{column} is not null"]),
    )


conditions = st.recursive(
    st.one_of(about("t", texts), about("i", numbers), about("f", numbers)),
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.builds("{} {} {}".format, inner, st.sampled_from(["and", "or"]), inner),
        inner.map("({})".format),
    ),
    max_leaves=6,
)


@given(
    conditions,
    st.lists(st.tuples(st.none() | texts, st.none() | st.integers(-3, 3), st.none() | numbers), max_size=6),
)
def test_conditions_mean_what_they_mean_in_sql(condition: str, data: list[tuple[object, object, object]]) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table x (id integer, t text, i integer, f real)")
        connection.executemany("insert into x values (?, ?, ?, ?)", [(i, *row) for i, row in enumerate(data)])
        expected = [i for (i,) in connection.execute(f"select id from x where {condition} order by id")]
    connection.close()
    schema = pa.schema({"id": pa.int64(), "t": pa.string(), "i": pa.int64(), "f": pa.float64()})
    table = pa.Table.from_pylist([dict(zip("tif", row, strict=True), id=i) for i, row in enumerate(data)], schema)
    types = {field.name: field.type for field in schema}
    found = ds.dataset(table).to_table(filter=expression(parse(condition), types, None))
    assert found["id"].to_pylist() == expected


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_one_clear_error(text: str) -> None:
    with suppress(JobError):
        parse(text)
