"""Lists: selectors, pages, tables, and what discovery says of them."""

from collections.abc import Callable
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.refusals import Refusal

Raw = dict[str, Any]
Samples = Callable[..., Raw]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.fixture
def seven(cluster: Cluster, samples: Samples) -> Cluster:
    """Seven samples n0 to n6 with a label, and one without."""
    for number in range(7):
        cluster.client.create("samples", samples(f"n{number}", {"labels": {"group": "g", "number": str(number)}}))
    cluster.client.create("samples", samples("other", {"labels": {"only": ""}}))
    return cluster


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("group=g,number==3", ["n3"]),
        ("group=g,number in (1,2)", ["n1", "n2"]),
        ("group,number notin (0,1,2,3,4)", ["n5", "n6"]),
        ("!group", ["other"]),
        ("only", ["other"]),
        ("only=", ["other"]),
        ("group!=g", ["other"]),
        ("number in (1),number in (2)", []),
    ],
)
def test_labels_select(seven: Cluster, selector: str, names: list[str]) -> None:
    assert [one["metadata"]["name"] for one in seven.client.list("samples", labels=selector)] == names


@pytest.mark.parametrize("selector", ["a b", "group in 1", "=x"])
def test_selectors_that_are_none(cluster: Cluster, selector: str) -> None:
    with pytest.raises(Refusal) as refused:
        cluster.client.list("configmaps", labels=selector)
    assert refused.value.code == 400


def test_fields_select(seven: Cluster) -> None:
    assert [one["metadata"]["name"] for one in seven.client.list("samples", fields="metadata.name=n3")] == ["n3"]
    assert len(seven.client.list("samples", fields="metadata.name!=n3")) == 7


def test_pods_are_selected_by_what_they_do(cluster: Cluster) -> None:
    spec = {"schedulerName": "nobody", "containers": [{"name": "one", "image": "x:1"}]}
    cluster.client.create("pods", {"metadata": {"name": "a"}, "spec": spec})
    assert len(cluster.client.list("pods", fields="status.phase=Pending,spec.nodeName=")) == 1
    assert not cluster.client.list("pods", fields="status.phase!=Pending")


def test_pages(seven: Cluster) -> None:
    path = seven.client.path("samples")
    page = seven.client.request("GET", path, limit=3).json()
    version, names = page["metadata"]["resourceVersion"], []
    assert page["metadata"]["remainingItemCount"] == 5
    assert page["kind"] == "SampleList"
    while True:
        names += [one["metadata"]["name"] for one in page["items"]]
        if not page["metadata"].get("continue"):
            break
        page = seven.client.request("GET", path, limit=3, **{"continue": page["metadata"]["continue"]}).json()
        assert page["metadata"]["resourceVersion"] == version
    assert names == [*(f"n{number}" for number in range(7)), "other"]


def test_items_of_built_in_kinds_do_not_repeat_their_kind(seven: Cluster) -> None:
    seven.client.create("configmaps", {"metadata": {"name": "a"}})
    assert all("kind" not in one for one in seven.client.list("configmaps"))
    assert all(one["kind"] == "Sample" for one in seven.client.list("samples"))


def test_all_namespaces(seven: Cluster) -> None:
    found = [one["metadata"]["namespace"] for one in seven.client.list("samples", namespace="")]
    assert found.count(seven.namespace) == 8


def test_tables(seven: Cluster) -> None:
    seven.client.patch("samples", "n0", {"status": {"phase": "Ready"}}, sub="status")
    table = seven.client.request("GET", seven.client.path("samples"), accept=TABLE).json()
    assert [one["name"] for one in table["columnDefinitions"]] == ["Name", "Phase", "Horizon"]
    assert table["rows"][0]["cells"] == ["n0", "Ready", 1]
    assert table["rows"][1]["cells"][1] in (None, "")


def test_what_there_is_can_be_discovered(cluster: Cluster, samples: Samples) -> None:
    samples("a")
    ask = cluster.client.request
    listed = {one["name"]: one for one in ask("GET", "/apis/conformance.almanac.dev/v1").json()["resources"]}
    assert listed["samples"]["kind"] == "Sample"
    assert listed["samples"]["namespaced"] is True
    assert "watch" in listed["samples"]["verbs"]
    assert set(listed["samples/status"]["verbs"]) == {"get", "patch", "update"}
    groups = {one["name"]: one for one in ask("GET", "/apis").json()["groups"]}
    assert groups["batch"]["preferredVersion"]["groupVersion"] == "batch/v1"
    assert "v1" in ask("GET", "/api").json()["versions"]
    assert {"pods", "pods/log", "configmaps"} <= {one["name"] for one in ask("GET", "/api/v1").json()["resources"]}
    assert "apis/almanac.dev/v1alpha1" in ask("GET", "/openapi/v3").json()["paths"]
    assert ask("GET", "/version").json()["gitVersion"].startswith("v1.")
    assert ask("GET", "/readyz").text == "ok"
