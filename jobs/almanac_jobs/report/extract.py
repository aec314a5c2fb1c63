"""report.html of an ExtractJob: what was read from where, as of when, and what the data set consists of.

Pure: data in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from almanac_jobs.report.page import Headline, template
from almanac_jobs.report.words import count

FOLDERS = 60
"""Folders that the page lists."""


@dataclass(frozen=True, slots=True)
class ExtractData:
    """All that the page says.

    `source` is the table, `snapshot` the moment that all rows are of, `rows` those of the data set and `read` those
    that this run has read; they differ where it went on from `base`. `columns` are (name, type of the database, type of
    Parquet), `folders` (name, rows, files, bytes).
    """

    job: str
    run: str
    finished: datetime
    manifest: str
    source: str
    database: str
    snapshot: str
    key: Sequence[str]
    rows: int
    read: int
    base: str | None
    ranges: int
    resumed: int
    bytes: int
    files: int
    columns: Sequence[tuple[str, str, str]]
    folders: Sequence[tuple[str, int, int, int]]
    durations: Mapping[str, float]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Preview:
    """A sample: the columns with their types, and the first rows of the key's order."""

    relation: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, str, str], ...]
    rows: tuple[Mapping[str, Any], ...]


def render(data: ExtractData) -> str:
    """The page."""
    return template("extract.html.jinja").render(
        data=data, headline=headline(data), folders=data.folders[:FOLDERS], more=max(len(data.folders) - FOLDERS, 0)
    )


def headline(data: ExtractData) -> Headline:
    """The run in one line, and what else matters in another."""
    new = f", {count(data.read)} of them new or changed" if data.base else ""
    title = f"{count(data.rows)} rows of {data.source}{new}"
    detail = f"As of {data.snapshot}, in {count(data.files)} Parquet files, {size(data.bytes)}."
    if data.base:
        detail += f" The rest is that of run {data.base}."
    if data.resumed:
        detail += (
            f" {count(data.resumed)} of {count(data.ranges)} ranges were read by an earlier attempt, and are unchanged."
        )
    return Headline("plain", title, detail)


def size(number: int) -> str:
    """So many bytes."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number} bytes"
