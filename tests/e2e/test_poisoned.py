"""Parquet that somebody has poisoned: a driver names the file and ends, within its memory and time."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from almanac.api import Reason, Report
from ledgers import job, ledger, write_parquet
from matrix import Group, Moment, cell

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from almanac_jobs.__main__ import main
sys.exit(main())
"""
"""A driver with 1 GiB of memory and a minute."""


def varint(number: int) -> bytes:
    """A number as Thrift's compact protocol has it."""
    zigzag, out = number << 1, bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes((*out, zigzag))


def footer_of(content: bytes) -> int:
    """Where the footer begins."""
    return len(content) - 8 - int(struct.unpack("<I", content[-8:-4])[0])


def with_footer(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A file with another footer of the same length."""
    at = footer_of(content)
    changed = change(content[at:-8])
    assert len(changed) == len(content) - 8 - at
    assert changed != content[at:-8]
    return content[:at] + changed + content[-8:]


def too_long(content: bytes) -> bytes:
    """The footer says that it is 2 GiB long."""
    return content[:-8] + struct.pack("<I", 2**31 - 1) + content[-4:]


def negative(content: bytes) -> bytes:
    """The footer says that it is longer than the file."""
    return content[:-8] + struct.pack("<I", len(content) + 1) + content[-4:]


def garbage(content: bytes) -> bytes:
    """The footer is no footer."""
    return with_footer(content, lambda footer: b"\xff" * len(footer))


def more_rows(content: bytes) -> bytes:
    """The footer speaks of rows that are not there: 1,048,575 instead of 600,001."""
    return with_footer(content, lambda footer: footer.replace(varint(600_001), varint(1_048_575)))


def far_pages(content: bytes) -> bytes:
    """The footer says that a column lies beyond the end of the file."""
    column = pq.read_metadata(pa.BufferReader(content)).row_group(0).column(2)
    offset = column.dictionary_page_offset
    far = varint(2 ** (7 * len(varint(offset)) - 2))
    return with_footer(content, lambda footer: footer.replace(varint(offset), far))


POISON = {
    too_long: "A footer claims to be 2 GiB long",
    negative: "A footer claims to be longer than its file",
    garbage: "A footer is garbage",
    more_rows: "A footer claims rows that are not there",
    far_pages: "A footer names pages beyond the end of the file",
}
NAMED = "DataError, and the file by its name. No crash."


def drive(document: dict[str, Any], folder: Path) -> Report:
    """A driver as a process of its own, with little memory."""
    (folder / "job.json").write_text(json.dumps(document))
    command = [sys.executable, "-c", LIMITED, str(folder / "job.json"), "--run-id", "r1", "--port", "0"]
    log = folder / "log"
    ended = subprocess.run([*command, "--termination-log", str(log)], capture_output=True, text=True, timeout=120)
    assert ended.returncode >= 0, f"it died of signal {-ended.returncode}: {ended.stderr}"
    return Report.model_validate_json(log.read_text())


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of 600,001 rows: numbers that stand for nothing else in it."""
    table = ledger(1000, 601).slice(0, 600_001)
    path = write_parquet(table, tmp_path_factory.mktemp("clean") / "t.parquet", row_group_size=1 << 20)
    return path.read_bytes()


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(how, id=how.__name__, marks=cell(Group.DATA, fault, Moment.READING, NAMED))
        for how, fault in POISON.items()
    ],
)
def test_a_poisoned_footer(poison: Callable[[bytes], bytes], clean: bytes, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "t.parquet").write_bytes(poison(clean))
    ended = drive(job(tmp_path / "lake", tmp_path / "out", evaluation__windows=0), tmp_path)
    assert ended.reason is Reason.DATA_ERROR, ended
    assert "t.parquet` cannot be read as Parquet" in ended.message
    assert not list((tmp_path / "out").rglob("report.json"))


@cell(
    Group.DATA,
    "A page of a few bytes claims to hold 2 GiB (a decompression bomb)",
    Moment.READING,
    "DataError, and the file by its name; the node's memory is not touched.",
)
def test_a_bomb(tmp_path: Path) -> None:
    """A dictionary of one long text, which compresses well, and whose header says that it is longer still."""
    size = 70_000_000
    table = pa.table(
        {
            "account": pa.array(["x" * size]),
            "date": pa.array(["2026-01-05"]).cast(pa.date32()),
            "amount": pa.array([1.0]),
        }
    )
    path = write_parquet(table, tmp_path / "lake" / "bomb.parquet", compression="zstd")
    content = path.read_bytes()
    claimed = content.replace(varint(size + 4), varint(2**31 - 1), 1)
    assert claimed != content
    assert len(claimed) < size // 100
    path.write_bytes(claimed)
    ended = drive(job(tmp_path / "lake", tmp_path / "out", evaluation__windows=0), tmp_path)
    assert ended.reason is Reason.DATA_ERROR, ended
    assert "bomb.parquet`" in ended.message


@cell(
    Group.DATA,
    "Statistics of a column lie",
    Moment.READING,
    "A filter goes by them, as every reader does; without one, every row counts. No crash.",
)
def test_lying_statistics(tmp_path: Path) -> None:
    path = write_parquet(ledger(3, 40), tmp_path / "lake" / "t.parquet")
    content = path.read_bytes()
    told = pq.read_metadata(path).row_group(0).column(2).statistics
    high, low = (struct.pack("<d", one) for one in (told.max, told.min))
    lie = struct.pack("<d", told.min - 1)
    path.write_bytes(with_footer(content, lambda footer: footer.replace(high, lie).replace(low, lie)))
    document = job(tmp_path / "lake", tmp_path / "out")
    everything = drive(document, tmp_path)
    assert everything.result is not None
    assert everything.result.entities == 3
    document["spec"]["source"]["filter"] = f"amount > {told.min}"
    assert drive(document | {"metadata": {"name": "x"}}, tmp_path).reason in (Reason.SOURCE_EMPTY, Reason.INVALID_SPEC)
