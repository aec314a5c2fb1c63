import datetime
import zlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac_jobs.buckets import BUCKET_ENTITIES, MAX_BUCKETS, bucket_count, bucket_of


@pytest.mark.parametrize(
    ("entities", "buckets"),
    [
        (0, 1),
        (1, 1),
        (BUCKET_ENTITIES, 1),
        (BUCKET_ENTITIES + 1, 2),
        (100_000, 16),
        (1_000_000, 128),
        (10**12, MAX_BUCKETS),
    ],
)
def test_the_number_of_buckets_follows_the_number_of_entities(entities: int, buckets: int) -> None:
    assert bucket_count(entities) == buckets


def test_buckets_never_change() -> None:
    """Runs of other versions read these files by bucket: the values are a contract."""
    published_check_value = 0xCBF43926  # of CRC-32/ISO-HDLC, over the digits 1 to 9
    assert bucket_of(pa.array(["123456789", ""]), 8192).tolist() == [published_check_value % 8192, 0]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.sampled_from([1, 2, 16, 8192]))
def test_an_integer_is_hashed_as_its_decimal_text(values: list[int], buckets: int) -> None:
    expected = [zlib.crc32(str(value).encode()) % buckets for value in values]
    assert bucket_of(pa.array(values, pa.int64()), buckets).tolist() == expected


@given(st.lists(st.dates()))
def test_a_date_is_hashed_as_iso_text(values: list[datetime.date]) -> None:
    expected = [zlib.crc32(value.isoformat().encode()) % 128 for value in values]
    assert bucket_of(pa.array(values, pa.date32()), 128).tolist() == expected


@given(st.lists(st.text()))
def test_every_string_type_gives_the_same_bucket(values: list[str]) -> None:
    expected = [zlib.crc32(value.encode()) % 32 for value in values]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert bucket_of(pa.array(values, pa.string()).cast(kind), 32).tolist() == expected


def test_long_arrays_are_hashed_in_slices() -> None:
    values = pa.array(np.arange(150_000).astype(str))
    found = bucket_of(values, 8192)
    assert found[-1] == zlib.crc32(b"149999") % 8192
    assert np.bincount(found, minlength=8192).max() < 60
