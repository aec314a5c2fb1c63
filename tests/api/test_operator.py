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
from operators import Ledger, Operator

Raw = dict[str, Any]

PAST = "2020-01-01T00:00:00Z"
"""When a schedule was due that nobody has looked at since."""
YEARLY = "0 0 1 1 *"


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
            ("ErrImagePull", 'failed to pull "almanac:test": not found', "ImagePullBackOff"),
            ("CreateContainerConfigError", 'secret "ledger-s3" not found', "CreateContainerConfigError"),
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

    def test_a_pod_that_fits_nowhere(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit()
        cluster.kubelet.unschedulable(ledger.pod())
        assert ledger.until(Phase.PENDING, "Unschedulable") == "0/3 nodes are available: 3 Insufficient memory."
        ledger.run()

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

    def test_an_exit_code_alone(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(backoffLimit=0)
        cluster.kubelet.exit(ledger.run(), 3)
        assert ledger.until(Phase.FAILED, "Error") == "the driver ended with exit code 3"

    def test_out_of_memory(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit(backoffLimit=0)
        cluster.kubelet.out_of_memory(ledger.run())
        assert "limit of 4Gi" in ledger.until(Phase.FAILED, "OOMKilled")

    def test_the_deadline(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        cluster.needs_controllers()
        ledger.submit(activeDeadlineSeconds=3)
        ledger.run()
        assert "not done within 3 s" in ledger.until(Phase.FAILED, "DeadlineExceeded")

    @pytest.mark.parametrize("how", ["evict", "lose_node"])
    def test_a_disruption_is_tried_again(self, cluster: Cluster, operator: Operator, ledger: Ledger, how: str) -> None:
        ledger.submit(backoffLimit=0)
        first = ledger.run()
        getattr(cluster.kubelet, how)(first)
        cluster.kubelet.run(ledger.pod(but=(first,)))
        ledger.until(Phase.RUNNING, "Running")
        ledger.succeed()
        ledger.until(Phase.SUCCEEDED, "Completed")

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

    def test_a_job_that_was_submitted(self, cluster: Cluster, ledger: Ledger, hasty: None) -> None:
        ledger.submit()
        with Operator(cluster):
            ledger.run()
        ledger.until_events("Submitted", "Running")

    def test_a_run_that_began(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit()
        pod = ledger.pod()
        operator.stop()
        cluster.kubelet.run(pod)
        operator.start()
        ledger.until(Phase.RUNNING, "Running")
        ledger.until_events("Submitted", "Running")

    def test_a_run_that_ended(self, cluster: Cluster, operator: Operator, ledger: Ledger) -> None:
        ledger.submit()
        ledger.run()
        operator.stop()
        ledger.succeed()
        operator.start()
        ledger.until(Phase.SUCCEEDED, "Completed")
        assert ledger.status["result"]["entities"] == 5
        ledger.until_events("Submitted", "Running", "Completed")

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
