from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac_jobs.calendar import Calendar, Frequency
from almanac_jobs.kernel.sums import How
from almanac_jobs.source.rows import Plan, Rows, convert

DAYS = Calendar(Frequency.parse("D"), pa.date32())


def rows_of(value: pa.Array, how: How = How.SUM, common: pa.DataType | None = None) -> Rows:
    days = pa.array(np.zeros(len(value), np.int32)).cast(pa.date32())
    batch = pa.record_batch({"entity": pa.array(["e"] * len(value), pa.string()), "time": days, "value": value})
    return convert(batch, Plan(how, DAYS, pa.string(), common or value.type))


def exact(rows: Rows) -> list[Fraction]:
    return [sum(map(Fraction, parts), Fraction()) for parts in zip(*rows.parts, strict=True)]


DECIMALS = [pa.decimal32(9, 2), pa.decimal64(18, 4), pa.decimal128(38, 10), pa.decimal128(12, 0), pa.decimal256(76, 5)]


@given(st.sampled_from(DECIMALS), st.data())
def test_decimals_are_exact(kind: pa.DataType, data: st.DataObject) -> None:
    units = data.draw(st.lists(st.integers(-(10**kind.precision) + 1, 10**kind.precision - 1), max_size=20))
    values = [Decimal((unit < 0, tuple(map(int, str(abs(unit)))), -kind.scale)) for unit in units]
    array = pa.array(values, kind)
    assert exact(rows_of(array)) == units
    assert exact(rows_of(pa.concat_arrays([array, array])[len(array) :])) == units
    nearest = [float(Fraction(unit, 10**kind.scale)) for unit in units]
    assert rows_of(array, How.MAX).parts[0].tolist() == nearest


@given(st.sampled_from([pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64()]), st.data())
def test_integers_are_exact(kind: pa.DataType, data: st.DataObject) -> None:
    info = np.iinfo(kind.to_pandas_dtype())
    values = data.draw(st.lists(st.integers(int(info.min), int(info.max)), max_size=20))
    assert exact(rows_of(pa.array(values, kind))) == values
    assert rows_of(pa.array(values, kind), How.LAST).parts[0].tolist() == [float(value) for value in values]


def test_small_numbers_take_one_double_each() -> None:
    assert len(rows_of(pa.array([2**53, -(2**53)], pa.int64())).parts) == 1
    assert len(rows_of(pa.array([2**53 + 1], pa.int64())).parts) == 2
    assert len(rows_of(pa.array([Decimal("90071992547409.92")], pa.decimal128(38, 2))).parts) == 1


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_floats_of_any_width(kind: pa.DataType) -> None:
    rows = rows_of(pa.array(np.array([1.5, np.nan, -0.25, np.inf], kind.to_pandas_dtype()), kind))
    assert rows.parts[0].tolist() == [1.5, -0.25, np.inf]
    assert rows.null_values == 1


def test_narrower_files_are_brought_to_the_units_of_the_data_set() -> None:
    wide = pa.decimal128(38, 4)
    plan_scale = Plan(How.SUM, DAYS, pa.string(), wide).scale
    assert plan_scale == 4
    assert exact(rows_of(pa.array([Decimal("1.5")], pa.decimal128(5, 1)), common=wide)) == [15000]
    assert exact(rows_of(pa.array([7], pa.int16()), common=wide)) == [70000]
    assert exact(rows_of(pa.array([Decimal("1.5")], pa.decimal128(5, 1)), common=pa.float64())) == [Fraction(3, 2)]


def test_rows_without_an_entity_a_time_or_a_value() -> None:
    batch = pa.record_batch(
        {
            "entity": pa.array(["a", None, "b", "c", "d", None]),
            "time": pa.array([1, 1, None, 1, 2, None], pa.int32()).cast(pa.date32()),
            "value": pa.array([1.0, 2.0, 3.0, None, np.nan, None]),
        }
    )
    rows = convert(batch, Plan(How.SUM, DAYS, pa.string(), pa.float64()))
    assert (rows.null_entities, rows.null_times, rows.null_values) == (2, 1, 2)
    assert rows.entity.to_pylist() == ["a", "b", "c", "d"]
    assert rows.counted is not None
    assert rows.counted.tolist() == [True, False, False, False]
    assert (rows.period.tolist(), rows.parts[0].tolist()) == ([1], [1.0])


def test_dictionaries_with_a_null_inside() -> None:
    entity = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["a", None]))
    batch = pa.record_batch({"entity": entity, "time": pa.array([1, 2, 3], pa.date32()), "value": pa.array([1, 2, 3])})
    rows = convert(batch, Plan(How.COUNT, DAYS, pa.large_string(), pa.int64()))
    assert rows.entity.to_pylist() == ["a", "a"]
    assert rows.entity.type == pa.dictionary(pa.int32(), pa.large_string())
    assert (rows.null_entities, rows.period.tolist(), rows.parts) == (1, [1, 3], ())
