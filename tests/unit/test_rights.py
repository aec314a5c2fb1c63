"""The rights that an operator needs: what is asked, and what is said of those that are missing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

import charts
from almanac.cluster import DRIVERS, JOBS, PODS, ApiError
from almanac.rights import Right, Rights, needed, told
from almanac.settings import Settings, from_environment
from tools import chart


class Api:
    """Allows everything but some verbs for some kinds, and all in some namespaces, and keeps what it was asked."""

    def __init__(self, *denied: tuple[str, str]) -> None:
        self.denied = {*denied}
        self.closed: set[str] = set()
        self.asked: list[Mapping[str, str]] = []
        self.forbidden = asyncio.Event()
        self.error: ApiError | None = None

    async def allows(self, attributes: Mapping[str, str]) -> bool:
        self.asked.append(attributes)
        if self.error is not None:
            raise self.error
        if attributes.get("namespace") in self.closed and attributes["resource"] != "leases":
            return False
        return (attributes["verb"], attributes["resource"]) not in self.denied


def checked(rights: Rights) -> tuple[Right, ...]:
    asyncio.run(rights.check())
    return rights.missing


def rights_of(api: Api, **settings: Any) -> Rights:
    return Rights(api, Settings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("namespaces", [[], ["finance", "sales"]], ids=["all", "some"])
def test_the_chart_grants_all_that_is_needed(namespaces: list[str]) -> None:
    """With all switched off that can be."""
    off = {"enabled": False}
    made = chart.render({"watch": {"namespaces": namespaces}, "spark": off, "dask": off})
    settings = from_environment(charts.environment(made["templates/deployment.yaml"]))
    granted = set()
    for one in made["templates/rbac.yaml"]:
        namespace = one["metadata"].get("namespace")
        for rule in one.get("rules", ()):
            for verb, name in ((verb, name) for verb in rule["verbs"] for name in rule.get("resourceNames", [""])):
                kinds = [f"{plural}.{group}".rstrip(".") for plural in rule["resources"] for group in rule["apiGroups"]]
                granted |= {(verb, kind, namespace, name) for kind in kinds}
    for right in needed(settings):
        plural = f"{right.resource.plural}/{right.subresource}" if right.subresource else right.resource.plural
        kind = f"{plural}.{right.resource.group}".rstrip(".")
        namespace = "almanac" if right.resource.plural == "leases" else right.namespace
        assert (right.verb, kind, namespace, right.name) in granted, right


def test_what_is_missing_is_said_in_one_line() -> None:
    jobs, places = JOBS["AnomalyJob"], ("finance", "sales")
    missing = [Right(verb, jobs, place) for place in places for verb in ("list", "watch")]
    missing += [Right("patch", jobs, "finance", "status"), Right("watch", PODS, None)]
    assert told(missing).startswith(
        "this operator may not list, watch anomalyjobs.almanac.dev in namespaces finance, sales; "
        "patch anomalyjobs.almanac.dev/status in namespace finance; watch pods in all namespaces: upgrade the chart"
    )


def test_many_namespaces_are_counted() -> None:
    missing = [Right("create", DRIVERS, f"team-{number}") for number in range(9)]
    named = "namespaces team-0, team-1, team-2, team-3, team-4 and 4 more"
    assert f"may not create jobs.batch in {named}: " in told(missing)


def test_it_is_said_once_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    api = Api(("watch", "pods"))
    rights = rights_of(api, namespaces=("finance",))
    for _ in range(3):
        assert checked(rights) == (Right("watch", PODS, "finance"),)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.ERROR
    api.denied.add(("list", "pods"))
    assert len(checked(rights)) == 2
    api.denied.clear()
    assert not checked(rights)
    assert [one.levelname for one in caplog.records] == ["ERROR", "ERROR", "INFO"]


def test_where_nothing_can_be_read() -> None:
    rights = rights_of(Api(("watch", "pods"), ("patch", "forecastjobs"), ("create", "jobs")), namespaces=("finance",))
    checked(rights)
    assert rights.blind(PODS.path("finance"))
    assert not rights.blind(PODS.path("sales"))
    assert not rights.blind(JOBS["ForecastJob"].path("finance"))
    assert not rights.blind(DRIVERS.path("finance"))


def test_a_namespace_without_any_right_is_no_obstacle_for_the_others(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    rights = rights_of(api, namespaces=("finance", "sales", "home"), lease="op", namespace="home")
    api.closed = {"sales", "home"}
    checked(rights)
    assert (rights.closed, rights.obstacle) == (("sales", "home"), "")
    assert "may do nothing in namespaces sales, home, and goes on with the others: create" in caplog.text
    assert rights.blind(PODS.path("sales"))
    assert not rights.blind(PODS.path("finance"))
    api.denied.add(("list", "pods"))
    checked(rights)
    assert rights.closed == ("sales", "home")
    assert rights.obstacle.startswith("this operator may not list pods in namespace finance: upgrade")
    api.closed = {"finance", "sales", "home"}
    checked(rights)
    assert rights.closed == ()
    assert "create jobs.batch in namespaces finance, sales, home" in rights.obstacle.replace(", patch, delete", "")


def test_no_lease_is_an_obstacle_wherever_it_is() -> None:
    api = Api(("update", "leases"))
    api.closed = {"home"}
    rights = rights_of(api, namespaces=("finance", "home"), lease="op", namespace="home")
    checked(rights)
    assert rights.closed == ("home",)
    assert rights.obstacle.startswith("this operator may not update leases.coordination.k8s.io in namespace home:")


def test_a_lease_is_asked_for_by_name_where_there_is_an_election() -> None:
    api = Api()
    checked(rights_of(api, lease="op", namespace="home"))
    asked = [one for one in api.asked if one["resource"] == "leases"]
    lease = {"resource": "leases", "group": "coordination.k8s.io", "namespace": "home"}
    assert asked == [
        {"verb": "create", **lease},
        {"verb": "get", **lease, "name": "op"},
        {"verb": "update", **lease, "name": "op"},
    ]
    assert not [right for right in needed(Settings(lease="")) if right.resource.plural == "leases"]


def test_of_all_namespaces_no_namespace_is_named() -> None:
    api = Api()
    checked(rights_of(api, lease=""))
    assert not [one for one in api.asked if "namespace" in one]


@pytest.mark.parametrize("code", [403, 404])
def test_an_api_that_does_not_say_is_asked_once(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """What is missing then shows where it is needed."""
    api = Api(("watch", "pods"))
    api.error = ApiError(code, "Forbidden", "you may not ask")
    rights = rights_of(api)
    assert not checked(rights)
    asked = len(api.asked)
    assert not checked(rights)
    assert len(api.asked) == asked
    assert "you may not ask" in caplog.text


def test_an_api_that_does_not_answer_says_nothing() -> None:
    """What was known stays so."""
    api = Api(("watch", "pods"))
    rights = rights_of(api)
    before = checked(rights)
    api.error = ApiError(503, "ServiceUnavailable", "later")
    with pytest.raises(ApiError, match="later"):
        checked(rights)
    assert rights.missing == before
