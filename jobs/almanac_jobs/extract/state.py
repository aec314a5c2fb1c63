"""What a run remembers of itself while it lasts, in its own folder: the plan, and each range that is done.

A run that was killed goes on from there. Both are JSON, each written in one step after the files that they speak of;
they are gone once the run is complete.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from almanac_jobs import objects
from almanac_jobs.extract.database import Snapshot
from almanac_jobs.extract.files import File
from almanac_jobs.extract.relation import KeyRange
from almanac_jobs.storage import Location

FORMAT = 1
STATE = ".state"
"""Folder of a run with what is here: readers of data sets skip names with a dot."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a relation is read: `shape` says what, `base` and `since` from where on, `ranges` in which parts."""

    shape: str
    relation: str
    base: str | None
    since: str | None
    ranges: tuple[KeyRange, ...]
    rows: int | None
    snapshot: Snapshot

    def fits(self, other: Plan) -> bool:
        """Whether what was done by another plan is of use to this one: all but ranges and snapshot is the same."""
        return replace(self, ranges=(), rows=None) == replace(other, ranges=(), rows=None, snapshot=self.snapshot)


@dataclass(frozen=True, slots=True)
class Done:
    """A range that is done: its files, its rows, the highest value of the watermark, and what it is true of.

    `snapshot` is the state of the database that the files are known to hold.
    """

    range: KeyRange
    rows: int
    files: tuple[File, ...]
    highest: str | None
    snapshot: Snapshot


class State:
    """What a run remembers, below its folder."""

    def __init__(self, run: Location) -> None:
        self._place = run / STATE

    def plan(self) -> Plan | None:
        """The plan of an earlier attempt; None if there is none that this version understands."""
        told = _read(self._place / "plan.json")
        if told is None:
            return None
        return Plan(
            told["shape"],
            told["relation"],
            told["base"],
            told["since"],
            tuple(KeyRange.from_json(one) for one in told["ranges"]),
            told["rows"],
            Snapshot(**told["snapshot"]),
        )

    def write_plan(self, plan: Plan) -> None:
        """Remember a plan."""
        told = {name: getattr(plan, name) for name in ("shape", "relation", "base", "since", "rows")}
        ranges = [one.to_json() for one in plan.ranges]
        _write(self._place / "plan.json", {**told, "ranges": ranges, "snapshot": asdict(plan.snapshot)})

    def done(self) -> dict[int, Done]:
        """Ranges that are done, by their number."""
        found: dict[int, Done] = {}
        for info in objects.files(self._place):
            name = info.base_name
            told = _read(self._place / name) if name.startswith("range-") and name.endswith(".json") else None
            if told is not None:
                files = tuple(File(**one) for one in told["files"])
                part = KeyRange.from_json(told["range"])
                found[part.number] = Done(part, told["rows"], files, told["highest"], Snapshot(**told["snapshot"]))
        return found

    def write_done(self, done: Done) -> None:
        """Remember a range that is done: its files are there already."""
        told = {"range": done.range.to_json(), "rows": done.rows, "files": [one.to_json() for one in done.files]}
        place = self._place / f"range-{done.range.number:05d}.json"
        _write(place, {**told, "highest": done.highest, "snapshot": asdict(done.snapshot)})


def _read(location: Location) -> dict[str, Any] | None:
    try:
        told = json.loads(objects.read(location) or b"null")
    except ValueError:
        return None
    return told if isinstance(told, dict) and told.get("formatVersion") == FORMAT else None


def _write(location: Location, told: dict[str, Any]) -> None:
    objects.write(location, json.dumps({"formatVersion": FORMAT, **told}).encode())
