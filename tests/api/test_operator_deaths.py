"""An operator that dies, stands still, or whose clock is wrong, at each moment of a run: the run has its one end."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any

import pytest

from almanac import leader, process, reconciler
from almanac.api import Phase
from almanac.leader import Timing
from kube.cluster import Cluster
from kube.waiting import eventually
from matrix import Group, Moment, cell
from operators import LIFE, MOMENTS, Ledger, Operator

LEASE = "almanac-operator"
REQUESTS: dict[Moment, dict[str, Any]] = {
    Moment.BEFORE: {"method": "POST", "path": "/jobs$"},
    Moment.WHILE: {"method": "PATCH", "path": "/jobs/[^/]+$"},
    Moment.PUBLISHING: {"method": "PATCH", "path": "/forecastjobs/[^/]+/status$"},
    Moment.AFTER: {"method": "DELETE", "path": "/(jobs|configmaps)/[^/]+$"},
}
"""A request in the middle of what an operator has to do at a moment."""
NEXT = "The next one finds what is on record and what is there, and goes on from that: nothing is done twice."


YEAR = timedelta(days=400)
"""More than a year."""


@pytest.mark.parametrize("done", [False, True], ids=["unsent", "done"])
@pytest.mark.parametrize(
    "moment",
    [pytest.param(one, id=one.name, marks=cell(Group.OPERATOR, "The operator dies", one, NEXT)) for one in MOMENTS],
)
def test_it_dies(cluster: Cluster, hasty: None, ledger: Ledger, moment: Moment, done: bool) -> None:
    """In the middle of a request: the API has carried it out and says so to nobody, or has not begun."""
    cluster.needs_controllers()
    second = Operator(cluster)
    with ExitStack() as stack:
        stack.callback(second.stop)
        first = stack.enter_context(Operator(cluster))
        aside = stack.enter_context(ThreadPoolExecutor())
        ends = []

        def doom() -> None:
            fault = cluster.server.fault(**REQUESTS[moment], agent="almanac", late=done, delay=60)

            def replace() -> None:
                eventually(lambda: not fault.times, "the request that it dies of")
                first.die()
                second.start()

            ends.append(aside.submit(replace))

        ledger.live({moment: doom})
        ends[0].result()
        ledger.has_ended()
        told = Counter(ledger.events)  # it may take events with it
        assert told <= Counter(LIFE), told


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(one, id=one.name, marks=cell(Group.OPERATOR, "The operator is started anew", one, NEXT))
        for one in MOMENTS
    ],
)
def test_it_is_started_anew(cluster: Cluster, operator: Operator, ledger: Ledger, moment: Moment) -> None:
    cluster.needs_controllers()

    def anew() -> None:
        operator.stop()
        operator.start()

    ledger.live({moment: anew})
    ledger.has_lived()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(
            one,
            id=one.name,
            marks=cell(
                Group.OPERATOR,
                "The leader stands still (SIGSTOP, a machine asleep) until another leads, and wakes up",
                one,
                "The other one goes on. What the first still wants to write is of an old version, and refused.",
            ),
        )
        for one in MOMENTS
    ],
)
def test_it_stands_still(
    cluster: Cluster, hasty: None, ledger: Ledger, moment: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.needs_controllers()
    monkeypatch.setattr(leader, "Timing", functools.partial(Timing, duration=1, deadline=0.5, interval=0.1))
    seen = threading.Event()
    with Operator(cluster, lease=LEASE, identity="a") as first, ExitStack() as asleep:
        cluster.wait(lambda: first.leads, "the first operator to lead")
        with Operator(cluster, lease=LEASE, identity="b") as second:
            cluster.wait(lambda: second.ready, "the second operator to know what is there")

            def sleep() -> None:
                cluster.wait(lambda: first.leads, "the first operator to lead")
                asleep.enter_context(first.paused())
                threading.Thread(target=wake, daemon=True).start()

            def wake() -> None:
                eventually(lambda: second.leads, "the second operator to lead")
                asleep.close()
                eventually(lambda: not first.leads, "the first operator to see that it leads no more")
                seen.set()  # it may lead again later: Leases are this short for the test alone

            ledger.live({moment: sleep})
            assert seen.wait(60)
        ledger.has_lived()


class Clock:
    """The operator's clock. That of Kubernetes is another."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(process, "CLOCK_EVERY", 0.05)
        self._patch = patch
        self._set(timedelta())

    def jump(self, by: timedelta) -> None:
        """From now on it is so much fast, and an operator that runs has noticed."""
        assert self._set(by).wait(60)

    def set_right(self) -> None:
        """It is right again."""
        self.jump(timedelta())

    def _set(self, by: timedelta) -> threading.Event:
        looked = threading.Event()

        class Fast(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + by

        def offset() -> float:
            looked.set()
            return by.total_seconds()

        self._patch.setattr(reconciler, "datetime", Fast)
        self._patch.setattr(process, "clock_offset", offset)
        return looked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, hasty: None) -> Clock:
    """The clock of operators that are started from now on."""
    return Clock(monkeypatch)


FORWARD, BACK = "The operator's clock jumps forward", "The operator's clock jumps back, and is set right"
NOTHING = "Nothing is started or given up for it. The Lease knows no clock."


class TestClock:
    """By 400 days."""

    @cell(Group.OPERATOR, FORWARD, Moment.WHILE, NOTHING)
    @cell(Group.OPERATOR, FORWARD, Moment.PUBLISHING, NOTHING)
    def test_forward(self, cluster: Cluster, clock: Clock, ledger: Ledger) -> None:
        with Operator(cluster) as operator:
            ledger.submit()
            ledger.run()
            looks = operator.looks
            clock.jump(YEAR)
            cluster.wait(lambda: operator.looks > looks, "another look at the job")
            assert ledger.told[:2] == (Phase.RUNNING, "Running")
            operator.stop()
            ledger.succeed()
            operator.start()
            clock.jump(2 * YEAR)
            ledger.until(Phase.SUCCEEDED, "Completed")
            ledger.until_events("Submitted", "Running", "Completed")

    @cell(
        Group.OPERATOR,
        FORWARD,
        Moment.BEFORE,
        "The start deadline has passed by that clock: the run fails and says so, its driver goes. A restart runs it.",
    )
    def test_forward_past_the_start_deadline(self, cluster: Cluster, clock: Clock, ledger: Ledger) -> None:
        with Operator(cluster):
            ledger.submit()
            ledger.pod()
            clock.jump(YEAR)
            ledger.until(Phase.FAILED, "StartDeadlineExceeded")
            cluster.wait(lambda: not ledger.drivers, "the driver to go")
            clock.set_right()
            ledger.edit(restartNonce=1)
            ledger.run()

    @cell(
        Group.OPERATOR,
        FORWARD,
        Moment.AFTER,
        "What is due by it is done at once, also where a machine was asleep: what a run has left goes.",
    )
    def test_forward_past_the_time_to_live(self, cluster: Cluster, clock: Clock, ledger: Ledger) -> None:
        with Operator(cluster):
            ledger.submit(ttlSecondsAfterFinished=3600)
            ledger.run()
            ledger.succeed()
            ledger.until(Phase.SUCCEEDED, "Completed")
            assert ledger.numbers == ["1"]
            clock.jump(YEAR)
            cluster.wait(lambda: not ledger.drivers and not ledger.config_maps, "what the run has left to go")
            assert ledger.told[:2] == (Phase.SUCCEEDED, "Completed")

    @pytest.mark.parametrize(
        ("moment", "right"),
        [
            pytest.param(one, right, id=one.name, marks=cell(Group.OPERATOR, BACK, one, NOTHING))
            for one, right in pairwise((Moment.BEFORE, Moment.WHILE, Moment.PUBLISHING, Moment.AFTER))
        ],
    )
    def test_back(self, cluster: Cluster, clock: Clock, ledger: Ledger, moment: Moment, right: Moment) -> None:
        cluster.needs_controllers()
        with Operator(cluster):
            ledger.live({moment: lambda: clock.jump(-YEAR), right: clock.set_right})
            ledger.has_ended()
            cluster.wait(lambda: sorted(ledger.events) == sorted(LIFE), "all events, dated as the clock was")

    @cell(Group.OPERATOR, BACK, Moment.AFTER, "What a run has left goes once the clock is right again.")
    def test_back_before_the_time_to_live(self, cluster: Cluster, clock: Clock, ledger: Ledger) -> None:
        with Operator(cluster):
            ledger.submit()
            ledger.run()
            ledger.succeed()
            ledger.until(Phase.SUCCEEDED, "Completed")
            clock.jump(-YEAR)
            ledger.edit(ttlSecondsAfterFinished=0)
            ledger.until(Phase.SUCCEEDED, "Completed")
            assert ledger.numbers == ["1"]
            clock.set_right()
            cluster.wait(lambda: not ledger.drivers and not ledger.config_maps, "what the run has left to go")
