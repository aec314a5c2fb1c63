"""Accounts of operators, with the rights that the chart gives them, and which of them a test takes away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from kube import reviews
from kube.client import APPLY, Client
from kube.cluster import Cluster
from kube.faults import Fault
from kube.waiting import eventually
from tools import chart

Raw = dict[str, Any]

NAME = "almanac-operator"
"""The operator's service account, as the chart names it."""

RUNS = {"spark": {"enabled": False}, "dask": {"enabled": False}}
"""Values of the chart for runs in one pod alone."""


class Account:
    """A service account for an operator of a cluster's namespace, with the rights for runs in one pod alone.

    On a real API server these are the rules of the chart's Role. The embedded API knows of no rights: there, what the
    account may not do is refused to its token.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.home = cluster.make_namespace()
        self._objects = rendered(cluster, self.home, **RUNS)
        if cluster.real:
            grant(cluster, self._objects)
        self.token = self.another_token()

    def another_token(self) -> str:
        """A token as good as the account's first."""
        return issued(self._cluster, self.home) or uuid4().hex

    @contextmanager
    def without(self, *rights: str) -> Iterator[None]:
        """Lack rights while the block lasts, each a verb and what it is for: `patch forecastjobs/status`."""
        if not self._cluster.real:
            with refused(self._cluster, self.token, *rights):
                yield
            return
        taken = [_split(one) for one in rights]
        self._grant(taken, allowed=False)
        yield
        self._grant(taken, allowed=True)

    @contextmanager
    def closed(self, namespace: str) -> Iterator[None]:
        """Have no right in a further namespace while the block lasts, and those of the chart after it."""
        if self._cluster.real:
            yield
            watched = {"namespaces": [self._cluster.namespace, namespace]}
            grant(self._cluster, rendered(self._cluster, self.home, **RUNS, watch=watched))
            return
        faults = (
            Fault("", f"/namespaces/{namespace}/", status=403, times=float("inf"), token=self.token, watches=watches)
            for watches in (False, True)
        )
        with self._cluster.server.switches.during(*faults):
            yield

    def _grant(self, changed: Iterable[tuple[str, str]], *, allowed: bool) -> None:
        """Have the chart's rights, or those but for some, and wait until the API server goes by that."""
        cut = self._objects if allowed else [_less(one, set(changed)) for one in self._objects]
        grant(self._cluster, cut)
        client = Client(self._cluster.url, token=self.token)
        for verb, plural in changed:
            review = self._review(verb, plural)
            eventually(
                lambda review=review: (
                    client.request("POST", reviews.PATH, review).json()["status"]["allowed"] == allowed
                ),
                f"{verb} {plural} to be {'' if allowed else 'no longer '}allowed",
            )

    def _review(self, verb: str, plural: str) -> Raw:
        for rule in (rule for one in self._objects for rule in one.get("rules", ())):
            if plural in rule["resources"] and verb in rule["verbs"]:
                (group,) = rule["apiGroups"]
        kind, _, sub = plural.partition("/")
        of_lease = {"namespace": self.home, **({"name": NAME} if verb != "create" else {})}
        where = of_lease if kind == "leases" else {"namespace": self._cluster.namespace}
        asked = {"verb": verb, "group": group, "resource": kind, "subresource": sub, **where}
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }


@contextmanager
def refused(cluster: Cluster, token: str, *rights: str) -> Iterator[None]:
    """Refuse what would need these rights to who has this token, and tell who asks, while the block lasts."""

    def fault(verb: str, plural: str) -> Fault:
        kind, _, sub = plural.partition("/")
        named = "" if verb in ("list", "watch", "create") else "/[^/]+"
        path = f"/{kind}{named}{sub and f'/{sub}'}$"
        method = reviews.METHODS.get(verb, "GET")
        return Fault(method, path, status=403, times=float("inf"), token=token, watches=verb == "watch")

    with cluster.server.switches.during(*(fault(*_split(one)) for one in rights)):
        yield


def _split(right: str) -> tuple[str, str]:
    verb, _, plural = right.partition(" ")
    return verb, plural


def rendered(cluster: Cluster, home: str, **values: Any) -> list[Raw]:
    """What the chart grants an operator in `home` that watches the namespace of a cluster."""
    given = {"watch": {"namespaces": [cluster.namespace]}, "rbac": {"aggregate": False}, **values}
    return chart.render(given, namespace=home)["templates/rbac.yaml"]


def grant(cluster: Cluster, objects: Iterable[Raw]) -> None:
    """Grant what a chart grants, and no more where more was granted before."""
    for one in objects:
        place = f"namespaces/{one['metadata']['namespace']}/{one['kind'].lower()}s/{one['metadata']['name']}"
        path = f"/apis/rbac.authorization.k8s.io/v1/{place}"
        cluster.client.request("PATCH", path, one, APPLY, fieldManager="helm", force="true").raise_for_status()


def issued(cluster: Cluster, home: str) -> str:
    """A token of the operator's service account in a namespace; none where rights are not known of."""
    if not cluster.real:
        return ""
    if cluster.client.find("serviceaccounts", NAME, namespace=home) is None:
        cluster.client.create("serviceaccounts", {"metadata": {"name": NAME}}, namespace=home)
    path = f"/api/v1/namespaces/{home}/serviceaccounts/{NAME}/token"
    reply = cluster.client.request("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"})
    reply.raise_for_status()
    token: str = reply.json()["status"]["token"]
    return token


def _less(one: Raw, taken: set[tuple[str, str]]) -> Raw:
    """A Role without some verbs."""
    if "rules" not in one:
        return one
    rules = []
    for rule in one["rules"]:
        for plural in rule["resources"]:
            verbs = [verb for verb in rule["verbs"] if (verb, plural) not in taken]
            if verbs:
                rules.append(rule | {"resources": [plural], "verbs": verbs})
    return one | {"rules": rules}
