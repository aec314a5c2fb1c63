"""Warning events that are read once for all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from almanac.cluster import ApiError
from almanac.warned import FRESH, KEPT, SHARE, Warnings


def event(uid: str, kind: str = "Job", name: str = "x", how: str = "Warning") -> dict[str, Any]:
    return {
        "metadata": {"creationTimestamp": "2026-11-21T02:20:00Z"},
        "involvedObject": {"uid": uid, "kind": kind, "name": name},
        "type": how,
        "reason": "FailedCreate",
        "message": f"about {uid}",
    }


class Api:
    """Events in two pages of any namespace. A read takes `takes` seconds of its clock."""

    def __init__(self, *events: dict[str, Any], takes: float = 0.1) -> None:
        self.events, self.takes = events, takes
        self.now = 0.0
        self.reads: list[tuple[str | None, str]] = []
        self.error: ApiError | None = None

    async def list(self, resource: Any, namespace: str | None, fieldSelector: str = "") -> AsyncIterator[Any]:  # noqa: N803 - as the API has it
        self.reads.append((namespace, fieldSelector))
        await asyncio.sleep(0)
        self.now += self.takes
        if self.error is not None:
            raise self.error
        middle = len(self.events) // 2
        for part in (self.events[:middle], self.events[middle:]):
            yield {"items": list(part)}


def warnings_of(api: Api) -> Warnings:
    return Warnings(api, lambda: api.now)  # type: ignore[arg-type]


def about(warnings: Warnings, *uids: str, namespace: str = "finance") -> list[list[str]]:
    """What is said about each of some objects, of which all ask at once."""

    async def ask() -> list[list[str]]:
        found = await asyncio.gather(*(warnings.about(namespace, uid) for uid in uids))
        return [[one.message for one in some] for some in found]

    return asyncio.run(ask())


def test_a_thousand_who_ask_at_once_are_one_read() -> None:
    api = Api(event("u1"), event("u2"), event("u2"))
    found = about(warnings_of(api), *(f"u{number}" for number in range(1000)))
    assert found[:4] == [[], ["about u1"], ["about u2"] * 2, []]
    assert api.reads == [("finance", "type=Warning")]


def test_namespaces_are_read_by_themselves() -> None:
    api = Api(event("u1"))
    warnings = warnings_of(api)
    about(warnings, "u1")
    about(warnings, "u1", namespace="sales")
    assert [namespace for namespace, _ in api.reads] == ["finance", "sales"]


@pytest.mark.parametrize(("takes", "good"), [(0.01, FRESH), (3.0, 3.0 * SHARE)], ids=["quick", "slow"])
def test_it_is_read_again_after_a_while_that_is_longer_where_reading_takes_long(takes: float, good: float) -> None:
    api = Api(takes=takes)
    warnings = warnings_of(api)
    about(warnings, "u1")
    api.events = (event("u1"),)
    api.now += good - 0.001
    assert about(warnings, "u1") == [[]]
    api.now += 0.002
    assert about(warnings, "u1") == [["about u1"]]
    assert len(api.reads) == 2


def test_what_warns_of_nothing_is_left_out() -> None:
    assert about(warnings_of(Api(event("u1", how="Normal"), {"metadata": {}, "type": "Warning"})), "u1") == [[]]


def test_replica_sets_are_found_by_their_names() -> None:
    api = Api(event("u1", "ReplicaSet", "ledger-a1-worker"), event("u2", "ReplicaSet", "other"), event("u3"))
    found = asyncio.run(warnings_of(api).about_replica_sets("finance", "ledger-a1-"))
    assert [one.about for one in found] == ["u1"]


def test_who_may_not_read_events_has_none_to_tell() -> None:
    api = Api(event("u1"))
    api.error = ApiError(403, "Forbidden", "events is forbidden")
    warnings = warnings_of(api)
    assert about(warnings, "u1") == about(warnings, "u1") == [[]]
    assert len(api.reads) == 1


def test_an_api_that_does_not_answer_is_asked_again() -> None:
    api = Api(event("u1"))
    api.error = ApiError(503, "ServiceUnavailable", "later")
    warnings = warnings_of(api)
    with pytest.raises(ApiError, match="later"):
        about(warnings, "u1")
    api.error = None
    assert about(warnings, "u1") == [["about u1"]]


def test_namespaces_that_nobody_asks_for_are_forgotten() -> None:
    api = Api(event("u1"))
    warnings = warnings_of(api)
    about(warnings, "u1")
    api.now += FRESH + KEPT + 1
    about(warnings, "u1", namespace="sales")
    assert [*warnings._read] == ["sales"]
