"""The state table, row by row, and what else the life of a job may bring."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import goldens
import raw
from almanac import lifecycle, names
from almanac.api import ConditionStatus, Engine, Phase, Reason, Trigger, Workers
from almanac.conditions import TYPES
from almanac.engines import COMPANIONS
from almanac.observed import Extract, Observed, Progress, Refusal, WorkerCounts, observe
from almanac.resource import read_job, status_patch
from almanac.waiting import ASK_EVERY, PATIENCE
from world import Crash, World


def submitted(**spec: Any) -> World:
    """A job whose driver was just created."""
    world = World(**spec)
    world.reconcile()
    return world


def running(**spec: Any) -> World:
    """A job whose driver runs."""
    world = submitted(**spec)
    world.pod(**raw.running())
    world.reconcile()
    return world


def succeeded(**spec: Any) -> World:
    """A job whose first run is complete."""
    world = running(**spec)
    world.wait(minutes=5)
    world.succeed()
    world.reconcile()
    return world


def message(world: World) -> str:
    return world.condition("Ready").message


def reasons(world: World) -> list[str]:
    return [event.reason for event in world.events]


READS = {"extract": {"name": "entries"}, "columns": {"entity": "account", "time": "date", "value": "amount"}}
FIRST, SECOND = (f"s3://ledger/raw/runs/{number}" for number in (1, 2))


def test_an_event_says_what_starts_a_run() -> None:
    world = succeeded()
    world.edit(horizon=7)
    world.settle()
    world.edit(restartNonce=1)
    world.settle()
    whys = [one.message.partition(": ")[2] for one in world.events if one.reason == "Submitted"]
    assert whys == ["the job is new", "the spec has changed", "restartNonce has changed"]


class TestExtracts:
    """A job that reads what an ExtractJob writes."""

    def test_it_waits_for_a_complete_run_and_is_held_to_it(self) -> None:
        world = World(source=READS)
        world.reconcile()
        assert world.told == (Phase.PENDING, "WaitingForExtract")
        assert "once there is an ExtractJob entries in this namespace" in message(world)
        assert world.status.run is None
        world.extract = Extract(Phase.RUNNING)
        world.reconcile()
        assert "it is Running" in message(world)
        world.extract = Extract(Phase.FAILED, reason="AccessDenied")
        world.reconcile()
        assert message(world).endswith("it is Failed (AccessDenied)")
        assert not world.created
        world.extract = Extract(Phase.SUCCEEDED, FIRST)
        world.reconcile()
        assert world.told == (Phase.PENDING, "Submitted")
        assert world.status.run is not None
        assert world.status.run.source == FIRST
        world.extract = Extract(Phase.SUCCEEDED, SECOND)
        world.pod(**raw.running())
        world.reconcile()
        assert world.status.run.source == FIRST
        assert reasons(world)[:2] == ["WaitingForExtract", "Submitted"]

    def test_the_driver_reads_that_run_also_when_it_is_made_anew(self) -> None:
        world = World(source=READS)
        world.extract = Extract(Phase.SUCCEEDED, FIRST)
        world.reconcile()
        world.extract = Extract(Phase.RUNNING, SECOND)
        world.delete_driver(world.driver["metadata"]["name"])
        world.settle()
        assert len(world.created) == 2
        assert {one["metadata"]["annotations"][names.SOURCE] for one in world.created} == {FIRST}

    def test_a_status_that_was_lost_is_found_with_the_driver(self) -> None:
        world = World(source=READS)
        world.extract = Extract(Phase.SUCCEEDED, FIRST)
        world.reconcile()
        del world.job["status"]
        world.extract = Extract(Phase.SUCCEEDED, SECOND)
        world.reconcile()
        assert world.status.run is not None
        assert world.status.run.source == FIRST

    def test_a_restart_reads_the_newest(self) -> None:
        world = World(source=READS)
        world.extract = Extract(Phase.SUCCEEDED, FIRST)
        world.reconcile()
        world.pod(**raw.running())
        world.succeed()
        world.reconcile()
        world.extract = Extract(Phase.FAILED, SECOND)  # a run of it has failed since, the one before it is complete
        world.edit(restartNonce=1)
        world.reconcile()
        assert world.status.run is not None
        assert world.status.run.source == SECOND

    def test_a_run_that_the_job_names_needs_no_extract(self) -> None:
        world = World(source={**READS, "extract": {"name": "entries", "uri": SECOND}})
        world.reconcile()
        assert world.status.run is not None
        assert world.status.run.source == SECOND


class TestTheTable:
    """Design, section 2, "What happens when"."""

    def test_a_spec_that_does_not_parse(self) -> None:
        world = World(horizon=0, model__family="prophet")
        world.reconcile()
        assert world.told == (Phase.FAILED, "InvalidSpec")
        assert "spec.horizon: " in message(world)
        assert "spec.model.family: " in message(world)
        assert not world.created
        assert reasons(world) == ["InvalidSpec"]

    def test_no_driver_for_this_run(self) -> None:
        world = submitted()
        assert world.told == (Phase.PENDING, "Submitted")
        assert [one["metadata"]["name"] for one in world.created] == ["ledger-a2447b"]
        assert set(world.config_maps) == {"ledger-a2447b"}
        run = world.status.run
        assert run is not None
        assert (run.id, run.number, run.trigger) == ("20261121-021500-a2447b", 1, Trigger.SPEC)
        assert (run.driver, run.start_time, run.attempts) == ("ledger-a2447b", goldens.START, 0)
        assert world.status.engine is Engine.LOCAL

    def test_a_driver_that_was_seen_counts_as_an_attempt(self) -> None:
        world = submitted()
        world.settle()
        assert world.status.run is not None
        assert world.status.run.attempts == 1

    def test_suspended(self) -> None:
        world = running()
        world.edit(suspend=True)
        world.settle()
        assert world.told == (Phase.SUSPENDED, "Suspended")
        assert world.condition("Suspended").status is ConditionStatus.TRUE
        assert world.driver["spec"]["suspend"] is True
        assert not world.pods

    def test_a_driver_without_a_pod_that_runs(self) -> None:
        world = submitted()
        world.pod(**raw.waiting("CreateContainerConfigError", 'secret "ledger-s3" not found'))
        world.reconcile()
        assert world.told == (Phase.PENDING, "CreateContainerConfigError")
        assert message(world) == 'secret "ledger-s3" not found'

    def test_a_driver_without_a_pod_that_runs_past_the_start_deadline(self) -> None:
        world = submitted(startDeadlineSeconds=60)
        world.pod(**raw.waiting("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: no such image'))
        assert world.reconcile() == goldens.START + timedelta(seconds=60)
        world.wait(seconds=60)
        world.settle()
        assert world.told == (Phase.FAILED, "ImagePullBackOff")
        assert "not running after 60 s" in message(world)
        assert "no such image" in message(world)
        assert not world.drivers
        assert not world.config_maps

    def test_a_driver_pod_that_runs(self) -> None:
        world = running()
        assert world.told == (Phase.RUNNING, "Running")

    def test_a_driver_that_is_complete(self) -> None:
        world = succeeded()
        assert world.told == (Phase.SUCCEEDED, "Completed")
        result = world.status.result
        assert result is not None
        assert (result.entities, result.scores) == (5, {"mase": 0.87})
        assert message(world) == f"5 entities, written to {result.uri}; older runs could not be deleted"
        assert world.status.progress == "100%"
        assert world.status.engine_reason == "60 rows of 3 columns"
        assert world.status.run is not None
        assert world.status.run.end_time == goldens.START + timedelta(minutes=5)
        (past,) = world.status.history
        assert (past.id, past.phase, past.reason, past.uri) == (
            world.status.run.id,
            "Succeeded",
            "Completed",
            result.uri,
        )

    def test_a_driver_that_says_too_big_for_local(self) -> None:
        world = running(engine="auto")
        before = world.status.run
        world.exit(79, raw.failure("x", Reason.TOO_BIG_FOR_LOCAL, "needs 12 GiB of 4 GiB"))
        world.settle()
        after = world.status.run
        assert before is not None
        assert after is not None
        assert world.told == (Phase.PENDING, "Escalated")
        assert "needs 12 GiB of 4 GiB" in message(world)
        assert (after.id, after.number, after.driver) == (before.id, 1, f"{before.driver}-spark")
        assert world.status.engine is Engine.SPARK
        assert [one["metadata"]["labels"][names.ENGINE] for one in world.created] == ["local", "spark"]
        world.succeed()
        world.reconcile()
        assert world.told == (Phase.SUCCEEDED, "Completed")
        assert world.status.engine_reason == "needs 12 GiB of 4 GiB"  # the figures that have decided stay
        world.edit(horizon=3)
        world.reconcile()
        assert world.status.engine_reason == ""

    def test_too_big_for_local_without_an_engine_that_could_do_better(self) -> None:
        world = running(engine="auto")
        world.engines = frozenset({Engine.LOCAL})
        world.exit(79, raw.failure("x", Reason.TOO_BIG_FOR_LOCAL, "needs 12 GiB of 4 GiB"))
        world.settle()
        assert world.told == (Phase.FAILED, "TooBigForLocal")
        assert message(world).startswith("needs 12 GiB of 4 GiB: raise the memory limit of the container almanac")
        assert message(world).endswith("this operator has no engine spark to go on with")

    def test_too_big_for_local_where_local_was_asked_for(self) -> None:
        world = running(engine="local")
        world.exit(79)
        world.settle()
        assert world.told == (Phase.FAILED, "TooBigForLocal")

    @pytest.mark.parametrize(
        ("code", "reason", "why"),
        [
            (64, "", Reason.INVALID_SPEC),
            (65, "", Reason.DATA_ERROR),
            (66, "", Reason.SOURCE_EMPTY),
            (77, "", Reason.ACCESS_DENIED),
        ],
    )
    def test_a_driver_that_failed_says_why(self, code: int, reason: str, why: Reason) -> None:
        world = running()
        world.exit(code, raw.failure("x", why, "spec.source.uri: what to do"))
        world.settle()
        assert world.told == (Phase.FAILED, why)
        assert message(world) == "spec.source.uri: what to do"
        assert world.status.history[0].reason == why
        assert len(world.created) == 1

    def test_a_driver_that_ran_out_of_memory(self) -> None:
        world = running(backoffLimit=0)
        world.exit(137, reason="OOMKilled")
        world.settle()
        assert world.told == (Phase.FAILED, "OOMKilled")
        assert "limit of 4Gi" in message(world)

    def test_a_driver_that_took_too_long(self) -> None:
        world = running(activeDeadlineSeconds=60)
        world.wait(seconds=61)
        world.sync()
        world.settle()
        assert world.told == (Phase.FAILED, "DeadlineExceeded")
        assert "60 s" in message(world)

    def test_a_driver_that_is_gone(self) -> None:
        world = running()
        world.delete_driver("ledger-a2447b")
        world.settle()
        assert world.told == (Phase.PENDING, "Recreated")
        assert len(world.created) == 2
        assert world.driver["metadata"]["annotations"][names.ATTEMPT] == "2"
        world.pod(**raw.running())
        world.reconcile()
        assert world.status.run is not None
        assert world.status.run.attempts == 2
        world.delete_driver("ledger-a2447b")
        world.settle()
        assert world.told == (Phase.FAILED, "DriverLost")
        assert len(world.created) == 2
        assert not world.config_maps

    def test_a_driver_that_is_gone_before_it_ran(self) -> None:
        world = submitted()
        world.settle()
        for _ in range(2):
            world.delete_driver("ledger-a2447b")
            world.settle()
        assert world.told == (Phase.FAILED, "DriverLost")
        assert len(world.created) == 2

    @pytest.mark.parametrize(
        ("edit", "trigger"), [({"horizon": 7}, Trigger.SPEC), ({"restartNonce": 1}, Trigger.RESTART)]
    )
    def test_a_change_while_a_run_is_active(self, edit: dict[str, Any], trigger: Trigger) -> None:
        world = running()
        world.edit(**edit)
        world.settle()
        run = world.status.run
        assert run is not None
        assert (run.number, run.trigger) == (2, trigger)
        assert [one["metadata"]["labels"][names.RUN_NUMBER] for one in world.created] == ["1", "2"]
        assert len(world.drivers) == len(world.config_maps) == 1
        assert [(past.number, past.phase, past.reason) for past in world.status.history] == [(1, "Failed", "Replaced")]
        assert reasons(world) == ["Submitted", "Running", "Replacing", "Submitted"]

    @pytest.mark.parametrize(
        ("edit", "trigger"), [({"horizon": 7}, Trigger.SPEC), ({"restartNonce": 1}, Trigger.RESTART)]
    )
    def test_a_change_after_a_run(self, edit: dict[str, Any], trigger: Trigger) -> None:
        world = succeeded()
        world.edit(**edit)
        world.settle()
        assert world.told == (Phase.PENDING, "Submitted")
        assert world.status.run is not None
        assert (world.status.run.number, world.status.run.trigger) == (2, trigger)
        assert world.status.result is not None, "that of the last complete run"
        assert world.status.progress == ""


class TestEdits:
    @pytest.mark.parametrize(
        "edit",
        [
            {"ttlSecondsAfterFinished": 5000},
            {"schedule": "0 2 * * *"},
            {"activeDeadlineSeconds": 10},
            {"startDeadlineSeconds": 10},
            {"backoffLimit": 0},
            {"output__keepRuns": 3},
            {"horizon": 30},
        ],
    )
    def test_what_does_not_change_the_result_starts_nothing(self, edit: dict[str, Any]) -> None:
        world = succeeded()
        world.edit(**edit)
        world.settle()
        assert len(world.created) == 1
        assert world.told == (Phase.SUCCEEDED, "Completed")
        assert world.status.observed_generation == world.job["metadata"]["generation"]

    def test_an_edit_and_its_undoing_while_nobody_looked_start_nothing(self) -> None:
        world = succeeded()
        world.edit(horizon=7)
        world.edit(horizon=30)
        world.settle()
        assert len(world.created) == 1

    def test_an_invalid_edit_leaves_the_run_alone(self) -> None:
        world = running()
        world.edit(horizon=-1)
        world.settle()
        assert world.told == (Phase.FAILED, "InvalidSpec")
        assert len(world.active) == 1
        world.edit(horizon=30)
        world.settle()
        assert world.told == (Phase.RUNNING, "Running")
        assert len(world.created) == 1

    def test_an_invalid_edit_after_a_run_is_forgotten_once_it_is_mended(self) -> None:
        world = succeeded()
        world.edit(horizon=-1)
        world.reconcile()
        assert world.told == (Phase.FAILED, "InvalidSpec")
        world.edit(horizon=30)
        world.settle()
        assert world.told == (Phase.SUCCEEDED, "Completed")
        assert len(world.created) == 1

    def test_a_result_that_nobody_has_seen_is_kept_when_the_spec_changes(self) -> None:
        world = running()
        world.succeed()
        world.edit(horizon=7)
        world.settle()
        assert [(past.number, past.phase) for past in world.status.history] == [(1, "Succeeded")]
        assert world.status.run is not None
        assert world.status.run.number == 2

    def test_an_engine_that_is_not_there(self) -> None:
        world = World(engine="dask")
        world.engines = frozenset({Engine.LOCAL, Engine.SPARK})
        world.settle()
        assert world.told == (Phase.FAILED, "EngineUnavailable")
        assert "this operator has no engine dask: write auto or local or spark" in message(world)
        assert not world.created
        world.edit(engine="spark")
        world.settle()
        assert world.told == (Phase.PENDING, "Submitted")
        assert world.status.engine is Engine.SPARK

    def test_history_has_an_end(self) -> None:
        world = succeeded(ttlSecondsAfterFinished=0)
        for nonce in range(1, 9):
            world.edit(restartNonce=nonce)
            world.settle()
            world.succeed()
            world.settle()
        assert [past.number for past in world.status.history] == [9, 8, 7, 6, 5]
        assert not world.drivers

    def test_a_job_that_is_being_deleted_is_left_alone(self) -> None:
        world = running()
        world.job["metadata"]["deletionTimestamp"] = raw.time(world.now)
        world.delete_driver("ledger-a2447b")
        writes = world.writes
        world.reconcile()
        assert world.writes == writes


class TestSuspension:
    def test_nothing_starts(self) -> None:
        world = submitted(suspend=True)
        assert world.told == (Phase.SUSPENDED, "Suspended")
        assert not world.created
        assert world.status.run is None
        world.edit(suspend=False)
        world.settle()
        assert world.told == (Phase.PENDING, "Submitted")
        assert len(world.created) == 1

    def test_the_run_goes_on(self) -> None:
        world = running()
        world.edit(suspend=True)
        world.settle()
        world.wait(hours=5)
        world.edit(suspend=False)
        world.reconcile()
        assert world.told == (Phase.PENDING, "Resumed")
        world.settle()
        assert world.told == (Phase.PENDING, "Resumed"), "hours of suspension are no hours of waiting"
        world.pod(**raw.running())
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")
        assert len(world.created) == 1

    @pytest.mark.parametrize("dies", [False, True], ids=["told", "died before it was told"])
    def test_a_pod_from_before_does_not_make_it_run(self, dies: bool) -> None:
        """Its end may be told later than that the run goes on."""
        world = running()
        before = [*world.pods.values()]
        world.edit(suspend=True)
        world.settle()
        world.edit(suspend=False)
        if dies:
            with pytest.raises(Crash):
                world.reconcile(crash_after=1)
        else:
            world.reconcile()
        view = world.view()
        view.seen = replace(view.seen, pods=observe([*world.drivers.values(), *before]).pods)
        assert any(pod.running for pod in view.seen.pods)
        world.reconcile_late(view)
        assert world.status.phase is Phase.PENDING
        world.pod(**raw.running())
        world.reconcile()
        assert [one.reason for one in world.events].count("Running") == 2

    def test_what_is_finished_stays_so(self) -> None:
        world = succeeded()
        world.edit(suspend=True)
        world.settle()
        assert world.told == (Phase.SUCCEEDED, "Completed")

    def test_a_schedule_says_that_it_starts_nothing(self) -> None:
        world = succeeded(schedule="0 3 * * *")
        world.edit(suspend=True)
        world.settle()
        assert world.told == (Phase.SUSPENDED, "Suspended")
        assert message(world) == "the schedule goes on once spec.suspend is false"
        world.wait(days=3)
        world.settle()
        assert world.told == (Phase.SUSPENDED, "Suspended")
        assert len(world.created) == 1
        world.edit(suspend=False)
        world.settle()
        assert world.status.run is not None
        assert (world.status.run.number, world.status.run.trigger) == (2, Trigger.SCHEDULE)

    def test_a_schedule_that_goes_on_in_time_stands_where_it_stood(self) -> None:
        world = succeeded(schedule="0 3 * * *")
        world.edit(suspend=True)
        world.settle()
        world.edit(suspend=False)
        world.settle()
        assert world.told == (Phase.SUCCEEDED, "Completed")
        assert world.status.result is not None
        assert message(world).endswith(f"is over: written to {world.status.result.uri}")

    def test_a_driver_that_finished_before_it_could_be_suspended(self) -> None:
        world = running()
        world.succeed()
        world.edit(suspend=True)
        world.settle()
        assert world.told == (Phase.SUCCEEDED, "Completed")

    def test_a_new_spec_waits(self) -> None:
        world = running()
        world.edit(suspend=True, horizon=7)
        world.settle()
        assert world.told == (Phase.SUSPENDED, "Suspended")
        assert not world.drivers, "it would not be continued"
        world.edit(suspend=False)
        world.settle()
        assert world.status.run is not None
        assert world.status.run.number == 2
        assert [past.reason for past in world.status.history] == ["Replaced"]

    def test_a_new_spec_that_is_taken_back(self) -> None:
        """What was given up stays so: the run that goes on is another one."""
        world = running()
        for number in (2, 3):
            world.edit(suspend=True, horizon=7)
            world.settle()
            assert world.told == (Phase.SUSPENDED, "Suspended")
            world.edit(suspend=False, horizon=30)
            world.settle()
            assert world.told == (Phase.PENDING, "Submitted")
            assert world.status.run is not None
            assert (world.status.run.number, world.status.run.trigger) == (number, Trigger.SPEC)

    def test_a_driver_that_a_queue_holds_is_not_woken_and_has_time(self) -> None:
        world = submitted(startDeadlineSeconds=60)
        world.driver["spec"]["suspend"] = True
        world.settle()
        assert world.told == (Phase.PENDING, "Queued")
        world.wait(hours=9)
        world.settle()
        assert world.told == (Phase.PENDING, "Queued")
        assert world.driver["spec"]["suspend"] is True
        world.driver["spec"]["suspend"] = False
        world.reconcile()
        assert world.told == (Phase.PENDING, "Starting")
        world.settle()
        assert world.status.phase is Phase.PENDING


class TestTroubles:
    def test_what_a_pod_says_follows_it(self) -> None:
        world = submitted()
        full = "0/3 nodes are available: 3 Insufficient cpu."
        world.pod(conditions=[raw.condition("PodScheduled", "Unschedulable", full, "False")])
        world.reconcile()
        assert world.told == (Phase.PENDING, "Unschedulable")
        assert message(world) == full
        world.pod(**raw.waiting("ContainerCreating"))
        world.reconcile()
        assert world.told == (Phase.PENDING, "Starting")
        world.pod(**raw.running())
        world.reconcile()
        assert reasons(world) == ["Submitted", "Unschedulable", "Starting", "Running"]
        assert [event.type for event in world.events] == ["Normal", "Warning", "Normal", "Normal"]

    def test_an_image_that_cannot_be_pulled_says_so_once(self) -> None:
        """The kubelet alternates between two reasons, of which the second does not always repeat why."""
        world = submitted()
        for _ in range(3):
            world.pod(**raw.waiting("ErrImagePull", "rpc error: not found"))
            world.reconcile()
            world.pod(**raw.waiting("ImagePullBackOff", 'Back-off pulling image "x"'))
            world.reconcile()
            assert world.told == (Phase.PENDING, "ImagePullBackOff")
            assert message(world) == "rpc error: not found"
        assert reasons(world) == ["Submitted", "ImagePullBackOff"]

    def test_a_driver_without_pods_is_explained_by_events(self) -> None:
        world = submitted()
        quota = 'Error creating: pods "x" is forbidden: exceeded quota: compute, requested: cpu=1, used: cpu=4'
        world.warn(world.driver, "FailedCreate", quota)
        requeue = world.reconcile()
        assert requeue is not None
        assert requeue <= world.now + timedelta(seconds=5), "within seconds"
        world.now = requeue
        world.reconcile()
        assert world.told == (Phase.PENDING, "QuotaExceeded")
        assert message(world) == quota
        world.wait(seconds=1)
        world.reconcile()
        assert reasons(world) == ["Submitted", "QuotaExceeded"]

    def test_a_new_driver_is_looked_at_again_even_if_nothing_is_heard_of_it(self) -> None:
        """No watch tells of a driver whose pods are refused."""
        world = World()
        assert world.reconcile() == world.now + PATIENCE
        world.settle()
        world.delete_driver("ledger-a2447b")
        assert world.reconcile() == world.now + PATIENCE

    def test_a_driver_to_which_nothing_happens_is_looked_at_again(self) -> None:
        """A quota lets no pod of it into the world: the Job never changes, and no watch tells of anything."""
        world = World(startDeadlineSeconds=60)
        requeue = world.reconcile()
        assert requeue is not None
        assert requeue <= world.now + timedelta(seconds=5)
        world.edit(suspend=True)
        world.settle()
        world.edit(suspend=False)
        assert world.reconcile() is not None

    def test_a_pod_that_pod_security_forbids(self) -> None:
        world = submitted(startDeadlineSeconds=30)
        world.warn(world.driver, "FailedCreate", 'pods "x" is forbidden: violates PodSecurity "restricted:latest": x')
        world.wait(seconds=5)
        world.reconcile()
        assert world.told == (Phase.PENDING, "PodSecurityViolation")
        world.wait(seconds=30)
        world.settle()
        assert world.told == (Phase.FAILED, "PodSecurityViolation")

    def test_a_volume_that_is_not_there(self) -> None:
        world = submitted()
        world.pod(**raw.waiting("ContainerCreating"))
        (pod,) = world.pods.values()
        world.warn(pod, "FailedMount", 'MountVolume.SetUp failed for volume "c" : configmap "c" not found')
        world.wait(seconds=5)
        assert world.reconcile() == world.now + ASK_EVERY
        assert world.told == (Phase.PENDING, "FailedMount")
        assert 'configmap "c" not found' in message(world)

    def test_silence_has_an_end(self) -> None:
        world = submitted(startDeadlineSeconds=1)
        requeue = world.settle()
        assert requeue == goldens.START + timedelta(seconds=1)
        world.wait(seconds=1)
        world.settle()
        assert world.told == (Phase.FAILED, "StartDeadlineExceeded")
        assert not world.drivers

    def test_time_without_a_pod_counts(self) -> None:
        world = submitted(startDeadlineSeconds=60)
        world.driver["status"]["startTime"] = raw.time(world.now)
        world.wait(seconds=50)
        world.pod(**raw.waiting("ContainerCreating"))
        assert world.reconcile() == goldens.START + timedelta(seconds=60)

    def test_a_pod_that_is_over_while_the_job_controller_has_yet_to_say_so(self) -> None:
        for code in (0, 65):
            world = running()
            (pod,) = world.pods.values()
            pod["status"] = raw.terminated(code, at=world.now)
            world.reconcile()
            assert world.told == (Phase.RUNNING, "Running")

    def test_a_pod_that_never_ran_is_not_said_to_run_once_it_is_over(self) -> None:
        world = submitted(backoffLimit=0)
        world.pod(**raw.waiting("PodInitializing"))
        world.settle()
        (pod,) = world.pods.values()
        pod["status"] = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
        world.reconcile()
        assert world.told == (Phase.PENDING, "Submitted")

    def test_an_init_container_that_takes_its_time(self) -> None:
        world = submitted()
        world.pod(initContainerStatuses=[raw.container("fetch", running={"startedAt": ""})])
        world.wait(minutes=1)
        world.reconcile()
        assert world.told == (Phase.PENDING, "Starting")
        assert message(world).endswith("is starting: init container fetch runs")

    @pytest.mark.parametrize(
        ("conditions", "words"),
        [
            ([raw.condition("DisruptionTarget", "EvictionByEvictionAPI", "Eviction API: evicting")], "API: evicting"),
            ([], "somebody has deleted it"),
        ],
    )
    def test_a_pod_that_is_being_stopped(self, conditions: list[raw.Raw], words: str) -> None:
        world = running()
        (pod,) = world.pods.values()
        pod["metadata"]["deletionTimestamp"] = raw.time(world.now)
        pod["status"]["conditions"] = conditions
        world.reconcile()
        assert world.told == (Phase.PENDING, "Stopping")
        assert words in message(world)

    def test_a_retry_that_is_not_let_in(self) -> None:
        world = running()
        (pod,) = world.pods.values()
        pod["status"] = raw.terminated(
            75, raw.failure("x", Reason.STORAGE_UNAVAILABLE, "s3 does not answer"), at=world.now
        )
        assert world.reconcile() == world.now + ASK_EVERY
        assert world.told == (Phase.PENDING, "Retrying")
        world.wait(seconds=15)
        world.warn(world.driver, "FailedCreate", 'pods "x" is forbidden: exceeded quota: compute')
        world.reconcile()
        assert world.told == (Phase.PENDING, "QuotaExceeded")
        assert "s3 does not answer" in message(world)
        assert "exceeded quota: compute" in message(world)

    def test_a_retry(self) -> None:
        world = running(startDeadlineSeconds=60)
        world.wait(hours=1)
        (pod,) = world.pods.values()
        pod["status"] = raw.terminated(
            75, raw.failure("x", Reason.STORAGE_UNAVAILABLE, "s3 does not answer"), at=world.now
        )
        world.reconcile()
        assert world.told == (Phase.PENDING, "Retrying")
        assert "attempt 1 failed" in message(world)
        assert "s3 does not answer" in message(world)
        world.wait(minutes=6)
        world.settle()
        assert world.status.phase is Phase.PENDING, "a new pod has its own time to start"
        world.wait(seconds=61)
        world.settle()
        assert world.told == (Phase.FAILED, "StartDeadlineExceeded")

    def test_retries_have_an_end(self) -> None:
        world = running(backoffLimit=1)
        for _ in range(2):
            world.exit(75, raw.failure("x", Reason.STORAGE_UNAVAILABLE, "s3 does not answer"))
            world.reconcile()
        world.settle()
        assert world.told == (Phase.FAILED, "StorageUnavailable")
        assert message(world) == "s3 does not answer (attempt 2, the last)"

    def test_a_driver_that_was_evicted_and_has_no_retries_left(self) -> None:
        world = running(backoffLimit=0)
        (pod,) = world.pods.values()
        pod["status"] = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
        world.driver["status"]["conditions"] = [raw.condition("Failed", "BackoffLimitExceeded", at=world.now)]
        world.settle()
        assert world.told == (Phase.FAILED, "Evicted")

    def test_a_failure_whose_pod_is_gone(self) -> None:
        world = running()
        world.pods.clear()
        driver = world.driver
        driver["status"]["conditions"] = [raw.condition("Failed", "BackoffLimitExceeded", "too often", at=world.now)]
        seen = observe([driver])
        assert world.decide(seen).look, "the pod may only be late"
        world.settle()
        assert world.told == (Phase.FAILED, "BackoffLimitExceeded")
        assert message(world) == "too often; its pods are gone, and what they have said with them"

    def test_a_success_whose_pod_is_gone(self) -> None:
        world = running()
        world.succeed()
        world.pods.clear()
        assert world.decide(observe([*world.drivers.values()])).look, "the pod may only be late"
        world.settle()
        assert world.told == (Phase.SUCCEEDED, "Completed")
        assert world.status.result is None
        assert "lost with its pod" in message(world)

    @pytest.mark.parametrize(("final", "phase"), [(False, Phase.PENDING), (True, Phase.FAILED)])
    def test_what_the_api_server_refuses(self, final: bool, phase: Phase) -> None:
        world = World()
        world.refusal = Refusal("Forbidden", "exceeded quota: count/jobs.batch", final=final)
        requeue = world.reconcile()
        assert world.told == (phase, "Forbidden")
        assert message(world) == "exceeded quota: count/jobs.batch"
        assert not world.created
        if not final:
            assert requeue == world.now + lifecycle.RETRY
            world.wait(seconds=20)
            world.refusal = None
            world.settle()
            assert len(world.created) == 1

    def test_a_refusal_has_its_time(self) -> None:
        world = World(startDeadlineSeconds=60)
        world.refusal = Refusal("Forbidden", "no")
        world.reconcile()
        world.wait(seconds=60)
        world.reconcile()
        assert world.told == (Phase.FAILED, "Forbidden")


class TestTheEnd:
    def test_children_go_when_their_time_is_up(self) -> None:
        world = succeeded(ttlSecondsAfterFinished=600)
        assert world.reconcile() == goldens.START + timedelta(minutes=15)
        assert len(world.drivers) == 1
        world.wait(minutes=10)
        assert world.reconcile() is None, "a finished job wants nothing more"
        assert not world.drivers
        assert not world.config_maps
        assert world.told == (Phase.SUCCEEDED, "Completed")
        writes = world.writes
        world.wait(days=400)
        assert world.reconcile() is None
        assert world.writes == writes

    def test_a_result_is_on_record_before_its_driver_goes(self) -> None:
        world = running(ttlSecondsAfterFinished=0)
        world.succeed()
        seen = observe([*world.drivers.values(), *world.pods.values()])
        first = world.decide(seen)
        assert not first.actions
        assert first.requeue == world.now
        world.settle()
        assert world.status.result is not None
        assert not world.drivers

    def test_a_run_that_finished_while_nobody_looked(self) -> None:
        world = submitted()
        world.pod(**raw.running())
        world.succeed()
        world.wait(days=1)
        world.settle()
        assert world.told == (Phase.SUCCEEDED, "Completed")
        assert len(world.created) == 1

    @pytest.mark.parametrize("lost", ["status", "run"])
    def test_a_status_that_was_lost_is_read_from_the_driver(self, lost: str) -> None:
        world = running()
        world.settle()
        before = world.status.run
        if lost == "status":
            del world.job["status"]
        else:
            del world.job["status"]["run"]
        world.settle()
        assert world.status.run == before
        assert world.told == (Phase.RUNNING, "Running")
        assert len(world.created) == 1

    def test_a_driver_that_does_not_tell_its_nonce_is_no_reason_to_restart(self) -> None:
        world = running(restartNonce=3)
        del world.job["status"]
        del world.driver["metadata"]["annotations"][names.RESTART_NONCE]
        world.settle()
        assert world.told == (Phase.RUNNING, "Running")
        assert len(world.created) == 1

    def test_a_status_of_another_version_is_read_as_far_as_it_goes(self) -> None:
        world = succeeded()
        before = world.status
        world.job["status"] |= {"invented": 1, "stage": 5}
        world.job["status"]["run"]["invented"] = 2
        world.settle()
        assert world.status.run == before.run
        assert len(world.created) == 1


class TestRestored:
    """The job is applied to another cluster, which gives it a uid of its own: docs/operations.md."""

    @pytest.mark.parametrize("with_status", [False, True], ids=["from Git", "from a backup with its status"])
    def test_it_runs_once_and_then_by_its_schedule(self, with_status: bool) -> None:
        world = succeeded(schedule="0 3 * * *")
        result = world.status.result
        world.job["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
        world.drivers.clear()
        if not with_status:
            del world.job["status"]
        world.wait(days=3)
        world.settle()
        run = world.status.run
        assert run is not None
        assert (run.trigger, run.start_time) == (Trigger.SPEC, world.now)
        assert world.status.result == (result if with_status else None)
        assert len(world.active) == 1
        world.pod(**raw.running())
        world.succeed()
        world.settle()
        assert world.told == (Phase.SUCCEEDED, "Completed")
        assert len(world.created) == 2
        assert world.status.next_schedule_time == datetime(2026, 11, 24, 3, 0, tzinfo=UTC)

    def test_while_it_is_suspended_it_waits(self) -> None:
        world = succeeded()
        world.job["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
        del world.job["status"]
        world.drivers.clear()
        world.edit(suspend=True)
        world.settle()
        assert world.told == (Phase.SUSPENDED, "Suspended")
        world.edit(suspend=False)
        world.settle()
        assert len(world.active) == 1


class TestOthers:
    """Another operator, whose watches have stopped, is still at work."""

    def test_it_starts_nothing_that_was_started_and_is_gone(self) -> None:
        world = World(ttlSecondsAfterFinished=0)
        with pytest.raises(Crash):
            world.reconcile(crash_after=1)
        view = world.view()
        world.settle()
        world.succeed()
        world.settle()
        assert not world.drivers
        world.reconcile_late(view)
        assert not world.drivers
        assert len(world.created) == 1

    def test_it_stops_no_run_that_it_does_not_know(self) -> None:
        world = succeeded()
        view = world.view()
        world.edit(horizon=7)
        world.settle()
        now = world.view()
        now.job = view.job
        world.reconcile_late(now)
        assert len(world.active) == 1
        assert len(world.created) == 2

    def test_it_stops_no_run_of_a_later_spec(self) -> None:
        world = succeeded()
        world.edit(horizon=7)
        view = world.view()
        world.edit(horizon=8)
        world.settle()
        now = world.view()
        now.job = view.job
        world.reconcile_late(now)
        assert len(world.active) == 1
        assert len(world.created) == 2


class TestSchedules:
    """The world begins at 02:15."""

    def test_the_first_run_does_not_wait_and_the_next_one_does(self) -> None:
        world = succeeded(schedule="0 3 * * *", timeZone="Europe/Berlin")
        assert world.status.next_schedule_time == datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
        requeue = world.settle()
        assert requeue is not None
        world.now = max(requeue, datetime(2026, 11, 22, 2, 0, tzinfo=UTC))
        world.settle()
        run = world.status.run
        assert run is not None
        assert (run.number, run.trigger, run.start_time) == (2, Trigger.SCHEDULE, world.now)
        assert world.status.next_schedule_time == datetime(2026, 11, 23, 2, 0, tzinfo=UTC)

    def test_finished_jobs_wake_for_their_schedule_only(self) -> None:
        world = succeeded(schedule="0 3 * * *", ttlSecondsAfterFinished=0)
        assert world.settle() == datetime(2026, 11, 21, 3, 0, tzinfo=UTC)

    def test_forbid_leaves_out_what_comes_too_early(self) -> None:
        world = running(schedule="0 * * * *", activeDeadlineSeconds=90_000)
        requeue = world.reconcile()
        assert requeue == datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
        world.now = requeue
        world.settle()
        assert world.told == (Phase.RUNNING, "Running")
        assert world.status.next_schedule_time == datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
        assert reasons(world)[-1] == "ScheduleSkipped"
        world.reconcile()
        assert reasons(world).count("ScheduleSkipped") == 1
        world.succeed()
        world.settle()
        assert world.told == (Phase.SUCCEEDED, "Completed")

    def test_replace_stops_the_active_run(self) -> None:
        world = running(schedule="0 3 * * *", concurrencyPolicy="Replace")
        world.now = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
        world.settle()
        run = world.status.run
        assert run is not None
        assert (run.number, run.trigger) == (2, Trigger.SCHEDULE)
        assert len(world.drivers) == 1
        assert world.status.history[0].reason == "Replaced"

    def test_of_missed_starts_the_last_is_made_up_for(self) -> None:
        world = succeeded(schedule="0 * * * *")
        world.settle()
        world.wait(hours=7)
        world.settle()
        world.succeed()
        world.settle()
        assert world.status.run is not None
        assert world.status.run.number == 2
        assert len(world.created) == 2

    def test_a_run_that_finished_before_its_next_time_does_not_hold_it_up(self) -> None:
        """The operator was down from before the end of the first run until after the next one was due."""
        world = running(schedule="0 3 * * *")
        world.wait(minutes=10)
        world.succeed()
        world.wait(hours=2)
        world.settle()
        assert world.status.run is not None
        assert (world.status.run.number, world.status.run.trigger) == (2, Trigger.SCHEDULE)

    def test_too_late_is_too_late(self) -> None:
        world = succeeded(schedule="0 * * * *", startingDeadlineSeconds=60)
        world.settle()
        world.wait(hours=1, minutes=30)
        world.settle()
        assert len(world.created) == 1
        assert reasons(world)[-1] == "ScheduleSkipped"
        world.now = datetime(2026, 11, 21, 4, 0, 30, tzinfo=UTC)
        world.settle()
        assert len(world.created) == 2

    def test_a_new_schedule_makes_up_for_nothing(self) -> None:
        world = succeeded()
        world.wait(days=3)
        world.edit(schedule="0 3 * * *")
        world.settle()
        assert len(world.created) == 1
        assert world.status.next_schedule_time == datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
        world.edit(schedule="")
        world.settle()
        assert world.status.next_schedule_time is None

    def test_a_changed_spec_and_a_time_that_is_due_are_one_run(self) -> None:
        world = succeeded(schedule="0 3 * * *")
        world.now = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
        world.edit(horizon=7)
        world.settle()
        world.succeed()
        world.settle()
        assert len(world.created) == 2

    def test_a_failure_does_not_end_a_schedule(self) -> None:
        world = running(schedule="0 3 * * *")
        world.exit(65)
        world.settle()
        assert world.status.phase is Phase.FAILED
        world.now = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
        world.settle()
        assert world.told == (Phase.PENDING, "Submitted")


def on_spark(**spec: Any) -> World:
    """A job on Spark whose driver runs, for a minute now."""
    world = running(engine="spark", **spec)
    world.wait(minutes=1)
    return world


def executors(world: World) -> Workers:
    assert world.status.workers is not None
    return world.status.workers


class TestExecutors:
    """A driver on Spark runs whether or not its executors do, and waits for them without an end."""

    def test_it_runs_while_nothing_is_known_of_them(self) -> None:
        world = on_spark()
        assert world.told == (Phase.RUNNING, "Running")
        assert world.status.workers is None

    def test_the_driver_says_how_many_there_are(self) -> None:
        world = on_spark()
        world.progress = Progress("fit", 3, 10, WorkerCounts(wanted=4, running=3, failed=1))
        world.reconcile()
        said = executors(world)
        assert (said.wanted, said.running, said.failed, said.ready) == (4, 3, 1, "3/4")
        world.progress = None
        world.reconcile()
        assert executors(world) == said

    def test_none_that_comes_on(self) -> None:
        world = on_spark(startDeadlineSeconds=120)
        world.executor("exec-1", **raw.unschedulable("0/1 nodes are available: 1 Insufficient cpu."))
        due = world.reconcile()
        assert world.told == (Phase.RUNNING, "Unschedulable")
        assert message(world) == "none of its executors is running: 0/1 nodes are available: 1 Insufficient cpu."
        assert world.events[-1].type == "Warning"
        assert due == world.now + timedelta(seconds=30)

    def test_none_that_comes_on_past_the_start_deadline(self) -> None:
        world = on_spark(startDeadlineSeconds=120)
        world.executor("exec-1", **raw.waiting("ImagePullBackOff", "Back-off: ErrImagePull: no such image"))
        world.reconcile()
        world.wait(seconds=60)
        world.executor("exec-2", **raw.waiting("ImagePullBackOff", "Back-off: ErrImagePull: no such image"))
        world.reconcile()
        assert world.told == (Phase.RUNNING, "ImagePullBackOff")
        world.wait(seconds=60)
        world.settle()
        assert world.told == (Phase.FAILED, "ImagePullBackOff")
        assert "none of its executors is running after 120 s (spec.startDeadlineSeconds): " in message(world)
        assert "no such image" in message(world)
        assert not world.drivers
        assert not world.companions

    def test_none_that_says_what_it_waits_for(self) -> None:
        """A volume that is not there is told by events alone."""
        world = on_spark(startDeadlineSeconds=120)
        world.executor("exec-1", **raw.waiting("ContainerCreating"))
        due = world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")
        assert due == world.now + timedelta(seconds=30)
        (executor,) = world.workers.values()
        world.warn(executor, "FailedMount", 'MountVolume.SetUp failed: secret "certificates" not found')
        world.now = due
        world.reconcile()
        assert world.told == (Phase.RUNNING, "FailedMount")
        world.wait(seconds=120)
        world.reconcile()
        assert world.told == (Phase.FAILED, "FailedMount")
        assert 'secret "certificates" not found' in message(world)

    def test_none_that_may_be_created(self) -> None:
        """A quota is against them: no pod says so, and no event."""
        world = on_spark(startDeadlineSeconds=120)
        world.progress = Progress("read", 0, 10, WorkerCounts(wanted=4, running=0, failed=0))
        due = world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")
        assert due is not None
        world.now = due
        world.reconcile()
        assert world.told == (Phase.RUNNING, "ExecutorsRefused")
        world.wait(seconds=90)
        world.reconcile()
        assert world.told == (Phase.FAILED, "ExecutorsRefused")
        assert "a quota may be against it" in message(world)

    def test_executors_that_are_all_lost_have_time_to_come_back(self) -> None:
        """A driver that has run for long has as much as one that has just begun."""
        world = on_spark(startDeadlineSeconds=120)
        world.executor("exec-1", **raw.running())
        world.reconcile()
        world.wait(hours=1)
        world.workers.clear()
        world.progress = Progress("fit", 3, 10, WorkerCounts(wanted=1, running=0, failed=0))
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")
        world.wait(seconds=20)
        world.executor("exec-2", **raw.unschedulable("no node"))
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Unschedulable")
        world.wait(seconds=60)
        world.workers.clear()  # Spark gives it up, and asks for another
        world.executor("exec-3", **raw.unschedulable("no node"))
        world.reconcile()
        world.executor("exec-3", **raw.running())
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")
        assert executors(world).short_since is None

    def test_none_may_be_wanted(self) -> None:
        world = on_spark()
        world.progress = Progress("publish", 3, 10, WorkerCounts(wanted=0, running=0, failed=0))
        world.reconcile()
        world.wait(hours=1)
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")

    def test_fewer_than_wanted_are_enough(self) -> None:
        world = on_spark(startDeadlineSeconds=60)
        world.executor("exec-1", **raw.running())
        world.executor("exec-2", **raw.unschedulable("0/1 nodes are available: 1 Insufficient cpu."))
        world.wait(minutes=5)
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")

    def test_one_that_failed_is_remembered(self) -> None:
        world = on_spark()
        world.executor("exec-1", **raw.terminated(137, reason="OOMKilled", at=world.now))
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")
        name = f"{next(iter(world.pods))}-exec-1"
        assert executors(world).message == (
            f"{name}: OOMKilled: the executor needed more memory than its limit of 4096Mi: "
            "raise spec.spark.executors.memory"
        )
        world.workers.clear()  # as Spark does
        world.reconcile()
        assert executors(world).message.startswith(name)
        world.exit(75, raw.failure("x", Reason.CLUSTER_UNAVAILABLE, "executors were lost again and again"))
        world.exit(75, raw.failure("x", Reason.CLUSTER_UNAVAILABLE, "executors were lost again and again"))
        world.exit(75, raw.failure("x", Reason.CLUSTER_UNAVAILABLE, "executors were lost again and again"))
        world.reconcile()
        assert world.told == (Phase.FAILED, "ClusterUnavailable")
        assert f"(pod {name}: OOMKilled: " in message(world)
        assert executors(world).running is None

    def test_one_that_was_asked_to_go_has_not_failed(self) -> None:
        world = on_spark()
        world.executor("exec-1", **raw.terminated(143))
        (gone,) = world.workers.values()
        gone["metadata"]["deletionTimestamp"] = raw.time(world.now)
        world.reconcile()
        assert (executors(world).message, executors(world).short_since) == ("", None)

    def test_those_of_a_driver_that_is_gone_count_no_more(self) -> None:
        world = on_spark()
        world.executor("exec-1", **raw.unschedulable("no node"))
        world.exit(75)
        world.pod(**raw.running())
        world.wait(minutes=30)
        world.reconcile()
        assert world.told == (Phase.RUNNING, "Running")

    def test_a_run_that_is_over_has_none(self) -> None:
        world = on_spark()
        world.progress = Progress("fit", 3, 10, WorkerCounts(wanted=4, running=4, failed=0))
        world.reconcile()
        world.succeed()
        world.reconcile()
        assert world.told == (Phase.SUCCEEDED, "Completed")
        assert world.status.workers is None
        world.wait(hours=2)
        world.settle()
        assert not world.companions


class TestEscalation:
    """auto begins in one pod and goes on with Spark where the data do not fit into it."""

    def test_the_second_driver_does_not_hinder_the_first_ones_end(self) -> None:
        world = running(engine="auto", ttlSecondsAfterFinished=0)
        local = world.driver["metadata"]["name"]
        world.exit(79, raw.failure("x", Reason.TOO_BIG_FOR_LOCAL, "needs 12 GiB of 4 GiB"))
        world.settle()
        assert set(world.drivers) == {f"{local}-spark"}
        assert {name for _, name in world.companions} == {f"{local}-spark"}
        assert {kind for kind, _ in world.companions} == set(COMPANIONS[Engine.SPARK])

    def test_attempts_are_counted_anew(self) -> None:
        world = running(engine="auto")
        world.exit(79)
        world.settle()
        world.delete_driver(world.driver["metadata"]["name"])
        world.settle()
        assert world.told == (Phase.PENDING, "Recreated")
        assert world.driver["metadata"]["name"].endswith("-spark")
        world.delete_driver(world.driver["metadata"]["name"])
        world.settle()
        assert world.told == (Phase.FAILED, "DriverLost")
        assert {kind for kind, _ in world.companions} == {"ConfigMap"}  # of the first driver, until its time is up

    def test_it_happens_once(self) -> None:
        """A driver on Spark that says so, too, has failed."""
        world = running(engine="auto")
        world.exit(79)
        world.settle()
        world.exit(79, raw.failure("x", Reason.TOO_BIG_FOR_LOCAL, "needs more"))
        world.settle()
        assert world.told == (Phase.FAILED, "TooBigForLocal")
        assert len(world.created) == 2

    def test_an_operator_that_dies_on_the_way_goes_on(self) -> None:
        for died_after in range(4):
            world = running(engine="auto")
            world.exit(79)
            with suppress(Crash):
                world.reconcile(crash_after=died_after)
            world.settle()
            assert world.told == (Phase.PENDING, "Escalated"), died_after
            assert [one["metadata"]["labels"][names.ENGINE] for one in world.created] == ["local", "spark"]

    def test_a_spec_that_changes_meanwhile_begins_in_one_pod(self) -> None:
        world = running(engine="auto")
        world.exit(79)
        world.settle()
        world.edit(horizon=7)
        world.settle()
        assert world.status.run is not None
        assert world.status.run.number == 2
        assert world.status.engine is Engine.LOCAL
        assert {kind for kind, _ in world.companions} == {"ConfigMap"}


class TestStatus:
    @pytest.mark.parametrize(
        ("world", "hold"),
        [
            (submitted(), {"Reconciling"}),
            (running(), {"Reconciling"}),
            (submitted(suspend=True), {"Suspended"}),
            (succeeded(), {"Complete", "Ready"}),
            (submitted(engine="dask"), {"Reconciling"}),
            (submitted(horizon=0), {"Failed", "Stalled"}),
        ],
    )
    def test_conditions(self, world: World, hold: set[str]) -> None:
        """What batch/v1 and kstatus read, all of it there from the first patch on."""
        told = world.status.conditions
        assert [one.type for one in told] == list(TYPES)
        assert {one.type for one in told if one.status is ConditionStatus.TRUE} == hold
        assert all(one.reason and one.last_transition_time and one.observed_generation == 1 for one in told)
        assert world.status.observed_generation == 1

    def test_the_first_patch_says_all(self) -> None:
        world = World()
        patch = status_patch(world.job, world.decide(Observed()).status)
        assert patch is not None
        assert {"observedGeneration", "phase", "engine", "progress", "stage", "run", "history", "conditions"} <= set(
            patch["status"]
        )

    def test_conditions_keep_the_time_of_their_last_change(self) -> None:
        world = submitted()
        world.wait(minutes=1)
        world.pod(**raw.running())
        world.reconcile()
        assert world.condition("Reconciling").last_transition_time == goldens.START
        world.wait(minutes=1)
        world.succeed()
        world.reconcile()
        assert world.condition("Reconciling").last_transition_time == world.now
        assert world.condition("Stalled").last_transition_time == goldens.START

    def test_progress(self) -> None:
        world = running()
        job = read_job(world.job)
        assert not isinstance(job, Exception)
        seen = observe([*world.drivers.values(), *world.pods.values()])
        for said, percent in (
            (Progress("fit", 62, 100), "62%"),
            (Progress("read", 5), ""),
            (Progress("x", 9, 3), "100%"),
        ):
            told = world.decide(Observed(seen.drivers, seen.pods, progress=said)).status
            assert (told.stage, told.done, told.total, told.progress) == (said.stage, said.done, said.total, percent)

    def test_a_patch_takes_away_what_is_gone(self) -> None:
        world = running()
        seen = observe([*world.drivers.values(), *world.pods.values()])
        told = world.decide(Observed(seen.drivers, seen.pods, progress=Progress("fit", 1, 2))).status
        world._write(status_patch(world.job, told) or {})
        assert world.job["status"]["total"] == 2
        world.succeed()
        world.reconcile()
        assert "total" not in world.job["status"]

    def test_a_long_list_of_problems_is_cut(self) -> None:
        world = World(intervals=[-1] * 5000, podTemplate={"spec": {"volumes": [{}] * 5000}})
        world.reconcile()
        assert world.told == (Phase.FAILED, "InvalidSpec")
        assert len(message(world)) <= 8192
        assert all(len(event.message) <= 1024 for event in world.events)


def test_others_jobs_are_nobodys_business() -> None:
    world = running()
    world.driver["metadata"]["ownerReferences"][0]["uid"] = "of-another-job"
    decision = world.decide(observe([*world.drivers.values(), *world.pods.values()]))
    assert decision.look
