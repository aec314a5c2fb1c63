"""docs/reliability.md has the cells that tests declare, and each was seen as it was expected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import matrix

ROOT = Path(__file__).parents[2]


def test_the_page_has_what_tests_declare(tmp_path: Path) -> None:
    """In a process of its own, which gathers all tests and runs none."""
    page = tmp_path / "page.md"
    page.touch()
    files = [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "@cell(" in (text := path.read_text()) or "marks=cell" in text
    ]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "cell", "--matrix", str(page), *files]
    gathered = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert gathered.returncode == 0, gathered.stdout
    declared, written = matrix.shown(page.read_text()), matrix.shown(matrix.PAGE.read_text())
    assert list(written) == list(declared), "make reliability writes the page anew"
    assert len(written) >= 40
    assert not {cell: seen for cell, seen in written.items() if not seen.startswith(matrix.SEEN)}


@pytest.mark.parametrize(
    ("before", "places", "failed", "seen"),
    [
        ("not run", [], 0, "not run"),
        ("not run", ["Spark", "Dask"], 0, "as expected: Dask, Spark"),
        ("as expected: Kubernetes", ["embedded API"], 0, "as expected: Kubernetes, embedded API"),
        ("as expected: Kubernetes", [], 0, "as expected: Kubernetes"),
        ("FAILED in 1 of 2 tests", ["Kubernetes"], 0, "as expected: Kubernetes"),
        ("as expected: Kubernetes", ["embedded API"], 1, "FAILED in 1 of 2 tests"),
    ],
)
def test_a_page_keeps_what_was_seen_elsewhere(before: str, places: list[str], failed: int, seen: str) -> None:
    assert matrix.Row(2, set(places), failed, before).seen == seen
