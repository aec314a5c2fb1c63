"""Events: one store, two APIs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.refusals import Refusal

Raw = dict[str, Any]
NEW = "events.k8s.io/v1"


def event(cluster: Cluster, name: str = "e", **fields: Any) -> Raw:
    about = {"kind": "ForecastJob", "apiVersion": "almanac.dev/v1alpha1", "name": "j", "namespace": cluster.namespace}
    return {
        "metadata": {"name": name},
        "regarding": about,
        "type": "Normal",
        "reason": "Started",
        "action": "Start",
        "note": "it has begun",
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "almanac.dev/operator",
        "reportingInstance": "operator-0",
        **fields,
    }


def test_an_event_is_seen_in_both(cluster: Cluster) -> None:
    made = cluster.client.create("events", event(cluster), version=NEW)
    assert (made["apiVersion"], made["note"]) == (NEW, "it has begun")
    old = cluster.client.get("events", "e")
    assert (old["apiVersion"], old["message"], old["involvedObject"]["name"]) == ("v1", "it has begun", "j")
    assert old["reportingComponent"] == "almanac.dev/operator"
    assert [one["regarding"]["name"] for one in cluster.client.list("events", version=NEW)] == ["j"]


def test_events_are_selected_by_what_they_are_about(cluster: Cluster) -> None:
    cluster.client.create("events", event(cluster), version=NEW)
    assert len(cluster.client.list("events", fields="involvedObject.name=j,reason=Started")) == 1
    assert len(cluster.client.list("events", fields="regarding.name=j,type=Normal", version=NEW)) == 1
    assert not cluster.client.list("events", fields="involvedObject.name=k")


@pytest.mark.parametrize(
    "fields",
    [
        {"reportingController": ""},
        {"reportingInstance": ""},
        {"action": ""},
        {"reason": ""},
        {"reason": "x" * 129},
        {"action": "x" * 129},
        {"note": "x" * 1025},
        {"eventTime": None},
        {"type": "Info"},
        {"regarding": {"kind": "Pod", "apiVersion": "v1", "name": "p"}},
        {"deprecatedCount": 3},
    ],
)
def test_events_that_are_refused(cluster: Cluster, fields: Raw) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.create("events", event(cluster, **fields), version=NEW)
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")


def test_an_event_may_be_about_an_object_of_another_namespace(cluster: Cluster) -> None:
    """As long as it says when it happened, which events of the old kind do not."""
    about = {"kind": "Pod", "apiVersion": "v1", "name": "p", "namespace": "elsewhere"}
    assert cluster.client.create("events", event(cluster, regarding=about), version=NEW)
    with pytest.raises(Refusal) as refused:
        cluster.client.create("events", {"metadata": {"name": "old"}, "involvedObject": about, "reason": "Started"})
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")


def test_a_series_of_events(cluster: Cluster) -> None:
    cluster.client.create("events", event(cluster), version=NEW)
    last = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    path = cluster.client.path("events", "e", version=NEW)
    reply = cluster.client.request(
        "PATCH", path, {"series": {"count": 2, "lastObservedTime": last}}, "application/merge-patch+json"
    )
    assert reply.status_code == 200
    assert cluster.client.get("events", "e")["series"]["count"] == 2
    changed = cluster.client.request("PATCH", path, {"note": "another"}, "application/merge-patch+json")
    assert changed.status_code == 422
