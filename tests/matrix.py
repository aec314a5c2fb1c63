"""The fault matrix: a test declares the fault that it lets happen, and docs/reliability.md tells what was seen.

    @cell(Group.API, "The API server hangs up", Moment.WHILE, "The request is sent again; the run goes on.")
    def test_...

`pytest -m cell --matrix=docs/reliability.md` (`make reliability`) runs these tests and writes the tables into the page,
between the two comments that are there. With KUBECONFIG, tests of the API run before a real one too, and the page says
so. Of tests, and places, that are not run this time, it says what it said. Each ends with the laws of `laws`. A test
keeps page and declarations equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- cells: written by make reliability -->\n", "<!-- end of cells -->\n"
SEEN = "as expected"
PLACES = {"embedded": "embedded API", "real": "Kubernetes", "spark": "Spark", "dask": "Dask"}
"""Where a test runs, by the parameter of its fixture `cluster`."""


class Group(StrEnum):
    """What fails: a table of the page each."""

    OPERATOR = "The operator"
    API = "The API server"
    PODS = "The driver and its pod"
    CLUSTERS = "Spark and Dask"
    STORAGE = "Storage"
    DATA = "The data"


class Moment(StrEnum):
    """When it fails."""

    BEFORE = "before the driver starts"
    WHILE = "while it runs"
    READING = "while it reads"
    WRITING = "while it writes"
    PUBLISHING = "at publishing"
    AFTER = "after the end"


@dataclass(frozen=True, slots=True)
class Cell:
    """A fault at a moment, and what is expected then."""

    group: Group
    fault: str
    moment: Moment
    expected: str

    def __str__(self) -> str:
        return f"| {self.fault} | {self.moment} | {self.expected} |"


def cell(group: Group, fault: str, moment: Moment, expected: str) -> pytest.MarkDecorator:
    """Declare what a test, or one of its cases, lets happen. Several tests may show the same."""
    return pytest.mark.cell(Cell(group, fault, moment, expected))


@dataclass
class Row:
    """What was seen of a cell."""

    tests: int = 0
    places: set[str] = field(default_factory=set)
    failed: int = 0
    before: str = "not run"
    """What the page has said so far."""

    @property
    def seen(self) -> str:
        if self.failed:
            return f"FAILED in {self.failed} of {self.tests} tests"
        _, known, places = self.before.partition(f"{SEEN}: ")
        found = self.places | (set(places.split(", ")) if known else set())
        return f"{SEEN}: {', '.join(sorted(found))}" if found else self.before


class Matrix:
    """A plugin of pytest that gathers cells, and how their tests end."""

    def __init__(self, page: Path) -> None:
        self._page = page
        self._rows: dict[Cell, Row] = {}
        self._items: dict[str, tuple[list[Cell], str]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Gather the cells, in the order of the tests: all of them, whichever are chosen."""
        for item in items:
            found = cells(item)
            for one in found:
                self._rows.setdefault(one, Row()).tests += 1
            if found:
                self._items[item.nodeid] = (found, _place(item))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of how a test, or what comes before or after it, ends."""
        for one in self._items.get(report.nodeid, ([], ""))[0]:
            if report.failed:
                self._rows[one].failed += 1
            elif report.when == "call" and report.passed:
                self._rows[one].places.add(self._items[report.nodeid][1])

    def pytest_sessionfinish(self) -> None:
        """Write the tables."""
        text = self._page.read_text(encoding="utf-8")
        told = shown(text)
        for one, row in self._rows.items():
            row.before = told.get(str(one), row.before)
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        self._page.write_text(before + BEGIN + self.tables() + END + after, encoding="utf-8")

    def tables(self) -> str:
        """The tables, and how much they hold."""
        count = sum(len(found) for found, _ in self._items.values())
        lines = ["", f"{len(self._rows)} cells, shown by {count} tests.", ""]
        for group in Group:
            rows = {one: row for one, row in self._rows.items() if one.group is group}
            if rows:
                lines += [f"### {group}", "", "| Fault | Moment | Expected | Seen |", "| --- | --- | --- | --- |"]
                lines += [f"{one} {row.seen} |" for one, row in _sorted(rows)]
                lines.append("")
        return "\n".join(lines) + "\n"


def _sorted(rows: dict[Cell, Row]) -> Iterable[tuple[Cell, Row]]:
    """One fault after the other, each in the order of moments."""
    faults, moments = list(dict.fromkeys(one.fault for one in rows)), list(Moment)
    return sorted(rows.items(), key=lambda row: (faults.index(row[0].fault), moments.index(row[0].moment)))


def cells(item: pytest.Item) -> list[Cell]:
    """The cells that a test declares."""
    return [mark.args[0] for mark in item.iter_markers("cell")]


def _place(item: pytest.Item) -> str:
    """Where a test runs."""
    spec = getattr(item, "callspec", None)
    params = spec.params if spec else {}
    if "cluster" in params:
        return PLACES[params["cluster"]]
    return "embedded API" if "/api/" in item.nodeid else "driver"


def shown(page: str) -> dict[str, str]:
    """What a page says was seen, by cell as it is written there."""
    _, _, rest = page.partition(BEGIN)
    body, _, _ = rest.partition(END)
    lines = [line.rstrip("| \n") for line in body.splitlines() if line.startswith("| ")]
    told = [line.rpartition(" | ") for line in lines if not line.startswith(("| Fault ", "| ---"))]
    return {f"{cell} |": seen for cell, _, seen in told}
