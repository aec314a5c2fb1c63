"""One look at a job, against a Kubernetes API, embedded and real: what it asks for, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from almanac import names
from almanac.api import Phase
from almanac.cluster import DRIVERS, EVENTS, JOBS, PODS, ApiError, Cluster
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
    def message(self) -> str:
        (ready,) = [one for one in self.job["status"]["conditions"] if one["type"] == "Ready"]
        return str(ready["message"])

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


def test_what_kubernetes_refuses_is_told_in_the_jobs_own_words(cluster: Api) -> None:
    """A field that a pod does not have is not dropped in silence: it may be what somebody relies on."""
    cluster.client.create("forecastjobs", document(podTemplate={"spec": {"nodeSelectors": {"a": "b"}}}))
    operator = Operator(cluster)
    operator.read()
    if not cluster.real:  # the embedded API knows no pod's fields
        cluster.server.fault(method="POST", path="/jobs$", status=422)
    operator.look()
    assert operator.told == (Phase.FAILED, "InvalidSpec")
    (asked,) = [one for one in cluster.server.requests if one.method == "POST" and one.path.endswith("/jobs")]
    assert asked.query["fieldValidation"] == "Strict"
    assert not cluster.real or "spec.podTemplate.spec.nodeSelectors" in operator.message
    assert not drivers(cluster)


def test_a_job_too_large_for_its_driver(operator: Operator) -> None:
    operator.api.server.fault(method="POST", path="/jobs$", status=413)
    operator.look()
    assert operator.told == (Phase.FAILED, "TooLarge")


def test_a_job_that_leaves_no_room_for_a_status_gets_an_event_once(operator: Operator) -> None:
    operator.api.server.fault(method="PATCH", path="/status$", status=413, times=3)
    reconciler: list[Reconciler] = []

    async def look(cluster: Cluster) -> None:
        reconciler.append(Reconciler(cluster, operator.store, Settings(image="x"), Metrics()))
        for _ in range(3):
            with pytest.raises(ApiError):
                await reconciler[0].reconcile(operator.key)

    asyncio.run(operator._with(look))
    ((_, event),) = reconciler[0].outbox
    assert (event["reason"], event["type"]) == ("TooLarge", "Warning")
    assert not drivers(operator.api)


def test_what_an_event_says_fits(operator: Operator) -> None:
    """The API counts bytes."""
    operator.store.put_job(
        operator.job | {"spec": document(image="\u00e9" * 1025, source__uri="\U0001f600" * 600)["spec"]}
    )
    events: list[Raw] = []

    async def look(cluster: Cluster) -> None:
        reconciler = Reconciler(cluster, operator.store, Settings(image="x"), Metrics())
        await reconciler.reconcile(operator.key)
        events.extend(event for _, event in reconciler.outbox)
        for event in events:
            await cluster.post(EVENTS, operator.api.namespace, event)

    asyncio.run(operator._with(look))
    assert events


def test_a_status_that_names_what_is_not_the_jobs_own(operator: Operator) -> None:
    """Who may write a status cannot have the operator delete a ConfigMap with it."""
    operator.api.client.create("configmaps", {"metadata": {"name": "precious"}})
    run = {"id": "20261121-021500-3f9a2c", "number": 1, "driver": "precious", "specHash": "old", "attempts": 1}
    operator.api.client.patch("forecastjobs", "ledger", {"status": {"phase": "Running", "run": run}}, sub="status")
    operator.read()
    operator.look()
    operator.look()
    assert operator.api.client.find("configmaps", "precious")
    assert operator.told == (Phase.PENDING, "Submitted")
    assert len(drivers(operator.api)) == 1


def test_a_status_with_times_at_the_end_of_the_calendar(operator: Operator) -> None:
    operator.api.client.patch("forecastjobs", "ledger", {"spec": {"schedule": "@daily"}})
    status = {"nextScheduleTime": "0001-01-01T00:00:00Z", "run": {"id": "x", "startTime": "9999-12-31T23:59:59Z"}}
    operator.api.client.patch("forecastjobs", "ledger", {"status": status}, sub="status")
    operator.read()
    operator.look()
    assert operator.told == (Phase.PENDING, "Submitted")
