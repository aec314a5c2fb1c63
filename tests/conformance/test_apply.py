"""Server-side apply: who owns what, and what happens when two want the same."""

from collections.abc import Callable
from typing import Any

import pytest

from kube.client import APPLY
from kube.cluster import Cluster
from kube.refusals import Refusal

Raw = dict[str, Any]
Samples = Callable[..., Raw]


def owners(item: Raw) -> list[tuple[str, str]]:
    return sorted((one["manager"], one["operation"]) for one in item["metadata"]["managedFields"])


def test_applying_makes_what_is_not_there(cluster: Cluster, samples: Samples) -> None:
    made = cluster.client.apply("samples", samples("a", low=1), "one")
    assert owners(made) == [("one", "Apply")]
    (entry,) = made["metadata"]["managedFields"]
    assert entry["fieldsV1"] == {"f:spec": {"f:horizon": {}, "f:low": {}}}
    same = cluster.client.apply("samples", samples("a", low=1), "one")
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_applying_needs_a_manager(cluster: Cluster, samples: Samples) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.patch("samples", "a", samples("a"), kind=APPLY)
    assert refused.value.code in (400, 422)


def test_two_managers_may_agree_but_not_differ(cluster: Cluster, samples: Samples) -> None:
    client = cluster.client
    client.apply("samples", samples("a", low=1), "one")
    assert owners(client.apply("samples", samples("a"), "two")) == [("one", "Apply"), ("two", "Apply")]
    with pytest.raises(Refusal) as refused:
        client.apply("samples", samples("a", low=2), "two")
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")
    assert [one.field for one in refused.value.problems] == [".spec.low"]
    assert client.apply("samples", samples("a", low=2), "two", force=True)["spec"]["low"] == 2
    with pytest.raises(Refusal):
        client.apply("samples", samples("a", low=1), "one")


def test_what_is_no_longer_applied_goes(cluster: Cluster, samples: Samples) -> None:
    client = cluster.client
    client.apply("samples", samples("a", low=1, high=5), "one")
    client.apply("samples", samples("a", high=5), "two")
    left = client.apply("samples", samples("a"), "one")
    assert "low" not in left["spec"]
    assert left["spec"]["high"] == 5


def test_whoever_changes_a_field_otherwise_owns_it_too(cluster: Cluster, samples: Samples) -> None:
    client = cluster.client
    client.apply("samples", samples("a", low=1), "one")
    changed = client.patch("samples", "a", {"spec": {"low": 2}}, fieldManager="editor")
    assert owners(changed) == [("editor", "Update"), ("one", "Apply")]
    with pytest.raises(Refusal) as refused:
        client.apply("samples", samples("a", low=1), "one")
    assert refused.value.code == 409


def test_lists_with_keys_are_shared(cluster: Cluster, samples: Samples) -> None:
    client = cluster.client
    client.apply("samples", samples("a", items=[{"name": "x", "value": "1"}]), "one")
    both = client.apply("samples", samples("a", items=[{"name": "y", "value": "2"}]), "two")
    assert both["spec"]["items"] == [{"name": "x", "value": "1"}, {"name": "y", "value": "2"}]
    left = client.apply("samples", samples("a", items=[]), "one")
    assert left["spec"]["items"] == [{"name": "y", "value": "2"}]


def test_a_status_is_applied_by_its_own_path(cluster: Cluster, samples: Samples) -> None:
    client = cluster.client
    client.create("samples", samples("a"))
    told = client.apply("samples", samples("a") | {"status": {"phase": "A"}}, "one", sub="status")
    assert told["status"] == {"phase": "A"}
    entry = next(one for one in told["metadata"]["managedFields"] if one["manager"] == "one")
    assert entry["subresource"] == "status"
    assert entry["fieldsV1"] == {"f:status": {"f:phase": {}}}


def test_built_in_kinds_too(cluster: Cluster) -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}}
    cluster.client.apply("configmaps", item, "one")
    more = cluster.client.apply("configmaps", item | {"data": {"y": "2"}}, "two")
    assert more["data"] == {"x": "1", "y": "2"}
    assert cluster.client.apply("configmaps", item | {"data": {}}, "one")["data"] == {"y": "2"}


def test_a_version_that_is_not_the_latest(cluster: Cluster, samples: Samples) -> None:
    cluster.client.create("samples", samples("a"))
    with pytest.raises(Refusal) as refused:
        cluster.client.apply("samples", samples("a", {"resourceVersion": "1"}), "one")
    assert refused.value.code == 409
