"""One look at a job, against a Kubernetes API, embedded and real: what it asks for, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from almanac import names
from almanac.api import Phase
from almanac.cluster import DRIVERS, JOBS, PODS, Cluster
from almanac.kubeconfig import Access
from almanac.metrics import Metrics
from almanac.reconciler import Reconciler
from almanac.settings import Settings
from almanac.store import Key, Store
from kube.cluster import Cluster as Api
from manifests import document

Raw = dict[str, Any]


class Operator:
    """The operator's reconciler, with a store that knows what it was told and no more."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.store = Store()
        self.key = Key("ForecastJob", api.namespace, "ledger")
        self.counted: list[str] = []

    def read(self) -> None:
        """Bring the store up to date."""

        async def read(cluster: Cluster) -> None:
            for resource in (*JOBS.values(), DRIVERS, PODS):
                async for page in cluster.list(resource, self.api.namespace):
                    for one in page["items"]:
                        self.store.put(one)

        asyncio.run(self._with(read))

    def look(self) -> list[str]:
        """Look at the job once; the requests that this took."""
        self.counted = []

        async def reconcile(cluster: Cluster) -> None:
            await Reconciler(cluster, self.store, Settings(image="x"), Metrics()).reconcile(self.key)

        asyncio.run(self._with(reconcile))
        return self.counted

    async def _with(self, question: Callable[[Cluster], Any]) -> None:
        count = lambda verb, code: self.counted.append(verb)  # noqa: E731
        async with Cluster(Access(self.api.url, self.api.namespace), counted=count) as cluster:
            await question(cluster)

    @property
    def job(self) -> Raw:
        return self.api.client.get("forecastjobs", "ledger")

    @property
    def told(self) -> tuple[str, str]:
        status = self.job["status"]
        (ready,) = [one for one in status["conditions"] if one["type"] == "Ready"]
        return status["phase"], ready["reason"]


@pytest.fixture
def operator(cluster: Api) -> Operator:
    """An operator, and a job that nobody has looked at."""
    cluster.client.create("forecastjobs", document())
    made = Operator(cluster)
    made.read()
    return made


def drivers(api: Api) -> list[Raw]:
    return api.client.list("jobs")


def test_a_new_job_takes_three_requests(operator: Operator) -> None:
    """It is put on record, and its ConfigMap and driver are created."""
    assert len(operator.look()) == 3
    assert operator.told == (Phase.PENDING, "Submitted")
    (driver,) = drivers(operator.api)
    assert driver["metadata"]["ownerReferences"][0]["uid"] == operator.job["metadata"]["uid"]
    operator.look()
    assert operator.look() == []


def test_a_run_that_is_on_record_and_has_no_driver_is_started_once_all_was_read(operator: Operator) -> None:
    operator.look()
    (driver,) = drivers(operator.api)
    operator.api.client.delete("jobs", driver["metadata"]["name"])
    operator.api.wait(lambda: not drivers(operator.api), "the driver to go")
    operator.store = Store()
    operator.read()
    operator.look()
    assert [one["metadata"]["name"] for one in drivers(operator.api)] == [driver["metadata"]["name"]]


def test_an_operator_with_an_old_job_does_nothing_but_read(operator: Operator) -> None:
    """It saw the run go on record, and nothing since: by now the run has failed, and its driver is gone."""
    operator.look()
    (driver,) = drivers(operator.api)
    old = Operator(operator.api)
    old.store.put(operator.job)
    status = operator.job["status"]
    ended = status | {"phase": "Failed", "run": status["run"] | {"endTime": "2026-11-21T02:15:00Z"}}
    operator.api.client.patch("forecastjobs", "ledger", {"status": ended}, sub="status")
    operator.api.client.delete("jobs", driver["metadata"]["name"])
    operator.api.wait(lambda: not drivers(operator.api), "the driver to go")
    old.look()
    assert not drivers(operator.api)


def test_a_job_of_somebody_else_that_has_the_drivers_name(operator: Operator) -> None:
    uid = operator.job["metadata"]["uid"]
    container = {"name": "x", "image": "x"}
    other = {
        "metadata": {"name": names.child_name("ledger", uid, 1)},
        "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    operator.api.client.create("jobs", other)
    operator.look()
    assert operator.told == (Phase.FAILED, "NameTaken")
    assert len(drivers(operator.api)) == 1
