import pyarrow as pa
import pytest

from almanac.api import Columns, JobError, Reason
from almanac_jobs.source.columns import check_roles, common_type

MICRO, NANO = pa.timestamp("us"), pa.timestamp("ns")
TEXT_CODES = pa.dictionary(pa.int8(), pa.string())


def common(*types: pa.DataType) -> pa.DataType:
    return common_type("spec.source.columns.value", "x", [(f"{i}.parquet", kind) for i, kind in enumerate(types)])


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([pa.int32(), pa.int64()], pa.int64()),
        ([pa.uint8(), pa.int8()], pa.int64()),
        ([pa.uint8(), pa.uint32()], pa.uint32()),
        ([pa.uint64(), pa.int8()], pa.decimal128(20, 0)),
        ([pa.int32(), pa.float32()], pa.float64()),
        ([pa.float32(), pa.float32()], pa.float32()),
        ([pa.decimal128(9, 2), pa.decimal128(12, 4)], pa.decimal128(12, 4)),
        ([pa.decimal128(9, 2), pa.decimal128(7, 4)], pa.decimal128(11, 4)),
        ([pa.decimal128(38, 2), pa.decimal128(38, 10)], pa.decimal256(46, 10)),
        ([pa.decimal128(9, 2), pa.int64()], pa.decimal128(22, 2)),
        ([pa.decimal128(9, 2), pa.float64()], pa.float64()),
        ([pa.string(), pa.large_string(), TEXT_CODES], pa.string()),
        ([pa.date32(), pa.date64()], pa.date32()),
        ([MICRO, NANO, pa.timestamp("s")], NANO),
        ([pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC")], pa.timestamp("ns", "UTC")),
        ([pa.null(), pa.date32(), pa.null()], pa.date32()),
        ([pa.null()], pa.null()),
        ([pa.bool_(), pa.bool_()], pa.bool_()),
    ],
)
def test_types_widen_where_nothing_is_lost(types: list[pa.DataType], expected: pa.DataType) -> None:
    assert common(*types) == expected
    assert common(*types[::-1]) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.string(), pa.int64()),
        (pa.date32(), MICRO),
        (MICRO, pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin")),
        (pa.bool_(), pa.int8()),
        (pa.string(), pa.binary()),
    ],
)
def test_types_that_do_not_agree_are_named_with_their_files(one: pa.DataType, other: pa.DataType) -> None:
    with pytest.raises(JobError) as caught:
        common(pa.null(), one, one, other)
    assert caught.value.reason is Reason.DATA_ERROR
    assert f"`x` is of type {one} in `1.parquet` and {other} in `3.parquet`" in caught.value.message


@pytest.mark.parametrize("entity", [pa.string(), pa.int8(), pa.uint64(), pa.date32()])
@pytest.mark.parametrize("time", [pa.date32(), pa.date64(), NANO, pa.timestamp("ms", "UTC")])
@pytest.mark.parametrize("value", [pa.int8(), pa.float16(), pa.decimal256(76, 10)])
def test_what_columns_may_be(entity: pa.DataType, time: pa.DataType, value: pa.DataType) -> None:
    check_roles(Columns(entity="e", time="t", value="v"), {"e": entity, "t": time, "v": value})
