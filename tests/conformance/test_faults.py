"""What can be made to go wrong, goes wrong that way: before the embedded API, and before a real one."""

import pytest
import requests

from kube import reviews
from kube.client import Client
from kube.cluster import Cluster
from kube.refusals import Refusal

CONFIG = {"metadata": {"name": "a"}}


@pytest.mark.parametrize(
    ("status", "reason"),
    [(409, "Conflict"), (410, "Expired"), (429, "TooManyRequests"), (500, "InternalError")],
)
def test_refusals(cluster: Cluster, status: int, reason: str) -> None:
    cluster.server.fault(method="POST", path="/configmaps$", status=status, retry_after=7, times=2)
    assert cluster.client.list("configmaps", labels="x") == []
    for _ in range(2):
        reply = cluster.client.request("POST", cluster.client.path("configmaps"), CONFIG)
        assert (reply.status_code, reply.json()["reason"], reply.headers["Retry-After"]) == (status, reason, "7")
    assert cluster.client.create("configmaps", CONFIG)


def test_a_right_that_is_missing_is_known_to_who_asks(cluster: Cluster) -> None:
    def allowed(verb: str) -> bool:
        about = {"verb": verb, "resource": "configmaps", "namespace": cluster.namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": about},
        }
        reply = cluster.client.request("POST", reviews.PATH, review)
        assert (reply.status_code, reply.json()["kind"]) == (201, "SelfSubjectAccessReview")
        found: bool = reply.json()["status"]["allowed"]
        return found

    assert [allowed(verb) for verb in ("list", "create", "delete")] == [True, True, True]
    cluster.server.fault(method="POST", path="/configmaps$", status=403, times=float("inf"))
    assert [allowed(verb) for verb in ("list", "create", "delete")] == [True, False, True]


def test_an_answer_that_is_lost(cluster: Cluster) -> None:
    cluster.server.fault(method="POST", path="/configmaps$", reset=True, late=True)
    with pytest.raises(requests.ConnectionError):
        cluster.client.create("configmaps", CONFIG)
    assert cluster.client.get("configmaps", "a")


def test_a_request_that_never_arrives(cluster: Cluster) -> None:
    cluster.server.fault(method="POST", path="/configmaps$", reset=True)
    with pytest.raises(requests.ConnectionError):
        cluster.client.create("configmaps", CONFIG)
    assert cluster.client.find("configmaps", "a") is None


def test_watches_that_end(cluster: Cluster) -> None:
    with cluster.client.watch("configmaps", labelSelector="x") as events:
        cluster.server.drop_watches()
        assert list(events) == []
    with cluster.client.watch("configmaps", labelSelector="x") as events:
        cluster.server.drop_watches(clean=False)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(events)


def test_watches_that_say_nothing(cluster: Cluster) -> None:
    with cluster.client.watch("configmaps", labelSelector="made=here") as events:
        with cluster.server.muted():
            cluster.client.create("configmaps", {"metadata": {"name": "a", "labels": {"made": "here"}}})
            reader = Client(cluster.url, cluster.namespace)
            assert reader.get("configmaps", "a")
        assert next(events)["object"]["metadata"]["name"] == "a"


def test_a_server_that_is_away_comes_back(cluster: Cluster) -> None:
    with cluster.client.watch("configmaps", labelSelector="x") as events:
        with cluster.server.away():
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                list(events)
            with pytest.raises(requests.ConnectionError):
                cluster.client.list("configmaps")
        assert cluster.client.list("configmaps", labels="x") == []


def test_requests_are_counted(cluster: Cluster) -> None:
    before = len(cluster.server.requests)
    cluster.client.create("configmaps", CONFIG)
    with pytest.raises(Refusal):
        cluster.client.get("configmaps", "b")
    made = [(one.method, one.path.rpartition("/")[2], one.agent) for one in cluster.server.requests[before:]]
    assert made == [("POST", "configmaps", "test"), ("GET", "b", "test")]
