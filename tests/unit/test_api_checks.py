"""Checks of single values."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac.api import checks


def message(check: Callable[..., object], value: object) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        check(value)
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "s3://bucket",
        "s3://bucket/a/b",
        "gs://bucket/x.parquet",
        "file:///data",
        "data/x",
        "/data/x",
        "../x",
        "C/x",
        "a:b",
    ],
)
def test_uri(value: str) -> None:
    assert checks.uri(value) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("s3a://bucket/x", "s3:// instead of s3a://"),
        ("s3n://bucket/x", "s3:// instead of s3n://"),
        ("hdfs://name/x", "must start with s3://, gs:// or file://"),
        ("https://host/x", "must start with s3://, gs:// or file://"),
        ("s3:bucket/x", "two slashes"),
        ("s3:///x", "must name a bucket"),
        ("s3://", "must name a bucket"),
        ("file://data/x", "three slashes"),
        ("s3://key:secret@bucket/x", "storage.secretName"),
        (" s3://bucket", "blanks"),
        ("  ", "blanks"),
    ],
)
def test_uri_refused(value: str, words: str) -> None:
    assert words in message(checks.uri, value)


@pytest.mark.parametrize(
    ("inner", "outer", "inside"),
    [
        ("s3://b/raw/models", "s3://b/raw", True),
        ("s3://b/raw/models", "s3://b/raw/", True),
        ("s3://b/raw", "s3://b/raw", True),
        ("s3://b/raw-models", "s3://b/raw", False),
        ("s3://b/raw/../models", "s3://b/raw", False),
        ("s3://b/models", "s3://b", True),
        ("s3://c/raw/models", "s3://b/raw", False),
        ("gs://b/raw/models", "s3://b/raw", False),
        ("file:///data/raw/x", "/data/raw", True),
        ("/data/raw/x", "file:///data/raw/", True),
        ("data/raw/x", "./data/raw", True),
        ("data/raw/x", "/data/raw", False),
        ("data/raw/x", ".", True),
        ("../x", ".", False),
        ("/x", "/", True),
    ],
)
def test_is_inside(inner: str, outer: str, inside: bool) -> None:
    assert checks.is_inside(inner, outer) is inside


@pytest.mark.parametrize("value", ["1", "512Mi", "4Gi", "1.5Gi", ".5Gi", "1e3", "2E6", "100m", "1G"])
def test_quantity(value: str) -> None:
    assert checks.quantity(value) == value


@pytest.mark.parametrize(
    "value", ["", "0", "0Gi", "0.0Gi", "0e5", "-1Gi", "4 Gi", "4GB", "4gi", "Gi", "4Gi\n", "1e", "four"]
)
def test_quantity_refused(value: str) -> None:
    assert "512Mi" in message(checks.quantity, value)


@pytest.mark.parametrize(
    "value",
    ["* * * * *", "*/15 * * * *", "0 6 * * 1-5", "0 6 1,15 jan-mar,DEC sun", "5-50/5 ? * * 7", "@daily", "@hourly", ""],
)
def test_cron(value: str) -> None:
    assert checks.cron(value) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("* * * *", "has 4"),
        ("0 0 6 * * 1", "has 6"),
        ("60 * * * *", "'60' as its minute: it is between 0 and 59"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day of week"),
        ("* * * foo *", "one of jan, feb"),
        ("* * * * fri-mon", "from the lower to the higher"),
        ("*/0 * * * *", "a step is between 1 and 59"),
        ("1, * * * *", "write *, a number"),
        ("1-2-3 * * * *", "write *, a number"),
        ("@fortnightly", "@daily"),
        ("TZ=UTC 0 6 * * *", "timeZone"),
    ],
)
def test_cron_refused(value: str, words: str) -> None:
    assert words in message(checks.cron, value)


def test_time_zone() -> None:
    assert checks.time_zone("Europe/Berlin") == "Europe/Berlin"
    assert checks.time_zone("") == ""
    for value in ("Mars", "Europe", "../etc/passwd", "/etc/localtime", "Europe/Berlin\n", "\0"):
        assert "Europe/Berlin" in message(checks.time_zone, value)


@pytest.mark.parametrize(
    "value", ["auto", "s", "min", "15min", "h", "H", "6H", "D", "W", "W-SUN", "2W-MON", "M", "3M", "Q", "Y"]
)
def test_frequency(value: str) -> None:
    assert checks.frequency(value) == value


@pytest.mark.parametrize("value", ["", "0D", "d", "W-Sun", "D-MON", "ms", "15 min", "1.5H", "D\n", "MS", "-1D"])
def test_frequency_refused(value: str) -> None:
    assert "or auto" in message(checks.frequency, value)


def test_endpoint() -> None:
    for value in ("", "http://localhost:9000", "https://minio.storage.svc"):
        assert checks.endpoint(value) == value
    for value in ("localhost:9000", "minio", "s3://bucket", "https://", "http://[::1", "http://x:99999", "http://x:0"):
        assert "must be a URL" in message(checks.endpoint, value)
    assert "storage.secretName" in message(checks.endpoint, "https://key:secret@host")


def test_object_name() -> None:
    for value in ("a", "a-b.c1", "0", "x" * 253):
        assert checks.object_name(value) == value
    for value in ("", "A", "a_b", "-a", "a-", "a..b", "x" * 254, "a\n"):
        assert "lower-case" in message(checks.object_name, value)
    assert checks.optional_object_name("") == ""


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_level(value: float) -> None:
    try:
        level = checks.level(value)
    except ValueError:
        assert not 0 < value < 100 or f"{value:.6g}" != repr(value).removesuffix(".0")
    else:
        assert 0 < level < 100
        assert float(f"{level:g}") == value  # the name of a column tells the level exactly
        assert isinstance(level, int) == value.is_integer()


def test_moment() -> None:
    time = datetime(2026, 11, 21)
    assert checks.moment(time) == datetime(2026, 11, 21, tzinfo=UTC)
    for year in (1, 9999):
        assert "between the years" in message(checks.moment, datetime(year, 1, 1, tzinfo=UTC))
