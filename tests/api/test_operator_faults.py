"""An operator whose API refuses, hangs up, falls silent and goes away: jobs come to the same end, once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from almanac import cluster as api
from almanac import handlers
from almanac.api import Phase
from kube.client import Client
from kube.cluster import Cluster, own_definitions
from kube.rest import Embedded
from kube.server import Server
from operators import Ledger, Operator

WRITES: dict[str, dict[str, Any]] = {
    "status": {"method": "PATCH", "path": "/status$"},
    "ConfigMap": {"method": "POST", "path": "/configmaps$"},
    "driver": {"method": "POST", "path": "/jobs$"},
    "event": {"method": "POST", "path": "/events$"},
    "suspension": {"method": "PATCH", "path": "/jobs/[^/]+$"},
    "deletion": {"method": "DELETE", "path": "/(jobs|configmaps)/[^/]+$"},
}
"""Every request with which an operator changes something."""
READS: dict[str, Any] = {"method": "GET", "path": ".", "times": 3}


def live(cluster: Cluster, ledger: Ledger) -> None:
    """A life with every kind of write: a run that is suspended and resumed, succeeds, and leaves nothing behind."""
    ledger.submit(ttlSecondsAfterFinished=0)
    ledger.go_through_all()
    cluster.wait(lambda: not ledger.drivers and not ledger.config_maps, "what the run has left to go")


def lived(ledger: Ledger) -> None:
    """All of that has happened once."""
    status = ledger.status
    assert (status["run"]["number"], status["run"]["attempts"]) == (1, 1)
    assert [one["reason"] for one in status["history"]] == ["Completed"]
    assert status["result"]["entities"] == 5
    ledger.until_events("Submitted", "Running", "Suspended", "Resumed", "Running", "Completed")


@pytest.mark.parametrize(
    ("fault", "writes"),
    [
        ({"status": 409}, ["status"]),  # nothing else is written over a version
        ({"status": 429, "retry_after": 1}, ["status", "driver"]),
        ({"status": 500}, WRITES),
        ({"status": 503}, WRITES),
        ({"status": 504, "late": True}, WRITES),
        ({"reset": True}, WRITES),
        ({"reset": True, "late": True}, WRITES),
    ],
    ids=["conflict", "too-many", "error", "unavailable", "timeout-after-all", "hang-up", "lost-answer"],
)
def test_each_write_fails_once(
    cluster: Cluster, operator: Operator, ledger: Ledger, fault: dict[str, Any], writes: Iterable[str]
) -> None:
    cluster.needs_controllers()
    faults = [cluster.server.fault(**WRITES[name], **fault) for name in writes]
    live(cluster, ledger)
    lived(ledger)
    assert not [one for one in faults if one.times]


@pytest.mark.parametrize("fault", [{"status": 429, "retry_after": 1}, {"status": 500}, {"reset": True}])
def test_reads_fail(cluster: Cluster, hasty: None, ledger: Ledger, fault: dict[str, Any]) -> None:
    """From the first request on."""
    cluster.needs_controllers()
    reads = cluster.server.fault(**READS, **fault, agent="almanac")
    with Operator(cluster):
        live(cluster, ledger)
        lived(ledger)
    assert not reads.times


def test_requests_that_nobody_answers(
    cluster: Cluster, operator: Operator, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.needs_controllers()
    monkeypatch.setattr(api, "TIMEOUT", 1.0)
    faults = [cluster.server.fault(**WRITES[name], delay=3) for name in ("status", "driver")]
    live(cluster, ledger)
    lived(ledger)
    assert not [one for one in faults if one.times]


@pytest.mark.parametrize("way", ["end", "break", "are-too-old", "come-back-without-a-server"])
def test_watches_end(cluster: Cluster, operator: Operator, ledger: Ledger, way: str) -> None:
    """And what happens until they are back is found."""
    cluster.needs_controllers()

    def interrupt() -> None:
        if way == "are-too-old":
            cluster.server.compact()
        if way == "come-back-without-a-server":
            with cluster.server.away():
                pass
        else:
            cluster.server.drop_watches(clean=way != "break")

    ledger.submit()
    pod = ledger.pod()
    interrupt()
    cluster.kubelet.run(pod)
    ledger.until(Phase.RUNNING, "Running")
    interrupt()
    cluster.client.delete("jobs", ledger.driver["metadata"]["name"])
    ledger.until(Phase.PENDING, "Recreated")
    ledger.run()
    interrupt()
    ledger.succeed()
    ledger.until(Phase.SUCCEEDED, "Completed")
    status = ledger.status
    assert (status["run"]["number"], status["run"]["attempts"]) == (1, 2)
    assert [one["reason"] for one in status["history"]] == ["Completed"]


def test_watches_fall_silent(cluster: Cluster, hasty: None, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are open and dead are given up after a while."""
    monkeypatch.setattr(handlers, "SILENCE", 1.0)
    with Operator(cluster):
        ledger.submit()
        pod = ledger.pod()
        cluster.server.freeze_watches()
        cluster.kubelet.run(pod)
        ledger.until(Phase.RUNNING, "Running")
        cluster.server.freeze_watches()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        ledger.until_events("Submitted", "Running", "Completed")


def test_health(cluster: Cluster, hasty: None, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose watches have heard nothing for too long is sick, although it runs and the API answers."""
    monkeypatch.setattr(handlers, "DEAD", 3.0)
    with Operator(cluster) as operator:
        cluster.wait(lambda: operator.ready and healthy(operator), "health")
        with cluster.server.muted():
            cluster.wait(lambda: not healthy(operator), "sickness")
            reply = operator.get("healthz")
            assert reply is not None
            assert "/forecastjobs has heard nothing for more than 3 s" in reply.text
            ledger.submit()
        ledger.run()
        cluster.wait(lambda: healthy(operator), "health")


def test_an_outage(cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
    ledger.submit()
    ledger.run()
    with cluster.server.away():
        cluster.wait(lambda: operator.ready, "the operator to go on")
    ledger.edit(restartNonce=1)
    cluster.wait(lambda: ledger.numbers == ["2"], "the second run alone")
    ledger.run()
    ledger.until_events("Submitted", "Running", "Replacing", "Submitted", "Running")


def test_an_operator_that_comes_before_its_api(cluster: Cluster, hasty: None, ledger: Ledger) -> None:
    ledger.submit()
    with cluster.server.away():
        operator = Operator(cluster)
        operator.start()
        assert not operator.ready
    try:
        cluster.wait(lambda: operator.ready, "the operator to be ready")
        ledger.run()
    finally:
        operator.stop()
    ledger.until_events("Submitted", "Running")


def test_an_operator_that_comes_before_its_kinds(hasty: None, tmp_path: Any) -> None:
    """Of the embedded API alone: a real one is not to lose what others use."""
    with Server(Embedded()) as server:
        cluster = Cluster(server, Client(server.url, "default"), tmp_path)
        with Operator(cluster) as operator:
            cluster.wait(lambda: any(one.path.endswith("/forecastjobs") for one in server.requests), "a look for jobs")
            assert not operator.ready
            for one in own_definitions():
                cluster.define(one)
            cluster.wait(lambda: operator.ready, "the operator to be ready")
            ledger = Ledger(cluster)
            ledger.submit()
            ledger.run()


def test_a_job_that_changes_while_it_is_looked_at(cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
    """A status is written over the version that it was decided on, or decided anew."""
    cluster.server.fault(**WRITES["status"], delay=0.5)
    ledger.submit(suspend=True)
    cluster.wait(lambda: any(one.method == "PATCH" for one in cluster.server.requests), "a write")
    ledger.edit(horizon=7)
    ledger.until(Phase.SUSPENDED, "Suspended")
    assert ledger.status["observedGeneration"] == 2
    ledger.until_events("Suspended")


def healthy(operator: Operator) -> bool:
    reply = operator.get("healthz")
    return reply is not None and reply.status_code == 200
