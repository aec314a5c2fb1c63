"""What users see of jobs: the whole operator before a Kubernetes API, embedded and real, whose kubelet tests play.

Row by row the table of what happens when; every reason why a job does not run; what happens while nobody looks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import anomalies
import extracts
import raw
from almanac import cluster as api
from almanac import names, process
from almanac.api import Phase, Reason
from kube.cluster import Cluster
from kube.waiting import eventually
from matrix import Group, Moment, cell
from operators import Ledger, Operator, ended

Raw = dict[str, Any]

PAST = "2020-01-01T00:00:00Z"
"""When a schedule was due that nobody has looked at since."""
YEARLY = "0 0 1 1 *"
WAITS = "Pending, with the reason and Kubernetes' own words; it starts once the cause is gone."
AGAIN = "Another pod follows, of the same driver and run; it does not count as a failure."
COUNTED = "Another pod follows, of the same driver and run, as after a failure: Kubernetes counts it as one."
LATER = "The next operator finds it, once: nothing is run again, nothing is told twice."


def test_from_submission_to_a_report(cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
    ledger.submit()
    ledger.until(Phase.PENDING, "Submitted")
    driver = ledger.driver
    cluster.kubelet.waiting(ledger.pod())
    ledger.run()
    ledger.succeed()
    assert ledger.until(Phase.SUCCEEDED, "Completed").startswith("5 entities")
    status = ledger.status
    run = status["run"]
    assert (run["number"], run["driver"], run["attempts"]) == (1, driver["metadata"]["name"], 1)
    assert (status["result"]["entities"], status["result"]["scores"]) == (5, {"mase": 0.87})
    assert status["progress"] == "100%"
    assert [one["reason"] for one in status["history"]] == ["Completed"]
    assert [one["type"] for one in status["conditions"] if one["status"] == "True"] == ["Complete", "Ready"]
    ledger.until_events("Submitted", "Running", "Completed")


def test_a_job_waits_for_the_extract_that_it_reads(cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
    """It starts by itself once the extract has a complete run, and is told which one."""
    columns = {"entity": "account", "time": "date", "value": "amount"}
    ledger.submit(source={"extract": {"name": "entries"}, "columns": columns})
    assert "there is an ExtractJob entries" in ledger.until(Phase.PENDING, "WaitingForExtract")
    entries = Ledger(cluster, extracts.extract)
    entries.submit(source__connection__secretName="ledger-db")
    container = entries.driver["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "ledger-db"}}]
    entries.run()
    assert ledger.told[:2] == (Phase.PENDING, "WaitingForExtract")
    entries.succeed()
    entries.until(Phase.SUCCEEDED, "Completed")
    ledger.until(Phase.PENDING, "Submitted")
    read = entries.status["result"]["uri"]
    assert ledger.status["run"]["source"] == read
    name = ledger.driver["metadata"]["name"]
    (files,) = [one["data"] for one in ledger.config_maps if one["metadata"]["name"] == name]
    assert json.loads(files["job.json"])["spec"]["source"]["extract"] == {"name": "entries", "uri": read}


def test_anomalies_too(cluster: Cluster, operator: Operator) -> None:
    """A kind is a kind: the same states, and what its data do not fit into goes on with Dask, where there is one."""
    entries = Ledger(cluster, anomalies.document)
    entries.submit(model__rounds=3)
    entries.until(Phase.PENDING, "Submitted")
    entries.run()
    entries.succeed()
    assert entries.until(Phase.SUCCEEDED, "Completed").startswith("5 entities")
    entries.edit(contamination=0.02)
    entries.run()
    report = raw.failure(entries.status["run"]["id"], Reason.TOO_BIG_FOR_LOCAL, "too many rows")
    cluster.kubelet.exit(entries.pod(), 79, report)
    eventually(lambda: entries.status["engine"] == "dask", "the run to go on with Dask")


def test_a_users_object_is_left_as_it_is(cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
    """But for its status: no finalizer, no annotation, no label."""
    ledger.submit()
    before = ledger.document
    ledger.run()
    ledger.succeed()
    ledger.until(Phase.SUCCEEDED, "Completed")
    after = ledger.document
    assert after["spec"] == before["spec"]
    server = {"managedFields", "resourceVersion"}
    assert {name: one for name, one in after["metadata"].items() if name not in server} == {
        name: one for name, one in before["metadata"].items() if name not in server
    }
    written = [one for one in after["metadata"]["managedFields"] if one.get("subresource") == "status"]
    assert len(written) == 1
    assert len(after["metadata"]["managedFields"]) == 2
    assert list(written[0]["fieldsV1"]) == ["f:status"]


def test_progress(
    cluster: Cluster, ledger: Ledger, hasty: None, monkeypatch: pytest.MonkeyPatch, driver_says: Callable[[Raw], int]
) -> None:
    monkeypatch.setattr(api, "PROGRESS_PORT", driver_says({"stage": "fit", "done": 31, "total": 50}))
    monkeypatch.setattr(process, "PROGRESS_EVERY", 0.1)
    with Operator(cluster):
        ledger.submit()
        ledger.run(ip="127.0.0.1")
        cluster.wait(lambda: ledger.status["progress"] == "62%", "progress")
        status = ledger.status
        assert (status["stage"], status["done"], status["total"]) == ("fit", 31, 50)


class TestWaiting:
    """Why a job does not run yet."""

    @pytest.mark.parametrize(
        ("reason", "message", "told"),
        [
            pytest.param(
                *("ErrImagePull", 'failed to pull "almanac:test": not found', "ImagePullBackOff"),
                marks=cell(Group.PODS, "The image cannot be pulled, then it can", Moment.BEFORE, WAITS),
            ),
            pytest.param(
                *("CreateContainerConfigError", 'secret "ledger-s3" not found', "CreateContainerConfigError"),
                marks=cell(Group.PODS, "The Secret of storage is missing, then it is there", Moment.BEFORE, WAITS),
            ),
            ("InvalidImageName", "couldn't parse image reference", "InvalidImageName"),
        ],
    )
    def test_a_container_that_cannot_start(
        self, cluster: Cluster, operator: Operator, ledger: Ledger, reason: str, message: str, told: str
    ) -> None:
        ledger.submit()
        cluster.kubelet.waiting(ledger.pod(), reason, message)
        assert ledger.until(Phase.PENDING, told) == message
        ledger.run()
        ledger.until_events("Submitted", told, "Running")

    @cell(Group.PODS, "No node has room, then one has", Moment.BEFORE, WAITS)
    def test_a_pod_that_fits_nowhere(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit()
        cluster.kubelet.unschedulable(ledger.pod())
        assert ledger.until(Phase.PENDING, "Unschedulable") == "0/3 nodes are available: 3 Insufficient memory."
        ledger.run()

    @cell(Group.PODS, "A quota is used up, then it is raised", Moment.BEFORE, WAITS)
    def test_a_quota(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        cluster.needs_controllers()
        cluster.client.create("resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}})
        cluster.wait(
            lambda: not cluster.real or cluster.client.get("resourcequotas", "small").get("status", {}).get("used"),
            "the quota to be counted",
        )
        ledger.submit()
        assert "exceeded quota: small" in ledger.until(Phase.PENDING, "QuotaExceeded")
        cluster.client.delete("resourcequotas", "small")
        ledger.run()

    @cell(Group.PODS, "The service account is missing, then it is there", Moment.BEFORE, WAITS)
    def test_a_service_account_that_is_not_there(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        cluster.needs_controllers()
        ledger.submit(serviceAccountName="nobody")
        assert "nobody" in ledger.until(Phase.PENDING, "FailedCreate")
        cluster.client.create("serviceaccounts", {"metadata": {"name": "nobody"}})
        ledger.run()

    def test_the_pod_security_standard(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        """What the operator makes meets the restricted one. A pod template that would break it is refused at once."""
        cluster.needs_controllers()
        enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        cluster.client.patch("namespaces", cluster.namespace, enforced)
        ledger.submit(podTemplate={"spec": {"hostNetwork": True}})
        assert "spec.podTemplate.spec.hostNetwork" in ledger.until(Phase.FAILED, "InvalidSpec")
        assert not ledger.drivers
        ledger.edit(podTemplate={"spec": {"hostNetwork": None}})
        ledger.run()

    @cell(
        Group.PODS,
        "The image cannot be pulled, for longer than startDeadlineSeconds",
        Moment.BEFORE,
        "Failed, with the reason that it waited for; the driver and its ConfigMap go.",
    )
    def test_until_the_start_deadline(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(startDeadlineSeconds=2)
        cluster.kubelet.waiting(ledger.pod(), "ErrImagePull", "no such image")
        ledger.until(Phase.PENDING, "ImagePullBackOff")
        told = ledger.until(Phase.FAILED, "ImagePullBackOff")
        assert told == "not running after 2 s (spec.startDeadlineSeconds): no such image"
        cluster.wait(lambda: not ledger.drivers, "the driver to go")
        cluster.wait(lambda: not ledger.config_maps, "its ConfigMap to go")


class TestFailing:
    """How a run ends that does not succeed."""

    @pytest.mark.parametrize("reason", [Reason.DATA_ERROR, Reason.SOURCE_EMPTY, Reason.ACCESS_DENIED])
    def test_a_report(self, cluster: Cluster, operator: Operator, ledger: Ledger, reason: Reason) -> None:
        ledger.submit()
        pod = ledger.run()
        cluster.kubelet.exit(pod, reason.exit_code, raw.failure(ledger.status["run"]["id"], reason, "mend your data"))
        assert ledger.until(Phase.FAILED, reason) == "mend your data"
        ledger.until_events("Submitted", "Running", reason)
        assert [one["type"] for one in ledger.status["conditions"] if one["status"] == "True"] == ["Failed", "Stalled"]

    @cell(
        Group.PODS,
        "The driver crashes, and no retry is left",
        Moment.WHILE,
        "Failed, Error, its exit code.",
    )
    def test_an_exit_code_alone(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(backoffLimit=0)
        cluster.kubelet.exit(ledger.run(), 3)
        assert ledger.until(Phase.FAILED, "Error") == "the driver ended with exit code 3"

    @cell(
        Group.PODS,
        "The driver is OOMKilled, and no retry is left",
        Moment.WHILE,
        "Failed, OOMKilled; the message names the limit, and the field that raises it.",
    )
    def test_out_of_memory(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(backoffLimit=0)
        cluster.kubelet.out_of_memory(ledger.run())
        assert "limit of 4Gi" in ledger.until(Phase.FAILED, "OOMKilled")

    @cell(Group.PODS, "The run takes longer than activeDeadlineSeconds", Moment.WHILE, "Failed, DeadlineExceeded.")
    def test_the_deadline(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        cluster.needs_controllers()
        ledger.submit(activeDeadlineSeconds=3)
        ledger.run()
        assert "not done within 3 s" in ledger.until(Phase.FAILED, "DeadlineExceeded")

    @pytest.mark.parametrize(
        "how",
        [
            pytest.param("evict", marks=cell(Group.PODS, "The driver's pod is evicted", Moment.WHILE, AGAIN)),
            pytest.param("lose_node", marks=cell(Group.PODS, "The node is lost", Moment.WHILE, AGAIN)),
        ],
    )
    def test_a_disruption_is_tried_again(self, cluster: Cluster, operator: Operator, ledger: Ledger, how: str) -> None:
        ledger.submit(backoffLimit=0)
        first = ledger.run()
        getattr(cluster.kubelet, how)(first)
        cluster.kubelet.run(ledger.pod(but=(first,)))
        ledger.until(Phase.RUNNING, "Running")
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")

    @cell(
        Group.PODS,
        "The driver crashes, and crashes again",
        Moment.WHILE,
        "Retrying, with the reason; after the last attempt Failed, with its number.",
    )
    def test_a_failure_is_tried_again(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        """Seconds later, so that the status says what happens in between: at once in the embedded API, if not told."""
        ledger.submit(backoffLimit=1)
        if not cluster.real:
            cluster.controllers.jobs.retry_delay = 3.0
        first = ledger.run()
        cluster.kubelet.exit(first, 3)
        told = ledger.until(Phase.PENDING, "Retrying")
        assert told == ("attempt 1 failed, Kubernetes tries again (Error: the driver ended with exit code 3)")
        cluster.kubelet.exit(ledger.pod(but=(first,)), 4)
        assert ledger.until(Phase.FAILED, "Error") == "the driver ended with exit code 4 (attempt 2, the last)"

    def test_too_big_for_one_process(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(engine="auto")
        pod = ledger.run()
        report = raw.failure(ledger.status["run"]["id"], Reason.TOO_BIG_FOR_LOCAL, "needs 12 GiB of 4 GiB")
        cluster.kubelet.exit(pod, 79, report)
        assert ledger.until(Phase.PENDING, "Escalated").endswith(" goes on with engine spark: needs 12 GiB of 4 GiB")
        (bigger,) = eventually(
            lambda: [one for one in ledger.drivers if one["metadata"]["labels"][names.ENGINE] == "spark"], "the driver"
        )
        made = ("serviceaccounts", "roles", "rolebindings", "services", "configmaps")
        companions = [cluster.client.list(kind, labels=names.SELECTOR) for kind in made]
        assert all(bigger["metadata"]["name"] in {one["metadata"]["name"] for one in kind} for kind in companions)
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")

    @cell(
        Group.PODS,
        "The driver (the Job) is deleted, twice",
        Moment.WHILE,
        "It is created once more, and says so; the second time: Failed, DriverLost.",
    )
    def test_a_driver_that_somebody_deletes(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        """It is made once more, and not a third time."""
        cluster.needs_controllers()
        ledger.submit()
        ledger.run()
        cluster.client.delete("jobs", ledger.driver["metadata"]["name"])
        ledger.until(Phase.PENDING, "Recreated")
        ledger.run()
        cluster.client.delete("jobs", ledger.driver["metadata"]["name"])
        ledger.until(Phase.FAILED, "DriverLost")
        assert ledger.numbers == []
        cluster.wait(lambda: not ledger.config_maps, "its ConfigMap to go")
        ledger.until_events("Submitted", "Running", "Recreated", "Running", "DriverLost")

    @cell(
        Group.PODS,
        "The driver is OOMKilled once",
        Moment.WHILE,
        "Kubernetes tries again: the same run and driver, and the job says so meanwhile.",
    )
    def test_out_of_memory_once(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(backoffLimit=1)
        first = ledger.run()
        cluster.kubelet.out_of_memory(first)
        cluster.kubelet.run(ledger.pod(but=(first,)))
        ledger.until(Phase.RUNNING, "Running")
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        assert (ledger.numbers, ledger.status["run"]["attempts"]) == (["1"], 1)

    @pytest.mark.parametrize(
        "moment",
        [
            pytest.param(one, id=one.name, marks=cell(Group.PODS, "The driver's pod is deleted", one, COUNTED))
            for one in (Moment.BEFORE, Moment.WHILE)
        ],
    )
    def test_a_pod_that_somebody_deletes(
        self, cluster: Cluster, operator: Operator, ledger: Ledger, moment: Moment
    ) -> None:
        ledger.submit(backoffLimit=1)
        first = ledger.pod() if moment is Moment.BEFORE else ledger.run()
        cluster.client.delete("pods", first)
        cluster.kubelet.run(ledger.pod(but=(first,)))
        ledger.until(Phase.RUNNING, "Running")
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        assert (ledger.numbers, ledger.status["run"]["attempts"]) == (["1"], 1)

    @cell(
        Group.PODS,
        "The driver's pod is gone before its report was read",
        Moment.PUBLISHING,
        "Succeeded: the Job says so, and the results are published; the message says that the report is lost.",
    )
    def test_a_report_that_is_lost(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit()
        pod = ledger.run()
        operator.stop()
        ledger.succeed()
        cluster.wait(lambda: over(ledger), "the Job to be complete")
        cluster.client.delete("pods", pod)
        cluster.wait(lambda: not cluster.client.list("pods"), "the pod to go")
        operator.start()
        assert "lost with its pod" in ledger.until(Phase.SUCCEEDED, "Completed")
        assert ledger.numbers == ["1"]

    @cell(
        Group.PODS,
        "The kubelet does not answer: the pod's phase is Unknown, and it is being deleted for ever",
        Moment.WHILE,
        "Stopping, and who stops it. No second pod beside one that may still write; another follows once it is gone.",
    )
    def test_a_node_that_does_not_answer(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit()
        first = ledger.pod()
        cluster.kubelet.schedule(first, "node-1")
        ledger.run()
        cluster.kubelet.lose_contact(first)
        assert "is being stopped" in ledger.until(Phase.PENDING, "Stopping")
        assert [one["metadata"]["name"] for one in cluster.client.list("pods")] == [first]
        cluster.kubelet.lose_node(first)
        cluster.kubelet.run(ledger.pod(but=(first,)))
        ledger.until(Phase.RUNNING, "Running")

    @cell(
        Group.PODS,
        "The run's ConfigMap is deleted",
        Moment.BEFORE,
        "Pending, FailedMount; Failed with that reason at the start deadline. A restart runs it.",
    )
    def test_a_config_map_that_somebody_deletes(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(startDeadlineSeconds=3)
        pod, driver = ledger.pod(), ledger.driver["metadata"]["name"]
        cluster.client.delete("configmaps", driver)
        cluster.kubelet.warn(pod, "FailedMount", f'MountVolume.SetUp failed: configmap "{driver}" not found')
        assert driver in ledger.until(Phase.PENDING, "FailedMount")
        ledger.until(Phase.FAILED, "FailedMount")
        ledger.edit(restartNonce=1, startDeadlineSeconds=600)
        ledger.run()

    @cell(Group.PODS, "The driver is deleted", Moment.AFTER, "Nothing: the result is on record.")
    def test_a_driver_that_is_deleted_after_the_end(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit()
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        (driver,) = ledger.drivers
        cluster.client.delete("jobs", driver["metadata"]["name"])
        cluster.wait(lambda: not ledger.drivers, "the driver to go")
        ledger.until_events("Submitted", "Running", "Completed")
        assert ledger.told[:2] == (Phase.SUCCEEDED, "Completed")

    @cell(
        Group.PODS,
        "The driver (the Job) is deleted",
        Moment.BEFORE,
        "It is created once more, and says so.",
    )
    def test_a_driver_that_is_deleted_before_it_starts(
        self, cluster: Cluster, operator: Operator, ledger: Ledger
    ) -> None:
        cluster.needs_controllers()
        ledger.submit()
        cluster.kubelet.waiting(ledger.pod(), "ErrImagePull", "no such image")
        ledger.until(Phase.PENDING, "ImagePullBackOff")  # the operator has seen it
        cluster.client.delete("jobs", ledger.driver["metadata"]["name"])
        ledger.until(Phase.PENDING, "Recreated")
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")

    def test_a_spec_that_only_the_operator_can_refuse(self, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(podTemplate={"spec": {"restartPolicy": "Always"}})
        assert "spec.podTemplate.spec.restartPolicy" in ledger.until(Phase.FAILED, "InvalidSpec")
        assert not ledger.drivers
        ledger.edit(podTemplate={"spec": {"restartPolicy": None}})
        ledger.until(Phase.PENDING, "Submitted")
        ledger.until_events("InvalidSpec", "Submitted")


class TestChanging:
    """What users change while a job is at work, and after."""

    def test_suspended_and_resumed(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        cluster.needs_controllers()
        ledger.submit()
        first = ledger.run()
        ledger.edit(suspend=True)
        ledger.until(Phase.SUSPENDED, "Suspended")
        cluster.wait(lambda: cluster.client.find("pods", first) is None, "the pod to go")
        ledger.edit(suspend=False)
        ledger.until(Phase.PENDING, "Resumed")
        ledger.run()
        assert ledger.numbers == ["1"]
        ledger.until_events("Submitted", "Running", "Suspended", "Resumed", "Running")

    def test_suspended_from_the_start(self, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(suspend=True)
        ledger.until(Phase.SUSPENDED, "Suspended")
        assert not ledger.drivers
        ledger.edit(suspend=False)
        ledger.until(Phase.PENDING, "Submitted")

    @pytest.mark.parametrize(("edit", "trigger"), [({"horizon": 7}, "Spec"), ({"restartNonce": 1}, "Restart")])
    def test_a_change_while_a_run_is_active(
        self, cluster: Cluster, operator: Operator, ledger: Ledger, edit: Raw, trigger: str
    ) -> None:
        cluster.needs_controllers()
        ledger.submit()
        ledger.run()
        ledger.edit(**edit)
        cluster.wait(lambda: ledger.numbers == ["2"], "the second run alone")
        ledger.run()
        status = ledger.status
        assert (status["run"]["number"], status["run"]["trigger"]) == (2, trigger)
        assert [(one["number"], one["reason"]) for one in status["history"]] == [(1, "Replaced")]

    @pytest.mark.parametrize(("edit", "numbers"), [({"restartNonce": 1}, ["1", "2"]), ({"backoffLimit": 5}, ["1"])])
    def test_a_change_after_a_run(
        self, cluster: Cluster, operator: Operator, ledger: Ledger, edit: Raw, numbers: list[str]
    ) -> None:
        """What changes neither the result nor how it is computed starts nothing."""
        ledger.submit()
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        ledger.edit(**edit)
        ledger.until(*((Phase.PENDING, "Submitted") if len(numbers) == 2 else (Phase.SUCCEEDED, "Completed")))
        cluster.wait(lambda: ledger.numbers == numbers, "the drivers of these runs")

    def test_what_a_run_has_left_goes_after_its_time(
        self, cluster: Cluster, operator: Operator, ledger: Ledger
    ) -> None:
        ledger.submit(ttlSecondsAfterFinished=0)
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        cluster.wait(lambda: not ledger.drivers, "the driver to go")
        cluster.wait(lambda: not ledger.config_maps, "its ConfigMap to go")
        assert ledger.status["result"]["entities"] == 5
        ledger.until_events("Submitted", "Running", "Completed")


class TestSchedules:
    """A time that has come: the status says when the next one is, and the tests that it was long ago."""

    def come(self, cluster: Cluster) -> None:
        cluster.client.patch("forecastjobs", "ledger", {"status": {"nextScheduleTime": PAST}}, sub="status")

    def test_a_time_that_has_come(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(schedule=YEARLY)
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        self.come(cluster)
        ledger.until(Phase.PENDING, "Submitted")
        status = ledger.status
        assert (status["run"]["number"], status["run"]["trigger"]) == (2, "Schedule")
        assert status["nextScheduleTime"] > PAST

    def test_times_that_have_come_while_nobody_looked_are_one_run(
        self, cluster: Cluster, operator: Operator, ledger: Ledger
    ) -> None:
        ledger.submit(schedule=YEARLY)
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        operator.stop()
        self.come(cluster)
        operator.start()
        ledger.until(Phase.PENDING, "Submitted")
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        ledger.until_events("Submitted", "Running", "Completed", "Submitted", "Running", "Completed")

    def test_a_time_that_was_missed_by_too_much(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(schedule=YEARLY, startingDeadlineSeconds=1)
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        self.come(cluster)
        ledger.until_events("Submitted", "Running", "Completed", "ScheduleSkipped")
        assert ledger.numbers == ["1"]
        assert operator.metrics['almanac_schedules_skipped_total{kind="ForecastJob"}'] == 1

    def test_no_second_run_beside_an_active_one(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(schedule=YEARLY, concurrencyPolicy="Forbid")
        ledger.run()
        self.come(cluster)
        ledger.until_events("Submitted", "Running", "ScheduleSkipped")
        ledger.until(Phase.RUNNING, "Running")
        assert ledger.numbers == ["1"]

    def test_a_second_run_instead_of_an_active_one(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        cluster.needs_controllers()
        ledger.submit(schedule=YEARLY, concurrencyPolicy="Replace")
        ledger.run()
        self.come(cluster)
        cluster.wait(lambda: ledger.numbers == ["2"], "the second run alone")
        ledger.run()
        assert [(one["number"], one["reason"]) for one in ledger.status["history"]] == [(1, "Replaced")]


class TestAbsence:
    """What happens while no operator runs, is seen by the next one."""

    @cell(Group.OPERATOR, "The job is deleted while no operator runs", Moment.WHILE, "All that it owns goes with it.")
    def test_a_job_that_is_deleted_takes_all_with_it(
        self, cluster: Cluster, operator: Operator, ledger: Ledger
    ) -> None:
        cluster.needs_controllers()
        ledger.submit()
        ledger.run()
        operator.stop()
        ledger.delete()
        for plural in ("forecastjobs", "jobs", "pods"):
            cluster.wait(lambda plural=plural: not cluster.client.list(plural), f"{plural} to go")  # type: ignore[misc]
        cluster.wait(lambda: not ledger.config_maps, "ConfigMaps to go")

    @cell(Group.OPERATOR, "No operator runs", Moment.BEFORE, LATER)
    def test_a_job_that_was_submitted(self, cluster: Cluster, ledger: Ledger, hasty: None) -> None:
        ledger.submit()
        with Operator(cluster):
            ledger.run()
        ledger.until_events("Submitted", "Running")

    @cell(Group.OPERATOR, "No operator runs", Moment.WHILE, LATER)
    def test_a_run_that_began(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit()
        pod = ledger.pod()
        operator.stop()
        cluster.kubelet.run(pod)
        operator.start()
        ledger.until(Phase.RUNNING, "Running")
        ledger.until_events("Submitted", "Running")

    @cell(Group.OPERATOR, "No operator runs", Moment.PUBLISHING, LATER)
    def test_a_run_that_ended(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit()
        ledger.run()
        operator.stop()
        ledger.succeed()
        operator.start()
        ledger.until(Phase.SUCCEEDED, "Completed")
        assert ledger.status["result"]["entities"] == 5
        ledger.until_events("Submitted", "Running", "Completed")

    @cell(Group.OPERATOR, "No operator runs", Moment.AFTER, LATER)
    def test_a_job_that_has_ended_long_ago(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        """Its driver is gone, and it is not run again."""
        ledger.submit(ttlSecondsAfterFinished=0)
        ledger.run()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        cluster.wait(lambda: not ledger.drivers, "the driver to go")
        operator.stop()
        version = ledger.document["metadata"]["resourceVersion"]
        operator.start()
        cluster.wait(
            lambda: operator.metrics.get('almanac_reconcile_duration_seconds_count{kind="ForecastJob"}'), "a look"
        )
        assert ledger.document["metadata"]["resourceVersion"] == version

    def test_metrics_tell_of_a_run_once(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        """Whoever comes to lead in the middle of it counts what it sees happen, and nothing else."""
        ledger.submit()
        ledger.run()
        local = '{engine="local",kind="ForecastJob"}'
        for name in ("runs_started_total", "run_submit_duration_seconds_count", "run_start_duration_seconds_count"):
            assert operator.metrics[f"almanac_{name}{local}"] == 1
        assert operator.metrics['almanac_jobs{kind="ForecastJob",phase="Running",reason="Running"}'] == 1
        operator.stop()
        operator.start()
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")
        done = 'almanac_runs_finished_total{engine="local",kind="ForecastJob",phase="Succeeded",reason="Completed"}'
        cluster.wait(lambda: operator.metrics.get(done) == 1, "the run to be counted")
        computed = '{engine="local",kind="ForecastJob",outcome="computed"}'
        assert operator.metrics[f"almanac_run_entities_total{computed}"] == ledger.status["result"]["entities"]
        assert f"almanac_run_start_duration_seconds_count{local}" not in operator.metrics
        assert operator.metrics["almanac_ready"] == 1

    @cell(
        Group.PODS,
        "The driver is deleted, and no operator runs",
        Moment.WHILE,
        "It is created once more, and says so.",
    )
    def test_a_driver_that_was_deleted(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        cluster.needs_controllers()
        ledger.submit()
        ledger.run()
        operator.stop()
        cluster.client.delete("jobs", ledger.driver["metadata"]["name"])
        cluster.wait(lambda: not ledger.drivers, "the driver to go")
        operator.start()
        ledger.until(Phase.PENDING, "Recreated")
        ledger.run()

    @pytest.mark.parametrize(
        ("edit", "phase", "reason", "numbers"),
        [
            ({"horizon": 7}, Phase.PENDING, "Submitted", ["2"]),
            ({"suspend": True}, Phase.SUSPENDED, "Suspended", ["1"]),
            ({"suspend": True, "horizon": 7}, Phase.SUSPENDED, "Suspended", []),
            ({"backoffLimit": 0}, Phase.RUNNING, "Running", ["1"]),
        ],
    )
    def test_an_edit(
        self,
        cluster: Cluster,
        operator: Operator,
        ledger: Ledger,
        edit: Raw,
        phase: Phase,
        reason: str,
        numbers: list[str],
    ) -> None:
        cluster.needs_controllers()
        ledger.submit()
        ledger.run()
        operator.stop()
        ledger.edit(**edit)
        operator.start()
        ledger.until(phase, reason)
        cluster.wait(lambda: ledger.numbers == numbers, f"drivers of the runs {numbers}")


def over(ledger: Ledger) -> bool:
    """Whether all its drivers have ended."""
    return all(ended(one) for one in ledger.drivers)
