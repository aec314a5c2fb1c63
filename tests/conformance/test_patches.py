"""Patches do what their kinds of content say."""

from collections.abc import Callable
from typing import Any

import pytest

from kube.client import MERGE, OPERATIONS, STRATEGIC
from kube.cluster import Cluster
from kube.refusals import Refusal

Raw = dict[str, Any]
Samples = Callable[..., Raw]


def pod(**spec: Any) -> Raw:
    return {
        "metadata": {"name": "a"},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "one", "image": "x:1"}], **spec},
    }


def test_a_merge_patch_sets_and_deletes(cluster: Cluster, samples: Samples) -> None:
    cluster.client.create("samples", samples("a"))
    assert cluster.client.patch("samples", "a", {"spec": {"low": 5}})["spec"]["low"] == 5
    assert "low" not in cluster.client.patch("samples", "a", {"spec": {"low": None}})["spec"]


def test_a_merge_patch_replaces_lists(cluster: Cluster, samples: Samples) -> None:
    cluster.client.create("samples", samples("a", items=[{"name": "x"}]))
    changed = cluster.client.patch("samples", "a", {"spec": {"items": [{"name": "y"}]}})
    assert changed["spec"]["items"] == [{"name": "y"}]


def test_a_patch_may_name_a_version(cluster: Cluster, samples: Samples) -> None:
    made = cluster.client.create("samples", samples("a"))
    version = made["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "spec": {"low": 1}}
    cluster.client.patch("samples", "a", patch)
    with pytest.raises(Refusal) as refused:
        cluster.client.patch("samples", "a", patch | {"spec": {"low": 2}})
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")


def test_operations(cluster: Cluster, samples: Samples) -> None:
    client = cluster.client
    client.create("samples", samples("a", low=1))
    added = [{"op": "test", "path": "/spec/low", "value": 1}, {"op": "replace", "path": "/spec/low", "value": 2}]
    assert client.patch("samples", "a", added, kind=OPERATIONS)["spec"]["low"] == 2
    for refused in (
        [{"op": "test", "path": "/spec/low", "value": 9}],
        [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}],
        [{"op": "remove", "path": "/spec/nothing"}],
    ):
        with pytest.raises(Refusal) as caught:
            client.patch("samples", "a", refused, kind=OPERATIONS)
        assert (caught.value.code, caught.value.reason) == (422, "Invalid")


def test_custom_resources_know_no_strategic_merge(cluster: Cluster, samples: Samples) -> None:
    cluster.client.create("samples", samples("a"))
    with pytest.raises(Refusal) as refused:
        cluster.client.patch("samples", "a", {"spec": {"low": 1}}, kind=STRATEGIC)
    assert refused.value.code == 415


def test_a_strategic_merge_knows_the_keys_of_lists(cluster: Cluster) -> None:
    client = cluster.client
    client.create("pods", pod())
    ready = {"type": "Ready", "status": "False"}
    client.patch("pods", "a", {"status": {"conditions": [ready]}}, kind=STRATEGIC, sub="status")
    more = [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]
    told = client.patch("pods", "a", {"status": {"conditions": more}}, kind=STRATEGIC, sub="status")
    assert {one["type"]: one["status"] for one in told["status"]["conditions"]} == {
        "Ready": "True",
        "Initialized": "True",
    }
    image = {"spec": {"containers": [{"name": "one", "image": "x:2"}]}}
    assert [one["image"] for one in client.patch("pods", "a", image, kind=STRATEGIC)["spec"]["containers"]] == ["x:2"]


def test_what_runs_does_not_change(cluster: Cluster) -> None:
    cluster.client.create("pods", pod())
    more = {"spec": {"containers": [{"name": "one", "image": "x:1", "command": ["y"]}]}}
    with pytest.raises(Refusal) as refused:
        cluster.client.patch("pods", "a", more, kind=STRATEGIC)
    assert refused.value.code == 422


@pytest.mark.parametrize("kind", [MERGE, OPERATIONS, STRATEGIC])
def test_nothing_to_patch(cluster: Cluster, kind: str) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.patch("configmaps", "a", [] if kind == OPERATIONS else {}, kind=kind)
    assert refused.value.code == 404


def test_a_patch_that_leaves_no_valid_object(cluster: Cluster, samples: Samples) -> None:
    cluster.client.create("samples", samples("a"))
    with pytest.raises(Refusal) as refused:
        cluster.client.patch("samples", "a", {"spec": None})
    assert refused.value.code == 422
