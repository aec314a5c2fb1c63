"""Objects come, change and go as the API server has it."""

from collections.abc import Callable
from typing import Any

import pytest

from kube.client import MERGE
from kube.cluster import Cluster
from kube.refusals import Refusal

Raw = dict[str, Any]
Samples = Callable[..., Raw]


def config(name: str, **more: Any) -> Raw:
    return {"metadata": {"name": name}, "data": {"a": "1"}, **more}


def test_a_new_object_is_told_apart(cluster: Cluster, samples: Samples) -> None:
    made = cluster.client.create("samples", samples("a", {"labels": {"l": "1"}}))
    metadata = made["metadata"]
    assert metadata["namespace"] == cluster.namespace
    assert metadata["generation"] == 1
    assert metadata["labels"] == {"l": "1"}
    assert all(metadata[name] for name in ("uid", "resourceVersion", "creationTimestamp"))
    assert (made["apiVersion"], made["kind"]) == ("conformance.almanac.dev/v1", "Sample")
    assert cluster.client.get("samples", "a") == made


def test_only_kinds_with_a_status_count_generations(cluster: Cluster) -> None:
    assert "generation" not in cluster.client.create("configmaps", config("a"))["metadata"]


@pytest.mark.parametrize("plural", ["samples", "configmaps"])
def test_names_are_given_once(cluster: Cluster, samples: Samples, plural: str) -> None:
    item = samples("a") if plural == "samples" else config("a")
    cluster.client.create(plural, item)
    with pytest.raises(Refusal) as refused:
        cluster.client.create(plural, item)
    assert (refused.value.code, refused.value.reason) == (409, "AlreadyExists")


def test_names_are_made_up(cluster: Cluster) -> None:
    made = cluster.client.create("configmaps", {"metadata": {"generateName": "made-"}})
    name = made["metadata"]["name"]
    assert name.startswith("made-")
    assert len(name) == len("made-") + 5


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"name": "Upper"}, "metadata.name"),
        ({"name": "under_score"}, "metadata.name"),
        ({"name": "-a"}, "metadata.name"),
        ({"name": "a" * 254}, "metadata.name"),
        ({}, "metadata.name"),
        ({"name": "a", "labels": {"l": "x" * 64}}, "metadata.labels"),
        ({"name": "a", "labels": {"l": "not a label"}}, "metadata.labels"),
        ({"name": "a", "labels": {"not a key": "x"}}, "metadata.labels"),
        ({"name": "a", "annotations": {"big": "x" * (256 * 1024)}}, "metadata.annotations"),
        ({"name": "a", "annotations": {"not a key": ""}}, "metadata.annotations"),
        ({"name": "a", "finalizers": ["mine"]}, "metadata.finalizers"),
        ({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]}, "uid"),
    ],
)
def test_metadata_that_is_refused(cluster: Cluster, metadata: Raw, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.create("configmaps", {"metadata": metadata})
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    assert any(field in one.field for one in refused.value.problems)


@pytest.mark.parametrize("body", [[], "text", {"metadata": {"name": "a", "labels": {"l": 3}}}, {"metadata": []}])
def test_bodies_that_are_no_objects(cluster: Cluster, body: Any) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.create("configmaps", body)
    assert refused.value.code == 400


def test_the_namespace_must_be_there_and_be_the_one_of_the_path(cluster: Cluster) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.create("configmaps", config("a"), namespace="nowhere")
    assert refused.value.code == 404
    elsewhere = {"metadata": {"name": "a", "namespace": "default"}}
    with pytest.raises(Refusal) as refused:
        cluster.client.create("configmaps", elsewhere)
    assert refused.value.code == 400


def test_a_dry_run_changes_nothing(cluster: Cluster) -> None:
    made = cluster.client.create("configmaps", config("a"), dryRun="All")
    assert made["metadata"]["uid"]
    assert cluster.client.find("configmaps", "a") is None


def test_replacing_needs_the_latest_version(cluster: Cluster, samples: Samples) -> None:
    made = cluster.client.create("samples", samples("a"))
    new = made | {"spec": made["spec"] | {"low": 2}}
    assert cluster.client.replace("samples", new)["spec"]["low"] == 2
    with pytest.raises(Refusal) as refused:
        cluster.client.replace("samples", new)
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")
    del new["metadata"]["resourceVersion"]
    with pytest.raises(Refusal) as refused:
        cluster.client.replace("samples", new)
    assert refused.value.code == 422


def test_another_uid_is_another_object(cluster: Cluster, samples: Samples) -> None:
    made = cluster.client.create("samples", samples("a"))
    with pytest.raises(Refusal) as refused:
        cluster.client.patch("samples", "a", {"metadata": {"uid": "0"}})
    assert refused.value.code == 422
    made["metadata"]["uid"] = "0"
    with pytest.raises(Refusal) as refused:
        cluster.client.replace("samples", made)
    assert refused.value.code == 409


def test_the_status_has_a_path_of_its_own(cluster: Cluster, samples: Samples) -> None:
    made = cluster.client.create("samples", samples("a") | {"status": {"phase": "A"}})
    assert "status" not in made
    changed = cluster.client.patch("samples", "a", {"status": {"phase": "B"}})
    assert "status" not in changed
    told = cluster.client.patch("samples", "a", {"status": {"phase": "C"}, "spec": {"horizon": 7}}, sub="status")
    assert told["status"] == {"phase": "C"}
    assert told["spec"]["horizon"] == 1
    assert told["metadata"]["generation"] == 1
    new = cluster.client.patch("samples", "a", {"spec": {"horizon": 2}, "status": None})
    assert new["status"] == {"phase": "C"}
    assert new["metadata"]["generation"] == 2
    labelled = cluster.client.patch("samples", "a", {"metadata": {"labels": {"l": "1"}}})
    assert labelled["metadata"]["generation"] == 2


def test_what_changes_nothing_makes_no_version(cluster: Cluster, samples: Samples) -> None:
    made = cluster.client.create("samples", samples("a"))
    same = cluster.client.patch("samples", "a", {"spec": {"horizon": 1}})
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_immutable_data_stays(cluster: Cluster) -> None:
    cluster.client.create("configmaps", config("a", immutable=True))
    for change in ({"data": {"a": "2"}}, {"data": {"b": "2"}}, {"immutable": None}):
        with pytest.raises(Refusal) as refused:
            cluster.client.patch("configmaps", "a", change)
        assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    cluster.client.patch("configmaps", "a", {"metadata": {"labels": {"l": "1"}}})


def test_too_much_data(cluster: Cluster) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.create("configmaps", {"metadata": {"name": "a"}, "data": {"a": "x" * (1 << 20), "b": "x"}})
    assert refused.value.code == 422
    with pytest.raises(Refusal) as refused:
        cluster.client.create("configmaps", {"metadata": {"name": "a"}, "data": {"a": "x" * (3 << 20)}})
    assert refused.value.code == 413


def test_deleting(cluster: Cluster, samples: Samples) -> None:
    made = cluster.client.create("samples", samples("a"))
    with pytest.raises(Refusal) as refused:
        cluster.client.delete("samples", "b")
    assert (refused.value.code, refused.value.reason) == (404, "NotFound")
    with pytest.raises(Refusal) as refused:
        cluster.client.delete("samples", "a", preconditions={"uid": "0"})
    assert refused.value.code == 409
    gone = cluster.client.delete("samples", "a", preconditions={"uid": made["metadata"]["uid"]})
    assert (gone["kind"], gone["status"], gone["details"]["uid"]) == ("Status", "Success", made["metadata"]["uid"])
    assert cluster.client.find("samples", "a") is None


def test_finalizers_hold_an_object(cluster: Cluster, samples: Samples) -> None:
    client = cluster.client
    client.create("samples", samples("a", {"finalizers": ["almanac.dev/a"]}))
    left = client.delete("samples", "a")
    assert left["kind"] == "Sample"
    metadata = client.get("samples", "a")["metadata"]
    assert metadata["deletionTimestamp"]
    assert metadata["generation"] == 2
    more = {"metadata": {"finalizers": ["almanac.dev/a", "almanac.dev/b"]}}
    with pytest.raises(Refusal) as refused:
        client.patch("samples", "a", more)
    assert refused.value.code == 422
    client.patch("samples", "a", {"metadata": {"finalizers": None}}, kind=MERGE)
    assert client.find("samples", "a") is None


def test_deleting_many(cluster: Cluster, samples: Samples) -> None:
    for name in ("a", "b", "c"):
        cluster.client.create("samples", samples(name, {"labels": {"keep": str(name == "b")}}))
    reply = cluster.client.request("DELETE", cluster.client.path("samples"), labelSelector="keep=False")
    assert reply.status_code == 200
    assert [one["metadata"]["name"] for one in cluster.client.list("samples")] == ["b"]


@pytest.mark.parametrize("path", ["/apis/almanac.dev/v1alpha1/nothings", "/apis/nothing.dev/v1/x", "/api/v2/pods"])
def test_unknown_paths(cluster: Cluster, path: str) -> None:
    assert cluster.client.request("GET", path).status_code == 404
