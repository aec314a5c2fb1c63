"""The Helm chart on a real API server: installed, upgraded, removed."""

from __future__ import annotations

from collections.abc import Iterator

import helm_python
import pytest

import charts
from almanac.api import GROUP
from almanac.crd import RESOURCES
from kube.cluster import Cluster
from manifests import document
from tools import chart
from tools.chart import CHART

DEFINITIONS = [f"{one.plural}.{GROUP}" for one in RESOURCES.values()]


@pytest.fixture
def helm(cluster: Cluster) -> Iterator[helm_python.Config]:
    """Helm, in the test's namespace, with the definitions handed over to it as docs/install.md says."""
    if not cluster.real:
        pytest.skip("the embedded API does not know all kinds that the chart makes")
    hand_over(cluster, "test", cluster.namespace)
    with helm_python.Config(kubeconfig_path=cluster.kubeconfig, namespace=cluster.namespace) as helm:
        yield helm
        helm.uninstall("test", ignore_not_found=True)
    hand_over(cluster, None, None)


def hand_over(cluster: Cluster, release: str | None, namespace: str | None) -> None:
    metadata = {
        "annotations": {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace},
        "labels": {"app.kubernetes.io/managed-by": "Helm" if release else None},
    }
    for name in DEFINITIONS:
        cluster.client.patch("customresourcedefinitions", name, {"metadata": metadata})


def test_a_life(cluster: Cluster, helm: helm_python.Config) -> None:
    """Definitions, and the jobs with them, outlive the release. All else goes."""
    values = {"watch": {"namespaces": [cluster.namespace]}, "networkPolicy": {"enabled": True}}
    helm.install(CHART, "test", values)
    assert cluster.client.get("deployments", "test-almanac-operator", version="apps/v1")["spec"]["replicas"] == 2
    cluster.client.create("forecastjobs", document())
    helm.upgrade(CHART, "test", values | {"replicas": 3, "networkPolicy": {"enabled": False}})
    assert cluster.client.get("deployments", "test-almanac-operator", version="apps/v1")["spec"]["replicas"] == 3
    assert not cluster.client.list("networkpolicies", version="networking.k8s.io/v1")
    helm.rollback("test", version=1)
    assert cluster.client.get("deployments", "test-almanac-operator", version="apps/v1")["spec"]["replicas"] == 2
    helm.uninstall("test")
    assert cluster.client.get("forecastjobs", "ledger")["spec"]["source"]
    for name in DEFINITIONS:
        assert "deletionTimestamp" not in cluster.client.get("customresourcedefinitions", name)["metadata"]
    for plural, version in (("deployments", "apps/v1"), ("roles", "rbac.authorization.k8s.io/v1"), ("services", "v1")):
        assert not cluster.client.list(plural, version=version), plural


@pytest.mark.parametrize("values", charts.VALUES.values(), ids=charts.VALUES)
def test_the_api_takes_all_of_it(cluster: Cluster, values: dict[str, object]) -> None:
    """With its schemas, defaults and admission; what only other programs define is left out."""
    if not cluster.real:
        pytest.skip("the embedded API does not know all kinds that the chart makes")
    spaces = {cluster.make_namespace() for _ in range(2)}
    for documents in chart.render(values, name="test", namespace=cluster.namespace).values():
        for one in documents:
            if one["kind"] in charts.CUSTOM:
                continue
            within = one["metadata"].get("namespace", cluster.namespace)
            if within != cluster.namespace:
                within = one["metadata"]["namespace"] = sorted(spaces)[within == "sales"]
            path = where(one, within)
            reply = cluster.client.request("POST", path, one, dryRun="All", fieldValidation="Strict")
            assert reply.ok or (reply.status_code == 409 and "CustomResourceDefinition" in one["kind"]), reply.text


def where(one: chart.Manifest, namespace: str) -> str:
    """The path at which an object is created."""
    version, kind = one["apiVersion"], one["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    everywhere = kind.startswith(("cluster", "customresource"))
    return f"{root}/{plural}" if everywhere else f"{root}/namespaces/{namespace}/{plural}"
