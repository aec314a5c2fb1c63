"""Runs on Dask: a cluster of their own, which must be whole, may grow, and goes when nobody needs it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import goldens
import raw
from almanac import names
from almanac.api import Engine, Phase, Reason, Workers
from almanac.engines import COMPANIONS
from almanac.observed import Progress, Refusal, WorkerCounts
from world import World

Raw = dict[str, Any]


def on_dask(**spec: Any) -> World:
    """A job whose driver runs; of its cluster nothing is there yet."""
    world = World(engine="dask", **{"dask": {"workers": 2}, **spec})
    world.reconcile()
    world.pod(**raw.running())
    world.reconcile()
    return world


def whole(**spec: Any) -> World:
    """A job whose driver and cluster run."""
    world = on_dask(**spec)
    for name in ("scheduler", "worker-1", "worker-2"):
        world.dask_pod(name, **raw.ready())
    world.reconcile()
    return world


def said(world: World) -> Workers:
    assert world.status.workers is not None
    return world.status.workers


def message(world: World) -> str:
    return world.condition("Ready").message


def cluster(world: World) -> Raw | None:
    found = [one for (kind, _), one in world.companions.items() if kind == "DaskCluster"]
    return found[0] if found else None


class TestWorkers:
    """Scheduler and workers must all be there; the driver waits for them without an end."""

    def test_the_status_counts_those_that_answer(self) -> None:
        world = on_dask()
        assert (said(world).ready, said(world).wanted, said(world).running) == ("0/2", 2, 0)
        world.dask_pod("scheduler", **raw.ready())
        world.dask_pod("worker-1", **raw.ready())
        world.dask_pod("worker-2", **raw.running())
        world.reconcile()
        assert said(world).ready == "1/2"
        assert said(world).short_since is not None
        world.dask_pod("worker-2", **raw.ready())
        world.reconcile()
        assert (said(world).ready, said(world).short_since) == ("2/2", None)
        assert world.told == (Phase.RUNNING, "Running")

    @pytest.mark.parametrize(
        ("missing", "lack"),
        [
            ("scheduler", "the scheduler of its workers is not running"),
            ("worker-2", "only 1 of its 2 workers are running"),
        ],
    )
    def test_one_that_does_not_come_is_told_of_and_ends_the_run_in_time(self, missing: str, lack: str) -> None:
        world = whole(startDeadlineSeconds=120)
        world.dask_pod(missing, **raw.unschedulable("0/1 nodes are available: 1 Insufficient memory."))
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Unschedulable")
        assert message(world) == f"{lack}: 0/1 nodes are available: 1 Insufficient memory."
        world.wait(seconds=120)
        world.settle()
        assert world.told == (Phase.FAILED, "Unschedulable")
        assert message(world).startswith(f"{lack} after 120 s (spec.startDeadlineSeconds): 0/1 nodes")
        assert not world.drivers
        assert not world.companions

    def test_one_that_is_started_again_and_again_says_how_it_ended(self) -> None:
        world = whole(startDeadlineSeconds=120)
        again = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
        world.dask_pod("worker-1", **raw.restarted(137, "OOMKilled", 2, world.now, **again))
        world.reconcile()
        assert world.told == (Phase.RUNNING, "OOMKilled")
        told = "the worker needed more memory than its limit of 4Gi: raise spec.dask.memory"
        assert message(world) == f"only 1 of its 2 workers are running: {told}"
        assert said(world).failed == 2
        world.dask_pod("worker-1", **raw.restarted(137, "OOMKilled", 2, world.now, running={"startedAt": ""}))
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")
        assert said(world).message.endswith(told)
        name = world.driver_name
        for _ in range(3):
            world.exit(75, raw.failure("x", Reason.CLUSTER_UNAVAILABLE, "workers were lost again and again"))
        world.reconcile()
        assert message(world).endswith(f"(pod {name}-worker-1: OOMKilled: {told})")

    def test_one_that_was_evicted_is_not_waited_for(self) -> None:
        """A Deployment makes another one beside it."""
        world = whole()
        world.dask_pod("worker-1", phase="Failed", reason="Evicted", message="The node was low on memory.")
        world.dask_pod("worker-3", **raw.ready())
        world.reconcile()
        assert said(world).ready == "2/2"
        assert "Evicted: The node was low on memory." in said(world).message

    def test_those_of_another_run_are_none_of_this_one(self) -> None:
        world = on_dask()
        for name in ("scheduler", "worker-1", "worker-2"):
            world.dask_pod(name, **raw.ready())
        for one in world.workers.values():
            one["metadata"]["labels"] = one["metadata"]["labels"] | {names.RUN: "20000101-000000-000000"}
        world.reconcile()
        assert said(world).ready == "0/2"


class TestUnavailable:
    """Pods that are not there cannot say why: the DaskCluster may."""

    def patient(self, world: World) -> None:
        world.wait(seconds=30)
        world.reconcile()

    def test_no_operator_takes_the_cluster_up(self) -> None:
        world = on_dask(startDeadlineSeconds=120)
        assert world.told == (Phase.RUNNING, "Running")
        self.patient(world)
        assert world.told == (Phase.RUNNING, "DaskUnavailable")
        assert "nobody has taken up DaskCluster" in message(world)
        assert "docs/dask.md" in message(world)
        world.wait(seconds=90)
        world.settle()
        assert world.told == (Phase.FAILED, "DaskUnavailable")
        assert not world.companions

    def test_it_refuses_the_cluster(self) -> None:
        world = on_dask()
        world.dask = "Error"
        self.patient(world)
        assert world.told == (Phase.RUNNING, "DaskUnavailable")
        assert "refuses DaskCluster" in message(world)

    def test_nobody_may_create_its_pods(self) -> None:
        world = whole()
        del world.workers[f"{world.driver_name}-worker-2"]
        world.dask = "Running"
        world.reconcile()
        self.patient(world)
        assert world.told == (Phase.RUNNING, "WorkersRefused")
        refused = {"kind": "ReplicaSet", "metadata": {"name": "x", "uid": ""}}
        world.warn(refused, "FailedCreate", 'Error creating: pods "x" is forbidden: exceeded quota: small')
        world.warnings[-1]["involvedObject"]["uid"] = "uid-of-a-replica-set"
        world.wait(seconds=15)
        world.reconcile()
        assert world.told == (Phase.RUNNING, "QuotaExceeded")
        assert message(world).startswith("only 1 of its 2 workers are running: Error creating: pods")

    def test_a_cluster_that_somebody_deletes_is_created_again(self) -> None:
        world = whole()
        world.companions.pop(("DaskCluster", world.driver_name))
        world.workers.clear()
        world.reconcile()
        self.patient(world)
        assert world.told == (Phase.RUNNING, "Recreated")
        assert cluster(world) is not None
        assert len(world.created) == 1

    def test_a_kind_that_the_api_does_not_know(self) -> None:
        """As for every refusal, the run waits until it is too late: somebody may be installing it."""
        world = World(engine="dask", startDeadlineSeconds=120)
        world.refusal = Refusal("DaskUnavailable", "this cluster knows no DaskCluster: install it")
        world.settle()
        assert world.told == (Phase.PENDING, "DaskUnavailable")
        world.wait(seconds=120)
        world.settle()
        assert world.told == (Phase.FAILED, "DaskUnavailable")
        assert not world.created

    def test_one_that_cannot_be_created_again_says_why(self) -> None:
        world = whole()
        world.companions.pop(("DaskCluster", world.driver_name))
        world.workers.clear()
        world.reconcile()
        world.refusal = Refusal("Forbidden", "daskclusters is forbidden")
        self.patient(world)
        assert world.told == (Phase.RUNNING, "Forbidden")


class TestSize:
    """Between two bounds, the driver says how many workers it has use for."""

    def grown(self, wanted: int, before: World | None = None) -> World:
        world = before or whole(dask={"minimum": 2, "maximum": 5})
        world.progress = Progress("read", 1, 10, WorkerCounts(wanted, 0, 0))
        world.reconcile()
        return world

    def replicas(self, world: World) -> int:
        found = cluster(world)
        assert found is not None
        number: int = found["spec"]["worker"]["replicas"]
        return number

    @pytest.mark.parametrize(("wanted", "given"), [(4, 4), (9, 5), (0, 2)])
    def test_it_gets_them_within_the_bounds(self, wanted: int, given: int) -> None:
        world = self.grown(wanted)
        assert (self.replicas(world), said(world).wanted, said(world).ready) == (given, given, f"2/{given}")

    def test_the_fewest_are_enough_to_go_on_with(self) -> None:
        world = self.grown(5)
        world.wait(hours=1)
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")
        assert said(world).short_since is None

    def test_more_that_do_not_come_say_why(self) -> None:
        """The driver may wait for them: for how long is up to it."""
        world = self.grown(3)
        world.dask_pod("worker-3", **raw.unschedulable("0/1 nodes are available: 1 Insufficient cpu."))
        world.wait(hours=1)
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Unschedulable")
        assert message(world).startswith("only 2 of its 3 workers are running: 0/1 nodes")
        world.dask_pod("worker-3", **raw.ready())
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")

    def test_nothing_changes_their_number_but_its_word(self) -> None:
        """A change while a model is trained would cost what is done of it."""
        world = self.grown(4)
        world.progress = None
        world.reconcile()
        assert (self.replicas(world), said(world).wanted) == (4, 4)
        self.grown(3, world)
        assert self.replicas(world) == 3

    def test_a_fixed_number_stays(self) -> None:
        world = self.grown(4, whole())
        assert (self.replicas(world), said(world).ready) == (2, "2/2")


class TestEnd:
    """The cluster outlives its driver's pods, and nothing outlives the run."""

    def test_a_driver_that_is_started_again_finds_the_cluster(self) -> None:
        world = whole()
        before = cluster(world)
        world.exit(75, raw.failure("x", Reason.CLUSTER_UNAVAILABLE, "the scheduler is gone"))
        world.reconcile()
        assert cluster(world) == before is not None
        world.pod(**raw.running())
        world.reconcile()
        assert (world.told, said(world).ready) == ((Phase.RUNNING, "Running"), "2/2")

    def test_success_and_failure_remove_the_cluster_and_leave_what_tells_of_them(self) -> None:
        for code, phase in ((0, Phase.SUCCEEDED), (65, Phase.FAILED)):
            world = whole(ttlSecondsAfterFinished=300)
            world.exit(code)
            world.settle()
            assert world.status.phase is phase
            assert cluster(world) is None
            assert len(world.drivers) == 1
            world.wait(seconds=300)
            world.settle()
            assert not world.drivers
            assert not world.companions

    def test_a_job_that_is_suspended_has_no_cluster_until_it_goes_on(self) -> None:
        world = whole()
        world.edit(suspend=True)
        world.settle()
        assert cluster(world) is None
        assert world.driver["spec"]["suspend"]
        assert (said(world).ready, said(world).running) == ("", None)
        world.edit(suspend=False)
        world.settle()
        assert cluster(world) is not None
        assert not world.driver["spec"]["suspend"]
        assert len(world.created) == 1

    def test_an_edit_gives_the_new_run_a_cluster_of_its_own(self) -> None:
        world = whole()
        before = world.driver_name
        world.edit(dask={"workers": 3})
        world.settle()
        assert {name for _, name in world.companions} == {world.driver_name} != {before}
        found = cluster(world)
        assert found is not None
        assert found["spec"]["worker"]["replicas"] == 3

    def test_a_run_that_one_pod_cannot_hold_goes_on_with_dask(self) -> None:
        """Of each kind there is one engine of a cluster: that of anomalies is Dask."""
        world = World()
        world.job = anomalies()
        world.reconcile()
        world.pod(**raw.running())
        world.exit(79, raw.failure("x", Reason.TOO_BIG_FOR_LOCAL, "needs 12 GiB of 4 GiB"))
        world.settle()
        assert world.told == (Phase.PENDING, "Escalated")
        assert world.driver_name.endswith("-dask")
        assert {kind for kind, name in world.companions if name == world.driver_name} == set(COMPANIONS[Engine.DASK])

    def test_a_driver_that_gives_up_waiting_does_not_move_the_deadline(self) -> None:
        world = on_dask(startDeadlineSeconds=120)
        for name in ("scheduler", "worker-1", "worker-2"):
            world.dask_pod(name, **raw.unschedulable("no node"))
        world.reconcile()
        world.wait(seconds=100)
        world.exit(75)
        world.reconcile()
        assert said(world).ready == ""
        world.pod(**raw.running())
        due = world.reconcile()
        assert world.told == (Phase.RUNNING, "Unschedulable")
        assert due == world.now + timedelta(seconds=15)
        world.wait(seconds=20)
        world.reconcile()
        assert world.told == (Phase.FAILED, "Unschedulable")


def anomalies() -> Raw:
    """An AnomalyJob as the API has it."""
    made = goldens.document("anomaly")
    made["metadata"]["namespace"] = "default"
    return made
