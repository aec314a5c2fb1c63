"""The operator among others, as a program, and with few rights: before a Kubernetes API, embedded and real."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import rights
from almanac import leader, process
from almanac.api import Phase
from almanac.leader import Timing
from kube.cluster import Cluster
from kube.faults import Fault
from kube.real import free_port
from matrix import Group, Moment, cell
from operators import Ledger, Operator

LEASE = "almanac-operator"
ONE_ACTS = "Names follow from job and run, and a status is written over the version that was read: one driver, one end."
TOLD = ("Submitted", "Running", "Completed")
"""What is told of a run that goes well."""
NEXT = "The next one finds what is on record and what is there, and goes on from that: nothing is done twice."
TAKEN_OVER = "The standby goes on from what is on record."


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Lease that is not renewed is free after a second or two."""
    monkeypatch.setattr(leader, "Timing", functools.partial(Timing, duration=2, deadline=1.0, interval=0.1))


class TestSeveral:
    """One acts, the others wait: see docs/operator.md."""

    @cell(Group.OPERATOR, "The leader is asked to stop", Moment.BEFORE, f"It lets go of the Lease. {TAKEN_OVER}")
    def test_a_standby_begins_when_the_leader_is_asked_to_stop(
        self, cluster: Cluster, hasty: None, impatient: None, ledger: Ledger
    ) -> None:
        with Operator(cluster, lease=LEASE, identity="a") as first:
            cluster.wait(lambda: first.leads, "the first operator to lead")
            with Operator(cluster, lease=LEASE, identity="b") as second:
                cluster.wait(lambda: second.ready, "the second operator to know what is there")
                ledger.submit()
                pod = ledger.pod()
                assert not second.leads
                first.stop()
                cluster.kubelet.run(pod)
                ledger.until(Phase.RUNNING, "Running")
                assert second.leads
        lease = cluster.client.get("leases", LEASE)["spec"]
        assert (lease.get("holderIdentity") or "", lease["leaseTransitions"]) == ("", 2)
        ledger.until_events("Submitted", "Running")

    def test_it_does_not_stay_for_all_that_is_still_to_be_told(
        self, cluster: Cluster, hasty: None, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There may be thousands of events: Kubernetes would kill it, with the Lease in its hand."""
        monkeypatch.setattr(process, "FAREWELL", 0.1)
        with Operator(cluster, lease=LEASE, identity="a") as operator:
            slow = Fault("POST", r"/events$", delay=5.0, times=float("inf"))
            with cluster.server.switches.during(slow):
                ledger.live()
                operator.stop()
        assert not cluster.client.get("leases", LEASE)["spec"].get("holderIdentity")
        ours = [one for one in cluster.client.list("events", version="v1") if one.get("reason") in TOLD]
        assert len(ours) < len(TOLD)

    @cell(Group.OPERATOR, "The leader has died", Moment.BEFORE, f"Its Lease runs out. {TAKEN_OVER}")
    def test_a_leader_that_died(self, cluster: Cluster, hasty: None, impatient: None, ledger: Ledger) -> None:
        """Its Lease is renewed no more: nobody waits for it."""
        dead = {"holderIdentity": "dead", "leaseDurationSeconds": 1, "renewTime": "2020-01-01T00:00:00.000000Z"}
        cluster.client.create("leases", {"metadata": {"name": LEASE}, "spec": dead})
        ledger.submit()
        with Operator(cluster, lease=LEASE, identity="b"):
            ledger.run()
            assert cluster.client.get("leases", LEASE)["spec"]["holderIdentity"] == "b"

    @cell(
        Group.OPERATOR,
        "The leader cannot renew its Lease",
        Moment.BEFORE,
        "It stops to act before another may begin, and goes on once it leads again.",
    )
    def test_a_leader_that_cannot_renew_its_lease_does_nothing(
        self, cluster: Cluster, hasty: None, impatient: None, ledger: Ledger
    ) -> None:
        with Operator(cluster, lease=LEASE, identity="a") as operator:
            cluster.wait(lambda: operator.leads, "the operator to lead")
            fault = cluster.server.fault(method="PUT", path="/leases/", status=500, times=float("inf"))
            cluster.wait(lambda: not operator.leads, "the operator to step down")
            ledger.submit()
            fault.times = 0
            cluster.wait(lambda: operator.leads, "the operator to lead again")
            ledger.run()
            requests = [one.path for one in cluster.server.requests if one.method in ("PUT", "POST", "PATCH")]
            last = max(number for number, path in enumerate(requests) if "/leases" not in path)
            assert last > min(number for number, path in enumerate(requests) if path.endswith("/status"))

    @cell(Group.OPERATOR, "Two operators act at once", Moment.BEFORE, ONE_ACTS)
    @cell(Group.OPERATOR, "Two operators act at once", Moment.WHILE, ONE_ACTS)
    @cell(Group.OPERATOR, "Two operators act at once", Moment.PUBLISHING, ONE_ACTS)
    @cell(Group.OPERATOR, "Two operators act at once", Moment.AFTER, ONE_ACTS)
    def test_two_that_act_at_once_do_no_harm(self, cluster: Cluster, hasty: None, ledger: Ledger) -> None:
        cluster.needs_controllers()
        with Operator(cluster), Operator(cluster):
            ledger.live()
        ledger.has_lived()


class TestProgram:
    """`almanac operator`."""

    @contextmanager
    def started(self, cluster: Cluster, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        environment = os.environ | {
            "KUBECONFIG": str(cluster.kubeconfig),
            "ALMANAC_NAMESPACE": cluster.namespace,
            "ALMANAC_METRICS_PORT": str(free_port()),
            "PYTHONPATH": os.pathsep.join(sys.path),
            **settings,
        }
        command = [sys.executable, "-c", "from almanac.cli import main; main()", "operator", "-n", cluster.namespace]
        log = cluster.folder / "operator.log"
        with log.open("ab") as to, subprocess.Popen(command, env=environment, stderr=to) as process:
            try:
                yield process
            finally:
                process.kill()

    @cell(Group.OPERATOR, "The operator is asked to stop (SIGTERM)", Moment.WHILE, "The run goes on without it.")
    def test_it_is_asked_to_stop(self, cluster: Cluster, ledger: Ledger) -> None:
        ledger.submit()
        with self.started(cluster) as process:
            ledger.run()
            process.terminate()
            assert process.wait(30) == 0
        assert not cluster.client.get("leases", LEASE)["spec"].get("holderIdentity")
        ledger.until_events("Submitted", "Running")

    @cell(Group.OPERATOR, "The operator is killed (SIGKILL)", Moment.BEFORE, NEXT)
    def test_it_is_killed(self, cluster: Cluster, ledger: Ledger) -> None:
        """Between the write that puts a run on record and the creation of its driver: the next one does that."""
        cluster.server.fault(method="POST", path="/jobs$", delay=60)
        ledger.submit()
        with self.started(cluster, ALMANAC_LEASE="") as process:
            cluster.wait(
                lambda: any(one.path.endswith("/jobs") for one in written(cluster)), "a driver to be asked for"
            )
            process.kill()
        assert ledger.status["run"]["number"] == 1
        assert not ledger.drivers
        with self.started(cluster, ALMANAC_LEASE=""):
            ledger.run()
        assert ledger.numbers == ["1"]
        assert ledger.status["run"]["attempts"] == 1


def test_roles_of_namespaces_alone(cluster: Cluster, hasty: None, ledger: Ledger) -> None:
    """The rights that the Helm chart grants for some namespaces: a whole life, and nothing refused."""
    cluster.needs_controllers()
    if not cluster.real:
        pytest.skip("the embedded API knows of no rights")
    home = cluster.make_namespace()
    rights.grant(cluster, rights.rendered(cluster, home))
    token = rights.issued(cluster, home)
    with Operator(cluster, token=token, namespace=home, lease=LEASE) as operator:
        ledger.live()
        ledger.has_lived()
        asked = [name for name in operator.metrics if name.startswith("almanac_api_requests_total")]
    assert not [name for name in asked if '"403"' in name or '"401"' in name]
    assert [name for name in asked if '"201"' in name]


def written(cluster: Cluster) -> list[Any]:
    """Requests that create something."""
    return [one for one in cluster.server.requests if one.method == "POST" and one.agent == "almanac"]
