"""Anything may happen to a job in any order, and the operator may die after any request: the laws hold all the same."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import raw
from almanac import names
from almanac.api import ConditionStatus, Engine, JobError, Phase, Reason
from almanac.conditions import HOLD, TYPES
from almanac.observed import Refusal
from almanac.resource import read_job
from almanac.runs import REPLACED
from world import Crash, View, World, ended

SPEC = {"schedule": "0 3 * * *", "startDeadlineSeconds": 600, "backoffLimit": 1, "ttlSecondsAfterFinished": 300}

STUCK: list[dict[str, Any]] = [
    raw.waiting("ImagePullBackOff", "no such image"),
    raw.waiting("CreateContainerConfigError", 'secret "x" not found'),
    raw.waiting("ContainerCreating"),
    {"conditions": [raw.condition("PodScheduled", "Unschedulable", "0/3 nodes", "False")]},
]
REASONS = {
    65: Reason.DATA_ERROR,
    75: Reason.STORAGE_UNAVAILABLE,
    77: Reason.ACCESS_DENIED,
    79: Reason.TOO_BIG_FOR_LOCAL,
    130: Reason.INTERRUPTED,
}

HALTED = ((Phase.SUSPENDED, "Suspended"), (Phase.PENDING, "Resumed"))
"""Phase and reason of a job whose run waits to go on."""


class Life(RuleBasedStateMachine):
    """What users, Kubernetes and the operator do to one job."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(**SPEC)
        self.views: list[View] = []
        self.recorded: set[int] = set()
        """Numbers of runs whose end is on record."""
        self.given_up: set[int] = set()
        """Numbers of runs that were given up for another one."""
        self.deleted: list[str] = []
        """Names of drivers that somebody else has deleted."""

    @initialize(suspend=st.booleans(), spark=st.booleans(), engine=st.sampled_from(["auto", "dask"]))
    def begin(self, suspend: bool, spark: bool, engine: str) -> None:
        self.world.edit(engine=engine)
        if suspend:
            self.world.edit(suspend=True)
        if spark:
            self.world.engines = frozenset({Engine.LOCAL, Engine.SPARK, Engine.DASK})

    # The operator.

    @rule()
    def reconcile(self) -> None:
        self.world.reconcile()
        self.check_status()
        self.check_rest()

    @rule(after=st.integers(0, 5))
    def reconcile_and_die(self, after: int) -> None:
        try:
            self.world.reconcile(crash_after=after)
        except Crash:
            return
        self.check_status()

    @rule()
    def stop_watching(self) -> None:
        """A second operator sees no more of jobs from here on, or no more of their drivers."""
        self.views = [*self.views[-3:], self.world.view()]

    @precondition(lambda self: self.views)
    @rule(data=st.data(), what=st.sampled_from(["jobs", "drivers", "both"]))
    def reconcile_late(self, data: st.DataObject, what: str) -> None:
        view, now = data.draw(st.sampled_from(self.views)), self.world.view()
        if what == "jobs":
            now.job = view.job
        elif what == "drivers":
            now.seen = view.seen
        before = self.world.told if self.world.status.conditions else ("", "")
        self.world.reconcile_late(view if what == "both" else now)
        if before in HALTED and self.world.status.phase is Phase.RUNNING:
            assert runs(self.world), "what is gone does not make a run go on"

    # Users.

    @rule(horizon=st.integers(5, 8))
    def edit(self, horizon: int) -> None:
        self.world.edit(horizon=horizon)

    @rule()
    def spoil(self) -> None:
        self.world.edit(horizon=-1)

    @rule()
    def restart(self) -> None:
        self.world.edit(restartNonce=self.world.job["spec"].get("restartNonce", 0) + 1)

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.world.edit(suspend=suspend)

    @rule(
        schedule=st.sampled_from(["", "0 3 * * *", "*/30 * * * *"]),
        policy=st.sampled_from(["Forbid", "Replace"]),
        within=st.sampled_from([60, 100_000]),
    )
    def reschedule(self, schedule: str, policy: str, within: int) -> None:
        self.world.edit(schedule=schedule, concurrencyPolicy=policy, startingDeadlineSeconds=within)

    @rule(ttl=st.sampled_from([0, 300]))
    def keep(self, ttl: int) -> None:
        self.world.edit(ttlSecondsAfterFinished=ttl)

    @precondition(lambda self: self.world.drivers)
    @rule(data=st.data())
    def delete_a_driver(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.drivers)))
        self.deleted.append(name)
        self.world.delete_driver(name)

    @precondition(lambda self: self.world.pods)
    @rule(data=st.data())
    def delete_a_pod(self, data: st.DataObject) -> None:
        del self.world.pods[data.draw(st.sampled_from(sorted(self.world.pods)))]

    @rule()
    def lose_the_status_of_conditions(self) -> None:
        self.world.job.get("status", {}).pop("conditions", None)

    # Kubernetes.

    @rule()
    def sync(self) -> None:
        self.world.sync()

    @rule(minutes=st.sampled_from([0.1, 5, 11, 60, 60 * 24]))
    def wait(self, minutes: float) -> None:
        self.world.wait(minutes=minutes)

    @rule(refuse=st.booleans())
    def refuse(self, refuse: bool) -> None:
        self.world.refusal = Refusal("Forbidden", "exceeded quota") if refuse else None

    @precondition(lambda self: self.world.pods)
    @rule(data=st.data(), status=st.sampled_from([raw.running(), *STUCK]))
    def change_a_pod(self, data: st.DataObject, status: dict[str, Any]) -> None:
        self._pod(data, status)

    @precondition(lambda self: self.world.pods)
    @rule(data=st.data(), code=st.sampled_from([0, 0, 1, 65, 75, 77, 79, 130, 137]), report=st.booleans())
    def end_a_pod(self, data: st.DataObject, code: int, report: bool) -> None:
        message = ""
        if report:
            message = (
                raw.success("x") if code == 0 else raw.failure("x", REASONS.get(code, Reason.INTERNAL_ERROR), "so")
            )
        self._pod(data, raw.terminated(code, message, "OOMKilled" if code == 137 else "Error", self.world.now))

    def _pod(self, data: st.DataObject, status: dict[str, Any]) -> None:
        pod = self.world.pods[data.draw(st.sampled_from(sorted(self.world.pods)))]
        if pod["status"]["phase"] not in ("Failed", "Succeeded"):
            pod["status"] = {"phase": "Pending", **status}

    # The laws.

    def check_status(self) -> None:
        """After every look there is exactly one phase, and all conditions say so."""
        status = self.world.status
        assert status.phase is not None
        assert [one.type for one in status.conditions] == list(TYPES)
        held = {one.type for one in status.conditions if one.status is ConditionStatus.TRUE}
        assert held == HOLD[status.phase]
        assert ("Stalled" in held) == (status.phase is Phase.FAILED)
        assert ("Ready" in held) == (status.phase is Phase.SUCCEEDED)
        generation = self.world.job["metadata"]["generation"]
        assert {status.observed_generation, *(one.observed_generation for one in status.conditions)} == {generation}
        assert all(one.reason for one in status.conditions)
        if self.world.job["spec"].get("suspend") and not invalid(self.world):
            assert status.phase not in (Phase.PENDING, Phase.RUNNING)

    def check_rest(self) -> None:
        """After a few looks, each of which sees what the one before has done, looking changes and tells nothing."""
        for _ in range(5):
            before, events = deepcopy(vars(self.world)), len(self.world.events)
            self.world.reconcile()
            if vars(self.world) == before:
                break
        else:
            raise AssertionError("the operator does not come to rest")
        assert len(self.world.events) == events

    @invariant()
    def at_most_one_driver_is_active(self) -> None:
        assert len(self.world.active) <= 1

    @invariant()
    def no_run_is_run_twice(self) -> None:
        """A driver is created once, and once more for each time that somebody deletes it; never after its run ended."""
        created = [one["metadata"]["name"] for one in self.world.created]
        for name in set(created):
            assert created.count(name) <= 1 + self.deleted.count(name)
        for one in self.world.active:
            if number(one) in self.recorded:
                assert one["metadata"]["uid"] in self.seen_active, "a run that was over was started again"

    @invariant()
    def remember(self) -> None:
        self.seen_active = {one["metadata"]["uid"] for one in self.world.active}
        run = self.world.status.run
        if run is not None and run.end_time is not None:
            self.recorded.add(run.number or 0)
        self.recorded |= {past.number or 0 for past in self.world.status.history}
        self.given_up |= {past.number or 0 for past in self.world.status.history if past.reason == REPLACED}

    @invariant()
    def every_run_has_a_reason(self) -> None:
        """A run that is not the schedule's differs from the one before it in what it computes, or by restartNonce.

        Unless the one before was given up.
        """
        told = {number(one): one["metadata"]["annotations"] for one in self.world.created}
        for one, last in ((told[at], told[at - 1]) for at in told if at - 1 in told.keys() - self.given_up):
            same = all(one[name] == last[name] for name in (names.SPEC_HASH, names.RESTART_NONCE))
            assert one[names.TRIGGER] == "Schedule" or not same

    @invariant()
    def numbers_only_grow(self) -> None:
        numbers = [number(one) for one in self.world.created]
        assert numbers == sorted(numbers)

    def teardown(self) -> None:
        """Whatever has happened: once things are in order again, the job is done, and nothing is left behind.

        But for the ConfigMap of a driver that somebody else deleted, perhaps: that goes with the job at the latest.
        """
        world = self.world
        world.refusal = None
        world.edit(horizon=21, suspend=False, schedule="", ttlSecondsAfterFinished=300)
        world.settle()
        for _ in range(5):
            if world.status.phase in (Phase.SUCCEEDED, Phase.FAILED):
                break
            if world.active:
                world.succeed()
            world.settle()
        job = read_job(world.job)
        assert not isinstance(job, JobError)
        assert world.told == (Phase.SUCCEEDED, "Completed")
        run, result = world.status.run, world.status.result
        assert run is not None
        assert run.spec_hash == job.spec.hash
        assert result is not None
        assert len(world.status.history) <= 5
        world.wait(seconds=301)
        assert world.settle() is None
        assert not world.drivers
        assert set(world.config_maps) <= set(self.deleted)
        self.check_status()
        assert all(ended(one) or one["metadata"]["name"] not in world.drivers for one in world.created)


Life.TestCase.settings = settings(
    max_examples=30, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLife = Life.TestCase


def number(driver: dict[str, Any]) -> int:
    return int(driver["metadata"]["labels"][names.RUN_NUMBER])


def runs(world: World) -> bool:
    """Whether a pod of the job runs."""
    found = [one for pod in world.pods.values() for one in pod["status"].get("containerStatuses", ())]
    return any("running" in one["state"] for one in found)


def invalid(world: World) -> bool:
    return isinstance(read_job(world.job), JobError)


def test_the_world_begins_before_its_schedule_is_due() -> None:
    assert World().now + timedelta(hours=1) > datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
