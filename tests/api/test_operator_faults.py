"""An operator whose API refuses, hangs up, falls silent and goes away: jobs come to the same end, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from almanac import cluster as api
from almanac import handlers
from almanac.api import Phase
from almanac.handlers import WATCHED
from kube.client import Client
from kube.cluster import Cluster, own_definitions
from kube.faults import Fault
from kube.rest import Embedded
from kube.server import Server
from matrix import Group, Moment, cell
from operators import LIFE, MOMENTS, Ledger, Operator

WRITES: dict[str, dict[str, Any]] = {
    "status": {"method": "PATCH", "path": "/status$"},
    "ConfigMap": {"method": "POST", "path": "/configmaps$"},
    "driver": {"method": "POST", "path": "/jobs$"},
    "event": {"method": "POST", "path": "/events$"},
    "suspension": {"method": "PATCH", "path": "/jobs/[^/]+$"},
    "deletion": {"method": "DELETE", "path": "/(jobs|configmaps)/[^/]+$"},
}
"""Every request with which an operator changes something."""
AT: dict[Moment, tuple[str, ...]] = {
    Moment.BEFORE: ("status", "ConfigMap", "driver", "event"),
    Moment.WHILE: ("status", "suspension", "event"),
    Moment.PUBLISHING: ("status", "event"),
    Moment.AFTER: ("deletion",),
}
"""What it changes when."""
READS: dict[str, Any] = {"method": "GET", "path": ".", "times": 3}


AGAIN = "What was asked is asked again, and found done if it was: the run goes on, each event is told once."
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "conflict": ({"status": 409}, "The job is read anew, and its status decided anew: nothing is overwritten."),
    "too-many": (
        {"status": 429, "retry_after": 1},
        "The request waits as long as it is told to; the run goes on.",
    ),
    "error": ({"status": 500}, AGAIN),
    "unavailable": ({"status": 503}, AGAIN),
    "timeout-after-all": ({"status": 504, "late": True}, AGAIN),
    "hang-up": ({"reset": True}, AGAIN),
    "lost-answer": ({"reset": True, "late": True}, AGAIN),
}
"""How a write fails, and what comes of it."""
CALLED = {
    "conflict": "A status was changed by somebody else meanwhile (409)",
    "too-many": "The API server has too much to do (429, Retry-After)",
    "error": "The API server fails (500)",
    "unavailable": "The API server is not available (503)",
    "timeout-after-all": "The API server gives up waiting, and has written all the same (504)",
    "hang-up": "The connection breaks before a write",
    "lost-answer": "The connection breaks after a write: the answer is lost",
}


def failing_writes() -> Iterator[Any]:
    """Each way to fail at each moment."""
    for name, (fault, expected) in FAULTS.items():
        for moment, writes in AT.items():
            # nothing but a status is written over a version
            if chosen := [one for one in writes if name != "conflict" or one == "status"]:
                mark = cell(Group.API, CALLED[name], moment, expected)
                yield pytest.param(fault, moment, chosen, id=f"{name}-{moment.name.lower()}", marks=mark)


@pytest.mark.parametrize(("fault", "moment", "writes"), list(failing_writes()))
def test_each_write_fails_once(
    cluster: Cluster, operator: Operator, ledger: Ledger, fault: dict[str, Any], moment: Moment, writes: list[str]
) -> None:
    cluster.needs_controllers()
    faults: list[Fault] = []

    def arm() -> None:
        faults.extend(cluster.server.fault(**WRITES[name], **fault, agent="almanac") for name in writes)

    ledger.live({moment: arm})
    ledger.has_lived()
    assert not [one for one in faults if one.times]


@cell(Group.API, "The first reads fail (429, 500, hang-up)", Moment.BEFORE, "Nothing is decided before all was read.")
@pytest.mark.parametrize("fault", [{"status": 429, "retry_after": 1}, {"status": 500}, {"reset": True}])
def test_reads_fail(cluster: Cluster, hasty: None, ledger: Ledger, fault: dict[str, Any]) -> None:
    """From the first request on."""
    cluster.needs_controllers()
    reads = cluster.server.fault(**READS, **fault, agent="almanac")
    with Operator(cluster):
        ledger.live()
        ledger.has_lived()
    assert not reads.times


@cell(Group.API, "The API server takes a request and never answers", Moment.BEFORE, AGAIN)
def test_requests_that_nobody_answers(
    cluster: Cluster, operator: Operator, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.needs_controllers()
    monkeypatch.setattr(api, "TIMEOUT", 1.0)
    faults = [cluster.server.fault(**WRITES[name], delay=3) for name in ("status", "driver")]
    ledger.live()
    ledger.has_lived()
    assert not [one for one in faults if one.times]


SILENT = "A watch that hears not even a bookmark is given up and begun anew: what happened meanwhile is found."
FOUND = "The watch begins anew, and everything is compared: what happened meanwhile is found."


def ends_of_watches() -> Iterator[Any]:
    """Each way in which watches end, at each moment."""
    for way, fault in {
        "end": "Every watch ends",
        "break": "The connection of every watch breaks",
        "are-too-old": "Every watch is too old to go on (410: etcd was compacted)",
        "come-back-without-a-server": "The API server is away for a while",
    }.items():
        for moment in MOMENTS:
            yield pytest.param(
                way, moment, id=f"{way}-{moment.name.lower()}", marks=cell(Group.API, fault, moment, FOUND)
            )


def interrupt(server: Server, way: str) -> None:
    """End all watches."""
    if way == "come-back-without-a-server":
        with server.away():
            pass
        return
    if way == "are-too-old":
        server.compact()
    server.drop_watches(clean=way != "break")


@pytest.mark.parametrize(("way", "moment"), list(ends_of_watches()))
def test_watches_end_and_a_life_goes_on(
    cluster: Cluster, operator: Operator, ledger: Ledger, way: str, moment: Moment
) -> None:
    cluster.needs_controllers()
    ledger.live({moment: lambda: interrupt(cluster.server, way)})
    ledger.has_lived()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(
            one,
            id=one.name.lower(),
            marks=cell(
                Group.API,
                "The API server is away for five minutes",
                one,
                "The operator stays, and tries at least twice a minute; what happened meanwhile is found.",
            ),
        )
        for one in MOMENTS
    ],
)
def test_the_api_is_away_for_minutes(cluster: Cluster, operator: Operator, ledger: Ledger, moment: Moment) -> None:
    """Of the operator's time, which passes faster meanwhile."""
    cluster.needs_controllers()

    def watches() -> int:
        return sum(one.watch for one in cluster.server.requests)

    def leave() -> None:
        with operator.hurried(300) as over:
            with cluster.server.away():
                over()
            before = watches()
            cluster.wait(lambda: watches() >= before + len(WATCHED), "its watches to be back")

    ledger.live({moment: leave})
    ledger.has_lived()


@pytest.mark.parametrize("way", ["end", "break", "are-too-old", "come-back-without-a-server"])
def test_watches_end(cluster: Cluster, operator: Operator, ledger: Ledger, way: str) -> None:
    """And what happens until they are back is found."""
    cluster.needs_controllers()

    ledger.submit()
    pod = ledger.pod()
    interrupt(cluster.server, way)
    cluster.kubelet.run(pod)
    ledger.until(Phase.RUNNING, "Running")
    interrupt(cluster.server, way)
    cluster.client.delete("jobs", ledger.driver["metadata"]["name"])
    ledger.until(Phase.PENDING, "Recreated")
    ledger.run()
    interrupt(cluster.server, way)
    ledger.succeed()
    ledger.until(Phase.SUCCEEDED, "Completed")
    status = ledger.status
    assert (status["run"]["number"], status["run"]["attempts"]) == (1, 2)
    assert [one["reason"] for one in status["history"]] == ["Completed"]


@cell(Group.API, "Every watch stays open and falls silent", Moment.BEFORE, SILENT)
@cell(Group.API, "Every watch stays open and falls silent", Moment.WHILE, SILENT)
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


@cell(
    Group.API,
    "The watch of pods falls behind the others, and a run goes on after a suspension",
    Moment.WHILE,
    "What is there is read before it is said to run: it is told once, when its new pod does.",
)
def test_a_watch_falls_behind(cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
    """To the operator, the pod from before the suspension seems to run still."""
    cluster.needs_controllers()
    ledger.submit()
    ledger.run()
    cluster.server.freeze_watches("/pods$")
    ledger.edit(suspend=True)
    ledger.until(Phase.SUSPENDED, "Suspended")
    cluster.wait(lambda: not cluster.client.list("pods"), "the pod to go")
    ledger.edit(suspend=False)
    cluster.kubelet.waiting(ledger.pod())
    looks = operator.looks
    cluster.wait(lambda: operator.looks > looks, "a look at the job")
    assert ledger.told[:2] == (Phase.PENDING, "Resumed")
    cluster.server.drop_watches()
    ledger.run()
    ledger.until_events(*LIFE[:5])


@cell(
    Group.API,
    "Every watch is silent for longer than the limit",
    Moment.BEFORE,
    "/healthz says which and fails, so that the process is started again; nothing is lost of what came meanwhile.",
)
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


@cell(Group.API, "The job is changed after an outage", Moment.WHILE, "The first run is stopped, and one other begins.")
def test_an_outage(cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
    ledger.submit()
    ledger.run()
    with cluster.server.away():
        cluster.wait(lambda: operator.ready, "the operator to go on")
    ledger.edit(restartNonce=1)
    cluster.wait(lambda: ledger.numbers == ["2"], "the second run alone")
    ledger.run()
    ledger.until_events("Submitted", "Running", "Replacing", "Submitted", "Running")


@cell(
    Group.API, "The API server comes after the operator", Moment.BEFORE, "/readyz waits; then what is there is seen to."
)
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


@cell(
    Group.API,
    "The CustomResourceDefinitions come after the operator",
    Moment.BEFORE,
    "/readyz waits, the log says for what; then what is there is seen to.",
)
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


def test_an_event_that_is_under_way_when_the_operator_stops(
    cluster: Cluster, operator: Operator, ledger: Ledger
) -> None:
    fault = cluster.server.fault(**WRITES["event"], delay=60)
    ledger.submit()
    cluster.wait(lambda: not fault.times, "the event to be under way")
    operator.stop()
    ledger.until_events("Submitted")


@cell(
    Group.API,
    "The job is edited while it is looked at",
    Moment.BEFORE,
    "Its status is of the job as it is now.",
)
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
