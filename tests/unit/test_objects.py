"""Files are replaced whole, and writers that meet do not undo each other's change."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from almanac.api import JobError, Reason
from almanac_jobs import objects
from almanac_jobs.storage import Location, open_location
from matrix import Group, Moment, cell
from s3 import Fault, S3Server


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("lake")
        yield server


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "s3":
        request.getfixturevalue("s3")
    return open_location(str(tmp_path) if request.param == "local" else "s3://lake/x", None, field="spec.output.uri")


def test_files_come_and_go(place: Location) -> None:
    assert objects.read(place / "a/b/one") is None
    objects.write(place / "a/b/one", b"1")
    objects.write(place / "a/b/one", memoryview(b"2"))
    objects.write(place / "a/two.json", b"", durable=False)
    objects.sync(place)
    assert objects.read(place / "a/b/one") == b"2"
    assert objects.read(place / "a/b/one/c") is None
    assert objects.folders(place / "a") == ["b"]
    assert sorted(info.path.rsplit("/", 1)[1] for info in objects.files(place)) == ["one", "two.json"]
    objects.remove(place / "a/two.json")
    objects.remove(place / "a/two.json")
    assert len(objects.files(place)) == 1
    objects.remove(place / "a")
    objects.remove(place / "a")
    assert objects.folders(place) == objects.files(place) == []


def test_a_write_that_is_interrupted_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = open_location(str(tmp_path / "f"), None, field="spec.output.uri")
    objects.write(file, b"old")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        objects.write(file, b"new")
    assert objects.read(file) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_updates_take_turns(place: Location) -> None:
    def add_one(old: bytes | None) -> bytes:
        return str(int(old or 0) + 1).encode()

    threads = [threading.Thread(target=objects.update, args=(place / "count", add_one)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert objects.read(place / "count") == b"6"
    objects.update(place / "count", lambda old: None)
    assert objects.read(place / "count") == b"6"


@cell(
    Group.STORAGE,
    "Another run moves latest.json at the same moment (412, 409)",
    Moment.PUBLISHING,
    "It is read anew, and moved forward only: the newest run that is complete has it in the end.",
)
@pytest.mark.parametrize("meanwhile", [b"theirs", None])
def test_an_update_begins_anew_when_the_object_has_changed(s3: S3Server, meanwhile: bytes | None) -> None:
    place = open_location("s3://lake/pointer", None, field="spec.output.uri")
    objects.write(place, b"old")
    seen: list[bytes | None] = []

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        if len(seen) == 1:
            objects.remove(place) if meanwhile is None else objects.write(place, meanwhile)
        return b"mine"

    objects.update(place, change)
    assert seen == [b"old", meanwhile]
    assert objects.read(place) == b"mine"


def test_refusals_say_what_storage_said(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("almanac_jobs.storage.ATTEMPTS", 1)
    place = open_location("s3://lake/x", None, field="spec.output.uri")
    s3.faults.append(Fault(lambda method, path: method == "PUT", 403, "AccessDenied"))
    with pytest.raises(JobError, match=r"spec\.output\.uri: no permission to write `s3://lake/x`") as denied:
        objects.write(place, b"")
    assert denied.value.reason is Reason.ACCESS_DENIED
    s3.faults.append(Fault(lambda method, path: method == "PUT", reset=True))
    with pytest.raises(JobError) as unavailable:
        objects.write(place, b"")
    assert unavailable.value.reason is Reason.STORAGE_UNAVAILABLE
    s3.faults.append(Fault(lambda method, path: method == "DELETE", 403, "AccessDenied"))
    objects.write(place, b"")
    with pytest.raises(JobError, match="no permission to write"):
        objects.remove(place)
    with pytest.raises(JobError, match="has no bucket `nowhere`") as missing:
        objects.write(open_location("s3://nowhere/x", None, field="spec.output.uri"), b"")
    assert missing.value.reason is Reason.INVALID_SPEC
