"""A cluster whose state is put back to what it was some time ago: before a Kubernetes API, embedded and real."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import manifests
from almanac import leader, process
from almanac.api import Phase
from almanac.leader import Timing
from kube.cluster import Cluster, embedded
from kube.real import ControlPlane, own, real
from matrix import Group, Moment, cell
from operators import Ledger, Operator

LEASE = "almanac-operator"
FAULT = "The cluster is restored from a backup of etcd"
READ = "Leader and standby read all anew. The run goes on as the backup has it: with its driver, once, and to its end."


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with own(tmp_path_factory.mktemp("own-control-plane")) as started:
        yield started


@pytest.fixture(params=["embedded", "real"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that nobody else uses."""
    with ExitStack() as stack:
        if request.param == "embedded":
            yield stack.enter_context(embedded(tmp_path))
        else:
            started: ControlPlane = request.getfixturevalue("plane")
            made = stack.enter_context(real(started.access, started.controlled, tmp_path))
            made.keeper = started.back_up
            yield made


@pytest.fixture(autouse=True)
def at_once(hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lease and store are compared with the cluster every moment."""
    monkeypatch.setattr(leader, "Timing", functools.partial(Timing, duration=2, deadline=1.0, interval=0.1))


def named(cluster: Cluster, name: str) -> Ledger:
    def make(**spec: Any) -> dict[str, Any]:
        return manifests.document(**spec) | {"metadata": {"name": name}}

    return Ledger(cluster, make)


@cell(Group.API, FAULT, Moment.BEFORE, "What the backup has not is done again, under the same names.")
@cell(Group.API, FAULT, Moment.WHILE, READ)
@cell(Group.API, FAULT, Moment.PUBLISHING, "What its driver reports once more is the run's end, and told once.")
@cell(Group.API, FAULT, Moment.AFTER, "Later runs are forgotten, and can be asked for again.")
@pytest.mark.parametrize("ahead", [False, True], ids=["versions go back", "versions jump ahead"])
def test_a_restore(cluster: Cluster, ahead: bool, caplog: pytest.LogCaptureFixture) -> None:
    """With an operator that leads, and one that stands by."""
    cluster.needs_controllers()
    unmade, starting, running, still, deleted, over, new = (
        named(cluster, one) for one in ("unmade", "starting", "running", "still", "deleted", "over", "new")
    )
    with Operator(cluster, lease=LEASE, identity="a") as first:
        cluster.wait(lambda: first.leads, "the first operator to lead")
        with Operator(cluster, lease=LEASE, identity="b") as second:
            cluster.wait(lambda: second.ready, "the second operator to know what is there")
            for one in (starting, running, still, deleted, over):
                one.submit()
            cluster.kubelet.waiting(starting.pod())
            for one in (running, still, deleted, over):
                one.run()
            over.succeed()
            over.until(Phase.SUCCEEDED, "Completed")
            starting.until_events("Submitted")
            for one in (running, still, deleted):
                one.until_events("Submitted", "Running")
            refusal = cluster.server.fault(method="POST", path="/jobs$", status=500, times=float("inf"))
            unmade.submit()
            cluster.wait(lambda: "run" in unmade.status, "the run to be on record")
            before = {one: one.status["run"]["id"] for one in (unmade, starting, running, still, deleted, over)}
            restore = cluster.back_up()

            refusal.times = 0
            for one in (unmade, starting, running):
                if one is not running:
                    one.run()
                one.succeed()
                one.until(Phase.SUCCEEDED, "Completed")
                one.until_events("Submitted", "Running", "Completed")
            deleted.delete()
            over.edit(restartNonce=1)
            over.run()
            new.submit()
            new.run()
            restore(ahead)

            cluster.wait(lambda: caplog.text.count("the cluster is older than it was") == 2, "both to read all anew")
            cluster.wait(lambda: first.ready and second.ready, "both to be ready again")
            new.submit()
            for one in (unmade, starting, new):
                one.run()
            for one in (unmade, starting, running, still, deleted, new):
                one.succeed()
                one.until(Phase.SUCCEEDED, "Completed")
                one.has_ended()
            assert over.told[:2] == (Phase.SUCCEEDED, "Completed")
            assert {one: one.status["run"]["id"] for one in before} == before
            over.edit(restartNonce=1)
            over.run()
            assert over.numbers == ["1", "2"]
            for one in (starting, running, still, deleted, new):
                one.until_events("Submitted", "Running", "Completed")


@pytest.mark.parametrize("cluster", ["embedded"], indirect=True)
@pytest.mark.parametrize("ahead", [False, True], ids=["versions go back", "versions jump ahead"])
def test_without_an_election(
    cluster: Cluster, ahead: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is listed tells it, when store and cluster are compared. The process goes on for as long as it likes."""
    monkeypatch.setattr(process, "RESYNC", 0.5)
    killed: list[int] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda _, number: killed.append(number))
    changed, later = (named(cluster, one) for one in ("changed", "later"))
    with Operator(cluster) as operator:
        cluster.wait(lambda: operator.ready, "the operator to be ready")
        changed.submit(suspend=True)
        changed.until(Phase.SUSPENDED, "Suspended")
        restore = cluster.back_up()
        changed.edit(suspend=False)
        changed.run()
        restore(ahead)
        cluster.wait(lambda: "the cluster is older than it was" in caplog.text, "all to be read anew")
        later.submit()
        later.run()
        assert changed.told[:2] == (Phase.SUSPENDED, "Suspended")
        with operator.hurried(1200, pace=600) as over:
            over()
    assert not killed
