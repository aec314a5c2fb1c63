"""Watches: what they tell, from when on, and how they end."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from kube.cluster import Cluster

Raw = dict[str, Any]
Samples = Callable[..., Raw]


def told(events: Iterator[Raw], count: int) -> list[tuple[str, str]]:
    return [(one["type"], one["object"]["metadata"].get("name", "")) for one in islice(events, count)]


def version(cluster: Cluster, plural: str = "samples") -> str:
    return str(cluster.client.request("GET", cluster.client.path(plural)).json()["metadata"]["resourceVersion"])


def test_every_change_is_told(cluster: Cluster, samples: Samples) -> None:
    samples("a")
    with cluster.client.watch("samples", resourceVersion=version(cluster)) as events:
        cluster.client.create("samples", samples("a"))
        cluster.client.patch("samples", "a", {"spec": {"horizon": 2}})
        cluster.client.patch("samples", "a", {"spec": {"horizon": 2}})
        cluster.client.patch("samples", "a", {"status": {"phase": "A"}}, sub="status")
        cluster.client.delete("samples", "a")
        assert told(events, 4) == [("ADDED", "a"), ("MODIFIED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_an_object_that_is_no_longer_selected_is_gone(cluster: Cluster, samples: Samples) -> None:
    cluster.client.create("samples", samples("a", {"labels": {"l": "1"}}))
    cluster.client.create("samples", samples("b", {"labels": {"l": "1"}}))
    with cluster.client.watch("samples", labelSelector="l=1", resourceVersion=version(cluster)) as events:
        cluster.client.patch("samples", "a", {"metadata": {"labels": {"l": "2"}}})
        cluster.client.patch("samples", "a", {"metadata": {"labels": {"l": "1"}}})
        cluster.client.patch("samples", "b", {"spec": {"low": 1}})
        cluster.client.delete("samples", "b")
        assert told(events, 4) == [("DELETED", "a"), ("ADDED", "a"), ("MODIFIED", "b"), ("DELETED", "b")]


def test_the_past_is_told_again(cluster: Cluster, samples: Samples) -> None:
    samples("a")
    begin = version(cluster)
    cluster.client.create("samples", samples("a"))
    cluster.client.delete("samples", "a")
    with cluster.client.watch("samples", resourceVersion=begin) as events:
        assert told(events, 2) == [("ADDED", "a"), ("DELETED", "a")]


def test_a_version_that_has_yet_to_come(cluster: Cluster, samples: Samples) -> None:
    """As after a restore from a backup: the watch is taken, and deaf until then."""
    future = int(version(cluster)) + 20
    with cluster.client.watch("samples", resourceVersion=str(future)) as events:
        for number in range(40):
            cluster.client.create("samples", samples(f"s{number}"))
        (first,) = islice(events, 1)
        assert first["type"] == "ADDED"
        assert first["object"]["metadata"]["name"] != "s0"
        assert int(first["object"]["metadata"]["resourceVersion"]) > future


@pytest.mark.parametrize("begin", [{}, {"resourceVersion": "0"}])
def test_without_a_version_what_is_there_comes_first(cluster: Cluster, samples: Samples, begin: Raw) -> None:
    for name in ("a", "b"):
        cluster.client.create("samples", samples(name))
    with cluster.client.watch("samples", **begin) as events:
        assert sorted(told(events, 2)) == [("ADDED", "a"), ("ADDED", "b")]
        cluster.client.delete("samples", "a")
        assert told(events, 1) == [("DELETED", "a")]


def test_the_end_of_what_is_there_is_marked(cluster: Cluster, samples: Samples) -> None:
    cluster.client.create("samples", samples("a"))
    whole = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    with cluster.client.watch("samples", **whole) as events:
        first, mark = islice(events, 2)
        assert (first["type"], mark["type"]) == ("ADDED", "BOOKMARK")
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_one_object(cluster: Cluster, samples: Samples) -> None:
    for name in ("a", "b"):
        cluster.client.create("samples", samples(name))
    with cluster.client.watch("samples", fieldSelector="metadata.name=b") as events:
        assert told(events, 1) == [("ADDED", "b")]


def test_all_namespaces(cluster: Cluster, samples: Samples) -> None:
    samples("a")
    begin, other = version(cluster), cluster.make_namespace()
    with cluster.client.watch("samples", namespace="", resourceVersion=begin) as events:
        cluster.client.create("samples", samples("far"), namespace=other)
        cluster.client.create("samples", samples("near"))
        assert told(events, 2) == [("ADDED", "far"), ("ADDED", "near")]


def test_a_watch_ends_when_its_time_is_over(cluster: Cluster) -> None:
    with cluster.client.watch("configmaps", labelSelector="none=here", timeoutSeconds="1") as events:
        assert list(events) == []


def test_a_version_that_is_forgotten(cluster: Cluster, samples: Samples) -> None:
    samples("a")
    begin = version(cluster)
    with cluster.client.watch("samples", resourceVersion=begin) as goes_on:
        cluster.server.compact()
        with cluster.client.watch("samples", resourceVersion=begin) as events:
            (error,) = events
        assert error["type"] == "ERROR"
        assert (error["object"]["code"], error["object"]["reason"]) == (410, "Expired")
        cluster.client.create("samples", samples("a"))
        assert told(goes_on, 1) == [("ADDED", "a")]
    with cluster.client.watch("samples", resourceVersion=version(cluster)) as events:
        cluster.client.delete("samples", "a")
        assert told(events, 1) == [("DELETED", "a")]


def test_a_version_that_etcd_has_forgotten(cluster: Cluster) -> None:
    """The first version is older than the kind itself, wherever a server may still know others of that time."""
    if not cluster.real:
        cluster.server.compact()
    with cluster.client.watch("forecastjobs", resourceVersion="1") as events:
        first = next(events)
    assert (first["type"], first["object"]["code"], first["object"]["reason"]) == ("ERROR", 410, "Expired")
