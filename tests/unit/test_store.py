from __future__ import annotations

from typing import Any

import pytest

import goldens
import raw
from almanac.api import KINDS
from almanac.store import Key, Store

KEY = Key("ForecastJob", "default", "smallest")


def versioned(one: dict[str, Any], version: int, **metadata: Any) -> dict[str, Any]:
    kind = one.get("kind") or ("Pod" if "containers" in one["spec"] else "Job")
    more = {"namespace": "default", "resourceVersion": str(version), **metadata}
    return {**one, "kind": kind, "metadata": {**one["metadata"], **more}}


def job(version: int = 1, uid: str = goldens.UID, **status: Any) -> dict[str, Any]:
    metadata = {"name": "smallest", "namespace": "default", "uid": uid, "resourceVersion": str(version)}
    noise = {"managedFields": [{"manager": "kubectl"}], "annotations": {"note": "x" * 1000}}
    kind = {"apiVersion": "almanac.dev/v1alpha1", "kind": "ForecastJob"}
    return {**kind, "metadata": metadata | noise, "spec": {"horizon": version}, "status": status}


def test_a_job_is_remembered_without_what_decides_nothing() -> None:
    store = Store()
    assert store.put(job(phase="Running")) == KEY
    kept = store.job(KEY)
    assert kept is not None
    assert kept["spec"] == {"horizon": 1}
    assert set(kept["metadata"]) == {"name", "namespace", "uid", "resourceVersion"}
    assert store.standings() == {("ForecastJob", "Running", ""): 1.0}


READY = {"type": "Ready", "status": "False"}


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        ({}, ("", "")),
        ({"phase": "Pending", "conditions": [READY | {"reason": "ImagePullBackOff"}]}, ("Pending", "ImagePullBackOff")),
        ({"phase": "Dreaming", "conditions": [READY | {"reason": 'a"b\n'}]}, ("", "")),
        ({"phase": "Running", "conditions": "none"}, ("Running", "")),
        ({"phase": "Failed", "conditions": [None, {"type": "Ready"}]}, ("Failed", "")),
    ],
)
def test_where_jobs_stand(status: dict[str, Any], standing: tuple[str, str]) -> None:
    """Whatever a status holds, its words are fit for labels."""
    store = Store()
    store.put(job(**status))
    assert store.standings() == {("ForecastJob", *standing): 1.0}


@pytest.mark.parametrize(
    ("status", "delay"),
    [
        ({"phase": "Succeeded", "nextScheduleTime": "2026-11-21T02:00:00Z"}, 900.0),
        ({"phase": "Succeeded", "nextScheduleTime": "2026-11-21T03:00:00Z"}, 0.0),
        ({"phase": "Suspended", "nextScheduleTime": "2026-11-21T02:00:00Z"}, 0.0),
        ({"phase": "Succeeded", "nextScheduleTime": "soon"}, 0.0),
        (
            {
                "phase": "Failed",
                "nextScheduleTime": "2026-11-21T02:00:00Z",
                "conditions": [READY | {"reason": "InvalidSpec"}],
            },
            0.0,
        ),
    ],
)
def test_how_late_schedules_are(status: dict[str, Any], delay: float) -> None:
    store = Store()
    store.put(job(**status))
    assert store.delays(goldens.START) == {(kind,): 0.0 for kind in KINDS} | {("ForecastJob",): delay}


def test_an_older_version_never_replaces_a_newer_one() -> None:
    store = Store()
    store.put(job(5))
    assert store.put(job(4)) is None
    assert store.put(job(5)) is None
    kept = store.job(KEY)
    assert kept is not None
    assert kept["spec"] == {"horizon": 5}


def test_the_end_of_a_job_does_not_take_the_one_that_has_its_name_now() -> None:
    store = Store()
    store.put(job(1, uid="old"))
    store.put(job(3, uid="new"))
    store.remove(job(2, uid="old"))
    store.drop(KEY, "old")
    assert store.job(KEY) is not None
    store.remove(job(4, uid="new"))
    assert store.job(KEY) is None


def test_drivers_and_pods_are_found_by_their_job_and_only_news_counts() -> None:
    store = Store()
    store.put(job())
    driver = versioned(raw.driver(), 2)
    pod = versioned(raw.pod(driver), 3)
    assert store.put(driver) == KEY
    assert store.put(pod) == KEY
    seen = store.seen(goldens.UID)
    assert [one.name for one in seen.drivers] == [driver["metadata"]["name"]]
    assert [one.name for one in seen.pods] == [pod["metadata"]["name"]]
    assert store.put(versioned(pod, 4)) is None, "nothing that decides has changed"
    assert store.remove(pod) == KEY
    assert store.seen(goldens.UID).pods == ()
    assert store.counts() == {"ForecastJob": 1, "AnomalyJob": 0, "ExtractJob": 0, "Job": 1, "Pod": 0}


def test_what_a_complete_list_does_not_have_is_forgotten_unless_it_is_newer() -> None:
    store = Store()
    store.put(job())
    driver = versioned(raw.driver(), 2)
    store.put(driver)
    assert store.keep_only("Job", "default", [], version=1) == set()
    assert store.keep_only("Job", "elsewhere", [], version=9) == set()
    assert store.keep_only("Job", "default", [], version=9) == {KEY}
    assert store.seen(goldens.UID).drivers == ()
    store.put(versioned(driver, 9))
    assert store.seen(goldens.UID).drivers == (), "it was read before it went"
    store.put(versioned(driver, 10))
    store.keep_only_of(goldens.UID, "Job", [], version=9)
    assert store.seen(goldens.UID).drivers, "it is newer than the list"
    store.keep_only_of(goldens.UID, "Job", [], version=10)
    assert store.seen(goldens.UID).drivers == ()
    store.keep_only("ForecastJob", None, [], version=9)
    assert store.jobs() == ()


def test_what_was_read_before_its_end_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list, or the answer to a write, may be on its way while a watch tells of the end."""
    store = Store()
    driver = versioned(raw.driver(), 2)
    pod = versioned(raw.pod(driver), 3)
    for one in (job(), driver, pod):
        store.put(one)
    for one in (versioned(pod, 4), versioned(driver, 5), job(6)):
        store.remove(one)
    assert [store.put(one) for one in (job(5), versioned(driver, 4), versioned(pod, 3))] == [None] * 3
    assert (store.jobs(), store.seen(goldens.UID).drivers, store.seen(goldens.UID).pods) == ((), (), ())
    store.put(versioned(pod, 7))
    assert store.seen(goldens.UID).pods, "it has its labels again, by which it is found"
    monkeypatch.setattr("almanac.store.GONE", 2)
    store.remove(versioned(pod, 8, uid="another"))
    store.remove(versioned(pod, 8, uid="one more"))
    store.put(versioned(driver, 4))
    assert store.seen(goldens.UID).drivers, "what went long ago is not kept in mind"


@pytest.mark.parametrize(
    ("page", "items", "older"),
    [
        (30, [("a", 20)], False),  # as it is
        (30, [("a", 25), ("new", 28)], False),
        (20, [("a", 20)], False),
        (30, [], False),  # the job was deleted
        (15, [("a", 10)], True),  # versions have gone back
        (15, [], True),
        (90, [("a", 10)], True),  # they have jumped ahead, and an object has gone back
        (90, [("gone", 12)], True),  # ... or come back
        (0, [("a", 0)], False),  # versions that are no numbers say nothing
    ],
)
def test_a_list_that_is_older_than_what_was_known_before(page: int, items: list[tuple[str, int]], older: bool) -> None:
    store = Store()
    store.put(job(20, "a"))
    store.remove(job(18, "gone"))
    listed = {"metadata": {"resourceVersion": str(page)}, "items": [job(version, uid) for uid, version in items]}
    assert store.versions("ForecastJob").are_after(listed) is older


def test_versions_are_compared_kind_by_kind() -> None:
    """They may be kept in stores of their own."""
    store = Store()
    store.put(job(20, "a"))
    assert not store.versions("Pod").are_after({"metadata": {"resourceVersion": "5"}, "items": []})


def test_what_is_not_the_operators_is_left_out() -> None:
    store = Store()
    stranger = {"kind": "Job", "metadata": {"name": "backup", "namespace": "default", "uid": "u"}, "spec": {}}
    assert store.put(stranger) is None
    assert not store.knows(stranger)
    assert store.counts()["Job"] == 0
