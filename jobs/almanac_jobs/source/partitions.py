"""Columns in the names of folders (`year=2024/customer=a%2Fb/part-0.parquet`), as Hive and Spark write them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import reduce
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds

_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"-?[0-9]{1,19}")

Values = Mapping[str, pa.Scalar]


def values_of(paths: Sequence[str], exact: str) -> list[Values]:
    """The columns that the folders of each path name, with their values for that path.

    A column is of integers or dates where all its values are, else of strings. `exact` is the name of a column whose
    values are identifiers: it is of integers only where these say all, so that `007` and `7` stay two.
    """
    texts = [_texts(path) for path in paths]
    names = dict.fromkeys(name for one in texts for name in one)
    types = {name: _type([one[name] for one in texts if name in one], exact=name == exact) for name in names}
    return [{name: _scalar(text, types[name]) for name, text in one.items()} for one in texts]


def expression(values: Values) -> ds.Expression:
    """The condition that every row of such a file meets, as pyarrow's fragments carry it."""
    parts = [ds.field(name) == value if value.is_valid else ds.field(name).is_null() for name, value in values.items()]
    return reduce(lambda a, b: a & b, parts, ds.scalar(True))


def _texts(path: str) -> dict[str, str | None]:
    pairs = (folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder)
    return {unquote(name): None if text == _NULL else unquote(text) for name, text in pairs}


def _type(texts: Sequence[str | None], *, exact: bool) -> pa.DataType:
    known = [text for text in texts if text is not None]
    if known and all(_is_integer(text, exact=exact) for text in known):
        return pa.int64()
    return pa.date32() if known and all(map(_is_date, known)) else pa.string()


def _is_integer(text: str, *, exact: bool) -> bool:
    if not _INTEGER.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        return False
    return not exact or str(int(text)) == text


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _scalar(text: str | None, kind: pa.DataType) -> pa.Scalar:
    if text is None:
        return pa.scalar(None, kind)
    if pa.types.is_integer(kind):
        return pa.scalar(int(text), kind)
    return pa.scalar(date.fromisoformat(text) if pa.types.is_date(kind) else text, kind)
